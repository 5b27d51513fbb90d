"""Partitions: every example is given exactly once, to whom the rule says."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pfl import plugins
from p2pfl.errors import ScenarioError
from p2pfl.learning.data import Examples
from p2pfl.learning.partitions.by_column import ByColumn
from p2pfl.learning.partitions.by_file import ByFile
from p2pfl.learning.partitions.dirichlet import Dirichlet
from p2pfl.learning.partitions.iid import Iid
from p2pfl.learning.partitions.shards import Shards

ROOM = plugins.names("partitions")
NEEDED = {"by_column": {"column": "writer"}}


def plain(labels: numpy.ndarray) -> Examples:
    return Examples(labels)


def dealt(names: str, peers: int, partition: ByColumn | ByFile | None = None, column: str = "writer") -> list[str]:
    """What each peer is given of examples whose column holds these letters, as a word."""
    letters = numpy.array(list(names))
    examples = Examples(numpy.zeros(len(letters), int), {column: letters})
    shares = (partition or ByColumn(column)).split(examples, peers, 1, rng())
    return ["".join(letters[share]) for share in shares]


def rng(seed: int = 0) -> numpy.random.Generator:
    return numpy.random.default_rng(seed)


@given(count=st.integers(1, 200), peers=st.integers(1, 40))
def test_iid_shares_are_equal_to_within_one(count: int, peers: int) -> None:
    if count < peers:
        with pytest.raises(ScenarioError, match="too few"):
            Iid().split(plain(numpy.zeros(count, int)), peers, 1, rng())
    else:
        sizes = [len(share) for share in Iid().split(plain(numpy.zeros(count, int)), peers, 1, rng())]
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
    shares = Dirichlet(alpha).split(plain(labels), peers, batch, rng(seed))
    assert min(len(share) for share in shares) >= batch
    assert sorted(numpy.concatenate(shares).tolist()) == list(range(len(labels)))


def test_dirichlet_without_a_batch_for_each_is_refused() -> None:
    with pytest.raises(ScenarioError, match="39 examples do not make a batch of 10 for each of 4 peers"):
        Dirichlet().split(plain(numpy.zeros(39, int)), 4, 10, rng())


def test_a_small_alpha_gives_peers_few_classes_and_a_large_one_all_of_them_alike() -> None:
    labels = numpy.arange(10_000) % 10

    def largest_share_of_a_class(alpha: float) -> float:
        shares = Dirichlet(alpha).split(plain(labels), 5, 1, rng())
        return float(numpy.mean([numpy.bincount(labels[s], minlength=10).max() / len(s) for s in shares]))

    assert largest_share_of_a_class(0.05) > 0.3
    assert largest_share_of_a_class(1e4) < 0.12


def test_proportions_are_those_of_the_dirichlet_distribution() -> None:
    """With one class the variance of a peer's share is (p - 1) / (p^2 (p alpha + 1))."""
    peers, alpha = 4, 0.5
    labels = numpy.zeros(1000, int)
    shares = [len(Dirichlet(alpha).split(plain(labels), peers, 1, rng(seed))[0]) / 1000 for seed in range(400)]
    assert numpy.mean(shares) == pytest.approx(1 / peers, abs=0.04)
    assert numpy.var(shares) == pytest.approx((peers - 1) / (peers**2 * (peers * alpha + 1)), rel=0.2)


@pytest.mark.parametrize("alpha", [0.0, -1.0])
def test_alpha_must_be_positive(alpha: float) -> None:
    with pytest.raises(ScenarioError, match="alpha must be positive") as error:
        plugins.build("partitions", "dirichlet", {"alpha": alpha})
    assert error.value.path == ("alpha",)


def test_dirichlet_for_a_thousand_peers_takes_less_than_a_second() -> None:
    for alpha in (0.05, 0.3, 1e4):
        began = time.process_time()
        Dirichlet(alpha).split(plain(numpy.arange(60_000) % 10), 1000, 32, rng())
        assert time.process_time() - began < 1  # 0.1 s


@settings(max_examples=40, deadline=None)
@given(peers=st.integers(1, 10), labels=st.integers(1, 4), spare=st.integers(0, 60), seed=st.integers(0, 99))
def test_a_shard_is_a_run_of_the_examples_sorted_by_label(peers: int, labels: int, spare: int, seed: int) -> None:
    """The obvious version: whoever sorts by label and cuts finds the labels of each peer's shards among those cuts."""
    label_N = rng(seed).integers(0, 7, peers * labels + spare)
    pieces = [tuple(piece) for piece in numpy.array_split(numpy.sort(label_N), peers * labels)]
    for share in Shards(labels).split(plain(label_N), peers, 1, rng(seed)):
        held = sorted(label_N[share].tolist())
        hands = itertools.combinations_with_replacement(sorted(set(pieces)), labels)
        assert any(sorted(itertools.chain(*hand)) == held for hand in hands)


def test_with_two_shards_a_peer_sees_about_two_labels() -> None:
    """McMahan et al.: 100 peers, 60,000 examples of ten labels, two shards of 300 each."""
    label_N = numpy.arange(60_000) % 10
    shares = Shards().split(plain(label_N), 100, 1, rng())
    assert {len(share) for share in shares} == {600}
    assert max(len(numpy.unique(label_N[share])) for share in shares) <= 2
    assert len({tuple(share) for share in shares}) == 100


def test_too_few_examples_for_the_shards_are_refused() -> None:
    with pytest.raises(ScenarioError, match="7 examples do not make 8 shards, 2 for each of 4 peers"):
        Shards().split(plain(numpy.arange(7)), 4, 1, rng())
    with pytest.raises(ScenarioError) as error:
        plugins.build("partitions", "shards", {"labels": 0})
    assert error.value.path == ("labels",)


def test_by_column_deals_the_largest_value_to_the_emptiest_peer() -> None:
    assert dealt("aaaabbbccd", 2) == ["aaaad", "bbbcc"]
    assert dealt("ddccbbaa", 4) == ["aa", "bb", "cc", "dd"]  # alike: in alphabetical order


def test_by_column_with_one_gives_each_peer_one_of_the_largest_values() -> None:
    assert dealt("abbcccdddd", 2, ByColumn("writer", one=True)) == ["dddd", "ccc"]


def test_by_file_gives_each_peer_one_file() -> None:
    assert dealt("cbbacc", 3, ByFile(), "file") == ["a", "bb", "ccc"]


@pytest.mark.parametrize(
    ("act", "said"),
    [
        (lambda: dealt("aab", 3), "column 'writer' has 2 values for 3 peers: set peers: 2 or fewer"),
        (lambda: dealt("aab", 3, ByFile(), "file"), "the data come in 2 files for 3 peers: set peers: 2"),
        (lambda: dealt("aab", 1, ByFile(), "file"), "2 files for 1 peers: set peers: 2, or take {by_column: file}"),
        (lambda: dealt("aab", 2, ByColumn("place")), "the data have no column 'place': there are writer"),
        (lambda: dealt("aab", 2, ByFile()), "the data have no column 'file': there are writer"),
        (lambda: ByFile().split(plain(numpy.arange(3)), 1, 1, rng()), "no column 'file': these data have none"),
    ],
)
def test_peers_that_do_not_fit_the_column_are_told_what_there_is(act: Callable[[], object], said: str) -> None:
    with pytest.raises(ScenarioError) as error:
        act()
    assert said in str(error.value)
