"""Metropolis weights are symmetric and doubly stochastic, and the spectral gap is that of the known graphs."""

from __future__ import annotations

import itertools
import math

import networkx as nx
import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from p2pfl.messages import HUB
from p2pfl.mixing import contraction, matrix, metropolis, spectral_gap


def random_graph(peers: int, seed: int) -> nx.Graph[int]:
    graph: nx.Graph[int] = nx.gnp_random_graph(peers, 0.4, seed=seed)
    return graph


@settings(max_examples=50, deadline=None)
@given(some.integers(1, 12), some.integers(0, 10**6))
def test_the_mixing_matrix_is_symmetric_and_doubly_stochastic(peers: int, seed: int) -> None:
    w_NN = matrix(random_graph(peers, seed))
    assert numpy.array_equal(w_NN, w_NN.T)
    assert numpy.allclose(w_NN.sum(axis=0), 1)
    assert (w_NN >= 0).all()


@settings(max_examples=50, deadline=None)
@given(some.integers(2, 10), some.integers(0, 10**6))
def test_weights_are_one_over_one_plus_the_larger_degree(peers: int, seed: int) -> None:
    graph = random_graph(peers, seed)
    for i, row in metropolis(graph).items():
        assert list(row) == sorted(graph[i])
        for j, weight in row.items():
            assert weight == 1 / (1 + max(len(graph[i]), len(graph[j])))


def test_an_edge_weight_scales_and_what_it_takes_stays_with_the_peer() -> None:
    graph: nx.Graph[int] = nx.Graph()
    graph.add_edge(0, 1, weight=0.5)
    assert metropolis(graph) == {0: {1: 0.25}, 1: {0: 0.25}}
    assert matrix(graph).tolist() == [[0.75, 0.25], [0.25, 0.75]]


def test_rows_are_in_the_order_of_peer_ids_whatever_the_order_of_the_graph() -> None:
    graph: nx.Graph[int] = nx.Graph([(2, HUB), (0, HUB)])
    assert list(metropolis(graph)) == [HUB, 0, 2]
    assert numpy.allclose(matrix(graph)[0], [1 / 3, 1 / 3, 1 / 3])


@pytest.mark.parametrize("peers", [3, 4, 8, 16])
def test_the_gap_of_a_ring_is_that_of_its_circulant_matrix(peers: int) -> None:
    eigenvalues = sorted(abs((1 + 2 * math.cos(2 * math.pi * k / peers)) / 3) for k in range(peers))
    assert spectral_gap(nx.cycle_graph(peers)) == pytest.approx(1 - eigenvalues[-2])


def test_the_gap_is_one_where_one_round_averages_and_zero_where_none_ever_does() -> None:
    assert spectral_gap(nx.complete_graph(8)) == pytest.approx(1)
    assert spectral_gap(nx.empty_graph(1)) == 1
    assert spectral_gap(nx.Graph([(0, 1), (2, 3)])) == pytest.approx(0)


def test_the_gap_bounds_how_fast_repeated_averaging_contracts() -> None:
    graph = nx.star_graph(6)
    w_NN, gap = matrix(graph), spectral_gap(graph)
    x_N = numpy.arange(7.0)
    away = [float(numpy.linalg.norm(numpy.linalg.matrix_power(w_NN, r) @ x_N - x_N.mean())) for r in range(20)]
    assert all(after <= (1 - gap) * before + 1e-9 for before, after in itertools.pairwise(away))


def slow_contraction(graphs: list[nx.Graph[int]]) -> float:
    peers = len(graphs[0])
    average_NN = numpy.full((peers, peers), 1 / peers)
    product_NN = numpy.eye(peers)
    for graph in graphs:
        product_NN = (matrix(graph) - average_NN) @ product_NN
    return float(1 - numpy.linalg.norm(product_NN, 2) ** (1 / len(graphs)))


@settings(max_examples=60, deadline=None)
@given(some.integers(2, 9), some.lists(some.integers(0, 10**6), min_size=1, max_size=6))
def test_contraction_is_that_of_the_product_of_the_rounds(peers: int, seeds: list[int]) -> None:
    graphs = [random_graph(peers, seed) for seed in seeds]
    slow = slow_contraction(graphs)
    if slow < 0.99:  # beyond it, the slow way is mostly rounding
        assert contraction(graphs) == pytest.approx(max(0.0, slow), abs=1e-7)


@pytest.mark.parametrize("graph", [nx.cycle_graph(9), nx.star_graph(6), nx.complete_graph(5), nx.path_graph(2)])
@pytest.mark.parametrize("rounds", [1, 2, 7, 500])
def test_the_contraction_of_a_graph_that_stays_is_its_spectral_gap(graph: nx.Graph[int], rounds: int) -> None:
    assert contraction([graph] * rounds) == pytest.approx(spectral_gap(graph))


def test_contraction_does_not_underflow_where_the_product_does() -> None:
    graph: nx.Graph[int] = nx.Graph([(0, 1)])
    graph.edges[0, 1]["weight"] = 0.9  # each round leaves a tenth of the disagreement: 1e-2000 after 2,000 of them
    assert contraction([graph] * 2000) == pytest.approx(0.9)


def test_contraction_is_one_for_one_peer_and_where_the_rounds_average_exactly() -> None:
    assert contraction([nx.empty_graph(1)] * 3) == 1
    halves: list[nx.Graph[int]] = [nx.Graph([(0, 1), (2, 3)]), nx.Graph([(0, 2), (1, 3)])]
    assert contraction(halves) == 1
    assert contraction(halves * 5) == 1
    triples = [nx.Graph([*nx.complete_graph(3).edges, (3, 4), (4, 5), (3, 5)])]  # thirds are not exact in binary
    triples.append(nx.Graph([(0, 3), (1, 4), (2, 5)]))
    assert contraction(triples) == 1


def test_contraction_is_zero_while_a_disagreement_lasts() -> None:
    apart = nx.Graph([(0, 1), (2, 3)])
    assert contraction([apart] * 5) == pytest.approx(0)
    assert contraction([nx.empty_graph(4)]) == pytest.approx(0)
    with pytest.raises(ValueError, match="one round at least"):
        contraction([])


def test_a_peer_without_links_in_a_round_keeps_all_of_its_weight() -> None:
    graph: nx.Graph[int] = nx.Graph([(0, 2)])
    graph.add_node(1)
    assert metropolis(graph)[1] == {}
    assert matrix(graph).tolist() == [[0.5, 0, 0.5], [0, 1, 0], [0.5, 0, 0.5]]
