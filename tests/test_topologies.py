"""Peer graphs are drawn over exactly the peers that are given, by family or by any networkx generator."""

from __future__ import annotations

import itertools
import math
import pickle
import statistics
from collections import Counter
from collections.abc import Mapping

import networkx as nx
import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from p2pfl.topologies._regular import regular
from p2pfl.topologies.expander import BETTER_BY, _gap
from scipy import stats

from p2pfl import plugins, topologies
from p2pfl.errors import ScenarioError
from p2pfl.messages import HUB
from p2pfl.mixing import contraction, matrix, spectral_gap
from p2pfl.seeds import Seeds

SEEDS = Seeds.of(7)


def drawn(name: str, peers: int, **options: object) -> nx.Graph[int]:
    graph: nx.Graph[int] = plugins.build("topologies", name, options).graph(range(peers), SEEDS)
    return graph


FAMILIES = [name for name in plugins.names("topologies") if name not in ("file", "schedule")]
CANNOT_BE = {"hypercube": {3, 5, 6, 7}}


@pytest.mark.parametrize(("peers", "links"), [(1, 0), (2, 1), (3, 3), (8, 8)])
def test_a_ring_of_two_is_one_link_and_of_one_none(peers: int, links: int) -> None:
    assert drawn("ring", peers).number_of_edges() == links


def test_families_are_those_of_networkx() -> None:
    assert nx.utils.edges_equal(drawn("ring", 8).edges, nx.cycle_graph(8).edges)
    assert nx.utils.edges_equal(drawn("star", 8).edges, nx.star_graph(7).edges)
    assert nx.utils.edges_equal(drawn("complete", 8).edges, nx.complete_graph(8).edges)


def links(graph: nx.Graph[int]) -> set[tuple[int, ...]]:
    return {tuple(sorted(link)) for link in graph.edges}


@pytest.mark.parametrize(
    ("name", "options", "peers", "known"),
    [
        ("grid", {}, 12, nx.grid_2d_graph(3, 4)),
        ("grid", {"rows": 2}, 12, nx.grid_2d_graph(2, 6)),
        ("grid", {}, 7, nx.path_graph(7)),
        ("torus", {}, 12, nx.grid_2d_graph(3, 4, periodic=True)),
        ("torus", {"rows": 2}, 6, nx.circular_ladder_graph(3)),
        ("torus", {}, 7, nx.cycle_graph(7)),
        ("exponential", {}, 12, nx.circulant_graph(12, [1, 2, 4, 8])),
        ("exponential", {"base": 3}, 12, nx.circulant_graph(12, [1, 3, 9])),
        ("small_world", {"p": 0.0}, 12, nx.circulant_graph(12, [1, 2])),
        ("small_world", {"k": 2, "p": 0.0}, 12, nx.cycle_graph(12)),
        ("barbell", {}, 10, nx.barbell_graph(5, 0)),
        ("barbell", {"bridge": 3}, 11, nx.barbell_graph(4, 3)),
        ("tree", {}, 11, nx.full_rary_tree(2, 11)),
        ("tree", {"branching": 3}, 11, nx.full_rary_tree(3, 11)),
    ],
)
def test_a_family_of_fixed_links_is_the_graph_of_that_name(
    name: str, options: dict[str, object], peers: int, known: nx.Graph[object]
) -> None:
    known = nx.convert_node_labels_to_integers(known, ordering="sorted" if name in ("grid", "torus") else "default")
    if name == "barbell":  # networkx numbers the bridge last
        assert nx.is_isomorphic(drawn(name, peers, **options), known)
    else:
        assert links(drawn(name, peers, **options)) == links(known)


def test_a_hypercube_links_places_that_differ_in_one_digit() -> None:
    assert links(drawn("hypercube", 16)) == {
        (i, j) for i, j in itertools.combinations(range(16), 2) if f"{i ^ j:b}".count("1") == 1
    }


@pytest.mark.parametrize(
    ("name", "options", "peers", "said"),
    [
        ("hypercube", {}, 6, "6 peers are not the corners of a hypercube: take 4 or 8 peers"),
        ("grid", {"rows": 3}, 8, "rows is 3, which 8 peers do not fill: take 6 or 9 peers, or leave rows out"),
        ("torus", {"rows": 9}, 8, "rows is 9, which 8 peers do not fill: take 9 peers, or leave rows out"),
        ("random_regular", {"degree": 3}, 5, "degree is 3, which 5 peers cannot all have: take 4 or 6 peers"),
        ("expander", {"degree": 4}, 3, "degree is 4, which 3 peers cannot all have: take 5 peers"),
        ("random_regular", {"degree": 1}, 4, "degree is 1, which connects 2 peers and not 4: take at least 2"),
        ("random_regular", {"degree": 2}, 1, "degree is 2, which 1 peer cannot have: take 3 peers"),
        ("small_world", {"k": 4}, 4, "k is 4, which 4 peers cannot have: take at least 5 peers, or a lower k"),
        ("small_world", {"k": 3}, 9, "k is 3: must be even"),
        ("barbell", {"bridge": 7}, 8, "bridge is 7, which of 8 peers leaves none for an end: take at least 9 peers"),
        ("erdos_renyi", {"p": 0.01}, 20, "p is 0.01, and none of 100 draws of 20 peers was connected: take about 0.25"),
        ("exponential", {"base": 1}, 8, "base is 1: must be at least 2"),
    ],
)
def test_what_the_peers_cannot_be_is_refused_with_the_nearest_that_can(
    name: str, options: dict[str, object], peers: int, said: str
) -> None:
    with pytest.raises(ScenarioError) as raised:
        drawn(name, peers, **options)
    assert said in str(raised.value)
    assert raised.value.path == tuple(options)


