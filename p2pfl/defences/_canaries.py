"""Canaries: examples that only show whether one can tell who took part, so that epsilon has a lower bound too.

Source: Steinke, Nasr & Jagielski 2023, "Privacy Auditing with One (1) Training Run", algorithm 1, with the canaries of
its white-box audit: one whose gradient is all in one coordinate, as large as the clipping lets it be. A fair coin says
whether a canary is among the peer's examples; it is sampled like them. The auditor sees the noised sum of each step,
which is more than any neighbour sees, adds up each canary's coordinate and guesses: the highest sums are in.
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
    places_M: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))

    @property
    def inside(self) -> Tensor:
        """Which of them are among the peer's examples."""
        return torch.rand(self.count, generator=self.seeds.noise("in")) < 0.5

    def join(self, g_S: Tensor, at: int) -> None:
        """Add what those do that are in, and sampled in step `at`, to a sum of gradients, in place."""
        if not self.count:
            return
        if not len(self.places_M):
            order_S = torch.randperm(len(g_S), generator=self.seeds.torch("places"))
            self.places_M = order_S[: self.count].to(g_S.device)
            self.count = len(self.places_M)  # no two share a coordinate
            self.scores_M = g_S.new_zeros(self.count)
        taken_M = self.inside & (torch.rand(self.count, generator=self.seeds.noise("sample", at)) < self.rate)
        g_S[self.places_M[taken_M.to(g_S.device)]] += self.radius

    def look(self, g_S: Tensor) -> None:
        """See the noised sum of a step."""
        if self.count:
            self.scores_M += g_S[self.places_M]

    def figures(self) -> Mapping[str, Figure]:
        """How many there are, of how many it was guessed whether they are in, and how often rightly; {} without any."""
        if not len(self.scores_M):
            return {}
        guessed_M = guesses(self.scores_M.cpu().numpy(), SHARE)  # 1 in, -1 out, 0 nothing said
        right = (guessed_M == 1) & self.inside.numpy() | (guessed_M == -1) & ~self.inside.numpy()
        said = int((guessed_M != 0).sum())
        return {"canaries": self.count, "canaries_guessed": said, "canaries_right": int(right.sum())}
