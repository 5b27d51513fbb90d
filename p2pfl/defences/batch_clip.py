"""Noise on the gradient of a whole batch, clipped as one: what the LEASGD paper describes, under a name of its own.

Source: Cheng et al., LEASGD, eq. 4: g <- g / max(1, |g| / C) + N(0, sigma^2 C^2), g the gradient of a batch.
One example may turn the whole batch: two clipped gradients are up to 2 C apart, so the noise hides it as if its
multiplier were sigma / 2, and nothing is gained from a large batch, as the noise is not divided by it.
`epsilon` is the accountant's for that. `epsilon_claimed` is what the paper's reading gives, which takes sigma for the
multiplier: it would hold only if one example could move the batch's gradient by no more than C, which nothing ensures.

It covers what `dp` covers, in the sense of `epsilon`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Annotated, ClassVar, Literal

import pydantic
from torch import Tensor

from p2pfl.defences._canaries import Canaries
from p2pfl.defences._guard import GaussianGuard, Noise, expected, kept, refuse_delta
from p2pfl.protection import Stake

Positive = Annotated[float, pydantic.Field(gt=0)]


@dataclass(frozen=True)
class BatchClip:
    """Gaussian noise of `noise` times `clip` on the mean gradient of a batch, cut down to `clip` as a whole.

    For comparison with the LEASGD paper: `dp` learns far better at the same epsilon. `epsilon` is the budget of each
    peer, at `delta`. Losses that are told to others are cut down to `loss_clip`, and get `loss_noise` times that.
    """

    noise: Annotated[float, pydantic.Field(ge=0.02)]
    clip: Positive = 1.0
    epsilon: Positive | None = None
    delta: Annotated[float, pydantic.Field(gt=0, lt=1)] = 1e-5
    accountant: Literal["prv", "rdp"] = "prv"
    loss_clip: Positive = 4.0
    loss_noise: Positive = 10.0
    EXAMPLES: ClassVar = ({"noise": 4.0},)

    def guard(self, stake: Stake) -> GaussianGuard:
        """See Defence. Raises ValueError where `delta` promises nothing."""
        refuse_delta(self.delta, stake)
        rate, _ = expected(stake)
        spread = Noise(2 * self.clip, self.noise / 2, self.loss_clip, self.loss_noise)
        paper = Noise(self.clip, self.noise, self.loss_clip, self.loss_noise)
        ledger = kept(stake, spread, self.delta, self.accountant, self.epsilon)
        ledger.claimed = kept(stake, paper, self.delta, self.accountant, None).accountant
        none = Canaries(0, rate, self.clip, stake.seeds)
        return GaussianGuard(stake, None, spread, 1.0, ledger, none, partial(shorten, radius=self.clip))


def shorten(g_S: Tensor, radius: float) -> None:
    """Cut a gradient down to the L2 norm `radius`, in place; one that is not finite, as that of no example, to 0."""
    norm = float(g_S.norm())
    if math.isfinite(norm):
        g_S.div_(max(1.0, norm / radius))
    else:
        g_S.zero_()
