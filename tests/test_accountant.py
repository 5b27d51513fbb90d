"""The privacy accountant, against exact formulas, integrals written out, and two other accountants."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy
import pytest
from dp_accounting.pld import privacy_loss_distribution
from hypothesis import given, settings
from hypothesis import strategies as st
from opacus.accountants import PRVAccountant, RDPAccountant
from scipy.optimize import brentq
from scipy.stats import norm

from p2pfl.defences._accountant import Accountant, Mechanism, Method, _least, noise_for
from p2pfl.defences._privacy_loss import _direction

Mechanisms = tuple[Mechanism, ...]
Uses = tuple[int, ...]

MNIST = Mechanism(256 / 60_000, 1.1)
SETTINGS: list[tuple[Mechanisms, Uses, float]] = [
    ((MNIST,), (14_040,), 1e-5),
    ((Mechanism(0.15, 4.0),), (1_000,), 1e-5),
    ((Mechanism(0.01, 6.0),), (200,), 1e-5),  # a small epsilon: 0.07
    ((Mechanism(0.02, 5.0),), (2_000,), 1e-7),
    ((Mechanism(1.0, 20.0),), (100,), 1e-5),
    ((Mechanism(0.001, 0.5),), (300,), 1e-6),  # a heavy tail: nearly all comes of the few that are sampled
    ((Mechanism(0.05, 2.0), Mechanism(0.05, 3.0)), (300, 40), 1e-5),
]
ROUNDING = 1e-9
"""Between two figures that would be the same in exact arithmetic."""


def spent(mechanisms: Mechanisms, uses: Uses, delta: float, method: Method = "prv") -> float:
    return Accountant(mechanisms, uses, delta, method).epsilon(uses)


def pld(mechanisms: Mechanisms, uses: Uses, delta: float, pessimistic: bool) -> float:
    """Epsilon by dp-accounting's privacy loss distributions, estimated from above or from below."""
    step = min(each.rate / each.noise for each in mechanisms) / 10
    parts = [
        privacy_loss_distribution.from_gaussian_mechanism(
            each.noise,
            sampling_prob=each.rate,
            pessimistic_estimate=pessimistic,
            value_discretization_interval=step,
            use_connect_dots=pessimistic,
        ).self_compose(count)
        for each, count in zip(mechanisms, uses, strict=True)
    ]
    composed = parts[0]
    for part in parts[1:]:
        composed = composed.compose(part)
    return float(composed.get_epsilon_for_delta(delta))


@pytest.mark.parametrize(("mechanisms", "uses", "delta"), SETTINGS)
def test_it_is_the_privacy_loss_distributions_within_a_percent_and_not_below_its_estimate_from_below(
    mechanisms: Mechanisms, uses: Uses, delta: float
) -> None:
    found, by = Accountant(mechanisms, uses, delta, "prv").epsilon_by(uses)
    above = pld(mechanisms, uses, delta, True)
    assert pld(mechanisms, uses, delta, False) <= found <= 1.005 * above
    assert found >= 0.998 * above  # which is above the truth itself
    assert by == "prv"


@pytest.mark.filterwarnings("ignore:Optimal order")
@pytest.mark.parametrize(("mechanisms", "uses", "delta"), SETTINGS)
def test_the_bound_by_renyi_divergences_is_larger(mechanisms: Mechanisms, uses: Uses, delta: float) -> None:
    bound, by = Accountant(mechanisms, uses, delta, "rdp").epsilon_by(uses)
    assert 1.005 < bound / spent(mechanisms, uses, delta) < 1.6
    assert by == "rdp"
    opacus = RDPAccountant()
    opacus.history = [(each.noise, each.rate, count) for each, count in zip(mechanisms, uses, strict=True)]
    assert bound <= opacus.get_epsilon(delta) + 1e-6


def test_it_gives_the_known_figures_of_a_well_known_setting() -> None:
    assert spent((MNIST,), (14_040,), 1e-5, "rdp") == pytest.approx(2.594, abs=6e-4)
    assert spent((MNIST,), (14_040,), 1e-5) == pytest.approx(2.380, rel=1e-3)
    opacus = PRVAccountant()
    opacus.history = [(MNIST.noise, MNIST.rate, 14_040)]
    composed = opacus._get_dprv(eps_error=0.01, delta_error=1e-8)
    below, _, above = composed.compute_epsilon(1e-5, 1e-8, 0.01)
    assert below < spent((MNIST,), (14_040,), 1e-5) < above


