"""A barbell: two cliques and a bridge between them, the hardest graph to average on, as two sites are.

Source: Aldous & Fill 2002, "Reversible Markov Chains and Random Walks on Graphs", chapter 5.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import networkx as nx
import pydantic

from p2pfl.errors import ScenarioError
from p2pfl.messages import PeerId
from p2pfl.seeds import Seeds

from ._places import linked


@dataclass(frozen=True)
class Barbell:
    """Two complete graphs of equal size (or one more in the first), joined by a path with `bridge` peers on it."""

    bridge: Annotated[int, pydantic.Field(ge=0)] = 0

    def graph(self, nodes: Sequence[PeerId], seeds: Seeds) -> nx.Graph[PeerId]:
        """First one clique, then the bridge, then the other. Raises ScenarioError when nobody is left for a clique."""
        peers = len(nodes)
        if self.bridge and self.bridge > peers - 2:
            problem = f"bridge is {self.bridge}, which of {peers} peers leaves none for an end"
            raise ScenarioError(problem, f"take at least {self.bridge + 2} peers", ("bridge",))
        left = (peers - self.bridge + 1) // 2
        right = left + self.bridge
        cliques = [*itertools.combinations(range(left), 2), *itertools.combinations(range(right, peers), 2)]
        return linked(nodes, [*cliques, *((i, i + 1) for i in range(left - 1, min(right, peers - 1)))])
