"""Peers are what a column tells apart: writers, persons, places, whatever the data know of an example."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy
from numpy.typing import NDArray

from p2pfl.errors import ScenarioError
from p2pfl.learning.data import Examples


@dataclass(frozen=True)
class ByColumn:
    """All examples with one value of the `column` are with one peer; values are dealt so that shares come out even.

    With `one` each peer has exactly one value, one of those with most examples, and all others stay unused.
    """

    column: str
    one: bool = False
    EXAMPLES: ClassVar = ({"column": "writer"},)

    def split(
        self, examples: Examples, peers: int, batch: int, rng: numpy.random.Generator
    ) -> list[NDArray[numpy.int64]]:
        """For each peer the rows it holds, ascending; every row is given exactly once, but for `one` at most once.

        The value with most examples goes to the peer that has fewest, and so on (alike: the first).
        Raises ScenarioError when there is no such column, or when it has fewer values than there are peers.
        """
        values, value_N, counts = numpy.unique(examples.column(self.column), return_inverse=True, return_counts=True)
        if len(values) < peers:
            problem = f"column {self.column!r} has {len(values)} values for {peers} peers"
            raise ScenarioError(problem, f"set peers: {len(values)} or fewer")
        held, peer_of = numpy.zeros(peers, numpy.int64), numpy.full(len(values), -1)
        largest = numpy.argsort(-counts, kind="stable")
        for value in largest[:peers] if self.one else largest:
            peer_of[value] = held.argmin()
            held[peer_of[value]] += counts[value]
        peer_N = peer_of[value_N]
        return [numpy.flatnonzero(peer_N == peer).astype(numpy.int64) for peer in range(peers)]
