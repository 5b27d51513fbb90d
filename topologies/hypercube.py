"""A hypercube: places that differ in one binary digit are linked; log2 of the peers is its degree and its diameter.

Source: Saad & Schultz 1988, "Topological properties of hypercubes".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import networkx as nx

from p2pfl.errors import ScenarioError
from p2pfl.messages import PeerId
from p2pfl.seeds import Seeds

from ._places import linked


@dataclass(frozen=True)
class Hypercube:
    """Corners of a cube in as many dimensions as it takes; the peers must be a power of two."""

    def graph(self, nodes: Sequence[PeerId], seeds: Seeds) -> nx.Graph[PeerId]:
        """The cube. Raises ScenarioError when `nodes` are no power of two."""
        peers, dimensions = len(nodes), len(nodes).bit_length() - 1
        if peers != 1 << dimensions:
            remedy = f"take {1 << dimensions} or {2 << dimensions} peers"
            raise ScenarioError(f"{peers} peers are not the corners of a hypercube", remedy)
        return linked(nodes, ((i, i ^ 1 << digit) for digit in range(dimensions) for i in range(peers)))