RANDOM = ["random_regular", "erdos_renyi", "small_world", "expander"]


@pytest.mark.parametrize("name", RANDOM)
def test_a_random_family_draws_from_the_streams_of_the_run_alone(name: str) -> None:
    plugin = plugins.build("topologies", name, {})
    one, same, other = (links(plugin.graph(range(20), Seeds.of(seed))) for seed in (1, 1, 2))
    assert one == same != other


@settings(max_examples=60, deadline=None)
@given(some.integers(1, 14), some.integers(1, 14), some.integers(0, 99))
def test_a_regular_graph_exists_just_when_it_can(degree: int, peers: int, seed: int) -> None:
    plugin = plugins.build("topologies", "random_regular", {"degree": degree})
    can = degree < peers and degree * peers % 2 == 0 and (degree > 1 or peers == 2)
    if not can:
        with pytest.raises(ScenarioError):
            plugin.graph(range(peers), Seeds.of(seed))
        return
    graph = plugin.graph(range(peers), Seeds.of(seed))
    assert set(dict(graph.degree).values()) == {degree}
    assert nx.is_connected(graph)


def test_every_regular_graph_of_six_peers_comes_up() -> None:
    plugin = plugins.build("topologies", "random_regular", {"degree": 3})
    drawn_often = {frozenset(links(plugin.graph(range(6), Seeds.of(seed)))) for seed in range(600)}
    assert len(drawn_often) == 70  # labelled cubic graphs on 6 vertices, all connected: OEIS A002829


@pytest.mark.parametrize(("degree", "peers"), [(3, 100), (4, 100), (6, 60), (4, 200)])
def test_an_expander_mixes_as_ramanujan_graphs_do(degree: int, peers: int) -> None:
    graph = drawn("expander", peers, degree=degree)
    adjacency = numpy.sort(numpy.linalg.eigvalsh(nx.to_numpy_array(graph)))
    assert adjacency[-1] == pytest.approx(degree)
    assert adjacency[-2] <= 2 * math.sqrt(degree - 1)
    assert spectral_gap(graph) >= 1 - (1 + 2 * math.sqrt(degree - 1)) / (1 + degree)


@pytest.mark.parametrize("peers", [30, 150])
def test_an_expander_is_the_best_of_its_draws(peers: int) -> None:
    each = [spectral_gap(regular(None, range(peers), SEEDS.child("draw", number))) for number in range(5)]
    assert spectral_gap(drawn("expander", peers, draws=5)) == pytest.approx(max(each), abs=BETTER_BY)
    assert spectral_gap(drawn("expander", peers, draws=1)) == each[0]
    assert max(each) > min(each) + 5 * BETTER_BY


@pytest.mark.parametrize(("degree", "peers"), [(3, 102), (4, 150), (70, 150), (98, 101)])
def test_the_gap_by_which_large_expanders_are_chosen_is_the_spectral_gap(degree: int, peers: int) -> None:
    graph = drawn("random_regular", peers, degree=degree)
    assert _gap(graph) == pytest.approx(spectral_gap(graph), abs=BETTER_BY / 10)


def test_a_regular_graph_that_lacks_few_links_is_drawn_by_those_that_it_lacks() -> None:
    graph = drawn("random_regular", 300, degree=297)  # link by link, hardly any draw would come to its end
    assert set(dict(graph.degree).values()) == {297}


def test_an_erdos_renyi_graph_of_default_p_has_the_links_that_the_threshold_asks_for() -> None:
    plugin = plugins.build("topologies", "erdos_renyi", {})
    count = statistics.mean(plugin.graph(range(100), Seeds.of(seed)).number_of_edges() for seed in range(40))
    assert count == pytest.approx(99 / 2 * (math.log(100) + 2), rel=0.03)


def test_a_small_world_leads_the_share_p_of_its_links_astray() -> None:
    near = links(drawn("small_world", 1000, p=0.0))
    kept = len(near & links(drawn("small_world", 1000, p=0.2)))
    assert kept / len(near) == pytest.approx(0.8, abs=0.03)


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


