"""Metrics, against their definitions written out."""

from __future__ import annotations

import math
import statistics

import numpy
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from p2pfl.metrics.consensus import consensus_distance, consensus_model
from p2pfl.metrics.intervals import mean_interval, paired_interval, share_interval, unpaired_interval

runs = st.lists(st.floats(-10, 10).map(lambda x: round(x, 3)), min_size=2, max_size=8)


def models(count: int, size: int = 50) -> list[torch.Tensor]:
    return list(torch.randn(count, size, generator=torch.Generator().manual_seed(count)))


@pytest.mark.parametrize("count", [1, 2, 7])
def test_consensus_is_as_defined(count: int) -> None:
    rows = [model.tolist() for model in models(count)]
    mean = [statistics.fmean(column) for column in zip(*rows, strict=True)]
    squares = [math.fsum((a - b) ** 2 for a, b in zip(row, mean, strict=True)) for row in rows]
    assert consensus_model(models(count)).tolist() == pytest.approx(mean, rel=1e-6, abs=1e-7)
    assert consensus_distance(models(count)) == pytest.approx(math.sqrt(statistics.fmean(squares)), rel=1e-9)


def test_peers_that_agree_are_at_distance_0_and_nothing_is_altered() -> None:
    model = models(1)[0]
    copy = model.clone()
    assert consensus_distance([model] * 3) == 0
    consensus_model([model, model + 1])
    assert torch.equal(model, copy)
    assert consensus_model([model]).dtype == torch.float32


def test_a_small_difference_between_large_models_is_seen() -> None:
    one = torch.full((1000,), 1000.0, dtype=torch.float32)
    other = one + 1e-3
    expected = math.sqrt(1000) * (other[0].double() - one[0].double()).item() / 2
    assert consensus_distance([one, other]) == pytest.approx(expected, rel=1e-9)


def test_no_models_have_no_mean() -> None:
    with pytest.raises(ValueError, match="at least one"):
        consensus_distance([])


@given(runs)
def test_the_interval_of_a_mean_is_students(values: list[float]) -> None:
    found = mean_interval(values)
    expected = stats.t.interval(0.95, len(values) - 1, numpy.mean(values), max(stats.sem(values), 1e-300))
    assert (found.low, found.high) == pytest.approx(expected, abs=1e-9)
    assert found.estimate == pytest.approx(numpy.mean(values), abs=1e-12)


@given(runs, st.floats(-5, 5))
def test_paired_runs_are_compared_run_by_run(values: list[float], shift: float) -> None:
    found = paired_interval([value + shift for value in values], values)
    assert (found.low, found.estimate, found.high) == pytest.approx((shift, shift, shift), abs=1e-9)


def test_unpaired_runs_are_compared_as_welch_does() -> None:
    ours, theirs = [0.91, 0.93, 0.92, 0.95], [0.90, 0.85, 0.95]
    found = unpaired_interval(ours, theirs)
    expected = stats.ttest_ind(ours, theirs, equal_var=False).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), rel=1e-9)
    assert unpaired_interval([1.0, 1.0], [0.5, 0.5]).low == 0.5


@pytest.mark.parametrize(("successes", "trials"), [(0, 1), (0, 20), (7, 20), (20, 20), (450, 1000)])
def test_the_interval_of_a_share_is_wilsons(successes: int, trials: int) -> None:
    found = share_interval(successes, trials)
    expected = stats.binomtest(successes, trials).proportion_ci(0.95, method="wilson")
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert 0 <= found.low <= found.estimate <= found.high <= 1


def test_too_few_runs_have_no_interval() -> None:
    for act in (
        lambda: mean_interval([1.0]),
        lambda: paired_interval([1.0, 2.0], [1.0]),
        lambda: unpaired_interval([1.0, 2.0], [1.0]),
        lambda: share_interval(0, 0),
        lambda: share_interval(3, 2),
    ):
        with pytest.raises(ValueError, match=r"runs|share"):
            act()
