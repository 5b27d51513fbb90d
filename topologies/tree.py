"""A balanced tree: every peer is linked to its parent and its children. The fewest links, and a root that all pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import networkx as nx
import pydantic

from p2pfl.messages import PeerId
from p2pfl.seeds import Seeds

from ._places import linked


@dataclass(frozen=True)
class Tree:
    """Every peer has `branching` children, as long as there are peers; the first one is the root."""

    branching: Annotated[int, pydantic.Field(ge=1)] = 2

    def graph(self, nodes: Sequence[PeerId], seeds: Seeds) -> nx.Graph[PeerId]:
        """The tree, filled level by level."""
        return linked(nodes, ((i, (i - 1) // self.branching) for i in range(1, len(nodes))))
