"""Epsilon of a peer whose mechanisms are Poisson-subsampled Gaussians: steps of training, and losses that it tells.

The unit is one example, added or removed. Every figure is an upper bound. `prv` composes the privacy loss itself (see
`_privacy_loss`); `rdp` bounds it by its Renyi divergences, and is larger by some tenth. Where the loss fits no grid the
figure is that of `rdp`, and says so.
Sources: Mironov, Talwar & Zhang 2019, "Renyi Differential Privacy of the Sampled Gaussian Mechanism"; Balle, Barthe,
Gaboardi, Hsu & Sato 2020, "Hypothesis Testing Interpretations and Renyi Differential Privacy", theorem 21 (from
divergences to epsilon).
Shapes: A orders.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Literal

import numpy

from p2pfl.defences._privacy_loss import Floats, Losses, Mechanism, losses

__all__ = ["Accountant", "Mechanism", "Method", "noise_for"]

Method = Literal["prv", "rdp"]

TENTHS, WHOLE = [1 + tenth / 10 for tenth in range(1, 100)], [float(order) for order in range(11, 64)]
LARGE = [64.0, 80.0, 96.0, 128.0, 160.0, 192.0, 256.0, 320.0, 384.0, 512.0, 768.0, 1024.0]
ORDERS_A = numpy.array(TENTHS + WHOLE + LARGE)
"""More is wanted for a small epsilon; beyond 1,024 its binomial coefficients are no numbers."""
SERIES_ERROR = 1e-12
"""The series of an order that is not whole is cut off where its terms are below e^-30."""
DIGITS = 4
MOST = 1e3
LEAST = 1e-12
"""No epsilon counts for less: 0 has no logarithm."""


@dataclass(frozen=True)
class Accountant:
    """Epsilon of up to `most` uses of each mechanism, at one `delta`."""

    mechanisms: tuple[Mechanism, ...]
    most: tuple[int, ...]
    delta: float
    method: Method

    def __post_init__(self) -> None:
        if len(self.most) != len(self.mechanisms) or min(self.most, default=0) < 0:
            raise ValueError(f"most must be a count for each of {len(self.mechanisms)} mechanisms, not {self.most}")
        if not 0 < self.delta < 1:
            raise ValueError(f"delta must be between 0 and 1, not {self.delta}: it is a probability")

    def epsilon(self, uses: tuple[int, ...]) -> float:
        """Epsilon of so many uses of each. See `epsilon_by`."""
        return self.epsilon_by(uses)[0]

    def epsilon_by(self, uses: tuple[int, ...]) -> tuple[float, Method]:
        """Epsilon of so many uses of each, and the method that it is by: `rdp` where there is no figure by `prv`.

        0.0 for no use at all. Raises ValueError for more uses than `most`, and where epsilon is not finite.
        """
        if len(uses) != len(self.most) or not all(0 <= k <= most for k, most in zip(uses, self.most, strict=True)):
            raise ValueError(f"uses must be from 0 to {self.most} for each mechanism, not {uses}")
        if not any(uses):
            return 0.0, self.method
        if self._losses is not None and (exact := _composed(self._losses, uses, self.delta)) is not None:
            return exact, "prv"
        bound = self._by_orders(uses)
        if not math.isfinite(bound):
            raise ValueError(f"noise is too little for any epsilon at delta {self.delta:g}: raise it")
        return bound, "rdp"

    @cached_property
    def _losses(self) -> Losses | None:
        return _shared(self.mechanisms, self.most, self.delta) if self.method == "prv" and any(self.most) else None

    def _by_orders(self, uses: tuple[int, ...]) -> float:
        """Epsilon by Renyi divergences: the least over their orders."""
        used = [(k, each) for k, each in zip(uses, self.mechanisms, strict=True) if k]
        divergence_A = sum((k * (_divergences(each) + SERIES_ERROR) for k, each in used), numpy.zeros(len(ORDERS_A)))
        rest_A = numpy.log1p(-1 / ORDERS_A) - (math.log(self.delta) + numpy.log(ORDERS_A)) / (ORDERS_A - 1)
        return max(float((divergence_A + rest_A).min()), 0.0)


# Peers with the same figures, as those of equal shards are, share what they come to.
@lru_cache(maxsize=8)
def _shared(mechanisms: tuple[Mechanism, ...], most: tuple[int, ...], delta: float) -> Losses | None:
    return losses(mechanisms, most, delta)


@lru_cache(maxsize=16)
def _composed(composed: Losses, uses: tuple[int, ...], delta: float) -> float | None:
    return composed.epsilon(uses, delta)


@lru_cache(maxsize=256)
def _divergences(mechanism: Mechanism) -> Floats:
    """The Renyi divergence of one use, in the worse direction, of each order; infinite where it cannot be told."""
    # It brings in torch.distributed: 2 s and 120 MB, which a run should not pay that has no need of it.
    from opacus.accountants.analysis import rdp

    def divergence(order: float) -> float:
        try:
            return float(rdp.compute_rdp(q=mechanism.rate, noise_multiplier=mechanism.noise, steps=1, orders=order))
        except (ValueError, OverflowError):  # its series leave the range of floating-point numbers
            return math.inf

    found_A = numpy.array([divergence(float(order)) for order in ORDERS_A])
    found_A[~(found_A >= 0)] = math.inf
    return found_A


@lru_cache(maxsize=256)
def noise_for(
    epsilon: float, rate: float, steps: int, delta: float, method: Method, tellings: tuple[float, int] = (1.0, 0)
) -> float:
    """The least noise, to some four digits, with which all `steps` cost at most `epsilon`, together with `tellings`.

    These are the noise of the losses that are told, and how many; they are sampled at the same rate.
    Raises ValueError where no noise will do.
    """

    def cost(noise: float, most: int = steps) -> float:
        mechanisms = Mechanism(rate, noise), Mechanism(rate, tellings[0])
        return Accountant(mechanisms, (most, tellings[1]), delta, method).epsilon((most, tellings[1]))

    losses_alone = cost(1.0, 0)
    if losses_alone >= epsilon:
        raise ValueError(
            f"epsilon of {epsilon:g} does not pay for the {tellings[1]} losses that are told, which cost "
            f"{losses_alone:.3g}: raise it, or their noise"
        )
    guess = _guess(epsilon, rate, steps, delta)
    digits = DIGITS - 1 - math.floor(math.log10(guess))

    def noise(count: int) -> float:
        return round(count * 10.0**-digits, digits)

    found = _least(lambda count: cost(noise(count)), epsilon, round(guess * 10.0**digits))
    if found is None:
        raise ValueError(f"epsilon of {epsilon:g} needs {MOST:g} times the noise that is usual: raise it")
    return noise(found)


def _guess(epsilon: float, rate: float, steps: int, delta: float) -> float:
    """About the noise, by the central limit theorem of Dong, Roth & Su 2019 for Gaussian differential privacy."""
    quantile = 0.9 * math.sqrt(2 * math.log(1 / delta))
    mu = 2 * epsilon / (math.sqrt(quantile**2 + 2 * epsilon) + quantile)
    return 1 / math.sqrt(math.log1p((mu / rate) ** 2 / max(steps, 1)))


def _least(cost: Callable[[int], float], target: float, guess: int) -> int | None:
    """The least count above 0 whose cost, which falls as it rises, is at most `target`; None where none is.

    Between two counts the cost is about a power law, so that a few figures are enough: each is expensive.
    """
    bracket = _bracket(cost, target, guess)
    if bracket is None:
        return None
    (low, cost_low), (high, cost_high) = bracket
    halved = True
    while high - low > 1:
        width = high - low
        power = math.log(high / low) / math.log(cost_low / max(cost_high, LEAST))
        middle = round(low * (cost_low / target) ** power) if halved else (low + high) // 2
        middle = min(max(middle, low + 1), high - 1)
        cost_middle = cost(middle)
        if cost_middle > target:
            low, cost_low = middle, cost_middle
        else:
            high, cost_high = middle, cost_middle
        halved = 2 * (high - low) <= width
    return high


def _bracket(cost: Callable[[int], float], target: float, guess: int) -> tuple[tuple[int, float], ...] | None:
    """Two counts near `guess`, and what they cost: above `target`, and not; None where nothing is cheap enough."""
    low = high = guess, cost(guess)
    while high[1] > target:
        if high[0] > MOST * guess:
            return None
        count = high[0] + max(high[0] // 4, 1)
        low, high = high, (count, cost(count))
    while low[1] <= target:
        if low[0] == 1:
            return (0, math.inf), low
        count = max(low[0] * 4 // 5, 1)
        low, high = (count, cost(count)), low
    return low, high
