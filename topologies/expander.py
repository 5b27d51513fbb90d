"""An expander: of several random regular graphs the one of largest spectral gap, which mixes as fast as can be.

Source: Friedman 2008, "A proof of Alon's second eigenvalue conjecture and related problems": of almost every d-regular
graph all eigenvalues but the first are at most 2 sqrt(d - 1) + epsilon; by Alon & Boppana no large one does better.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import networkx as nx
import numpy
import pydantic
from scipy.sparse.linalg import LinearOperator, eigsh  # type: ignore[import-untyped]

from p2pfl.messages import PeerId
from p2pfl.mixing import spectral_gap
from p2pfl.seeds import Seeds

from ._regular import regular

MOST_DENSE = 100
"""Beyond so many peers the two eigenvalues that are wanted come sooner by Lanczos' iterations."""
BETTER_BY = 1e-3
"""Gaps closer than this are equal, so that rounding never decides, and every process takes the same graph."""


@dataclass(frozen=True)
class Expander:
    """Every peer has `degree` links (4, or as many as there can be); the best mixing one of `draws` random graphs."""

    degree: Annotated[int, pydantic.Field(ge=1)] | None = None
    draws: Annotated[int, pydantic.Field(ge=1, le=1000)] = 10

    def graph(self, nodes: Sequence[PeerId], seeds: Seeds) -> nx.Graph[PeerId]:
        """A connected one. Raises ScenarioError when `nodes` cannot all have `degree` links."""
        best, best_gap = regular(self.degree, nodes, seeds.child("draw", 0)), 0.0
        if self.draws == 1 or best.degree[nodes[0]] in (2, len(nodes) - 1):  # rings, and complete graphs, are alike
            return best
        best_gap = _gap(best)
        for number in range(1, self.draws):
            drawn = regular(self.degree, nodes, seeds.child("draw", number))
            if (gap := _gap(drawn)) > best_gap + BETTER_BY:
                best, best_gap = drawn, gap
        return best


def _gap(graph: nx.Graph[PeerId]) -> float:
    """The spectral gap of a regular graph, to 1e-5 at least."""
    peers = len(graph)
    if peers <= MOST_DENSE:
        return spectral_gap(graph)
    adjacency_NN, degree = (
        nx.to_scipy_sparse_array(graph, dtype=numpy.dtype("float64")),
        max(dict(graph.degree).values()),
    )
    w_NN = LinearOperator(adjacency_NN.shape, lambda x_N: (x_N + adjacency_NN @ x_N) / (1 + degree), dtype=float)
    begin_N = numpy.cos(numpy.arange(peers))
    return float(1 - min(abs(eigsh(w_NN, 2, v0=begin_N, tol=1e-6, return_eigenvectors=False))))
