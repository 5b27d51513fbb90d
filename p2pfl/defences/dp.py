"""DP-SGD: the gradient of each example is cut down to `clip`, and Gaussian noise hides what any one of them does.

Source: Abadi et al. 2016, "Deep Learning with Differential Privacy", Algorithm 1; Cheng et al., LEASGD, eq. 4-5, with
the noise of eq. 4 on the sum of gradients that are clipped one by one (their sum differs by `clip` where one example
is added or removed), over the expected batch of Poisson samples. In LEASGD and D-PSGD all else is computed from that.

It covers all that a peer ever sends, its models of every round and the losses it tells, against everybody together.
It does not cover: that the peer takes part, how many examples it has, constants of normalisation, choices made on a
validation split, the record of the run, when messages come (a larger sample takes longer), and what the noise is made
of: floating-point numbers of a generator that is seeded like a cipher and is none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import pydantic

from p2pfl.defences._accountant import noise_for
from p2pfl.defences._canaries import Canaries
from p2pfl.defences._guard import GaussianGuard, Noise, expected, kept, refuse_delta
from p2pfl.protection import Stake

Positive = Annotated[float, pydantic.Field(gt=0)]


@dataclass(frozen=True)
class DP:
    """Differential privacy of each example: gradients clipped one by one to `clip`, Gaussian noise on their sum.

    `epsilon` is the budget of each peer, at `delta`: who has spent it trains no more. `noise` is the deviation of the
    noise over `clip`; left out, it is the least that lets the whole run cost `epsilon`, or 1 where there is no budget.
    Losses that are told to others are cut down to `loss_clip`, their noise is `loss_noise` times that, and they count.
    `canaries` audit it, as many a peer.
    """

    epsilon: Positive | None = None
    clip: Positive = 1.0
    noise: Annotated[float, pydantic.Field(ge=0.01)] | None = None
    delta: Annotated[float, pydantic.Field(gt=0, lt=1)] = 1e-5
    accountant: Literal["prv", "rdp"] = "prv"
    loss_clip: Positive = 4.0
    loss_noise: Positive = 10.0
    canaries: Annotated[int, pydantic.Field(ge=0)] = 0
    EXAMPLES: ClassVar = ({"epsilon": 4.0}, {"noise": 1.1, "clip": 0.5, "accountant": "rdp", "canaries": 20})

    def guard(self, stake: Stake) -> GaussianGuard:
        """See Defence. Raises ValueError where no noise would do, or `delta` promises nothing."""
        refuse_delta(self.delta, stake)
        rate, batch = expected(stake)
        tellings = self.loss_noise, stake.tellings
        noise = self.noise
        if noise is None and self.epsilon is not None:
            noise = noise_for(self.epsilon, rate, stake.steps, self.delta, self.accountant, tellings)
        elif noise is None:
            noise = 1.0
        spread = Noise(self.clip, noise, self.loss_clip, self.loss_noise)
        ledger = kept(stake, spread, self.delta, self.accountant, self.epsilon)
        canaries = Canaries(self.canaries, rate, self.clip, stake.seeds.child("canaries"))
        return GaussianGuard(stake, self.clip, spread, batch, ledger, canaries)
