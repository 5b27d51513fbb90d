"""The privacy loss of Poisson-subsampled Gaussians, composed by fast Fourier transform: an upper bound on epsilon.

The loss of a mechanism is the random variable log P/Q under P, P and Q being what it says of two neighbouring sets of
examples. Losses of several uses add up, so their distributions convolve. Each is put on a grid so that its
hockey-stick curve is nowhere below the true one and touches it at each point of the grid: that bound holds for all that
is composed, on the coarsest grid too, and its error falls with the square of the grid's step. One example is added or
removed, and the two are not mirror images: both directions are composed, the worse one counts.
Sources: Gopi, Lee & Wutschitz 2021, "Numerical Composition of Differential Privacy" (the composition); Doroshenko,
Ghazi, Kamath, Kumar & Manurangsi 2022, "Connect the Dots: Tighter Discrete Approximations of Privacy Loss
Distributions", algorithm 1 (the grid).
Shapes: J mechanisms, N points of a grid, F = N / 2 + 1 frequencies, X points of a quadrature, L exponents.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy
from numpy.typing import NDArray
from scipy.special import logsumexp, ndtr  # type: ignore[import-untyped]

Floats = NDArray[numpy.float64]

STEP = 1 / 8
"""The grid's step, of the deviation of one use's loss: it adds a tenth of a percent to epsilon."""
FEWEST_POINTS, MOST_POINTS = 2**12, 2**18
"""Where more would be wanted the bound holds too, only not so closely."""
MOST_LOSS = 300.0
"""Nobody is protected by such an epsilon, and its exponential is still a number."""
TAIL = 1e-4
"""The part of delta that pays for what is beyond the grid."""
EPS = float(numpy.finfo(float).eps)


@dataclass(frozen=True)
class Mechanism:
    """A Gaussian mechanism on a Poisson sample.

    Each example takes part with probability `rate`; noise has `noise` times the sensitivity.
    """

    rate: float
    noise: float

    def __post_init__(self) -> None:
        if not 0 < self.rate <= 1:
            raise ValueError(f"rate must be above 0 and at most 1, not {self.rate}: it is a probability")
        if not 0 < self.noise < math.inf:
            raise ValueError(f"noise must be above 0 and finite, not {self.noise}: without it nothing is hidden")


@dataclass(frozen=True, eq=False)
class Direction:
    """The losses of J mechanisms where an example is removed, or added: logarithms of their transforms.

    The points of the grid are whole multiples of `step`: 0, `above` more, then those below 0, as transforms have them.
    """

    step: float
    above: int
    logs_JF: NDArray[numpy.complex128]
    infinite_J: Floats
    beyond: float
    """The probability that a sum of losses is above the grid: it would come back at its low end."""

    def epsilon(self, uses_J: Floats, delta: float) -> float | None:
        """The least epsilon that these uses keep at `delta`; None where errors may be half of `delta`."""
        # Sums, and no matrix products: the threads of these wait for each other longer than such a product takes.
        pmf_N = numpy.fft.irfft(numpy.exp((uses_J[:, None] * self.logs_JF).sum(0)))
        uses, points = float(uses_J.sum()), len(pmf_N)
        # A power multiplies the rounding of a transform, which is spread over all points like white noise.
        rounding = 4 * EPS * (uses + math.log2(points)) * (1 + math.sqrt(points * float((pmf_N**2).sum())))
        left = delta - self.beyond - rounding - float((uses_J * self.infinite_J).sum())
        if not left > delta / 2:
            return None
        loss_P, pmf_P = self.step * numpy.arange(self.above + 1), pmf_N[: self.above + 1]
        p_P = numpy.cumsum(pmf_P[::-1])[::-1]
        q_P = numpy.cumsum((pmf_P * numpy.exp(-loss_P))[::-1])[::-1]
        at = int(numpy.argmax(p_P - numpy.exp(loss_P) * q_P <= left))  # the last point is always low enough
        if at == 0:
            return 0.0
        between = math.log(max((p_P[at] - left) / q_P[at], 1.0))
        rounded = uses * points * EPS  # each cell may have put its mass so far off, over `step`
        return float(min(max(between, loss_P[at - 1]), loss_P[at])) + rounded


@dataclass(frozen=True)
class Losses:
    """The losses of some mechanisms in both directions, on a grid for at most so many uses of each."""

    directions: tuple[Direction, Direction]

    def epsilon(self, uses: tuple[int, ...], delta: float) -> float | None:
        """The least epsilon of these uses at `delta`, from above; None where it cannot be told."""
        found = [direction.epsilon(numpy.array(uses, float), delta) for direction in self.directions]
        return None if None in found else max(each for each in found if each is not None)


def losses(mechanisms: tuple[Mechanism, ...], most: tuple[int, ...], delta: float) -> Losses | None:
    """The losses of up to `most` uses of each, to be asked at `delta`; None where they are too large for any grid."""
    removed, added = (_span(mechanisms, most, delta * TAIL, added) for added in (False, True))
    up, down = max(removed.up, added.up), max(removed.down, added.down)
    if not max(up, down) < MOST_LOSS:
        return None
    wanted = (up + down) / (STEP * removed.deviation)
    points = min(max(2 ** math.ceil(math.log2(wanted + 3)), FEWEST_POINTS), MOST_POINTS)
    step = (up + down) / (points - 3)
    loss_N = step * (numpy.arange(points) + math.ceil(up / step) + 1 - points)
    directions = (
        _direction(mechanisms, most, loss_N, removed.exponent, False),
        _direction(mechanisms, most, loss_N, added.exponent, True),
    )
    return Losses(directions)


@dataclass(frozen=True)
class Span:
    """How far up and down sums of losses go but for the least probability, and the deviation of the loss of one use.

    `exponent` is that of Chernoff's bound above.
    """

    up: float
    down: float
    deviation: float
    exponent: float


def _span(mechanisms: tuple[Mechanism, ...], most: tuple[int, ...], tail: float, added: bool) -> Span:
    """The span of `most` uses but for a probability of `tail`, by Chernoff's bound; no fewer uses go further."""
    tables = [(k, *_quadrature(each, tail / k, added)) for k, each in zip(most, mechanisms, strict=True) if k]
    square = sum(k * float((numpy.exp(log_X) * loss_X**2).sum()) for k, loss_X, log_X in tables)
    deviation = math.sqrt(square)
    exponent_L = numpy.geomspace(min(0.1 / deviation, 0.5), 20 / deviation, 60)

    def reach(sign: int) -> Floats:
        cost_L = numpy.full(len(exponent_L), -math.log(tail))
        for k, loss_X, log_X in tables:
            moment_L = logsumexp(sign * numpy.outer(exponent_L, loss_X) + log_X, axis=1)
            cost_L += k * numpy.maximum(moment_L, 0.0)  # below 0 it would be more for fewer uses
        reached_L: Floats = cost_L / exponent_L
        return reached_L

    up_L, down_L = reach(1), reach(-1)
    best = float(exponent_L[up_L.argmin()])
    return Span(float(up_L.min()), float(down_L.min()), deviation / math.sqrt(sum(most)), best)


