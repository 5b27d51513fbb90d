"""Partitions: every example is given exactly once, to whom the rule says."""

from __future__ import annotations

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pfl import plugins
from p2pfl.errors import ScenarioError
from p2pfl.learning.partitions.dirichlet import Dirichlet
from p2pfl.learning.partitions.iid import Iid

ROOM = plugins.names("partitions")


def rng(seed: int = 0) -> numpy.random.Generator:
    return numpy.random.default_rng(seed)


@settings(max_examples=60, deadline=None)
@given(st.data())
@pytest.mark.parametrize("name", ROOM)
def test_every_example_is_given_exactly_once(name: str, data: st.DataObject) -> None:
    peers, batch = data.draw(st.integers(1, 12)), data.draw(st.integers(1, 6))
    count = data.draw(st.integers(peers * batch, peers * batch + 60))
    labels, seed = rng(1).integers(0, data.draw(st.integers(1, 5)), count), data.draw(st.integers(0, 999))
    before = labels.copy()
    shares = plugins.build("partitions", name, {}).split(labels, peers, batch, rng(seed))
    assert len(shares) == peers
    assert sorted(numpy.concatenate(shares).tolist()) == list(range(count))
    assert all(share.dtype == numpy.int64 and len(share) > 0 for share in shares)
    assert numpy.array_equal(labels, before)
    again = plugins.build("partitions", name, {}).split(labels, peers, batch, rng(seed))
    assert all(numpy.array_equal(a, b) for a, b in zip(shares, again, strict=True))


@given(count=st.integers(1, 200), peers=st.integers(1, 40))
def test_iid_shares_are_equal_to_within_one(count: int, peers: int) -> None:
    if count < peers:
        with pytest.raises(ScenarioError, match="too few"):
            Iid().split(numpy.zeros(count, int), peers, 1, rng())
    else:
        sizes = [len(share) for share in Iid().split(numpy.zeros(count, int), peers, 1, rng())]
        assert max(sizes) - min(sizes) <= 1


@settings(max_examples=60, deadline=None)
@given(
    alpha=st.sampled_from([1e-310, 1e-3, 0.05, 0.3, 1.0, 1e4]),
    peers=st.integers(1, 15),
    batch=st.integers(1, 8),
    spare=st.integers(0, 50),
    seed=st.integers(0, 999),
)
def test_with_dirichlet_every_peer_has_a_batch(alpha: float, peers: int, batch: int, spare: int, seed: int) -> None:
    labels = rng(seed).integers(0, 4, peers * batch + spare)
    shares = Dirichlet(alpha).split(labels, peers, batch, rng(seed))
    assert min(len(share) for share in shares) >= batch
    assert sorted(numpy.concatenate(shares).tolist()) == list(range(len(labels)))


def test_dirichlet_without_a_batch_for_each_is_refused() -> None:
    with pytest.raises(ScenarioError, match="39 examples do not make a batch of 10 for each of 4 peers"):
        Dirichlet().split(numpy.zeros(39, int), 4, 10, rng())


def test_a_small_alpha_gives_peers_few_classes_and_a_large_one_all_of_them_alike() -> None:
    labels = numpy.arange(10_000) % 10

    def largest_share_of_a_class(alpha: float) -> float:
        shares = Dirichlet(alpha).split(labels, 5, 1, rng())
        return float(numpy.mean([numpy.bincount(labels[s], minlength=10).max() / len(s) for s in shares]))

    assert largest_share_of_a_class(0.05) > 0.3
    assert largest_share_of_a_class(1e4) < 0.12


def test_proportions_are_those_of_the_dirichlet_distribution() -> None:
    """With one class the variance of a peer's share is (p - 1) / (p^2 (p alpha + 1))."""
    peers, alpha = 4, 0.5
    labels = numpy.zeros(1000, int)
    shares = [len(Dirichlet(alpha).split(labels, peers, 1, rng(seed))[0]) / 1000 for seed in range(400)]
    assert numpy.mean(shares) == pytest.approx(1 / peers, abs=0.04)
    assert numpy.var(shares) == pytest.approx((peers - 1) / (peers**2 * (peers * alpha + 1)), rel=0.2)


@pytest.mark.parametrize("alpha", [0.0, -1.0])
def test_alpha_must_be_positive(alpha: float) -> None:
    with pytest.raises(ScenarioError, match="alpha must be positive") as error:
        plugins.build("partitions", "dirichlet", {"alpha": alpha})
    assert error.value.path == ("alpha",)
