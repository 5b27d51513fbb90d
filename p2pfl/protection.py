"""What a defence is: how a peer protects what it sends, as hooks into how it trains.

Shapes: S numbers of the vector that steps are taken in (D parameters, or their sketch), B examples of a batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from p2pfl.messages import Figure
from p2pfl.seeds import Seeds


@dataclass(frozen=True)
class Stake:
    """What a defence is told of the peer that it guards: what is at stake, and for how long.

    `steps` are those of the whole run, `tellings` the losses that it tells others in it, at most. `seeds` are the
    peer's own.
    """

    examples: int
    batch: int
    steps: int
    tellings: int
    seeds: Seeds


class Guard(Protocol):
    """A defence at work at one peer. It counts what it gives away: whoever asks twice gives away twice."""

    @property
    def clip(self) -> float | None:
        """The L2 norm that the gradient of each example is cut down to before all are summed; None: as they are."""

    def allows(self, telling: bool = False) -> bool:
        """Whether the peer may take another step, or tell another loss: not once the budget for it is spent."""

    def sample(self, at: int, telling: bool = False) -> Tensor | None:
        """Which of the peer's examples the `at`-th batch has, int64 from 0; None where it is the usual batch.

        The losses that are told after that step are of another sample.
        """

    def gradient(self, g_S: Tensor, at: int) -> Tensor:
        """What the `at`-th step goes by, for the sum of clipped gradients (the mean gradient without `clip`).

        `g_S` may be altered.
        """

    def telling(self, losses_B: Tensor, at: int) -> float:
        """The mean of the losses of the examples sampled for it at `at`, as it may be told to others."""

    def spent(self) -> Mapping[str, Figure]:
        """What was given away so far, as columns of the peer's rows: `epsilon`, and so on."""


class Defence(Protocol):
    """How a peer protects what it sends: what every plug-in of `defences/` is."""

    def guard(self, stake: Stake) -> Guard:
        """The defence at work at one peer. Raises ValueError when it cannot protect this peer."""