def _quadrature(mechanism: Mechanism, tail: float, added: bool) -> tuple[Floats, Floats]:
    """Losses of one use, and the logarithms of their probabilities, by the trapezoid rule but for `tail` of them."""
    q, sigma = mechanism.rate, mechanism.noise
    far = sigma * (math.sqrt(-2 * math.log(tail)) + 1)
    x_X = numpy.linspace(-far, 1 + far, 2049)
    without_X, with_X = -((x_X / sigma) ** 2) / 2, -(((x_X - 1) / sigma) ** 2) / 2
    ratio_X = (2 * x_X - 1) / (2 * sigma**2)
    loss_X = numpy.logaddexp(math.log1p(-q), math.log(q) + ratio_X) if q < 1 else ratio_X
    if added:
        loss_X, log_X = -loss_X, without_X
    else:
        log_X = numpy.logaddexp(math.log1p(-q) + without_X, math.log(q) + with_X) if q < 1 else with_X
    return loss_X, log_X - logsumexp(log_X)


def _direction(
    mechanisms: tuple[Mechanism, ...], most: tuple[int, ...], loss_N: Floats, exponent: float, added: bool
) -> Direction:
    """The losses on a grid whose points are whole multiples of its step; `exponent` bounds what goes beyond it."""
    step, lowest = float(loss_N[1] - loss_N[0]), round(loss_N[0] / (loss_N[1] - loss_N[0]))
    logs, infinite, beyond = [], [], -exponent * float(loss_N[-1])
    for each, uses in zip(mechanisms, most, strict=True):
        pmf_N, lost = _on_grid(each, loss_N, step, added)
        some_N = pmf_N > 0
        beyond += uses * max(float(logsumexp(exponent * loss_N[some_N] + numpy.log(pmf_N[some_N]))), 0.0)
        transform_F = numpy.fft.rfft(numpy.roll(pmf_N, lowest))
        transform_F[numpy.abs(transform_F) < 1e-300] = 1e-300  # the logarithm of 0, times no use, is no number
        logs.append(numpy.log(transform_F))
        infinite.append(lost)
    highest = len(loss_N) - 1 + lowest
    return Direction(step, highest, numpy.array(logs), numpy.array(infinite), math.exp(min(beyond, 0.0)))


def _on_grid(mechanism: Mechanism, loss_N: Floats, step: float, added: bool) -> tuple[Floats, float]:
    """Probabilities of the grid's points for one use, and of a loss above all of them, which counts as infinite.

    What lies between two points goes to both, so that neither its probability under P nor that under Q changes.
    """
    q, sigma = mechanism.rate, mechanism.noise
    side = -1 if added else 1
    with numpy.errstate(divide="ignore"):  # no output has a loss of log(1 - q) or below: its place is -infinity
        place_N = sigma**2 * numpy.log1p(numpy.maximum(numpy.expm1(side * loss_N) / q, -1.0)) + 0.5
    without_N, with_N = side * place_N / sigma, side * (place_N - 1) / sigma
    # Places rise with the loss, seen from the other side where an example is added.
    without, mixed = _masses(without_N), (1 - q) * _masses(without_N) + q * _masses(with_N)
    p, q_masses = (without, mixed) if added else (mixed, without)
    inner_p, inner_q = p[1:-1], q_masses[1:-1]
    upper = numpy.clip((inner_p - numpy.exp(loss_N[:-1]) * inner_q) / -math.expm1(-step), 0.0, inner_p)
    pmf_N = numpy.concatenate([p[:1], upper]) + numpy.concatenate([inner_p - upper, [0.0]])
    return pmf_N, float(p[-1])


def _masses(z_N: NDArray[Any]) -> Floats:
    """What a standard normal puts below the first of these points, between each two, and above the last."""
    between = numpy.where(z_N[:-1] > 0, ndtr(-z_N[:-1]) - ndtr(-z_N[1:]), ndtr(z_N[1:]) - ndtr(z_N[:-1]))
    masses: Floats = numpy.concatenate([[ndtr(z_N[0])], between, [ndtr(-z_N[-1])]])
    return masses
