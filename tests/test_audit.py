"""The audit: a lower bound on epsilon from right guesses, against the theorem written out and a known mechanism."""

from __future__ import annotations

import math

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from p2pfl.defences._accountant import Accountant, Mechanism
from p2pfl.defences._audit import guesses, lower_bound, probability


def theorem(canaries: int, guessed: int, right: int, epsilon: float, delta: float) -> float:
    """Theorem 5.2, one term after the other: f(v) + 2 m delta max_i (f(v - i) - f(v)) / i."""
    rate = math.exp(epsilon) / (1 + math.exp(epsilon))

    def f(v: int) -> float:
        return sum(float(binom.pmf(k, guessed, rate)) for k in range(max(v, 0), guessed + 1))

    steepest = max((f(right - i) - f(right)) / i for i in range(1, canaries + 1))
    return min(f(right) + 2 * canaries * delta * steepest, 1.0)


counts = st.integers(1, 25).flatmap(
    lambda m: st.integers(0, m).flatmap(lambda r: st.tuples(st.just(m), st.just(r), st.integers(0, r)))
)


@given(counts, st.floats(0, 6), st.sampled_from([0.0, 1e-5, 1e-2, 0.5]))
@settings(max_examples=60, deadline=None)
def test_the_probability_is_that_of_the_theorem(counted: tuple[int, int, int], epsilon: float, delta: float) -> None:
    assert probability(*counted, epsilon, delta) == pytest.approx(theorem(*counted, epsilon, delta), abs=1e-9)


def test_the_bound_is_the_papers() -> None:
    assert lower_bound(1_000, 100, 75, 1e-4) == pytest.approx(0.673, abs=6e-4)  # appendix D


@given(counts, st.sampled_from([0.0, 1e-3, 0.1]), st.sampled_from([0.9, 0.95, 0.99]))
@settings(max_examples=40, deadline=None)
def test_the_bound_is_refuted_and_hardly_more_is(
    counted: tuple[int, int, int], delta: float, confidence: float
) -> None:
    found = lower_bound(*counted, delta, confidence)
    if found:
        assert theorem(*counted, found, delta) < 1 - confidence + 1e-9
    assert theorem(*counted, found + 1e-5, delta) >= 1 - confidence - 1e-6


def test_more_right_guesses_refute_more_and_a_larger_delta_or_confidence_less() -> None:
    bounds = [lower_bound(500, 100, right, 1e-5) for right in range(101)]
    assert bounds == sorted(bounds)
    assert bounds[50] == 0 < bounds[65] < bounds[100]
    assert lower_bound(500, 100, 90, 1e-3) < lower_bound(500, 100, 90, 1e-5) < lower_bound(500, 100, 90, 0.0)
    assert lower_bound(500, 100, 90, 1e-5, 0.99) < lower_bound(500, 100, 90, 1e-5, 0.9)


def test_without_guesses_nothing_is_refuted() -> None:
    assert lower_bound(100, 0, 0, 1e-5) == 0
    assert lower_bound(0, 0, 0, 1e-5) == 0
    assert lower_bound(100, 100, 100, 1.0 - 1e-9) == 0


def test_impossible_counts_are_refused() -> None:
    for counted in ((10, 11, 5), (10, 5, 6), (10, 5, -1)):
        with pytest.raises(ValueError, match="must not fall"):
            lower_bound(*counted, 1e-5)
    for delta, confidence in ((-0.1, 0.95), (1.0, 0.95), (0.1, 1.0), (0.1, 0.0)):
        with pytest.raises(ValueError, match="between 0 and 1"):
            lower_bound(10, 5, 5, delta, confidence)


@given(st.lists(st.integers(-5, 5), max_size=30), st.floats(0.01, 0.5))
def test_the_highest_are_guessed_in_the_lowest_out_and_as_many(scores: list[int], share: float) -> None:
    guessed = guesses(numpy.array(scores, float), share)
    inside = [score for score, guess in zip(scores, guessed, strict=True) if guess == 1]
    outside = [score for score, guess in zip(scores, guessed, strict=True) if guess == -1]
    ranked = sorted(scores)
    count = math.floor(share * len(scores))
    assert sorted(outside) == ranked[:count]
    assert sorted(inside) == ranked[len(ranked) - count :]
    assert len(guessed) == len(scores)


@pytest.mark.parametrize("share", [0.0, 0.51, math.nan])
def test_a_share_of_more_than_half_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match="share must be"):
        guesses(numpy.zeros(4), share)


@pytest.mark.parametrize("noise", [0.5, 1.0, 2.0])
def test_the_bound_of_a_gaussian_mechanism_is_below_its_epsilon_and_not_nothing(noise: float) -> None:
    true = Accountant((Mechanism(1.0, noise),), (1,), 1e-5, "prv").epsilon((1,))
    bounds = []
    for seed in range(20):
        draw = numpy.random.default_rng(seed)
        inside = draw.random(2_000) < 0.5
        guessed = guesses(inside + noise * draw.standard_normal(2_000), 0.1)
        right = int((guessed == numpy.where(inside, 1, -1)).sum())
        bounds.append(lower_bound(2_000, int((guessed != 0).sum()), right, 1e-5))
    assert sum(bound > true for bound in bounds) <= 3
    assert min(bounds) > 0.2 * true


def test_guessing_at_random_is_seldom_taken_for_a_leak() -> None:
    draw = numpy.random.default_rng(0)
    leaks = sum(lower_bound(200, 100, int(draw.binomial(100, 0.5)), 0.0) > 0 for _ in range(200))
    assert leaks <= 20  # 5 % of them, were it not for whole numbers
