"""Metropolis-Hastings weights of a graph and its spectral gap, and the contraction of graphs that vary.

Source: Xiao & Boyd 2004, "Fast linear iterations for distributed averaging":
w_ij = 1 / (1 + max(d_i, d_j)) on links, w_ii = 1 - sum_j w_ij: symmetric and doubly stochastic.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

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
    return 1.0 if len(eigenvalues) == 1 else max(0.0, float(1 - eigenvalues[-2]))


def contraction(graphs: Sequence[nx.Graph[PeerId]]) -> float:
    """1 - ||(W_R - J) ... (W_1 - J)||_2^(1/R): how fast averaging contracts a round, over the graphs of rounds 1 to R.

    J = 1 1^T / N averages at once. As every W_r is doubly stochastic, W_r J = J W_r = J and the product is that of the
    W_r, times I - J: no disagreement at the start is larger than (1 - contraction)^R times itself after R rounds. Of a
    graph repeated it is the spectral gap; it is 1 where R rounds average exactly (or one peer is alone), and 0 where a
    disagreement lasts. The product is scaled at each factor, so that it neither underflows nor is lost in rounding.
    Raises ValueError without a graph.

    Source: Xiao & Boyd 2004, section 2; Ying et al. 2021, "Exponential Graph is Provably Efficient for
    Decentralized Deep Training".
    """
    if not graphs:
        raise ValueError("contraction needs the graph of one round at least")
    peers = len(graphs[0])
    away_NN, log_norm = numpy.eye(peers) - 1 / peers, 0.0
    for graph in graphs:
        away_NN = matrix(graph) @ away_NN
        away_NN -= away_NN.mean(axis=0)  # rounding must not grow into the average, which no W_r shrinks
        largest = float(numpy.abs(away_NN).max())
        if largest <= 4 * peers * numpy.finfo(float).eps:
            return 1.0
        away_NN /= largest
        log_norm += math.log(largest)
    log_norm += math.log(numpy.linalg.eigvalsh(away_NN.T @ away_NN)[-1]) / 2
    return max(0.0, 1 - math.exp(log_norm / len(graphs)))
