"""The subsampled Gaussian mechanism at work at one peer: whom it samples, what noise it adds, what that has cost.

Source: Abadi et al. 2016, "Deep Learning with Differential Privacy", Algorithm 1, with Poisson samples and division
by the expected batch; the accountant composes the steps with the losses that are told.
Noise is a function of the peer's own seeds and of the step: of the operating system's randomness where the scenario
has no seed, else to be drawn again by whoever knows it. Its generator is seeded like a cipher and is none, and it is
made of floating-point numbers, which ideal Gaussian noise is not (Mironov 2012, "On Significance of the Least
Significant Bits for Differential Privacy").
Shapes: S numbers of the vector that steps are taken in, B examples of a sample, N examples held.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from p2pfl.defences._accountant import Accountant, Mechanism
from p2pfl.defences._canaries import Canaries
from p2pfl.messages import Figure
from p2pfl.protection import Stake


@dataclass(frozen=True)
class Noise:
    """What is added to what: to a sum (or a mean) of gradients whose `sensitivity` one example bounds, and to losses.

    `sigma` and `loss_sigma` are the deviations of the noise in units of the sensitivity, which is what an accountant
    knows; losses are cut down to `loss_clip`.
    """

    sensitivity: float
    sigma: float
    loss_clip: float
    loss_sigma: float


def expected(stake: Stake) -> tuple[float, float]:
    """The rate at which each example is sampled, and how many that makes on the average."""
    rate = min(1.0, stake.batch / stake.examples)
    return rate, rate * stake.examples


def refuse_delta(delta: float, stake: Stake) -> None:
    """Raise ValueError where a peer could be promised as much by telling somebody's example at random."""
    if delta >= 1 / stake.examples:
        raise ValueError(
            f"delta must be below 1 / {stake.examples}, one over its examples, not {delta:g}: lower it, as to 1e-5"
        )


@dataclass
class Ledger:
    """How often each mechanism was used, and what that comes to. Altered in place by who uses them.

    `most_steps` are those that the budget allows, or all of the run.
    """

    accountant: Accountant
    most_steps: int
    claimed: Accountant | None = None
    """By which a paper reckons the same run."""
    steps: int = 0
    tellings: int = 0

    def allows(self, telling: bool) -> bool:
        """Whether there is enough left for a step, or to tell a loss, which is set aside from the beginning."""
        return self.tellings < self.accountant.most[1] if telling else self.steps < self.most_steps

    def figures(self) -> dict[str, Figure]:
        """Columns of a row."""
        uses = self.steps, self.tellings
        epsilon, by = self.accountant.epsilon_by(uses)
        figures: dict[str, Figure] = {"epsilon": epsilon, "epsilon_by": by, "private_steps": self.steps}
        if self.claimed is not None:
            figures["epsilon_claimed"] = self.claimed.epsilon(uses)
        ends_early = self.steps >= self.most_steps < self.accountant.most[0]
        return figures | ({"budget_spent": True} if ends_early else {})


def kept(stake: Stake, noise: Noise, delta: float, method: Literal["prv", "rdp"], budget: float | None) -> Ledger:
    """The ledger of a peer at the beginning. Raises ValueError where `budget` does not allow one step."""
    rate, _ = expected(stake)
    mechanisms = Mechanism(rate, noise.sigma), Mechanism(rate, noise.loss_sigma)
    steps, tellings = most = stake.steps, stake.tellings
    accountant = Accountant(mechanisms, most, delta, method)
    if budget is not None and accountant.epsilon(most) > budget:
        steps = bisect_right(range(steps + 1), budget, key=lambda k: accountant.epsilon((k, tellings))) - 1
    if steps < 1:
        raise ValueError(f"epsilon of {budget:g} does not pay for one step: raise it, or the noise")
    return Ledger(accountant, steps)


@dataclass
class GaussianGuard:
    """A Guard: Poisson samples, noise on what they come to, and a ledger."""

    stake: Stake
    clip: float | None
    noise: Noise
    divisor: float
    ledger: Ledger
    canaries: Canaries
    before: Callable[[Tensor], None] = lambda g_S: None
    """What is done to the vector, in place, before anything is added."""
    private: ClassVar[bool] = True

    def allows(self, telling: bool = False) -> bool:
        """See Guard."""
        return self.ledger.allows(telling)

    def sample(self, at: int, telling: bool = False) -> Tensor:
        """See Guard: each example by a coin of its own."""
        rate, _ = expected(self.stake)
        if rate == 1:
            return torch.arange(self.stake.examples)
        draw = self.stake.seeds.noise("told sample" if telling else "sample", at)
        return torch.nonzero(torch.rand(self.stake.examples, generator=draw, dtype=torch.float64) < rate).flatten()

    def around(self, module: nn.Module, at: int) -> AbstractContextManager[object]:
        """See Guard: nothing."""
        return nullcontext()

    def gradient(self, g_S: Tensor, at: int) -> Tensor:
        """See Guard: with the canaries' part and noise, over what the batch is expected to be."""
        self.ledger.steps += 1
        self.before(g_S)
        self.canaries.join(g_S, at)
        g_S.add_(self._normal(len(g_S), g_S, "noise", at), alpha=self.noise.sigma * self.noise.sensitivity)
        self.canaries.look(g_S)
        return g_S.div_(self.divisor)

    def telling(self, losses_B: Tensor, at: int) -> float:
        """See Guard: losses cut down to `loss_clip`, one that is no number counts as the largest."""
        self.ledger.tellings += 1
        _, batch = expected(self.stake)
        most = self.noise.loss_clip
        total = losses_B.nan_to_num(nan=most).clamp(0.0, most).sum()
        noise = self._normal(1, total, "told", at)[0] * (self.noise.loss_sigma * most)
        return float((total + noise) / batch)

    def spent(self) -> Mapping[str, Figure]:
        """See Guard."""
        return {**self.ledger.figures(), **self.canaries.figures()}

    def _normal(self, count: int, like: Tensor, name: str, at: int) -> Tensor:
        """Independent standard normal numbers, of the device and type of `like`."""
        draw = self.stake.seeds.noise(name, at, device=like.device)
        return torch.empty(count, device=like.device, dtype=like.dtype).normal_(generator=draw)
