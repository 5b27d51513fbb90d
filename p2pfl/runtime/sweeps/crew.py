"""Runs of a sweep, some at once, each in a process of its own: what they say, and how they are stopped."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

from p2pfl.errors import LocalError
from p2pfl.runtime import forking
from p2pfl.runtime.plan import Plan
from p2pfl.runtime.sweeps import case as cases
from p2pfl.runtime.sweeps.ledger import FAILED, Ledger, fail
from p2pfl.runtime.sweeps.matrix import Case

RUNNING = "running"
STOP_S = 2.5
"""How long runs may take to stop when asked; then they are killed."""


@dataclass(frozen=True, eq=False)
class Job:
    """A run that is to be done: a case, or what tuning tries."""

    case: Case
    trial: bool


@dataclass(frozen=True)
class News:
    """What became of a run: it is `running` (in a round, with an accuracy), `done`, `failed`, `stopped` or `busy`."""

    job: Job
    state: str
    time_s: float = 0.0
    round: int = 0
    accuracy: float | None = None
    reason: str = ""


@dataclass
class Bell:
    """Rung by Ctrl-C and by a polite kill. While the fork server prepares, which one has to wait for, it ends that."""

    heard: Connection
    pulled: Connection
    rung: bool = False
    preparing: bool = False

    def ring(self, *_: object) -> None:
        """A signal came."""
        self.rung = True
        self.pulled.send_bytes(b"!")
        if self.preparing and (server := forking.server_pid()) is not None:
            os.kill(server, signal.SIGKILL)


@contextmanager
def bell() -> Iterator[Bell]:
    """Within, Ctrl-C rings instead of raising, where this thread may listen to signals."""
    made, before = Bell(*multiprocessing.Pipe(duplex=False)), {}
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, made.ring)
    except ValueError:
        pass  # they are for the main thread alone
    try:
        yield made
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        made.heard.close()
        made.pulled.close()


@dataclass
class Crew:
    """Does jobs, `size` at once, as long as the bell is silent."""

    ledger: Ledger
    nest: Path
    size: int
    bell: Bell
    page: cases.Page
    hear: Callable[[News], None]
    running: dict[Connection, tuple[Job, cases.Running]] = field(default_factory=dict)
    later: deque[Job] = field(default_factory=deque)
    warm: bool = False

    def work(self, jobs: Iterable[Job]) -> None:
        """Do them all. Those that another process works on come last, when that is waited for."""
        queue = deque(jobs)
        try:
            while (queue or self.later or self.running) and not self.bell.rung:
                while (queue or self.later) and len(self.running) < self.size and not self.bell.rung:
                    late = not queue
                    self.start((self.later if late else queue).popleft(), wait=late)
                self.attend([*self.running, self.bell.heard])
            self.stop()
        finally:  # whatever happened: no process outlives the crew
            for _, running in self.running.values():
                running.process.kill()
                running.process.join()

    def start(self, job: Job, wait: bool) -> None:
        """Have a process begin with a job."""
        plan = self.nest / f"{job.case.digest}.json"
        Plan(job.case.scenario, b"", b"").write(plan)
        folder = self.ledger.at(job.case, job.trial)
        self.bell.preparing = not self.warm
        try:
            running = cases.start(cases.Order(plan, folder, job.case.digest, job.trial, wait, self.page))
        except LocalError:
            if self.bell.rung:
                return
            raise
        finally:
            self.bell.preparing = False
        self.warm, self.running[running.ear] = True, (job, running)
        self.hear(News(job, RUNNING))

    def attend(self, ears: list[Connection], within_s: float | None = None) -> None:
        """Wait until somebody says something, and take it in."""
        for ear in wait(ears, within_s):
            if isinstance(ear, Connection) and ear in self.running:
                job, running = self.running[ear]
                if running.hear():
                    self.tell(job, running, RUNNING)
                else:
                    del self.running[ear]
                    self.end(job, running)

    def tell(self, job: Job, running: cases.Running, state: str) -> None:
        """Pass on how far it is."""
        said, time_s = running.said, time.monotonic() - running.began_s
        self.hear(News(job, state, time_s, said.get("round", 0), said.get("accuracy"), said.get("reason", "")))

    def end(self, job: Job, running: cases.Running) -> None:
        """A process is over: so is its job, unless another process has it."""
        (self.nest / f"{job.case.digest}.json").unlink(missing_ok=True)
        state = running.said.get("state")
        if state is None and self.bell.rung:
            state = cases.STOPPED
        elif state is None:
            state, reason = FAILED, f"the process of the case ended with exit code {running.process.exitcode}"
            running.said["reason"] = reason
            fail(self.ledger.at(job.case, job.trial), reason)
        elif state == cases.BUSY:
            self.later.append(job)
        self.tell(job, running, state)
        with self.ledger.alone():
            self.ledger.write()

    def stop(self) -> None:
        """End whatever runs, at first politely."""
        for insist in (BaseProcess.terminate, BaseProcess.kill):
            for _, running in self.running.values():
                insist(running.process)
            until_s = time.monotonic() + STOP_S
            while self.running and (left_s := until_s - time.monotonic()) > 0:
                self.attend(list(self.running), left_s)
