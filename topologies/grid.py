"""A grid: rows and columns, every peer linked to those beside, above and below it. Sparse and planar."""

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
class Grid:
    """Rows and columns without wrapping around; without `rows` as square as the peers allow."""

    rows: Annotated[int, pydantic.Field(ge=1)] | None = None

    def graph(self, nodes: Sequence[PeerId], seeds: Seeds) -> nx.Graph[PeerId]:
        """The grid, filled row by row. Raises ScenarioError when `nodes` do not fill its rows."""
        _, columns = shape(self.rows, len(nodes))
        across = [(i, i + 1) for i in range(len(nodes)) if (i + 1) % columns]
        down = [(i, i + columns) for i in range(len(nodes) - columns)]
        return linked(nodes, across + down)
