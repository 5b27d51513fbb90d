"""All peers in one process, each with its own thread: the drive of real processes, on a bus without bytes."""

from __future__ import annotations

import asyncio
import traceback
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

from p2pfl.messages import Message, PeerId
from p2pfl.runtime.drive import Outside, ScriptedDeath, drive
from p2pfl.runtime.life import life
from p2pfl.runtime.pace import slowed
from p2pfl.runtime.plan import Plan, Watcher
from p2pfl.runtime.referee import Verdict
from p2pfl.runtime.world import Seat
from p2pfl.transport.inproc import InprocBus
from p2pfl.transport.mailbox import Mailbox


@dataclass(frozen=True)
class Inproc:
    """All peers in this process, each in a thread: for debugging, and where processes cannot be had."""

    async def run(self, plan: Plan, watch: Watcher, stop: asyncio.Event) -> None:
        """See Engine."""
        world = plan.world
        seats = {i: slowed(world.seat(i)) for i in world.roles}
        learned = plan.settings.wait == "learned"
        boxes = {i: Mailbox(seat.me.neighbours, seat.forms, learned) for i, seat in seats.items()}
        for i in seats:
            watch(i, Message("seated", 0, figures={"device": world.device(i)}))
        verdict = Verdict()
        watch.tell = verdict.hear
        lives = [_live(i, seat, plan, boxes, watch, verdict) for i, seat in seats.items()]
        tasks = [asyncio.ensure_future(one) for one in lives]
        stopped = asyncio.ensure_future(stop.wait())
        everyone: asyncio.Future[Any] = asyncio.gather(*tasks)
        either: set[asyncio.Future[Any]] = {everyone, stopped}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        everyone.cancel()
        stopped.cancel()
        await asyncio.gather(everyone, *tasks, return_exceptions=True)


async def _live(
    i: PeerId, seat: Seat, plan: Plan, boxes: dict[PeerId, Mailbox], watch: Watcher, verdict: Verdict
) -> None:
    """One peer from the first step to the last."""
    bus = InprocBus(i, boxes, seat.me.neighbours)
    thread = ThreadPoolExecutor(1, f"peer {i}")
    try:
        say = partial(watch, i)
        outside = Outside(say, partial(plan.keep, i), partial(verdict.ask, say))
        await drive(life(seat, plan.course(i)), bus, outside, thread)
        links = {str(j): sent for j, sent in bus.sent_bytes.items()}
        watch(i, Message("left", boxes[i].round, figures={"links": dict(links)}))
    except ScriptedDeath:
        watch(i, Message("killed", boxes[i].round))
    except Exception:  # whatever a peer dies of, the others go on
        watch(i, Message("crashed", boxes[i].round, figures={"traceback": traceback.format_exc()}))
    finally:
        thread.shutdown(wait=False, cancel_futures=True)
        await bus.close()