def gaussian(mu: float, delta: float) -> float:
    """Epsilon of a Gaussian mechanism whose means are `mu` deviations apart (Balle & Wang 2018, theorem 8)."""

    def excess(epsilon: float) -> float:
        other = math.exp(epsilon + norm.logcdf(-mu / 2 - epsilon / mu))
        return float(norm.cdf(mu / 2 - epsilon / mu)) - other - delta

    return float(brentq(excess, 0, mu * mu + 10 * mu, xtol=1e-12))


@pytest.mark.parametrize("noise", [0.3, 1.0, 30.0])
@pytest.mark.parametrize("uses", [1, 2, 500])
@pytest.mark.parametrize("delta", [1e-3, 1e-5, 1e-8])
def test_without_sampling_it_is_the_exact_figure_and_never_below(noise: float, uses: int, delta: float) -> None:
    exact = gaussian(math.sqrt(uses) / noise, delta)
    found, by = Accountant((Mechanism(1.0, noise),), (uses,), delta, "prv").epsilon_by((uses,))
    assert exact <= found
    assert by == "rdp" or found <= 1.002 * exact
    assert by == "prv" or exact > 200


def written_out(one: Mechanism, other: Mechanism, epsilon: float, added: bool) -> float:
    """The least delta of one use of each, as the double integral over all that they may say."""

    def said(mechanism: Mechanism) -> tuple[numpy.ndarray, numpy.ndarray]:
        x_X = numpy.linspace(-9 * mechanism.noise, 1 + 9 * mechanism.noise, 1_201)
        without = norm.pdf(x_X, 0, mechanism.noise)
        mixed = (1 - mechanism.rate) * without + mechanism.rate * norm.pdf(x_X, 1, mechanism.noise)
        p_X, q_X = (without, mixed) if added else (mixed, without)
        return p_X * (x_X[1] - x_X[0]), numpy.log(q_X / p_X)

    (p_X, ratio_X), (p_Y, ratio_Y) = said(one), said(other)
    gained = numpy.maximum(1 - numpy.exp(epsilon + ratio_X[:, None] + ratio_Y), 0)
    return float(p_X @ gained @ p_Y)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Mechanism(0.2, 0.8), Mechanism(0.2, 0.8)),
        (Mechanism(0.5, 2.0), Mechanism(0.1, 1.0)),
        (Mechanism(0.9, 1.0), Mechanism(0.02, 5.0)),
        (Mechanism(1.0, 3.0), Mechanism(0.3, 0.6)),
    ],
)
def test_of_two_uses_it_is_the_integral_in_the_worse_direction(one: Mechanism, other: Mechanism) -> None:
    for delta in (1e-2, 1e-4):
        found = spent((one, other), (1, 1), delta)
        worse = max(written_out(one, other, found, added) for added in (False, True))
        assert worse <= delta * (1 + 1e-4)
        assert max(written_out(one, other, 0.995 * found, added) for added in (False, True)) > delta


@pytest.mark.parametrize("added", [False, True])
def test_what_is_above_a_grid_counts_as_infinite(added: bool) -> None:
    loss_N = 0.01 * numpy.arange(-1_000, 301)
    short = _direction((Mechanism(1.0, 1.0),), (1,), loss_N, 50.0, added)
    above = float(norm.sf(2.5))  # a loss above 3
    found = short.epsilon(numpy.ones(1), 0.05)
    assert found is not None
    assert gaussian(1.0, 0.05) < found
    assert found == pytest.approx(gaussian(1.0, 0.05 - (above - math.exp(3) * norm.sf(3.5))), abs=0.15)
    assert short.epsilon(numpy.ones(1), 2 * above) is None


@given(
    st.floats(0.001, 1),
    st.floats(0.5, 20),
    st.floats(0.5, 20),
    st.tuples(st.integers(0, 40), st.integers(0, 10)),
    st.sampled_from(["prv", "rdp"]),
)
@settings(max_examples=25, deadline=None)
def test_more_uses_never_cost_less(rate: float, noise: float, told: float, uses: Uses, method: Method) -> None:
    steps, tellings = uses
    accountant = Accountant((Mechanism(rate, noise), Mechanism(rate, told)), (41, 11), 1e-5, method)
    here = accountant.epsilon((steps, tellings))
    assert 0 <= here <= accountant.epsilon((steps + 1, tellings)) + ROUNDING
    assert here <= accountant.epsilon((steps, tellings + 1)) + ROUNDING
    assert accountant.epsilon((0, 0)) == 0


def test_few_uses_cost_as_much_whatever_they_are_set_aside_for() -> None:
    many = Accountant((MNIST, Mechanism(MNIST.rate, 10.0)), (14_040, 100), 1e-5, "prv")
    for steps in (1, 7, 1_000):
        assert many.epsilon((steps, 0)) == pytest.approx(spent((MNIST,), (steps,), 1e-5), rel=2e-3)


