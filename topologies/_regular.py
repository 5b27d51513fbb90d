"""Random regular graphs: every peer has as many links as every other, and all such graphs are about equally likely.

Source: Steger & Wormald 1999, "Generating random regular graphs quickly"; Kim & Vu 2003 (networkx follows both).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import networkx as nx

from p2pfl.errors import ScenarioError
from p2pfl.messages import PeerId
from p2pfl.seeds import Seeds

from ._tries import TRIES, connected, seed_of

USUAL = 4
"""Links of each peer when the scenario is silent, or as many as there can be."""


def regular(degree: int | None, nodes: Sequence[PeerId], seeds: Seeds) -> nx.Graph[PeerId]:
    """A connected graph in which every peer has `degree` links.

    Raises ScenarioError when so many peers cannot all have that.
    """
    peers = len(nodes)
    links = min(USUAL, peers - 1) if degree is None else degree
    _refuse(links, peers)
    refusal = ScenarioError(f"degree is {links}, and none of {TRIES} draws was connected", "raise it", ("degree",))
    return connected(partial(_draw, links, peers), nodes, seeds, refusal)


def _refuse(degree: int, peers: int) -> None:
    if degree == 1 and peers > 2:
        raise ScenarioError(f"degree is 1, which connects 2 peers and not {peers}", "take at least 2", ("degree",))
    if degree < peers and degree * peers % 2 == 0:
        return
    nearest = f"{degree + 1}" if peers <= degree else f"{peers - 1} or {peers + 1}"
    had = f"{peers} peers cannot all have" if peers > 1 else "1 peer cannot have"
    raise ScenarioError(f"degree is {degree}, which {had}", f"take {nearest} peers, or another degree", ("degree",))


def _draw(degree: int, peers: int, seeds: Seeds) -> nx.Graph[int]:
    """Of high degree, the complement is drawn; of degree 2, a ring, as few other graphs would be connected."""
    if degree == 2:
        order = seeds.numpy("ring").permutation(peers).tolist()
        return nx.Graph(zip(order, [*order[1:], order[0]], strict=True))
    if degree > peers // 2:
        return nx.complement(nx.random_regular_graph(peers - 1 - degree, peers, seed_of(seeds)))
    drawn: nx.Graph[int] = nx.random_regular_graph(degree, peers, seed_of(seeds))
    return drawn
