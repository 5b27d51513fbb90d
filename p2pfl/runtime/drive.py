"""Drive one peer's life on a bus: computation in a thread of its own, I/O in the loop, nothing in between."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from p2pfl.contracts import Bus
from p2pfl.messages import Aside, Collect, Exchange, Mail, Message, Pause, Report
from p2pfl.runtime.beside import Beside
from p2pfl.runtime.life import Asked, Gate, Keep, Killed, Life, Now
from p2pfl.runtime.spying import Noted


class ScriptedDeath(Exception):
    """The scenario kills this peer now."""


@dataclass(frozen=True)
class Outside:
    """What a life has beside its bus.

    `say` hears its reports, as messages of kind `row`, and of kind `spying` how far an attack is; `keep` puts a model,
    or a page of notes, on disk, called from the thread that computes; `ask` answers at a gate whether that round was
    the last.
    """

    say: Callable[[Message], None]
    keep: Callable[[Keep | Noted], None]
    ask: Callable[[int], Awaitable[bool]]


async def drive(life: Life, bus: Bus, outside: Outside, thread: ThreadPoolExecutor) -> None:
    """Run a life to its end: its exchanges go over `bus`, all else to the `outside`.

    Between two exchanges that wait for mail there is only computation: it runs in `thread`, and what needs no answer
    is handed to the loop from there. Raises ScriptedDeath where the scenario kills the peer.
    """
    loop = asyncio.get_running_loop()
    with Beside() as beside:
        driver = _Driver(life, bus, outside, beside)
        await _live(driver, thread, loop)
        bus.at(driver.round, learning=False)  # through all rounds: what is still worked on beside holds nobody up
        await beside.through()
    if driver.failures:
        raise driver.failures[0]


async def _live(driver: _Driver, thread: ThreadPoolExecutor, loop: asyncio.AbstractEventLoop) -> None:
    """Ask and answer until the life is over."""
    bus, outside = driver.bus, driver.outside
    answer: Mail | bool | None = None
    while True:
        step = await loop.run_in_executor(thread, driver.compute, answer, loop)
        if driver.failures:
            raise driver.failures[0]
        match step:
            case None:
                return
            case Killed():
                raise ScriptedDeath
            case Gate():
                answer = await outside.ask(step.round)
            case Exchange():
                driver.do(step)
                answer = await bus.collect(step.kind, step.round, step.expect)
            case Pause():
                bus.at(driver.round, learning=False)  # it rests: its beats say that it is not slow
                await asyncio.sleep(step.seconds)
                bus.at(driver.round)
                answer = {}
            case Collect():
                answer = bus.take(step.kind)


def kind_of(report: Report) -> str:
    """How a report is announced: a row of its peer's, or what an attack beside the rounds found."""
    return "found" if "spied" in report.figures else "row"


@dataclass
class _Driver:
    """What is between a life and its bus. `compute` runs in the thread, all else in the loop."""

    life: Life
    bus: Bus
    outside: Outside
    beside: Beside
    born_s: float = field(default_factory=time.monotonic)
    round: int = 0
    failures: list[Exception] = field(default_factory=list)

    def compute(self, answer: Mail | bool | None, loop: asyncio.AbstractEventLoop) -> Asked | None:
        """Compute until an answer is needed, or to the end (a StopIteration must not leave the thread)."""
        try:
            step = next(self.life) if answer is None else self.life.send(answer)
            while not (isinstance(step, Asked) and (not isinstance(step, Exchange) or step.expect)):
                if isinstance(step, Keep | Noted):
                    self.outside.keep(step)
                elif isinstance(step, Aside):
                    self.beside.start(step, lambda said: loop.call_soon_threadsafe(self.attempt, said))
                else:
                    loop.call_soon_threadsafe(self.attempt, step)
                step = self.life.send({})
            return step
        except StopIteration:
            return None

    def attempt(self, step: Exchange | Report | Now | Message) -> None:
        """Do it; a failure is kept for `drive`, since the loop's callbacks have nobody to tell."""
        try:
            self.do(step)
        except Exception as error:
            self.failures.append(error)

    def do(self, step: Exchange | Report | Now | Message) -> None:
        match step:
            case Message():
                self.outside.say(step)
            case Exchange():
                for to, message in step.post.items():
                    self.bus.post(to, message)
            case Now():
                if step == Now(1):
                    self.outside.say(Message("began", 1, figures={"at_s": time.time()}))
                self.round = step.round
                self.bus.at(step.round, step.learning)
            case Report():
                sent = {"time_s": time.monotonic() - self.born_s, "sent_bytes": sum(self.bus.sent_bytes.values())}
                self.outside.say(Message(kind_of(step), step.round, step.tensors, {**step.figures, **sent}))