@pytest.mark.parametrize(
    ("mechanism", "uses", "delta"),
    [
        (Mechanism(0.01, 0.05), 100_000, 1e-5),  # too large a loss
        (MNIST, 14_040, 1e-14),  # delta is not above the rounding
        (Mechanism(1e-6, 0.5), 1_000, 1e-9),  # so fine a grid is not made
        (Mechanism(1.0, 1e-3), 10, 1e-5),
    ],
)
def test_where_the_loss_fits_a_grid_badly_or_not_at_all_the_figure_is_still_an_upper_bound_and_says_by_what(
    mechanism: Mechanism, uses: int, delta: float
) -> None:
    with numpy.errstate(all="raise", under="ignore"):
        found, by = Accountant((mechanism,), (uses,), delta, "prv").epsilon_by((uses,))
    bound = spent((mechanism,), (uses,), delta, "rdp")
    assert found <= bound < math.inf
    assert (by == "rdp") == (found == bound)
    assert found >= 0.99 * spent((mechanism,), (uses,), max(delta, 1e-9))  # less delta costs more


def test_what_is_asked_for_wrongly_is_refused() -> None:
    accountant = Accountant((MNIST,), (10,), 1e-5, "prv")
    for uses in ((11,), (-1,), (1, 1)):
        with pytest.raises(ValueError, match="uses must be from 0 to"):
            accountant.epsilon(uses)
    for rate, noise in ((0.0, 1.0), (1.1, 1.0), (0.5, 0.0), (0.5, math.inf), (math.nan, 1.0)):
        with pytest.raises(ValueError, match=r"^(rate|noise) must be"):
            Mechanism(rate, noise)
    with pytest.raises(ValueError, match="delta must be"):
        Accountant((MNIST,), (10,), 1.0, "prv")
    with pytest.raises(ValueError, match="most must be"):
        Accountant((MNIST,), (10, 1), 1e-5, "prv")


@given(st.integers(2, 400), st.integers(1, 400), st.sampled_from([0.3, 1.0, 4.0]), st.sampled_from([0.0, 0.5, 0.999]))
def test_the_search_finds_the_first_that_is_cheap_enough(answer: int, guess: int, power: float, part: float) -> None:
    def cost(count: int) -> float:
        return float((1000 / count) ** power - 0.1)

    target = cost(answer) + part * (cost(answer - 1) - cost(answer))
    assert _least(cost, target, guess) == answer
    assert _least(cost, cost(1), guess) == 1


@pytest.mark.parametrize(
    ("epsilon", "rate", "steps", "method", "tellings"),
    [
        (4.183, 0.05, 1_000, "prv", (10.0, 100)),
        (2.0, MNIST.rate, 14_040, "prv", (10.0, 0)),
        (0.1, 0.01, 500, "prv", (200.0, 20)),
        (20.0, 1.0, 50, "prv", (20.0, 10)),
        (4.0, 0.05, 1_000, "rdp", (10.0, 100)),
    ],
)
def test_the_noise_that_is_found_keeps_the_budget_and_hardly_less_would(
    epsilon: float, rate: float, steps: int, method: Method, tellings: tuple[float, int]
) -> None:
    noise = noise_for(epsilon, rate, steps, 1e-5, method, tellings)
    told, count = tellings

    def cost(noise: float) -> float:
        return spent((Mechanism(rate, noise), Mechanism(rate, told)), (steps, count), 1e-5, method)

    assert cost(noise) <= epsilon < cost(0.995 * noise)
    assert float(f"{noise:.5g}") == noise
    assert noise == noise_for.__wrapped__(epsilon, rate, steps, 1e-5, method, tellings)


def test_losses_that_cost_more_than_the_budget_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^epsilon of 0\.5 does not pay for the 100 losses that are told.*raise it"):
        noise_for(0.5, 0.05, 10, 1e-5, "prv", (1.0, 100))
    almost = spent((Mechanism(0.05, 1.0),), (100,), 1e-5) * (1 + 1e-12)
    with pytest.raises(ValueError, match=r"^epsilon of .* needs 1000 times the noise"):
        noise_for(almost, 0.05, 10, 1e-5, "prv", (1.0, 100))


def test_who_composes_the_loss_itself_does_not_pay_for_another_library() -> None:
    script = (
        "import sys; from p2pfl.defences._accountant import Accountant, Mechanism, noise_for; "
        "noise_for(4.0, 0.05, 100, 1e-5, 'prv', (10.0, 5)); "
        "print(sorted({'opacus', 'torch.distributed', 'dp_accounting'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
