"""Random graphs are drawn until one is connected: so it is a random one among the connected graphs of its family."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import networkx as nx

from p2pfl.errors import ScenarioError
from p2pfl.messages import PeerId
from p2pfl.seeds import Seeds

from ._places import linked

TRIES = 100


def connected(
    draw: Callable[[Seeds], nx.Graph[int]], nodes: Sequence[PeerId], seeds: Seeds, refusal: ScenarioError
) -> nx.Graph[PeerId]:
    """The first connected one of 100 draws, each of its own stream, over `nodes`. Raises `refusal` if none is."""
    for number in range(TRIES):
        drawn = draw(seeds.child("try", number))
        if nx.is_connected(drawn):
            return linked(nodes, drawn.edges)
    raise refusal


def seed_of(seeds: Seeds) -> int:
    """A seed for a generator of networkx."""
    return int.from_bytes(seeds.key(4, "networkx"), "little")
