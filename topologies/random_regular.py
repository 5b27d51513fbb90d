"""A random regular graph: random links, the same number for every peer. Cheap, fair and well mixed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import networkx as nx
import pydantic

from p2pfl.messages import PeerId
from p2pfl.seeds import Seeds

from ._regular import regular


@dataclass(frozen=True)
class RandomRegular:
    """Every peer has `degree` random links; 4 when it is left out, or as many as there can be."""

    degree: Annotated[int, pydantic.Field(ge=1)] | None = None

    def graph(self, nodes: Sequence[PeerId], seeds: Seeds) -> nx.Graph[PeerId]:
        """A connected one. Raises ScenarioError when `nodes` cannot all have `degree` links."""
        return regular(self.degree, nodes, seeds)
