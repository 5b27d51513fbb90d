"""What every topology keeps to: `graph(nodes, seeds)` is a connected simple graph of these peers, and a pure function.

A family that some number of peers cannot be says so by a ScenarioError with a remedy. One that varies from round to
round has `graph_in(nodes, seeds, r)` besides, each of whose links is a link of `graph`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import networkx as nx

from p2pfl.conformance import _randomness
from p2pfl.errors import ScenarioError
from p2pfl.messages import HUB, PeerId
from p2pfl.seeds import Seeds

SEEDS = Seeds.of(7)
PEERS: tuple[tuple[PeerId, ...], ...] = (
    *((0,), (0, 1), (HUB, 0), (HUB, 0, 1), (4, 2, 9, 7, 1)),
    *(tuple(range(count)) for count in (4, 8, 9, 12, 16)),
)
"""One peer, two, with a hub, with numbers that are no row, and more."""
ROUNDS = 6


def can_be_drawn_of_some_number_of_peers(plugin: Any) -> None:
    """A refusal is a ScenarioError that says what to do instead; not every number may be refused."""
    refused: list[ScenarioError] = []
    for nodes in PEERS:
        try:
            plugin.graph(nodes, SEEDS)
        except ScenarioError as error:
            refused.append(error)
    bare = [error for error in refused if not error.remedy]
    assert not bare, f"it refuses some number of peers without a remedy: {bare[0]}"
    assert len(refused) < len(PEERS), f"it refuses every number of peers from 1 to 16: {refused[0]}"


def is_a_connected_simple_graph_of_the_given_peers(plugin: Any) -> None:
    """Its nodes are the peers, its links go both ways, once, to another peer, and lead to everybody."""
    for nodes, graph in _drawn(plugin):
        _insist_simple(graph, nodes)
        parts = nx.number_connected_components(graph)
        assert parts == 1, f"of the peers {nodes} it makes {parts} parts that cannot reach each other"


def has_no_link_weight_outside_0_to_1(plugin: Any) -> None:
    """A weight on a link scales its Metropolis weight."""
    for _, graph in _drawn(plugin):
        for i, j, weight in graph.edges(data="weight", default=1.0):
            assert 0 < weight <= 1, f"the link of {i} and {j} has the weight {weight}: it must lie in (0, 1]"


def draws_the_same_graph_from_the_same_streams(plugin: Any) -> None:
    """All peers draw the graph, each for itself: they must come to the same."""
    with _randomness.left_alone():
        once = [_links(graph) for _, graph in _drawn(plugin)]
        again = [_links(graph) for _, graph in _drawn(plugin)]
    assert once == again, "drawn twice from the same seeds it has other links"


def has_no_link_in_any_round_that_it_has_not_in_its_graph(plugin: Any) -> None:
    """Where it varies: sockets stand along `graph`, so a round can use only these."""
    for nodes, graph in _drawn(plugin):
        for r in range(1, ROUNDS + 1) if hasattr(plugin, "graph_in") else ():
            part = plugin.graph_in(nodes, SEEDS, r)
            _insist_simple(part, nodes)
            more = _links(part) - _links(graph)
            assert not more, f"in round {r} it has the links {sorted(more)} which are not in its graph"
            assert _links(plugin.graph_in(nodes, SEEDS, r)) == _links(part), f"round {r} drawn twice has other links"


def _drawn(plugin: Any) -> Iterator[tuple[tuple[PeerId, ...], nx.Graph[PeerId]]]:
    """Its graphs of those numbers of peers that it can be drawn of."""
    for nodes in PEERS:
        try:
            graph = plugin.graph(nodes, SEEDS)
        except ScenarioError:
            continue
        yield nodes, graph


def _insist_simple(graph: nx.Graph[PeerId], nodes: tuple[PeerId, ...]) -> None:
    assert isinstance(graph, nx.Graph), f"it gives {type(graph).__name__}, not a networkx Graph"
    assert not graph.is_directed(), "it is directed: links go both ways"
    assert not graph.is_multigraph(), "it has several links between two peers: links go once"
    assert set(graph) == set(nodes), f"its nodes are {sorted(graph)}, not the peers {sorted(nodes)}"
    loops = [i for i, j in graph.edges if i == j]
    assert not loops, f"it links peer {loops[:1]} to itself"


def _links(graph: nx.Graph[PeerId]) -> set[tuple[PeerId, PeerId]]:
    return {(min(i, j), max(i, j)) for i, j in graph.edges}
