"""The folder of a sweep: which of its runs are finished, what was chosen, and an index of it all.

What is true stands in the folders of the runs. The index is made of them anew whenever a run ends, by one process at
a time, so several may work on one sweep. A process that works on a run holds its folder by flock(2).
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from p2pfl import own_code, scenario
from p2pfl.errors import ScenarioError
from p2pfl.plugins import brief
from p2pfl.runtime.sweeps.matrix import Candidate, Case, Setting, Sweep

INDEX, ASKED, REASON = "sweep.json", "sweep.yaml", "failed.txt"
ROOMS = ("cases", "tuning")
WAITING, UNFINISHED, FAILED, DONE = "waiting", "unfinished", "failed", "done"


@dataclass(frozen=True)
class Standing:
    """Where a run stands: waiting, unfinished (it runs, or was interrupted), failed for a `reason`, or done.

    The summary is that of a run that came to its end, with or without all of its peers.
    """

    state: str
    reason: str = ""
    summary: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def over(self, trial: bool) -> bool:
        """Whether there is nothing left to do: for what tuning tries a lost peer is an answer too."""
        return self.state == DONE or (trial and bool(self.summary))

    @property
    def accuracy(self) -> float | None:
        """The mean on the validation split after the last round, of a run that did not read the test set."""
        found = self.summary.get("validation_accuracy", {}).get("mean")
        return found if self.state == DONE else None


def standing(folder: Path, digest: str) -> Standing:
    """Where the run of the scenario of this digest stands, of which `folder` is the folder."""
    summary, environment = _read(folder / "summary.json"), _read(folder / "environment.json")
    ours = _digest(folder) == digest and environment.get("plugins_sha256", {}) == own_code.checksums()
    whole = summary if ours and not summary.get("stopped") else {}
    if (folder / REASON).is_file():
        return Standing(FAILED, (folder / REASON).read_text().partition("\n")[0], whole)
    if not whole:
        return Standing(UNFINISHED if folder.is_dir() and any(folder.iterdir()) else WAITING)
    if lost := whole.get("crashed"):
        return Standing(FAILED, f"crashed: peer {', '.join(map(str, lost))}", whole)
    return Standing(DONE, "", whole)


def fail(folder: Path, reason: str) -> None:
    """Say in a run's folder why it failed: in one line, more below it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / REASON).write_text(reason.strip() + "\n")


