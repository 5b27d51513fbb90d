"""Canaries: examples that only show whether one can tell who took part, so that epsilon has a lower bound too.

Source: Steinke, Nasr & Jagielski 2023, "Privacy Auditing with One (1) Training Run", algorithm 1, with the canaries of
its white-box audit: one whose gradient is all in one coordinate, as large as the clipping lets it be. A fair coin says
whether a canary is among the peer's examples; it is sampled like them. The auditor sees the noised sum of each step,
which is more than any neighbour sees, adds up each canary's coordinate and guesses: the highest sums are in. So it
tests the noise and the account of it, not the clipping and sampling of real examples, nor the losses that are told.
Shapes: M canaries, S numbers of the vector that steps are taken in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from p2pfl.defences._audit import guesses
from p2pfl.messages import Figure
from p2pfl.seeds import Seeds

SHARE = 0.1
"""The part of the canaries that is guessed in, and as many out; of all others nothing is said."""


@dataclass
class Canaries:
    """`count` canaries of gradient norm `radius`, sampled at `rate`. Altered in place as steps are taken."""

    count: int
    rate: float
    radius: float
    seeds: Seeds
    scores_M: Tensor = field(default_factory=lambda: torch.zeros(0))
    places: dict[int, Tensor] = field(default_factory=dict)
    """Where they are in a vector of so many numbers."""

    @property
    def inside(self) -> Tensor:
        """Which of them are among the peer's examples."""
        return torch.rand(self.count, generator=self.seeds.noise("in")) < 0.5

    def join(self, g_S: Tensor, at: int) -> None:
        """Add what those do that are in, and sampled in step `at`, to a sum of gradients, in place."""
        if self.count:
            places = self._places(g_S)
            taken_M = self.inside & (torch.rand(self.count, generator=self.seeds.noise("sample", at)) < self.rate)
            g_S[places[taken_M[: len(places)].to(g_S.device)]] += self.radius

    def look(self, g_S: Tensor) -> None:
        """See the noised sum of a step."""
        if self.count:
            places = self._places(g_S)
            if not len(self.scores_M):
                self.scores_M = g_S.new_zeros(self.count)
            self.scores_M[: len(places)] += g_S[places]

    def _places(self, g_S: Tensor) -> Tensor:
        """The coordinate of each, no two the same; where there are too few, the last of them have none."""
        if len(g_S) not in self.places:
            order_S = torch.randperm(len(g_S), generator=self.seeds.torch("places", len(g_S)))
            self.places[len(g_S)] = order_S[: self.count].to(g_S.device)
        return self.places[len(g_S)]

    def figures(self) -> Mapping[str, Figure]:
        """How many there are, of how many it was guessed whether they are in, and how often rightly; {} without any."""
        if not len(self.scores_M):
            return {}
        guessed_M = guesses(self.scores_M.cpu().numpy(), SHARE)  # 1 in, -1 out, 0 nothing said
        right = (guessed_M == 1) & self.inside.numpy() | (guessed_M == -1) & ~self.inside.numpy()
        said = int((guessed_M != 0).sum())
        return {"canaries": self.count, "canaries_guessed": said, "canaries_right": int(right.sum())}
