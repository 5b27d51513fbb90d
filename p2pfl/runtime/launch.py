"""Run a scenario: make its folder, have an engine start the peers, record what they say, sum it up."""

from __future__ import annotations

import asyncio
import json
import secrets
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from p2pfl import scenario
from p2pfl.errors import LocalError, ScenarioError
from p2pfl.messages import peer_name
from p2pfl.plugins import brief
from p2pfl.runtime import afterwards, capture, card
from p2pfl.runtime.environment import prepare
from p2pfl.runtime.plan import Plan
from p2pfl.runtime.record import Recorder, Row
from p2pfl.runtime.referee import Overseer
from p2pfl.runtime.summary import summarise
from p2pfl.runtime.survey import insist
from p2pfl.scenario import Scenario
from p2pfl.seeds import Seeds


@dataclass(frozen=True)
class Record:
    """A run that is over: its folder, its figures, and whether it was stopped or lost a peer."""

    folder: Path
    summary: dict[str, Any] = field(repr=False)
    stopped: bool
    crashed: tuple[int, ...]

    def _repr_html_(self) -> str:
        """What a notebook shows of it."""
        return card.html(self.folder, self.summary, self.stopped, [peer_name(peer) for peer in self.crashed])


@dataclass(frozen=True)
class Screen:
    """Who wants to see a run as it goes.

    `row` gets every row of the record, `note` every event worth a line; `begin` is called before either, once nothing
    can be refused any more.
    """

    row: Callable[[Row], None] = lambda row: None
    note: Callable[[str], None] = lambda text: None
    begin: Callable[[], object] = lambda: None


def run(
    settings: Scenario,
    out: Path | None = None,
    screen: Screen = Screen(),
    born_s: float | None = None,
) -> Record:
    """Run it, and leave its folder. Ctrl-C stops every peer and keeps what was recorded.

    Raises ScenarioError when the scenario cannot be made concrete or `out` is not empty, LocalError when nothing can
    start.
    """
    birth_s = time.time() if born_s is None else born_s
    folder = _new_name(settings) if out is None else out
    plan = Plan(settings, Seeds.of(settings.seed).root, secrets.token_bytes(8), folder)
    world = plan.world
    insist(world)
    make_folder(folder)
    prepare(folder, world, metadata.version("p2pfl-zmq"))
    with Recorder(folder, world, screen.row, screen.note) as recorder, _threads(world.threads):
        stopped = _here_or_beside(plan, recorder, screen.begin)
        stopped = _conspired(plan, recorder, stopped)
        if stopped:
            recorder.log(None, "stopped by the user; what was recorded is kept")
        if recorder.failure is not None:
            raise LocalError(f"the record cannot be written to {folder}: {recorder.failure}") from recorder.failure
        summary = summarise(recorder, birth_s, time.time() - birth_s) | ({"stopped": True} if stopped else {})
    (folder / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    return Record(folder, summary, stopped, tuple(sorted(recorder.crashed)))


def _here_or_beside(plan: Plan, recorder: Recorder, begin: Callable[[], object]) -> bool:
    """Run in a loop of this thread, or in another thread where one runs already, as in a notebook."""
    stop = asyncio.Event()
    recorder.stop = stop.set  # until the loop runs, and when it has ended
    with _interrupted(recorder):
        begin()
        if said := capture.notice(plan.world):
            recorder.tell(f"mail kept: {said}")
        if not _loop_runs():
            return asyncio.run(_run(plan, recorder, stop))
        with ThreadPoolExecutor(1) as beside:
            return beside.submit(asyncio.run, _run(plan, recorder, stop)).result()


def _conspired(plan: Plan, recorder: Recorder, stopped: bool) -> bool:
    """Have those who collude attack, each with what all of them heard. Whether the user stopped the run, or this."""
    over = threading.Event()
    if stopped:
        over.set()
    recorder.stop = over.set
    with _interrupted(recorder):
        afterwards.coalitions(plan.folder, plan.world, recorder.watch, over.is_set)
    return over.is_set()


def _loop_runs() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Within, torch computes with so many threads: as in every peer, so that no figure hangs on where it is made."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


async def _run(plan: Plan, recorder: Recorder, stop: asyncio.Event) -> bool:
    recorder.stop = partial(asyncio.get_running_loop().call_soon_threadsafe, stop.set)
    overseer = Overseer(recorder)
    try:
        await plan.settings.engine.value.run(plan, overseer.watcher, stop)
    finally:
        recorder.stop = stop.set
    overseer.end()
    return stop.is_set()


@contextmanager
def _interrupted(recorder: Recorder) -> Iterator[None]:
    """Within, Ctrl-C and a polite kill stop the run instead of raising, where this thread may listen to signals."""
    before: dict[int, Any] = {}
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, lambda *_: recorder.stop())
    except ValueError:
        pass  # they are for the main thread alone
    try:
        yield
    finally:
        for heard, handler in before.items():
            signal.signal(heard, handler)


def make_folder(folder: Path) -> None:
    """Make the run's folder, new and empty. Raises ScenarioError when it is not empty, or cannot be made."""
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            problem = f"the output folder {str(folder)!r} is not empty"
            raise ScenarioError(problem, "name another one, or remove it", where="--out")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "records.jsonl").touch()
    except OSError as error:
        problem = f"cannot write to the output folder {brief(str(folder))}, {error.strerror}"
        raise ScenarioError(problem, "name another one", where="--out") from None


def _new_name(settings: Scenario) -> Path:
    base = Path("runs") / f"{settings.name}-{scenario.digest(settings)}"
    numbered = (base.with_name(f"{base.name}-{k}") for k in range(2, 1_000_000))
    return next(path for path in (base, *numbered) if not path.exists())
