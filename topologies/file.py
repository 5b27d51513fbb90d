"""A peer graph from a file of one's own: GraphML, an edge list or an adjacency list."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import networkx as nx

from p2pfl.messages import PeerId
from p2pfl.seeds import Seeds

from . import _graph_files


@dataclass(frozen=True)
class File:
    """The graph in the file `path`, of peers 0, 1, ..., hub: GraphML, links as `u,v[,weight]`, or an .adjlist."""

    path: Path

    def graph(self, nodes: Sequence[PeerId], seeds: Seeds) -> nx.Graph[PeerId]:
        """What the file holds. Raises ScenarioError unless it is a simple graph of just these `nodes`."""
        return _graph_files.of_exactly(_graph_files.read(self.path), nodes, self.path)

    def peers(self) -> tuple[PeerId, ...]:
        """The peers that the file is made for. Raises ScenarioError."""
        return _graph_files.numbered(tuple(_graph_files.read(self.path)))
