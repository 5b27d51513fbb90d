"""A schedule of one's own: a CSV file says which links there are in which round, and then begins again.

Each row is `round,u,v` or `round,u,v,weight`; rounds count from 1. So recorded contacts can be replayed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import networkx as nx

from p2pfl.messages import PeerId
from p2pfl.seeds import Seeds

from ._graph_files import add_link, numbered, of_exactly
from ._lines import content, refusal, table


@dataclass(frozen=True)
class Schedule:
    """Links by round, from the rows `round,u,v[,weight]` of a CSV file, again and again."""

    path: Path
    allow_disconnected: bool = False

    def graph(self, nodes: Sequence[PeerId], seeds: Seeds) -> nx.Graph[PeerId]:
        """The links of all rounds, without weights. Raises ScenarioError unless they connect just these `nodes`."""
        union: nx.Graph[PeerId] = nx.Graph()
        for links in self._rounds.values():
            union.add_edges_from(links.edges)
        union = of_exactly(union, nodes, self.path)
        if not nx.is_connected(union):
            raise refusal(f"{self.path} does not connect all peers, in all its rounds together", "give it more links")
        if not self.allow_disconnected:
            self._refuse_parts(nodes)
        return union

    def graph_in(self, nodes: Sequence[PeerId], seeds: Seeds, r: int) -> nx.Graph[PeerId]:
        """The links of round `r`, counted from 1; after the last round of the file comes its first."""
        drawn: nx.Graph[PeerId] = nx.Graph()
        drawn.add_nodes_from(nodes)
        links = self._rounds.get(1 + (r - 1) % max(self._rounds))
        drawn.add_edges_from(links.edges(data=True) if links is not None else ())
        return drawn

    def peers(self) -> tuple[PeerId, ...]:
        """The peers that the file is made for. Raises ScenarioError."""
        return numbered([node for links in self._rounds.values() for node in links])

    @cached_property
    def _rounds(self) -> Mapping[int, nx.Graph[PeerId]]:
        """The links of each round that has any; the file is read once, so that it cannot change during a run."""
        rounds: dict[int, nx.Graph[PeerId]] = {}
        for where, (number, *fields) in table(content(self.path), str(self.path), ("round", "u", "v")):
            if re.fullmatch("[1-9][0-9]{0,8}", number) is None:
                raise refusal(f"{where} is of round {number[:20]!r}", "rounds are 1, 2, 3, ...")
            add_link(rounds.setdefault(int(number), nx.Graph()), where, fields[:2], *fields[2:])
        if not rounds:
            raise refusal(f"{self.path} names no link", "write at least one row 'round,u,v'")
        return rounds

    def _refuse_parts(self, nodes: Sequence[PeerId]) -> None:
        for number in range(1, max(self._rounds) + 1):
            links = self._rounds.get(number)
            if links is None or len(links) < len(nodes) or not nx.is_connected(links):
                remedy = "give it more links, or say 'allow_disconnected: true'"
                raise refusal(f"{self.path} does not connect all peers in round {number}", remedy)
