"""One peer in a process of its own: take a seat, live, tell the launcher; stop when told, or when it is lost."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import torch

from p2pfl.messages import Figure, Message, PeerId
from p2pfl.runtime import tuning
from p2pfl.runtime.drive import Outside, ScriptedDeath, drive
from p2pfl.runtime.life import life
from p2pfl.runtime.pace import slowed
from p2pfl.runtime.plan import FILE, opened
from p2pfl.runtime.referee import VERDICT, Verdict
from p2pfl.transport.mailbox import Desk, Mailbox
from p2pfl.transport.zeromq import Introduction, ZeroMQBus

LAUNCHER: PeerId = -2
WORD_BYTES = 1 << 24
"""The launcher says nothing longer: where the neighbours are."""
TRACEBACK_CHARACTERS = 20_000


def live(folder: str, me: PeerId, launcher: Introduction, control: str, endpoint: str) -> None:
    """The process's main. It never returns, so that nothing of the fork server's is torn down a second time."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the launcher's, who tells the peers
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    tuning.keep_memory()
    tuning.be_patient()
    try:
        asyncio.run(_live(Path(folder), me, launcher, control, endpoint))
    except BaseException:  # nothing may return into the fork server
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
    os._exit(0)


@dataclass
class _Word:
    """What the launcher has said so far."""

    go: asyncio.Future[Message]
    verdict: Verdict
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    gone: Callable[[Any], None] = lambda peer: None
    lost: bool = False

    def hear(self, _: PeerId, message: Message) -> None:
        if message.kind == "go" and not self.go.done():
            self.go.set_result(message)
        elif message.kind == VERDICT:
            self.verdict.hear(message)
        elif message.kind == "gone":
            self.gone(message.figures["peer"])
        elif message.kind == "stop":
            self.stop.set()

    def lose(self, *_: PeerId) -> None:
        self.lost = True
        self.stop.set()


async def _live(folder: Path, me: PeerId, launcher: Introduction, control: str, endpoint: str) -> None:
    """From birth to the launcher's word to stop."""
    loop = asyncio.get_running_loop()
    word = _Word(loop.create_future(), Verdict())
    if (parent := multiprocessing.parent_process()) is not None:
        loop.add_reader(parent.sentinel, word.lose)
    plan = opened(folder / FILE)
    channel = ZeroMQBus(plan.run, Desk(word.hear, word.lose, WORD_BYTES), control)
    channel.connect({LAUNCHER: launcher})
    learning = asyncio.ensure_future(_learn(folder, me, channel, endpoint, word))
    stopping = asyncio.ensure_future(word.stop.wait())
    await asyncio.wait([learning, stopping], return_when=asyncio.FIRST_COMPLETED)
    if learning.done() and isinstance(learning.exception(), ScriptedDeath):
        await channel.close()
        os.kill(os.getpid(), signal.SIGKILL)
    learning.cancel()
    if word.lost:
        shutil.rmtree(folder, ignore_errors=True)
    else:
        await channel.close()


async def _learn(folder: Path, me: PeerId, channel: ZeroMQBus, endpoint: str, word: _Word) -> None:
    """Take the seat, meet the neighbours, live, and stay until told to stop: others may still read our last mail."""
    say = partial(channel.post, LAUNCHER)
    box = None
    try:
        plan = opened(folder / FILE)
        torch.set_num_threads(plan.world.threads)
        seat = slowed(plan.world.seat(me))
        box = Mailbox(seat.me.neighbours, seat.forms, plan.settings.wait == "learned")
        bus = ZeroMQBus(plan.run, box, endpoint)
        say(Message("seated", 0, figures={"device": plan.world.device(me), "pid": os.getpid()}))
        say(Message("ready", 0, figures={"endpoint": bus.endpoint, "key": bus.key}))
        neighbours = _introductions(await word.go)
        word.gone = partial(box.link, stands=False)
        for j in set(seat.me.neighbours) - set(neighbours):
            box.link(j, stands=False)  # it was gone before anybody met it
        bus.connect(neighbours)
        outside = Outside(say, partial(plan.keep, me), partial(word.verdict.ask, say))
        try:
            thread = ThreadPoolExecutor(1, f"peer {me}", tuning.take_long)
            await drive(life(seat, plan.course(me)), bus, outside, thread)
        except ScriptedDeath:
            await bus.close()  # it dies between two rounds: what it said in the last one is on its way, on any engine
            raise
        say(Message("left", box.round, figures=_farewell(bus)))
        await word.stop.wait()
        await bus.close()
    except ScriptedDeath:
        say(Message("killed", box.round if box else 0))
        raise
    except Exception:  # whatever this peer dies of, the launcher is told
        text = traceback.format_exc()[-TRACEBACK_CHARACTERS:]
        say(Message("crashed", box.round if box else 0, figures={"traceback": text}))


def _introductions(go: Message) -> dict[PeerId, Introduction]:
    rows = json.loads(go.tensors["neighbours"].numpy().tobytes())
    return {int(j): Introduction(end, show.encode(), expect.encode()) for j, (end, show, expect) in rows.items()}


def _farewell(bus: ZeroMQBus) -> dict[str, Figure]:
    memory = psutil.Process().memory_full_info()
    return {
        "links": {str(j): sent for j, sent in bus.sent_bytes.items()},
        "faults": {str(j): count for j, count in bus.faults.items()},
        "pss_mb": getattr(memory, "pss", memory.uss) / 1e6,
    }
