"""Drive one peer's life on a bus: computation in a thread of its own, I/O in the loop, nothing in between."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from p2pfl.contracts import Bus
from p2pfl.messages import Exchange, Mail, Message, Report
from p2pfl.runtime.life import Killed, Life, Now


class ScriptedDeath(Exception):
    """The scenario kills this peer now."""


async def drive(life: Life, bus: Bus, say: Callable[[Message], None], thread: ThreadPoolExecutor) -> None:
    """Run a life to its end: its exchanges go over `bus`, its reports to `say`, as messages of kind `row`.

    Between two exchanges that wait for mail there is only computation: it runs in `thread`, and what needs no answer
    is handed to the loop from there. Raises ScriptedDeath where the scenario kills the peer.
    """
    loop = asyncio.get_running_loop()
    born_s = time.monotonic()

    def handle(step: Exchange | Report | Now) -> None:
        match step:
            case Exchange():
                for to, message in step.post.items():
                    bus.post(to, message)
            case Now():
                if step == Now(1):
                    say(Message("began", 1, figures={"at_s": time.time()}))
                bus.at(step.round, step.learning)
            case Report():
                sent = {"time_s": time.monotonic() - born_s, "sent_bytes": sum(bus.sent_bytes.values())}
                say(Message("row", step.round, step.tensors, {**step.figures, **sent}))

    def compute(mail: Mail | None) -> Exchange | Killed | None:
        """Compute until mail is needed, or to the end (a StopIteration must not leave the thread)."""
        try:
            step = next(life) if mail is None else life.send(mail)
            while not (isinstance(step, Killed) or (isinstance(step, Exchange) and step.expect)):
                loop.call_soon_threadsafe(handle, step)
                step = life.send({})
            return step
        except StopIteration:
            return None

    mail: Mail | None = None
    while (step := await loop.run_in_executor(thread, compute, mail)) is not None:
        if isinstance(step, Killed):
            raise ScriptedDeath
        handle(step)
        mail = await bus.collect(step.kind, step.round, step.expect)
