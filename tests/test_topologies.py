"""Peer graphs are drawn over exactly the peers that are given, by family or by any networkx generator."""

from __future__ import annotations

import pickle
from collections.abc import Mapping

import networkx as nx
import pytest

from p2pfl import plugins, topologies
from p2pfl.errors import ScenarioError
from p2pfl.messages import HUB
from p2pfl.seeds import Seeds

SEEDS = Seeds.of(7)


def drawn(name: str, peers: int, **options: object) -> nx.Graph[int]:
    graph: nx.Graph[int] = plugins.build("topologies", name, options).graph(range(peers), SEEDS)
    return graph


@pytest.mark.parametrize("name", plugins.names("topologies"))
@pytest.mark.parametrize("nodes", [(0,), (0, 1), (HUB, 0), (HUB, 0, 1), (4, 2, 9, 7, 1)])
def test_every_family_is_a_connected_simple_graph_of_the_given_peers(name: str, nodes: tuple[int, ...]) -> None:
    graph = plugins.build("topologies", name, {}).graph(nodes, SEEDS)
    assert tuple(graph) == nodes
    assert nx.is_connected(graph)
    assert type(graph) is nx.Graph
    assert nx.number_of_selfloops(graph) == 0


@pytest.mark.parametrize(("peers", "links"), [(1, 0), (2, 1), (3, 3), (8, 8)])
def test_a_ring_of_two_is_one_link_and_of_one_none(peers: int, links: int) -> None:
    assert drawn("ring", peers).number_of_edges() == links


def test_families_are_those_of_networkx() -> None:
    assert nx.utils.edges_equal(drawn("ring", 8).edges, nx.cycle_graph(8).edges)
    assert nx.utils.edges_equal(drawn("star", 8).edges, nx.star_graph(7).edges)
    assert nx.utils.edges_equal(drawn("complete", 8).edges, nx.complete_graph(8).edges)


def test_the_centre_of_a_star_is_the_first_peer() -> None:
    graph = plugins.build("topologies", "star", {}).graph((HUB, 0, 1, 2), SEEDS)
    assert dict(graph.degree) == {HUB: 3, 0: 1, 1: 1, 2: 1}


@pytest.mark.parametrize(
    ("name", "peers", "options", "links"),
    [
        ("cycle_graph", 5, {}, 5),
        ("star_graph", 5, {"n": 4}, 4),
        ("hypercube_graph", 8, {"n": 3}, 12),
        ("grid_2d_graph", 6, {"m": 2, "n": 3}, 7),
        ("grid_graph", 8, {"dim": [2, 2, 2]}, 12),
        ("watts_strogatz_graph", 10, {"k": 4, "p": 0.2}, 20),
        ("random_regular_graph", 10, {"d": 3}, 15),
        ("complete_multipartite_graph", 5, {"subset_sizes": [2, 3]}, 6),
        ("petersen_graph", 10, {}, 15),
        ("karate_club_graph", 34, {}, 78),
        ("circulant_graph", 8, {"offsets": [1, 4]}, 12),
    ],
)
def test_a_networkx_generator_is_a_family(name: str, peers: int, options: Mapping[str, object], links: int) -> None:
    graph = drawn(name, peers, **options)
    assert list(graph) == list(range(peers))
    assert graph.number_of_edges() == links
    assert all(not attributes for *_, attributes in graph.edges(data=True))


def test_a_generator_draws_from_the_streams_of_the_run_unless_it_is_given_a_seed() -> None:
    plugin = plugins.build("topologies", "gnp_random_graph", {"p": 0.5})
    one, same, other = (sorted(plugin.graph(range(20), Seeds.of(seed)).edges) for seed in (1, 1, 2))
    assert one == same != other
    fixed = plugins.build("topologies", "gnp_random_graph", {"p": 0.5, "seed": 3})
    assert nx.utils.edges_equal(fixed.graph(range(20), SEEDS).edges, nx.gnp_random_graph(20, 0.5, seed=3).edges)


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("watts_strogatz_graph", {"p": 0.1}, "k is missing"),
        ("watts_strogatz_graph", {"k": 2, "p": 0.1, "q": 1}, "unknown key 'q'"),
        ("watts_strogatz_graph", {"k": 99, "p": 0.1}, "k>n"),
        ("watts_strogatz_graph", {"k": "four", "p": 0.1}, "cannot make watts_strogatz_graph"),
        ("watts_strogatz_graph", {"k": 2, "p": 0.1, "n": "8"}, "n is '8'"),
        ("random_regular_graph", {"d": 9}, "cannot make random_regular_graph"),
        ("gnp_random_graph", {"p": float("inf")}, "p is inf: must be a finite number"),
        ("gnp_random_graph", {"p": 0.5, "directed": True}, "gnp_random_graph is directed"),
        ("scale_free_graph", {}, "scale_free_graph is directed"),
        ("margulis_gabber_galil_graph", {"n": 2}, "is no simple graph"),
        ("circulant_graph", {"offsets": [0]}, "links 0 to itself"),
        ("star_graph", {}, "star_graph has 9 nodes for 8 peers"),
        ("hypercube_graph", {}, "n is missing"),
        ("graph_atlas_g", {}, "is no simple graph"),
    ],
)
def test_a_generator_that_gives_no_peer_graph_is_refused(name: str, options: dict[str, object], said: str) -> None:
    with pytest.raises(ScenarioError) as raised:
        plugins.build("topologies", name, options).graph(range(8), SEEDS)
    assert said in str(raised.value)
    assert raised.value.remedy


@pytest.mark.parametrize("name", ["line_graph", "ego_graph", "Graph", "read_graphml", "shortest_path", "os", "rign"])
def test_what_is_no_generator_of_networkx_is_no_topology(name: str) -> None:
    assert topologies.elsewhere(name) is None
    with pytest.raises(ScenarioError, match="no topology"):
        plugins.find("topologies", name)


def test_every_generator_offered_is_a_plugin_that_can_be_shown() -> None:
    for name in topologies.elsewhere_names():
        cls = plugins.find("topologies", name)
        plugins.schema(cls)
        assert cls.__doc__
        assert all(plugins.kind_of(cls, option.name) for option in plugins.options_of(cls))


def test_a_generator_can_be_handed_to_another_process() -> None:
    plugin = plugins.build("topologies", "watts_strogatz_graph", {"k": 4, "p": 0.5})
    assert pickle.loads(pickle.dumps(plugin)) == plugin
