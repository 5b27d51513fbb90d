"""The random graph of Erdős and Rényi: each two peers are linked with probability `p`, independently of all others.

Source: Erdős & Rényi 1960, "On the evolution of random graphs": with p = (ln n + c) / n it is connected with
probability exp(-exp(-c)) as n grows; c = 2 makes that 87 %.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import networkx as nx
import pydantic

from p2pfl.errors import ScenarioError
from p2pfl.messages import PeerId
from p2pfl.seeds import Seeds

from ._tries import TRIES, connected, seed_of


@dataclass(frozen=True)
class ErdosRenyi:
    """Each two peers are linked with probability `p`; when it is left out, a bit above what connects them all."""

    p: Annotated[float, pydantic.Field(gt=0, le=1)] | None = None

    def graph(self, nodes: Sequence[PeerId], seeds: Seeds) -> nx.Graph[PeerId]:
        """A connected one. Raises ScenarioError when 100 draws hold none."""
        peers = len(nodes)
        enough = min(1.0, (math.log(peers) + 2) / peers)
        p = enough if self.p is None else self.p
        problem = f"p is {p:.4g}, and none of {TRIES} draws of {peers} peers was connected"
        refusal = ScenarioError(problem, f"take about {enough:.2g} or more", ("p",))
        return connected(lambda stream: nx.fast_gnp_random_graph(peers, p, seed_of(stream)), nodes, seeds, refusal)
