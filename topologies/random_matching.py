"""A random matching of another graph's links, anew each round: each peer meets one neighbour at most.

Source: Boyd, Ghosh, Prabhakar & Shah 2006, "Randomized gossip algorithms"; a matching as in LEASGD, so the fair
baseline for it at equal vectors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Annotated

import networkx as nx
import numpy

from p2pfl.messages import PeerId
from p2pfl.plugins import Choice, Slot
from p2pfl.seeds import Seeds

from ._places import linked
from .complete import Complete


@dataclass(frozen=True)
class RandomMatching:
    """Each round, random pairs of neighbours in the graph `of`, until no two neighbours are left alone."""

    of: Annotated[Choice, Slot("of", "topologies", "complete")] = field(
        default_factory=lambda: Choice("complete", Complete())
    )

    def graph(self, nodes: Sequence[PeerId], seeds: Seeds) -> nx.Graph[PeerId]:
        """The graph whose links are drawn from: each of them comes up in some round."""
        drawn: nx.Graph[PeerId] = self.of.value.graph(nodes, seeds.child("of"))
        return drawn

    def graph_in(self, nodes: Sequence[PeerId], seeds: Seeds, r: int) -> nx.Graph[PeerId]:
        """The matching of round `r`. Peers take turns in random order: who is free takes a free neighbour at random."""
        neighbours = _neighbours(self, tuple(nodes), seeds)
        rng = seeds.child("round", r).numpy("matching")
        free_N, pairs = numpy.ones(len(nodes), bool), []
        for i in rng.permutation(len(nodes)):
            if free_N[i] and (candidates := neighbours[i][free_N[neighbours[i]]]).size:
                j = candidates[rng.integers(candidates.size)]
                free_N[i] = free_N[j] = False
                pairs.append((i, j))
        return linked(nodes, pairs)


@lru_cache(maxsize=4)
def _neighbours(matching: RandomMatching, nodes: tuple[PeerId, ...], seeds: Seeds) -> list[numpy.ndarray]:
    """The places of each place's neighbours, in order: the graph is not drawn again each round."""
    place = {peer: at for at, peer in enumerate(nodes)}
    graph = matching.graph(nodes, seeds)
    return [numpy.array(sorted(place[j] for j in graph[i]), dtype=numpy.intp) for i in nodes]
