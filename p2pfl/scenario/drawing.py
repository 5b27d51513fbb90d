"""The peer graph that a scenario asks for: drawn from its seed, and refused where peers could not reach each other."""

from __future__ import annotations

import networkx as nx

from p2pfl import plugins
from p2pfl.errors import ScenarioError
from p2pfl.messages import PeerId
from p2pfl.scenario.keys import Scenario
from p2pfl.seeds import Seeds


def graph(scenario: Scenario, seeds: Seeds | None = None) -> nx.Graph[PeerId]:
    """The peer graph: exactly the algorithm's peers, undirected, connected. Raises ScenarioError.

    `seeds` is the root of the run; without a seed in the scenario each root gives another random graph.
    """
    nodes, topology = tuple(scenario.algorithm.value.roles(scenario.peers)), scenario.topology
    root = Seeds.of(scenario.seed) if seeds is None else seeds
    try:
        drawn: nx.Graph[PeerId] = topology.value.graph(nodes, root.child("topology"))
    except ScenarioError as error:
        raise error.under("topology", topology.name) from None
    if drawn.is_directed() or drawn.is_multigraph() or set(drawn) != set(nodes):
        problem, remedy = f"topology {topology.name!r} is no simple graph of the {len(nodes)} peers", "take another"
        raise ScenarioError(problem, remedy, ("topology", topology.name))
    parts = [sorted(part) for part in nx.connected_components(drawn)]
    if len(parts) > 1:
        listed = " and ".join(plugins.brief(part) for part in parts[:4]) + (" and more" if len(parts) > 4 else "")
        problem = f"topology {topology.name!r} is not connected, it falls into {listed}"
        raise ScenarioError(problem, "give it more links, or another seed", ("topology", topology.name))
    return drawn
