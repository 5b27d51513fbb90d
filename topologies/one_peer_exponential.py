"""One-peer exponential: in round r each peer meets the one whose place differs in binary digit r - 1, and no other.

Source: Shi, Li, Johansson & Johansson 2016, "Finite-time convergent gossiping"; Ying et al. 2021, "Exponential Graph is
Provably Efficient for Decentralized Deep Training": 2^k peers hold their exact average after k rounds of one link each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import networkx as nx

from p2pfl.messages import PeerId
from p2pfl.seeds import Seeds

from ._places import linked


@dataclass(frozen=True)
class OnePeerExponential:
    """One link for each peer a round, to the place 1, 2, 4, ... away, and round again; best for a power of two."""

    circular = True

    def graph(self, nodes: Sequence[PeerId], seeds: Seeds) -> nx.Graph[PeerId]:
        """The links of all rounds: a hypercube without the corners that nobody holds."""
        return linked(nodes, [link for digit in range(_digits(nodes)) for link in _pairs(len(nodes), digit)])

    def graph_in(self, nodes: Sequence[PeerId], seeds: Seeds, r: int) -> nx.Graph[PeerId]:
        """The links of round `r`, counted from 1; who has nobody to meet in it has none."""
        digits = _digits(nodes)
        return linked(nodes, _pairs(len(nodes), (r - 1) % digits) if digits else [])


def _digits(nodes: Sequence[PeerId]) -> int:
    return (len(nodes) - 1).bit_length()


def _pairs(peers: int, digit: int) -> list[tuple[int, int]]:
    return [(i, i ^ 1 << digit) for i in range(peers) if i < i ^ 1 << digit < peers]
