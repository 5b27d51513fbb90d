"""Decentralised learning and its security, run for real.

record = p2pfl.launch("quickstart")            # a file, a shipped scenario's name, or a dict
record.summary["accuracy"]["mean"]
p2pfl.load("runs/*")                           # rows, one a run, for pandas
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from p2pfl.runtime.launch import Record, Screen
    from p2pfl.runtime.sweeps.matrix import Sweep
    from p2pfl.runtime.sweeps.sweep import Audience, SweepRecord


def launch(
    source: str | Path | Mapping[str, Any],
    out: str | Path | None = None,
    sets: Sequence[str] = (),
    screen: Screen | None = None,
    born_s: float | None = None,
    allow_code: bool = False,
    *,
    jobs: int = 1,
    case: int | None = None,
    retry: bool = True,
    audience: Audience | None = None,
) -> Record | SweepRecord:
    """Run a scenario and write its report: what `p2pfl launch` does.

    `source` is a path, the name of a shipped scenario, or a mapping; `sets` are like `--set`. `startup_s` counts from
    `born_s` (as time.time()), or from this call. With `allow_code` the plug-ins in the folder `plugins/` beside the
    file (or where you stand) may be named in the scenario, and run with your rights. Without a `screen` the run is
    shown at a prompt and in a notebook, and a script is silent.
    A scenario with a `matrix` or `tune` is a sweep: all of its cases run that are not finished in its folder, `jobs` at
    once, or just number `case`; without `retry` those that failed before are left so. An `audience` sees it as it goes.
    Raises ScenarioError for anything wrong with what was asked, before anything is started or written.
    """
    born_s = time.time() if born_s is None else born_s
    from p2pfl import scenario
    from p2pfl.errors import ScenarioError
    from p2pfl.report import onlooker
    from p2pfl.report.page import write
    from p2pfl.runtime.launch import run
    from p2pfl.runtime.sweeps import matrix

    scenario.allow_code(source, allow_code)
    if (sweep := matrix.cases(source, sets)) is not None:
        with onlooker.watching_sweep(audience) as everyone:
            return _sweep(sweep, None if out is None else Path(out), jobs, case, retry, everyone)
    if case is not None:
        raise ScenarioError(
            "a scenario without a matrix has no cases", "give it one, or leave this out", where="--case"
        )
    with scenario.located(source, sets):
        settings = scenario.read(source, sets)
        with onlooker.watching(settings, screen) as seen:
            record = run(settings, None if out is None else Path(out), seen, born_s)
    write(record.folder)
    onlooker.conclude(record.folder, screen)
    return record


def _sweep(sweep: Sweep, out: Path | None, jobs: int, case: int | None, retry: bool, audience: Audience) -> SweepRecord:
    """Run a sweep, and write the report of what is finished, also when it was interrupted."""
    from p2pfl.report import page
    from p2pfl.report.comparison.page import write
    from p2pfl.report.comparison.rows import table
    from p2pfl.runtime.sweeps.sweep import run

    record = run(sweep, out, page.write, jobs, case, retry, audience)
    for each in record.cases:
        if not (each.folder / "report.html").is_file():  # it was killed between the run and its report
            page.write(each.folder)
    with record.ledger.alone():
        if folders := record.ledger.begun():
            write(folders, record.folder / "report.html", sweep.name, record.ledger.index())
            table(folders, record.folder / "runs.csv")
    return record


def attack(
    run: str | Path,
    peers: Sequence[int | str],
    entry: str | Path | Mapping[str, Any],
    sets: Sequence[str] = (),
    device: str = "auto",
    allow_code: bool = False,
) -> tuple[Mapping[str, Any], ...]:
    """Attack a former run from the mail that it kept, and write its report anew: what `p2pfl attack` does.

    An entry for each finding, as in the summary's `attacks`. Raises ScenarioError for anything wrong with it.
    """
    from p2pfl.report.page import write
    from p2pfl.runtime import asked

    outcome = asked.prepared(Path(run), peers, entry, sets, device, allow_code).run(lambda peer, message: None)
    write(Path(run))
    return outcome.entries


def load(pattern: str | Path) -> list[dict[str, Any]]:
    """The summaries of all runs that a pattern matches, those of a sweep's folder among them; pandas takes the list.

    Each has its `folder`, and its `settings`: the scenario as resolved, by dotted keys. A run that has no summary is
    passed over; one that cannot be read too, with a warning.
    """
    from p2pfl.report.comparison.rows import rows

    return rows(pattern)