def claim(folder: Path, wait: bool) -> int | None:
    """Make a run's folder one's own until this process ends; None when another has it, unless it is waited for."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        os.close(descriptor)
        return None
    except OSError:
        pass  # a file system without locks: then one must not start the same case twice
    return descriptor


def clear(folder: Path) -> None:
    """Remove what a run left that did not end; the folder stays, since it is held."""
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


@dataclass
class Ledger:
    """What is known of the runs of a sweep. Remembers which are done, since they stay so.

    A folder that is there already is known by the digest at its end: a key more in the matrix changes its name only.
    """

    folder: Path
    sweep: Sweep
    done: dict[Path, Standing] = field(default_factory=dict)

    def __post_init__(self) -> None:
        there = (path for room in ROOMS for path in sorted((self.folder / room).glob("*-*")))
        self._there = {(path.parent.name, path.name.rpartition("-")[2]): path for path in there}

    @staticmethod
    def of(sweep: Sweep, out: Path | None) -> Ledger:
        """That of `out`, or of the sweep's own folder. Raises ScenarioError when it holds something else."""
        folder = Path("runs") / f"{sweep.name}-{sweep.digest}" if out is None else out
        ours = any((folder / name).is_file() for name in (INDEX, ASKED))
        if folder.exists() and not ours and (not folder.is_dir() or any(folder.iterdir())):
            problem = f"the output folder {str(folder)!r} is not empty, and holds no sweep"
            raise ScenarioError(problem, "name another one, or remove it", where="--out")
        if (other := _read(folder / INDEX).get("name", sweep.name)) != sweep.name:
            problem = f"the output folder {str(folder)!r} holds the sweep {other!r} and not {sweep.name!r}"
            raise ScenarioError(problem, "name another one", where="--out")
        return Ledger(folder, sweep)

    def make(self) -> None:
        """Make the folder, or go on in it. Raises ScenarioError when that cannot be."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            head = f"# as asked for, with --set; relative paths go from {Path(self.sweep.beside).absolute()}\n"
            replace(self.folder / ASKED, head + self.sweep.text)
        except OSError as error:
            problem = f"cannot write to the output folder {brief(str(self.folder))}, {error.strerror}"
            raise ScenarioError(problem, "name another one", where="--out") from None

    def at(self, case: Case, trial: bool) -> Path:
        """The folder of a run."""
        room = ROOMS[trial]
        return self._there.get((room, case.digest)) or self.folder / room / case.folder

    def standing(self, case: Case, trial: bool = False) -> Standing:
        """Where a run stands now."""
        folder = self.at(case, trial)
        found = self.done.get(folder) or standing(folder, case.digest)
        if found.state == DONE:
            self.done[folder] = found
        return found

    def tried(self, candidate: Candidate) -> Standing:
        """Where the run stands that tells how good a candidate is."""
        return self.standing(candidate.trial, trial=True) if candidate.trial else Standing(DONE)

    def chosen(self, setting: Setting) -> Candidate | None:
        """The candidate of highest validation accuracy, the first of equals; None until every one has been tried."""
        if not self.sweep.tuned:
            return setting.candidates[0]
        tried = [self.tried(candidate) for candidate in setting.candidates]
        found = [each.accuracy for each in tried if each.accuracy is not None]
        if not found or not all(each.summary for each in tried):
            return None
        return next(c for c, each in zip(setting.candidates, tried, strict=True) if each.accuracy == max(found))

    def cases(self) -> Iterator[tuple[Case, Standing, bool]]:
        """Every case with where it stands, and whether it is known yet what was chosen for it."""
        for setting in self.sweep.settings:
            chosen = self.chosen(setting)
            for case in (chosen or setting.candidates[0]).cases:
                yield case, self.standing(case) if chosen else self._without_choice(setting), chosen is not None

    def _without_choice(self, setting: Setting) -> Standing:
        """Where cases stand that do not know their candidate."""
        tried = [self.tried(candidate) for candidate in setting.candidates]
        if all(each.state in (DONE, FAILED) for each in tried):
            reason = next((each.reason for each in tried if each.state == FAILED), "nothing was evaluated")
            return Standing(FAILED, f"nothing could be chosen, since in its tuning {reason}")
        return Standing(WAITING)

    def begun(self) -> list[Path]:
        """The folders of all cases that ended, well or not, in their order."""
        return [self.at(case, False) for case, now, known in self.cases() if known and now.state in (DONE, FAILED)]

    def index(self) -> dict[str, Any]:
        """sweep.json: a stable interface. What a case does not know yet, its folder and candidate, is not in it."""
        cases = []
        for case, now, known in self.cases():
            settings = {key: value for key, value in case.settings.items() if known or key not in self.sweep.tuned}
            row = {"number": case.number, "folder": self.at(case, False).name if known else None, "settings": settings}
            cases.append(row | {"state": now.state} | ({"reason": now.reason} if now.reason else {}))
        found: dict[str, Any] = {"name": self.sweep.name, "cases": cases}
        if self.sweep.published is not None:
            found["published"] = scenario.plain(self.sweep.published)
        if self.sweep.tuned:
            budget = {"candidates": len(self.sweep.settings[0].candidates), "runs_each": 1, "seed": self.sweep.seed}
            found |= {"tune": budget, "tuning": [row for each in self.sweep.settings for row in self._tuning(each)]}
        return found

    def _tuning(self, setting: Setting) -> Iterator[dict[str, Any]]:
        chosen = self.chosen(setting)
        for candidate in setting.candidates:
            assert candidate.trial is not None
            now = self.tried(candidate)
            row: dict[str, Any] = {
                "folder": self.at(candidate.trial, True).name,
                "setting": setting.values,
                "candidate": candidate.values,
            }
            row |= {"validation_accuracy": now.accuracy, "chosen": candidate is chosen, "state": now.state}
            yield row | ({"reason": now.reason} if now.reason else {})

    def write(self) -> None:
        """Write the index anew, from what the folders hold now. Only within `alone`."""
        replace(self.folder / INDEX, json.dumps(self.index(), indent=1) + "\n")

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Within, no other process writes the index or the report: what is read and then written is not outdated."""
        descriptor = claim(self.folder, wait=True)
        try:
            yield
        finally:
            if descriptor is not None:
                os.close(descriptor)


def replace(path: Path, text: str) -> None:
    """Write a file whole, or not at all."""
    written = path.with_name(f".{path.name}.{os.getpid()}")
    written.write_text(text)
    os.replace(written, path)


def _read(path: Path) -> Mapping[str, Any]:
    """What a file of JSON holds; nothing where it was not written, or not to its end."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _digest(folder: Path) -> str:
    """That of the scenario in a run's folder: of its text below the comment at the head."""
    try:
        lines = (folder / "scenario.yaml").read_text().splitlines(keepends=True)
    except (OSError, ValueError):
        return ""
    return hashlib.sha256("".join(line for line in lines if not line.startswith("#")).encode()).hexdigest()[:8]
