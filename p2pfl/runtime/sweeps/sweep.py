"""Run a sweep: first what its tuning tries, then its cases, each in a process of its own.

Finished runs are left alone, so the same call goes on where a former one ended, however that was.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from p2pfl.errors import ScenarioError
from p2pfl.runtime.launch import Record
from p2pfl.runtime.survey import insist
from p2pfl.runtime.sweeps.case import Page, server
from p2pfl.runtime.sweeps.crew import Bell, Crew, Job, News, bell
from p2pfl.runtime.sweeps.ledger import DONE, FAILED, Ledger, Standing
from p2pfl.runtime.sweeps.matrix import Candidate, Case, Setting, Sweep, of_run
from p2pfl.runtime.world import World
from p2pfl.seeds import Seeds


@dataclass(frozen=True)
class Audience:
    """Who wants to see a sweep as it goes.

    `begin` gets its name, its folder, how many runs it has and how many of them were finished before; `hear` gets
    what becomes of the others.
    """

    begin: Callable[[str, Path, int, int], None] = lambda name, folder, runs, finished: None
    hear: Callable[[News], None] = lambda news: None


@dataclass(frozen=True)
class SweepRecord:
    """A sweep that is over, or was stopped.

    `cases` are the finished ones of those that were asked for, `failed` says why others failed, by their number.
    """

    folder: Path
    cases: tuple[Record, ...] = field(repr=False)
    failed: Mapping[int, str]
    stopped: bool
    ledger: Ledger = field(repr=False)

    @property
    def finished(self) -> int:
        """How many of all cases are finished, whether they were asked for or not."""
        return sum(now.state == DONE for _, now, _ in self.ledger.cases())


def run(
    sweep: Sweep,
    out: Path | None,
    page: Page,
    jobs: int = 1,
    only: int | None = None,
    retry: bool = True,
    audience: Audience = Audience(),
) -> SweepRecord:
    """Run what is not finished, `jobs` at once; of the cases just number `only`, if given, and what it is tuned by.

    Without `retry` what failed before is left so. `page` writes the report of a run. Ctrl-C stops what runs and keeps
    what is finished. Raises ScenarioError before anything is started or written, LocalError when nothing can start.
    """
    if only is not None and not 1 <= only <= len(sweep.cases):
        raise ScenarioError(f"no case {only}", f"there are 1 to {len(sweep.cases)}", where="--case")
    if jobs < 1:
        raise ScenarioError(f"no case can run in {jobs} jobs", "give at least 1", where="--jobs")
    settings = [s for s in sweep.settings if only in (None, *(case.number for case in s.candidates[0].cases))]
    work = _Work(Ledger.of(sweep, out), settings, only, retry)
    survey(settings, {job.case.digest for job in (*work.trials(), *work.rest())})
    work.ledger.make()
    with bell() as rope:
        work.run(rope, jobs, page, audience)
    with work.ledger.alone():
        work.ledger.write()
    return work.record(rope.rung)


def survey(settings: Iterable[Setting], left: Container[str] | None = None) -> None:
    """Make what the cases are made of, one seed of each: of all, or of those whose digests are `left`.

    Raises ScenarioError, located, for what cannot be made.
    """
    last: World | None = None
    for candidate in (candidate for setting in settings for candidate in setting.candidates):
        cases = [case for case in (candidate.trial, *candidate.cases) if case and (left is None or case.digest in left)]
        if cases:
            last = _surveyed(cases[0], candidate, last)


@dataclass(frozen=True)
class _Work:
    """What was asked for, and what of it is still to be done."""

    ledger: Ledger
    settings: list[Setting]
    only: int | None
    retry: bool

    def asked(self, candidate: Candidate) -> list[Case]:
        """The cases that were asked for, if this candidate is chosen."""
        return [case for case in candidate.cases if self.only in (None, case.number)]

    def is_open(self, now: Standing, trial: bool) -> bool:
        """Whether a run that stands so is to be done."""
        return not now.over(trial) and (self.retry or now.state != FAILED)

    def trials(self) -> list[Job]:
        """What tuning has still to try."""
        found = [c.trial for setting in self.settings for c in setting.candidates if c.trial]
        return [Job(case, True) for case in found if self.is_open(self.ledger.standing(case, True), True)]

    def rest(self) -> list[Job]:
        """The cases that are still to be run, where it is known what was chosen for them."""
        chosen = [found for setting in self.settings if (found := self.ledger.chosen(setting)) is not None]
        asked = [case for candidate in chosen for case in self.asked(candidate)]
        return [Job(case, False) for case in asked if self.is_open(self.ledger.standing(case), False)]

    def run(self, rope: Bell, jobs: int, page: Page, audience: Audience) -> None:
        """Do it, as long as the bell is silent."""
        trials, asked = self.trials(), sum(len(self.asked(setting.candidates[0])) for setting in self.settings)
        tried = sum(candidate.trial is not None for setting in self.settings for candidate in setting.candidates)
        over = sum(row[1].over(trial=False) for row in self.ledger.cases() if self.only in (None, row[0].number))
        sweep = self.ledger.sweep
        audience.begin(sweep.name, self.ledger.folder, tried + asked, tried - len(trials) + over)
        first = next(iter((*trials, *self.rest())), None)
        if first is None:
            return
        with server(first.case.scenario, page) as nest:
            crew = Crew(self.ledger, nest, jobs, rope, page, audience.hear)
            crew.work(trials)
            crew.work(self.rest())

    def record(self, stopped: bool) -> SweepRecord:
        """What there is in the end."""
        asked = [(case, now) for case, now, _ in self.ledger.cases() if self.only in (None, case.number)]
        at = self.ledger.at
        found = [Record(at(case, False), dict(now.summary), False, ()) for case, now in asked if now.state == DONE]
        failed = {case.number: now.reason for case, now in asked if now.state == FAILED}
        return SweepRecord(self.ledger.folder, tuple(found), failed, stopped, self.ledger)


def _surveyed(case: Case, candidate: Candidate, last: World | None) -> World:
    """The world of a case, on the data of the `last` one where they are the same."""
    world, data = World(case.scenario, Seeds.of(case.scenario.seed)), case.scenario.data
    if last is not None and last.settings.data == data:
        world.data = last.data
    try:
        insist(world)
    except ScenarioError as error:
        told = of_run(error, case.number, case.label, trial=case is candidate.trial)
        raise candidate.document.locate(told) from None
    if candidate.trial is not None and len(world.data.validation_y) == 0:
        remedy = f"keep a share for it, as in data.{data.name}.validation=0.1"
        empty = ScenarioError("tune chooses on the validation split, which is empty", remedy, ("data", data.name))
        raise candidate.document.locate(empty)
    return world
