"""Metropolis-Hastings weights of a graph and its spectral gap.

Source: Xiao & Boyd 2004, "Fast linear iterations for distributed averaging":
w_ij = 1 / (1 + max(d_i, d_j)) on links, w_ii = 1 - sum_j w_ij: symmetric and doubly stochastic.
"""

from __future__ import annotations

import networkx as nx
import numpy

from p2pfl.messages import PeerId


def metropolis(graph: nx.Graph[PeerId]) -> dict[PeerId, dict[PeerId, float]]:
    """The weights of each peer's neighbours, in the order of their ids; what is left of 1 is the peer's own.

    An edge's `weight` in (0, 1] scales its Metropolis weight; what it takes away stays with the peer.
    """
    degree = dict(graph.degree)
    return {
        i: {j: graph.edges[i, j].get("weight", 1.0) / (1 + max(degree[i], degree[j])) for j in sorted(graph[i])}
        for i in sorted(graph)
    }


def matrix(graph: nx.Graph[PeerId]) -> numpy.ndarray:
    """The same weights as a doubly stochastic matrix, rows and columns in the order of peer ids."""
    order = {peer: k for k, peer in enumerate(sorted(graph))}
    w_NN = numpy.zeros((len(order), len(order)))
    for i, row in metropolis(graph).items():
        for j, weight in row.items():
            w_NN[order[i], order[j]] = weight
    numpy.fill_diagonal(w_NN, 1 - w_NN.sum(axis=1))
    return w_NN


def spectral_gap(graph: nx.Graph[PeerId]) -> float:
    """1 - max(|lambda_2|, |lambda_N|) of the mixing matrix: how fast averaging contracts; 1 for one peer."""
    eigenvalues = numpy.sort(numpy.abs(numpy.linalg.eigvalsh(matrix(graph))))
    return 1.0 if len(eigenvalues) == 1 else float(1 - eigenvalues[-2])
