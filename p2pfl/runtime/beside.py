"""Long computations beside a peer's rounds: one after the other, in a thread that gives way to all others.

What comes of them are rows of the record, and how far they are is said now and then.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from types import TracebackType

from p2pfl.messages import Aside, Figure, Message, Report
from p2pfl.runtime import tuning

SAID_S = 0.5
"""Seconds between two words on how far a computation is."""
Say = Callable[[Report | Message], object]


@dataclass
class Watching:
    """A Watch: lets a computation go on until its time is up, or `over` says so; says how far it is by `say`."""

    aside: Aside
    say: Say
    over: Callable[[], bool]
    end_s: float = field(init=False)
    due_s: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        self.begin_anew()

    def begin_anew(self) -> None:
        """From now on there is time again."""
        self.end_s = time.monotonic() + self.aside.seconds

    def __call__(self, done: float, loss: float) -> bool:
        """See Watch."""
        now_s = time.monotonic()
        if now_s >= self.due_s:
            self.due_s = now_s + SAID_S
            known = float(loss) if math.isfinite(loss) else None
            figures: dict[str, Figure] = {"about": self.aside.about, "done": float(done), "loss": known}
            self.say(Message("spying", self.aside.round, figures=figures))
        return now_s < self.end_s and not self.over()


def reports(aside: Aside, say: Say, over: Callable[[], bool]) -> Iterator[Report]:
    """What comes of a computation, each row within its time; at the end it is said to be done."""
    watching = Watching(aside, say, over)
    for report in aside.call(watching):
        yield report
        watching.begin_anew()
    say(Message("spying", aside.round, figures={"about": aside.about, "done": 1.0, "loss": None}))


class Beside:
    """The thread of one peer's asides; leaving the context tells what still runs to come to its end."""

    def __init__(self) -> None:
        self._thread: ThreadPoolExecutor | None = None
        self._pending: list[Future[None]] = []
        self._over = False

    def __enter__(self) -> Beside:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._over = True
        if self._thread is not None:
            self._thread.shutdown(wait=False, cancel_futures=True)

    def start(self, aside: Aside, say: Say) -> None:
        """Have it computed after those that came before; its rows go to `say`, from another thread."""
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "aside", tuning.give_way)
        self._pending.append(self._thread.submit(self._compute, aside, say))

    def _compute(self, aside: Aside, say: Say) -> None:
        if not self._over:
            for report in reports(aside, say, lambda: self._over):
                say(report)

    async def through(self) -> None:
        """Wait until all are done; raises what one of them died of."""
        for future in self._pending:
            await asyncio.wrap_future(future)
