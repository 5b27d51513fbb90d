"""A peer graph from links between places: places count from 0, in the order in which the peers are given."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import networkx as nx

from p2pfl.messages import PeerId


def linked(nodes: Sequence[PeerId], links: Iterable[tuple[int, int]]) -> nx.Graph[PeerId]:
    """The graph over `nodes` with these links between places, each once; one from a place to itself is left out."""
    drawn: nx.Graph[PeerId] = nx.Graph()
    drawn.add_nodes_from(nodes)
    drawn.add_edges_from((nodes[i], nodes[j]) for i, j in links if i != j)
    return drawn
