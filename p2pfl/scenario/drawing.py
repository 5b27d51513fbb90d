"""The peer graph that a scenario asks for: drawn from its seed, and refused where peers could not reach each other."""

from __future__ import annotations

import networkx as nx

from p2pfl import own_code, plugins
from p2pfl.errors import ScenarioError
from p2pfl.messages import PeerId
from p2pfl.scenario.keys import Scenario
from p2pfl.seeds import Seeds

LOOKED_AT = 20
"""How many rounds are looked at for the figures of a graph whose links change from round to round."""


def graph(scenario: Scenario, seeds: Seeds | None = None) -> nx.Graph[PeerId]:
    """The peer graph: exactly the algorithm's peers, undirected, connected. Raises ScenarioError.

    `seeds` is the root of the run; without a seed in the scenario each root gives another random graph.
    """
    nodes, topology = tuple(scenario.algorithm.value.roles(scenario.peers)), scenario.topology
    root = Seeds.of(scenario.seed) if seeds is None else seeds
    try:
        with own_code.blaming():
            drawn: nx.Graph[PeerId] = topology.value.graph(nodes, root.child("topology"))
    except ScenarioError as error:
        raise error.under("topology", topology.name) from None
    if drawn.is_directed() or drawn.is_multigraph() or set(drawn) != set(nodes):
        problem, remedy = f"topology {topology.name!r} is no simple graph of the {len(nodes)} peers", "take another"
        raise ScenarioError(problem, remedy, ("topology", topology.name))
    _refuse_parts(drawn, topology.name)
    return drawn


def varies(scenario: Scenario) -> bool:
    """Whether the links change from round to round; `graph` is then their union."""
    return hasattr(scenario.topology.value, "graph_in")


def graph_in(scenario: Scenario, seeds: Seeds, r: int) -> nx.Graph[PeerId]:
    """The peer graph of round `r`, counted from 1: all peers, some of the links of `graph`, perhaps in parts."""
    nodes = tuple(scenario.algorithm.value.roles(scenario.peers))
    drawn: nx.Graph[PeerId] = scenario.topology.value.graph_in(nodes, seeds.child("topology"), r)
    return drawn


def graphs(scenario: Scenario, seeds: Seeds) -> tuple[nx.Graph[PeerId], ...]:
    """The graph, or the graphs of the first rounds where the links change."""
    if not varies(scenario):
        return (graph(scenario, seeds),)
    return tuple(graph_in(scenario, seeds, r) for r in range(1, min(scenario.rounds, LOOKED_AT) + 1))


def _refuse_parts(drawn: nx.Graph[PeerId], name: str) -> None:
    parts = [sorted(part) for part in nx.connected_components(drawn)]
    if len(parts) > 1:
        listed = " and ".join(plugins.brief(part) for part in parts[:4]) + (" and more" if len(parts) > 4 else "")
        problem = f"topology {name!r} is not connected, it falls into {listed}"
        raise ScenarioError(problem, "give it more links, or another seed", ("topology", name))
