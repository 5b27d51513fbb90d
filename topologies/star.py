"""A star: one peer in the middle, all others linked to it alone. The graph of a server and its clients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import networkx as nx

from p2pfl.messages import PeerId
from p2pfl.seeds import Seeds


@dataclass(frozen=True)
class Star:
    """All peers linked to the first one, which is the hub where the algorithm has one."""

    def graph(self, nodes: Sequence[PeerId], seeds: Seeds) -> nx.Graph[PeerId]:
        """The star around the first of `nodes`."""
        star: nx.Graph[PeerId] = nx.Graph()
        star.add_nodes_from(nodes)
        star.add_edges_from((nodes[0], j) for j in nodes[1:])
        return star
