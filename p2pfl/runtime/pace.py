"""How fast a peer computes, where the scenario says so: a task that takes its time.

On processes and threads a peer of speed 0.1 is held up for nine times as long as it computed. A simulation has a clock
of its own for each peer, on which nothing but training takes time: at speed 1, one second for 10,000 examples.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from torch import Tensor

from p2pfl.contracts import Pair, Task, Trained
from p2pfl.messages import Figure
from p2pfl.runtime.world import Seat
from p2pfl.seeds import Seeds

EXAMPLES_A_SECOND = 10_000
"""What a peer of speed 1 trains on in a second of virtual time."""


class PacedTask:
    """A `Task` that hands on to another, and says of each training how many examples it had and what it took."""

    def __init__(self, task: Task, batch: int, pace: Callable[[int, float], None]) -> None:
        self.layout, self.device, self.examples = task.layout, task.device, task.examples
        self._task, self._pace, self._batch = task, pace, batch

    def start(self, seeds: Seeds) -> Tensor:
        """See Task."""
        return self._task.start(seeds)

    def lr(self, at: int) -> float:
        """See Task."""
        return self._task.lr(at)

    def steps(
        self, x: Tensor, m: Tensor | None, first: int, count: int, pair: Pair | None = None, key: bytes = b""
    ) -> Trained:
        """See Task."""
        began_s = time.perf_counter()
        trained = self._task.steps(x, m, first, count, pair, key)
        self._pace(self._examples(first, count), time.perf_counter() - began_s)
        return trained

    def step(self, x_D: Tensor, m_D: Tensor | None, at: int) -> Trained:
        """See Task."""
        began_s = time.perf_counter()
        trained = self._task.step(x_D, m_D, at)
        self._pace(self._examples(at, 1), time.perf_counter() - began_s)
        return trained

    def held(self, at: int) -> Sequence[int]:
        """See Task."""
        return self._task.held(at)

    def told(self, loss: float, x_D: Tensor, at: int) -> float:
        """See Task. A look at one batch is not counted."""
        return self._task.told(loss, x_D, at)

    def spent(self) -> Mapping[str, Figure]:
        """See Task."""
        return self._task.spent()

    def evaluate(self, x_D: Tensor, split: str) -> Mapping[str, Figure]:
        """See Task. To be measured takes no time that counts."""
        return self._task.evaluate(x_D, split)

    def _examples(self, first: int, count: int) -> int:
        """How many the batches from the `first` on hold: the last of an epoch may be short."""
        return self._before(first + count) - self._before(first)

    def _before(self, at: int) -> int:
        epochs, within = divmod(at, max(1, -(-self.examples // self._batch)))
        return epochs * self.examples + within * self._batch


def paced(seat: Seat, pace: Callable[[int, float], None]) -> Seat:
    """The same seat, `pace(examples, took_s)` being called after each training."""
    return replace(seat, me=replace(seat.me, task=PacedTask(seat.me.task, seat.me.training.batch, pace)))


def slowed(seat: Seat) -> Seat:
    """The same seat, its peer as slow in real time as the scenario says; its thread sleeps, its beats go on."""
    if seat.speed == 1:
        return seat
    return paced(seat, lambda _, took_s: time.sleep(took_s * (1 / seat.speed - 1)))
