"""Some peers hold only examples of one kind, some none, the others a fair share of all: what an inference is tried on.

The kind is a value of a column, as with whom Melis et al. 2019, "Exploiting Unintended Feature Leakage in Collaborative
Learning", have a victim's batches consist of it or hold none of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy
from numpy.typing import NDArray

from p2pfl.errors import ScenarioError
from p2pfl.learning.data import Examples

Rows = NDArray[numpy.int64]


@dataclass(frozen=True)
class ByValue:
    """Examples whose `column` is `value` are dealt evenly to all peers but those `without`, others to all but `only`.

    So the peers in `only` hold nothing else, those in `without` none, and all others both.
    """

    column: str
    value: str
    only: tuple[int, ...] = ()
    without: tuple[int, ...] = ()
    EXAMPLES: ClassVar = ({"column": "writer", "value": "value 03"},)

    def __post_init__(self) -> None:
        if both := set(self.only) & set(self.without):
            raise ValueError(f"only and without both name peer {min(both)}: name each peer once at most")

    def split(self, examples: Examples, peers: int, batch: int, rng: numpy.random.Generator) -> list[Rows]:
        """For each peer the rows it holds, ascending; every row is given exactly once.

        Raises ScenarioError when there is no such column or peer, or when somebody would hold nothing.
        """
        if unknown := [peer for peer in (*self.only, *self.without) if not 0 <= peer < peers]:
            raise ScenarioError(f"there is no peer {unknown[0]} among {peers}", f"name peers from 0 to {peers - 1}")
        has_N = examples.column(self.column).astype(str) == self.value
        held: list[list[Rows]] = [[] for _ in range(peers)]
        for rows_N, others in ((numpy.flatnonzero(has_N), self.without), (numpy.flatnonzero(~has_N), self.only)):
            takers = [peer for peer in range(peers) if peer not in others]
            if len(takers) == 0 and len(rows_N):
                raise ScenarioError(f"nobody is to hold {len(rows_N)} examples", "leave a peer out of both lists")
            for taker, share in zip(
                takers, numpy.array_split(rng.permutation(rows_N), max(1, len(takers))), strict=False
            ):
                held[taker].append(share)
        shares = [numpy.sort(numpy.concatenate(each)) if each else numpy.zeros(0, numpy.int64) for each in held]
        if empty := [peer for peer, share in enumerate(shares) if len(share) == 0]:
            problem = f"of {len(examples)} examples, {int(has_N.sum())} with {self.value!r}, none is left for a peer"
            raise ScenarioError(f"{problem}, {empty[0]}", f"set peers below {peers}, or take another value")
        return shares
