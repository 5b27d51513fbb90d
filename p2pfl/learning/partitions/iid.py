"""Every peer draws from the same distribution: the examples are shuffled and dealt out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy
from numpy.typing import NDArray

from p2pfl.errors import ScenarioError
from p2pfl.learning.data import Examples


@dataclass(frozen=True)
class Iid:
    """Shares that are equal to within one example."""

    def split(
        self, examples: Examples, peers: int, batch: int, rng: numpy.random.Generator
    ) -> list[NDArray[numpy.int64]]:
        """For each peer the rows it holds, ascending; every row is given exactly once.

        Raises ScenarioError when there are fewer examples than peers.
        """
        if len(examples) < peers:
            raise ScenarioError(
                f"{len(examples)} examples are too few for {peers} peers", "use fewer peers or more data"
            )
        order = rng.permutation(len(examples)).astype(numpy.int64)
        return [numpy.sort(share) for share in numpy.array_split(order, peers)]