VARYING = ["one_peer_exponential", "random_matching"]


def in_round(name: str, peers: int, r: int, **options: object) -> nx.Graph[int]:
    graph: nx.Graph[int] = plugins.build("topologies", name, options).graph_in(range(peers), SEEDS, r)
    return graph


@pytest.mark.parametrize("name", VARYING)
@pytest.mark.parametrize("nodes", [(0,), (0, 1), (HUB, 0, 1), (4, 2, 9, 7, 1), tuple(range(12))])
def test_the_graph_of_a_varying_family_is_the_union_of_its_rounds(name: str, nodes: tuple[int, ...]) -> None:
    plugin = plugins.build("topologies", name, {})
    rounds = [plugin.graph_in(nodes, SEEDS, r) for r in range(1, 120)]
    assert all(tuple(graph) == nodes and type(graph) is nx.Graph for graph in rounds)
    assert set().union(*map(links, rounds)) == links(plugin.graph(nodes, SEEDS))
    assert [links(plugin.graph_in(nodes, SEEDS, r)) for r in range(1, 120)] == list(map(links, rounds))


@pytest.mark.parametrize("name", VARYING)
def test_each_peer_of_a_varying_family_meets_one_peer_at_most_a_round(name: str) -> None:
    for r in range(1, 30):
        assert max(degree for _, degree in in_round(name, 13, r).degree) == 1


@pytest.mark.parametrize("digits", range(1, 8))
def test_one_peer_exponential_averages_exactly_after_log2_rounds_and_not_before(digits: int) -> None:
    peers = 1 << digits
    product_NN = numpy.eye(peers)
    for r in range(1, digits + 1):
        assert numpy.abs(product_NN - 1 / peers).max() > 1 / peers / 2
        product_NN = matrix(in_round("one_peer_exponential", peers, r)) @ product_NN
    assert numpy.array_equal(product_NN, numpy.full((peers, peers), 1 / peers))
    for r in (1, 2, digits):
        again = in_round("one_peer_exponential", peers, r + digits)
        assert links(again) == links(in_round("one_peer_exponential", peers, r))


def test_one_peer_exponential_pairs_places_that_differ_in_the_digit_of_the_round() -> None:
    assert links(in_round("one_peer_exponential", 6, 1)) == {(0, 1), (2, 3), (4, 5)}
    assert links(in_round("one_peer_exponential", 6, 2)) == {(0, 2), (1, 3)}
    assert links(in_round("one_peer_exponential", 6, 3)) == {(0, 4), (1, 5)}
    assert links(in_round("one_peer_exponential", 6, 4)) == {(0, 1), (2, 3), (4, 5)}


@pytest.mark.parametrize("of", ["ring", "complete", {"small_world": {"k": 4, "p": 0.2}}, {"star_graph": {"n": 14}}])
def test_a_random_matching_leaves_no_two_neighbours_alone(of: object) -> None:
    graph = drawn("random_matching", 15, of=of)
    for r in range(1, 40):
        matched = in_round("random_matching", 15, r, of=of)
        assert links(matched) <= links(graph)
        alone = [i for i in range(15) if not matched.degree[i]]
        assert not any(graph.has_edge(i, j) for i, j in itertools.combinations(alone, 2))


def test_random_matchings_of_a_complete_graph_are_perfect_and_all_about_equally_likely() -> None:
    counts = Counter(frozenset(links(in_round("random_matching", 6, r))) for r in range(1, 1501))
    assert len(counts) == 15
    assert all(len(matching) == 3 for matching in counts)
    assert stats.chisquare(list(counts.values())).pvalue > 0.001


def test_random_matchings_differ_between_rounds_and_seeds() -> None:
    plugin = plugins.build("topologies", "random_matching", {})
    drawn_often = {
        frozenset(links(plugin.graph_in(range(20), Seeds.of(seed), r))) for seed in (1, 2) for r in range(1, 11)
    }
    assert len(drawn_often) == 20


def test_a_random_matching_of_a_random_graph_keeps_to_the_links_of_one_draw() -> None:
    of = {"random_regular": {"degree": 3}}
    matched = [in_round("random_matching", 20, r, of=of) for r in range(1, 100)]
    assert set().union(*map(links, matched)) == links(drawn("random_matching", 20, of=of))


def test_matchings_contract_more_the_more_peers_may_meet() -> None:
    ring, everybody = (
        contraction([in_round("random_matching", 15, r, of=of) for r in range(1, 60)]) for of in ("ring", "complete")
    )
    assert 0 < ring < everybody < 1


def test_an_option_that_is_a_topology_is_refused_by_its_own_name() -> None:
    with pytest.raises(ScenarioError, match=r"no topology 'rign': did you mean 'ring'\?") as raised:
        plugins.build("topologies", "random_matching", {"of": "rign"})
    assert raised.value.path[:1] == ("of",)
