"""One run of a sweep in a process of its own, forked from a warm server: the process, and the sweep's end of it.

It tells its sweep in JSON, one object a message: `round` and `accuracy` as it goes, `state` (and `reason`) at its end.
When the sweep is gone it stops its peers and ends.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from statistics import median_low
from typing import Any

from p2pfl.errors import LocalError, P2PFLError
from p2pfl.runtime import forking
from p2pfl.runtime.launch import Screen, run
from p2pfl.runtime.plan import Plan
from p2pfl.runtime.sweeps import ledger
from p2pfl.scenario import Scenario

STOPPED, BUSY = "stopped", "busy"
PERIOD_S = 0.25
"""A case tells how far it is so often."""
GRACE_S = 4.0
"""How long a case may take to stop its peers when its sweep is gone."""

Page = Callable[[Path], object]
"""Writes the report of the run in a folder; a function of a module, so that it can be named to another process."""


@dataclass(frozen=True)
class Order:
    """What a process is told: which scenario to run, where, and whether to wait for whoever has the folder now."""

    plan: Path
    folder: Path
    digest: str
    trial: bool
    wait: bool
    page: Page


@dataclass
class _Voice:
    """Tells the sweep how far the run is: the round that half of the peers have come to, and their mean accuracy."""

    ear: Connection
    due_s: float = 0.0
    rounds: dict[str, int] = field(default_factory=dict)
    accuracies: dict[str, float] = field(default_factory=dict)
    crash: str = ""

    def hear(self, row: dict[str, Any]) -> None:
        """Take in a row of the record."""
        peer = str(row["peer"])
        if "sent_bytes" in row and ("hub" not in self.rounds or peer == "hub"):
            self.rounds = {"hub": 0} if peer == "hub" else self.rounds
            self.rounds[peer] = row["round"]
            if (accuracy := row.get("validation_accuracy", row.get("test_accuracy"))) is not None:
                self.accuracies[peer] = accuracy
        if self.rounds and time.monotonic() >= self.due_s:
            self.due_s = time.monotonic() + PERIOD_S
            found = [self.accuracies[peer] for peer in self.rounds if peer in self.accuracies]
            self.say(round=median_low(self.rounds.values()), accuracy=sum(found) / len(found) if found else None)

    def note(self, text: str) -> None:
        """Remember of what the first peer died."""
        if not self.crash and " crashed: " in text:
            self.crash = text

    def say(self, **what: Any) -> None:
        with suppress(OSError):  # nobody listens any more
            self.ear.send_bytes(json.dumps(what).encode())


def live(order: Order, ear: Connection) -> None:
    """The process's main. It never returns, so that nothing of the fork server's is torn down a second time."""
    if (parent := multiprocessing.parent_process()) is not None:
        threading.Thread(target=_follow, args=(parent.sentinel, order.plan.parent), daemon=True).start()
    voice = _Voice(ear)
    try:
        _run(order, voice)
    except P2PFLError as error:
        _fail(order, voice, str(error), "")
    except BaseException as error:  # whatever this run dies of, the sweep is told
        _fail(order, voice, f"{type(error).__name__}: {error}", traceback.format_exc())
    os._exit(0)


def _follow(parent: int, nest: Path) -> None:
    """When the sweep is gone, stop as one is asked to; if that takes long, just end."""
    wait([parent])
    shutil.rmtree(nest, ignore_errors=True)
    os.kill(os.getpid(), signal.SIGTERM)
    threading.Event().wait(GRACE_S)
    os._exit(1)


def _run(order: Order, voice: _Voice) -> None:
    if ledger.claim(order.folder, order.wait) is None:
        return voice.say(state=BUSY)
    now = ledger.standing(order.folder, order.digest)
    if not now.over(order.trial):
        ledger.clear(order.folder)
        record = run(Plan.read(order.plan).settings, order.folder, Screen(voice.hear, voice.note))
        if record.stopped:
            return voice.say(state=STOPPED)
        with suppress(Exception):  # a run without its page is a run; the sweep writes what is missing, and complains
            order.page(order.folder)
        if record.crashed:
            return _fail(order, voice, voice.crash or f"crashed: {record.crashed}", "")
        now = ledger.standing(order.folder, order.digest)
    found = now.summary.get("accuracy", now.summary.get("validation_accuracy", {})).get("mean")
    return voice.say(state=now.state, reason=now.reason, accuracy=found)


def _fail(order: Order, voice: _Voice, reason: str, more: str) -> None:
    reason = " ".join(reason.split())
    with suppress(OSError):  # a full disk, perhaps the very reason
        ledger.fail(order.folder, f"{reason}\n{more}")
    voice.say(state=ledger.FAILED, reason=reason)


@dataclass
class Running:
    """A run's process, seen from its sweep, and what it said last."""

    process: BaseProcess
    ear: Connection
    began_s: float = field(default_factory=time.monotonic)
    said: dict[str, Any] = field(default_factory=dict)

    def hear(self) -> bool:
        """Take in what it says; false when it is over and has been heard out."""
        try:
            self.said |= json.loads(self.ear.recv_bytes())
        except (EOFError, OSError):
            self.process.join()
            self.ear.close()
            return False
        return True


def start(order: Order) -> Running:
    """Start a run in a process of its own. Raises LocalError when that cannot be."""
    ours, theirs = multiprocessing.Pipe(duplex=False)
    process: BaseProcess = forking.context().Process(  # type: ignore[attr-defined]
        target=live, args=(order, theirs), name=order.folder.name
    )
    try:
        with forking.main_hidden():
            process.start()
    except (EOFError, OSError):
        ours.close()
        raise LocalError("the process that cases are forked from has died") from None
    finally:
        theirs.close()
    return Running(process, ours)


@contextmanager
def server(first: Scenario, page: Page) -> Iterator[Path]:
    """Within, processes are forked from a server that is warm, with the data of the `first` of them at hand.

    Yields the private folder in which plans are laid down for them.
    """
    nest = forking.private_folder()
    try:
        plan = nest / "plan.json"
        Plan(first, b"", b"").write(plan)
        with forking.server_prepared(plan, __name__, page.__module__):
            pass
        yield nest
    finally:
        if (pid := forking.server_pid()) is not None:
            os.kill(pid, signal.SIGKILL)  # nobody is left who came from it, and it may still be preparing
        forking.stop_server()
        shutil.rmtree(nest, ignore_errors=True)
