"""Aggregators: what every rule keeps to, and that the mean is the mean."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from p2pfl import plugins
from p2pfl.aggregators.mean import Mean
from p2pfl.contracts import Aggregator


def rows(count: int, size: int = 40) -> list[Tensor]:
    return list(torch.randn(count, size, generator=torch.Generator().manual_seed(count)))


@pytest.fixture(params=plugins.names("aggregators"))
def aggregator(request: pytest.FixtureRequest) -> Aggregator:
    return plugins.build("aggregators", request.param, {})


@pytest.mark.parametrize("count", [1, 2, 7])
def test_the_mean_is_the_weighted_sum(count: int) -> None:
    weights = [0.5 / (k + 1) for k in range(count)]
    expected = sum(weight * row.double() for weight, row in zip(weights, rows(count), strict=True))
    torch.testing.assert_close(Mean().merge(rows(count), weights).double(), expected, rtol=1e-5, atol=1e-6)


def test_weights_must_be_as_many_as_rows() -> None:
    with pytest.raises(ValueError, match="zip"):
        Mean().merge(rows(2), [1.0])
