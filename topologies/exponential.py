"""The exponential graph: links to those 1, 2, 4, ... places ahead; few links, and it mixes fast.

Source: Assran et al. 2019, "Stochastic Gradient Push for Distributed Deep Learning", section 3; its links made to go
both ways.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import networkx as nx

from p2pfl.messages import PeerId
from p2pfl.seeds import Seeds

from ._places import linked


@dataclass(frozen=True)
class Exponential:
    """Each peer is linked to those `base`^0, `base`^1, ... places ahead on a ring."""

    base: int = 2
    circular = True

    def __post_init__(self) -> None:
        if self.base < 2:
            raise ValueError(f"base is {self.base}: must be at least 2")

    def graph(self, nodes: Sequence[PeerId], seeds: Seeds) -> nx.Graph[PeerId]:
        """The graph on `nodes`, in their order."""
        peers, hops = len(nodes), [1]
        while hops[-1] * self.base < peers:
            hops.append(hops[-1] * self.base)
        return linked(nodes, ((i, (i + hop) % peers) for hop in hops for i in range(peers)))
