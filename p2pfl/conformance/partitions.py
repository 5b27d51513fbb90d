"""What every partition keeps to: `split` gives each example to at most one peer, and something to each peer.

With its default options every example is given. Whom it gives what is a function of what it is given, `rng` included.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy
from numpy.typing import NDArray

from p2pfl.conformance import _randomness
from p2pfl.errors import ScenarioError
from p2pfl.learning.data import Examples

CASES = 25
WRITERS = 16
"""Values of the column `writer`; the column `file` has as many as there are peers."""


def gives_every_example_exactly_once(plugin: Any) -> None:
    """By row, and to every peer at least one."""
    for examples, peers, batch, seed in _cases():
        shares = plugin.split(examples, peers, batch, numpy.random.default_rng(seed))
        about = f"{len(examples)} examples for {peers} peers"
        assert len(shares) == peers, f"of {about} it makes {len(shares)} shares"
        assert all(share.dtype == numpy.int64 for share in shares), "rows must be int64"
        given = numpy.bincount(numpy.concatenate(shares), minlength=len(examples))
        assert len(given) == len(examples), f"of {about} it gives the row {len(given) - 1}, which is not there"
        assert given.max() == 1, f"of {about} it gives row {given.argmax()} {given.max()} times"
        assert given.min() == 1, f"of {about} it gives row {given.argmin()} to nobody"
        empty = [peer for peer, share in enumerate(shares) if len(share) == 0]
        assert not empty, f"of {about} it gives nothing to peer {empty[0]}"


def gives_the_same_shares_for_the_same_generator(plugin: Any) -> None:
    """And draws from that generator alone."""
    with _randomness.left_alone():
        for examples, peers, batch, seed in _cases():
            first, again = (plugin.split(examples, peers, batch, numpy.random.default_rng(seed)) for _ in range(2))
            same = all(numpy.array_equal(a, b) for a, b in zip(first, again, strict=True))
            assert same, "split twice with the same generator it gives other shares"


def alters_nothing_of_what_it_looks_at(plugin: Any) -> None:
    """Labels and columns are those of the one data set of the process."""
    for examples, peers, batch, seed in _cases():
        before = [array.copy() for array in (examples.labels_N, *examples.columns.values())]
        plugin.split(examples, peers, batch, numpy.random.default_rng(seed))
        after = (examples.labels_N, *examples.columns.values())
        assert all(map(numpy.array_equal, before, after)), "it alters the labels or columns"


def refuses_more_peers_than_examples_with_a_remedy(plugin: Any) -> None:
    """By a ScenarioError."""
    few = _examples(3, 2, numpy.random.default_rng(0))
    refusal = None
    try:
        plugin.split(few, 5, 1, numpy.random.default_rng(0))
    except ScenarioError as error:
        refusal = error
    assert refusal is not None, "3 examples for 5 peers must be refused by a ScenarioError"
    assert refusal.remedy, f"it refuses without a remedy: {refusal}"


def _cases() -> Iterator[tuple[Examples, int, int, int]]:
    """Examples, peers, batch and seed, of which there is a batch for each peer at least."""
    draw = numpy.random.default_rng(1)
    for seed in range(CASES):
        peers, batch = int(draw.integers(1, 13)), int(draw.integers(1, 7))
        count = max(WRITERS, peers * batch) + int(draw.integers(0, 60))
        yield _examples(count, peers, draw), peers, batch, seed


def _examples(count: int, files: int, draw: numpy.random.Generator) -> Examples:
    """So many examples of a few classes, their columns holding words."""
    columns = {name: _words(count, values, draw) for name, values in (("file", files), ("writer", WRITERS))}
    return Examples(draw.integers(0, draw.integers(1, 6), count), columns)


def _words(count: int, values: int, draw: numpy.random.Generator) -> NDArray[Any]:
    return draw.permutation(numpy.resize(numpy.array([f"value {number:02}" for number in range(values)]), count))
