"""Peers differ in what they see: each class is spread over the peers in proportions drawn from Dirichlet(alpha).

Source: Hsu, Qi & Brown 2019, "Measuring the effects of non-identical data distribution for federated visual
classification", in the per-class form of Yurochkin et al. 2019 and Li et al. 2022.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy
from numpy.typing import NDArray

from p2pfl.errors import ScenarioError
from p2pfl.learning.data import Examples


@dataclass(frozen=True)
class Dirichlet:
    """Small `alpha`: a class is with few peers; large `alpha`: nearly iid. Every peer has at least one batch."""

    alpha: float = 0.3

    def __post_init__(self) -> None:
        if not (self.alpha > 0 and math.isfinite(self.alpha)):
            raise ValueError(f"alpha must be positive and finite, not {self.alpha}")

    def split(
        self, examples: Examples, peers: int, batch: int, rng: numpy.random.Generator
    ) -> list[NDArray[numpy.int64]]:
        """For each peer the rows it holds, ascending; every row is given exactly once.

        Raises ScenarioError when the examples do not make one batch for each peer.
        """
        labels = examples.labels_N
        if len(examples) < peers * batch:
            raise ScenarioError(
                f"{len(examples)} examples do not make a batch of {batch} for each of {peers} peers",
                "use fewer peers, a smaller training.batch or more data",
            )
        shares: list[list[int]] = [[] for _ in range(peers)]
        for label in numpy.unique(labels):
            rows = rng.permutation(numpy.flatnonzero(labels == label))
            cuts = numpy.floor(numpy.cumsum(self._proportions(peers, rng))[:-1] * len(rows)).astype(int)
            for share, part in zip(shares, numpy.split(rows, cuts), strict=True):
                share.extend(part.tolist())
        top_up(shares, batch, rng)
        return [numpy.sort(numpy.array(share, numpy.int64)) for share in shares]

    def _proportions(self, peers: int, rng: numpy.random.Generator) -> NDArray[numpy.float64]:
        """One draw of Dirichlet(alpha); where a tiny alpha underflows to nan, all goes to one peer."""
        drawn = rng.dirichlet(numpy.full(peers, self.alpha))
        return drawn if numpy.isfinite(drawn).all() else numpy.eye(peers)[rng.integers(peers)]


def top_up(shares: list[list[int]], batch: int, rng: numpy.random.Generator) -> None:
    """Move random examples, one by one, from whoever has most to whoever has less than a batch; alters `shares`."""
    sizes = numpy.array([len(share) for share in shares])
    for small in numpy.flatnonzero(sizes < batch).tolist():
        while sizes[small] < batch:
            large = int(sizes.argmax())
            shares[small].append(shares[large].pop(int(rng.integers(sizes[large]))))
            sizes[small] += 1
            sizes[large] -= 1
