"""A small world: a ring of near neighbours with some links led astray, which shortens the way to everybody.

Source: Watts & Strogatz 1998, "Collective dynamics of 'small-world' networks".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import networkx as nx
import pydantic

from p2pfl.errors import ScenarioError
from p2pfl.messages import PeerId
from p2pfl.seeds import Seeds

from ._tries import TRIES, connected, seed_of

USUAL = 4


@dataclass(frozen=True)
class SmallWorld:
    """Each peer is linked to the `k` (else 4) nearest on a ring; then each link is led astray with probability `p`."""

    k: Annotated[int, pydantic.Field(ge=2)] | None = None
    p: Annotated[float, pydantic.Field(ge=0, le=1)] = 0.1
    circular = True

    def __post_init__(self) -> None:
        if self.k is not None and self.k % 2:
            raise ValueError(f"k is {self.k}: must be even, as half of the links go to each side")

    def graph(self, nodes: Sequence[PeerId], seeds: Seeds) -> nx.Graph[PeerId]:
        """A connected one. Raises ScenarioError when `nodes` are not more than `k`."""
        peers = len(nodes)
        if self.k is not None and self.k >= peers:
            had = "1 peer cannot have" if peers == 1 else f"{peers} peers cannot have"
            raise ScenarioError(
                f"k is {self.k}, which {had}", f"take at least {self.k + 1} peers, or a lower k", ("k",)
            )
        k = min(USUAL, peers) if self.k is None else self.k
        problem = f"p is {self.p}, and none of {TRIES} draws of {peers} peers with k {k} was connected"
        refusal = ScenarioError(problem, "lower p or raise k", ("p",))
        return connected(
            lambda stream: nx.watts_strogatz_graph(peers, k, self.p, seed_of(stream)), nodes, seeds, refusal
        )
