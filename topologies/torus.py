"""A torus: a grid whose rows and columns close into rings, so that no peer is at an edge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import networkx as nx
import pydantic

from p2pfl.messages import PeerId
from p2pfl.seeds import Seeds

from ._places import linked
from ._rows import shape


@dataclass(frozen=True)
class Torus:
    """Rows and columns that wrap around; without `rows` as square as the peers allow."""

    rows: Annotated[int, pydantic.Field(ge=1)] | None = None

    def graph(self, nodes: Sequence[PeerId], seeds: Seeds) -> nx.Graph[PeerId]:
        """The torus, filled row by row. Raises ScenarioError when `nodes` do not fill its rows."""
        peers = len(nodes)
        _, columns = shape(self.rows, peers)
        across = [(i, i + 1 if (i + 1) % columns else i + 1 - columns) for i in range(peers)]
        down = [(i, (i + columns) % peers) for i in range(peers)]
        return linked(nodes, across + down)
