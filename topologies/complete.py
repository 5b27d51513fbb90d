"""The complete graph: every peer is linked to every other. Mixes in one round, at the price of most messages."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import networkx as nx

from p2pfl.messages import PeerId
from p2pfl.seeds import Seeds


@dataclass(frozen=True)
class Complete:
    """All pairs of peers are linked."""

    def graph(self, nodes: Sequence[PeerId], seeds: Seeds) -> nx.Graph[PeerId]:
        """All pairs of `nodes`."""
        complete: nx.Graph[PeerId] = nx.Graph()
        complete.add_nodes_from(nodes)
        complete.add_edges_from(itertools.combinations(nodes, 2))
        return complete
