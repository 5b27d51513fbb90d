"""The way of one search: its best point so far, pictures of it on the way, and the reasons to end it.

Shapes: F frames, C x H x W an input.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from p2pfl.messages import Watch

FRAMES = 8
STRIDE, LITTLE = 100, 0.05
"""A search that in so many evaluations lost no more than this share of its mismatch stands still."""


class Ended(Exception):
    """The search is over: it found enough, stands still, or has no time or evaluations left."""


class Stumbled(Exception):
    """A mismatch that is no number: the search left what the model can bear."""


@dataclass
class Trail:
    """One search of `most` evaluations, the `attempt`-th of `attempts`. It ends at the mismatch `enough`.

    `best` are the tensors of the lowest mismatch, `loss`, `frames` the first input on the way, by evaluation. A
    `patient` one goes on where it stands still. `stumbles` were the last so many evaluations.
    """

    watch: Watch
    most: int
    enough: float = 0.0
    attempt: int = 0
    attempts: int = 1
    patient: bool = False
    evaluations: int = 0
    stumbles: int = 0
    loss: float = math.inf
    best: list[Tensor] = field(default_factory=list)
    frames: dict[int, Tensor] = field(default_factory=dict)
    out_of_time: bool = False
    _before: float = math.inf

    def note(self, loss: float, free: Sequence[Tensor]) -> None:
        """Hear of one more evaluation. Raises Ended or Stumbled."""
        self.stumbles = 0 if math.isfinite(loss) else self.stumbles + 1
        if self.stumbles:
            self._go_on()
            raise Stumbled
        if loss < self.loss:
            self.loss, self.best = loss, [each.detach().clone() for each in free]
        if self.evaluations & (self.evaluations - 1) == 0:  # 0, 1, 2, 4, 8 ...
            self.frames[self.evaluations] = free[0][0].detach().float().cpu()
        self._go_on()
        if self.loss <= self.enough or self._stands():
            raise Ended

    def _go_on(self) -> None:
        """Count an evaluation. Raises Ended where there is no time or number left for another."""
        self.evaluations += 1
        done = (self.attempt + min(1.0, self.evaluations / self.most)) / self.attempts
        self.out_of_time = not self.watch(done, self.loss)
        if self.out_of_time or self.evaluations >= self.most:
            raise Ended

    def strip(self) -> tuple[Tensor, tuple[int, ...]]:
        """At most F pictures of C x H x W, the best point last, and at how many evaluations each was."""
        shown = sorted(self.frames)
        few = shown if len(shown) < FRAMES else [shown[i * (len(shown) - 1) // (FRAMES - 2)] for i in range(FRAMES - 1)]
        frames = [self.frames[at] for at in few] + [self.best[0][0].float().cpu()]
        return torch.stack(frames), (*few, self.evaluations)

    def _stands(self) -> bool:
        if self.patient or self.evaluations % STRIDE:
            return False
        before, self._before = self._before, self.loss
        return self.loss > (1 - LITTLE) * before
