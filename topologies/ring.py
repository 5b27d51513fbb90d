"""A ring: every peer is linked to the two beside it. Sparse, and the slowest to mix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import networkx as nx

from p2pfl.messages import PeerId
from p2pfl.seeds import Seeds


@dataclass(frozen=True)
class Ring:
    """Each peer and the two beside it; two peers share one link, one peer has none."""

    circular = True

    def graph(self, nodes: Sequence[PeerId], seeds: Seeds) -> nx.Graph[PeerId]:
        """The ring in the order of `nodes`."""
        ring: nx.Graph[PeerId] = nx.Graph()
        ring.add_nodes_from(nodes)
        ring.add_edges_from((i, j) for i, j in zip(nodes, [*nodes[1:], nodes[0]], strict=True) if i != j)
        return ring
