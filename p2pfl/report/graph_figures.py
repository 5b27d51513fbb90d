"""What a peer graph comes to before anything runs: its size, how fast averaging on it contracts, what a round sends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import networkx as nx

from p2pfl.messages import HUB, PeerId
from p2pfl.mixing import contraction, spectral_gap
from p2pfl.plugins import Choice
from p2pfl.report.units import size
from p2pfl.seeds import Seeds

FEWEST = 8
"""Peers of a family when nobody says how many."""
MOST_MIXED = 3000
"""Beyond so many peers diameter and spectral gap take minutes, and gigabytes."""

Figures = list[tuple[str, str]]
"""Labels and values, in the order in which they are shown."""


@dataclass(frozen=True, eq=False)
class Seen:
    """A peer graph that is looked at; where links change from round to round it is their union, beside `rounds`."""

    name: str
    """The family's, or the file's that it was read from."""
    graph: nx.Graph[PeerId]
    rounds: tuple[nx.Graph[PeerId], ...] = ()
    """The graphs of the first rounds; none where all rounds have the same."""
    circular: bool = False
    """Whether it is best seen with its peers on a circle."""


def look(choice: Choice, peers: int | None, seed: int, rounds: int) -> Seen:
    """The graph of a topology and its first `rounds`, as a scenario with this seed draws them. Raises ScenarioError."""
    family: Any = choice.value
    made_for = family.peers() if hasattr(family, "peers") else range(FEWEST)
    nodes = tuple(made_for) if peers is None else (*(node for node in made_for if node == HUB), *range(peers))
    seeds = Seeds.of(seed).child("topology")
    graph: nx.Graph[PeerId] = family.graph(nodes, seeds)
    count = rounds if hasattr(family, "graph_in") else 0
    drawn = tuple(family.graph_in(nodes, seeds, r) for r in range(1, count + 1))
    files = [part.name for option in fields(family) if isinstance(part := getattr(family, option.name), Path)]
    return Seen(files[0] if files else choice.name, graph, drawn, getattr(family, "circular", False))


def figures(seen: Seen) -> Figures:
    """The figures of the graph, and of its rounds where they differ."""
    graph, rounds, large = seen.graph, seen.rounds, len(seen.graph) > MOST_MIXED
    unsaid, count = f"not computed beyond {MOST_MIXED:,} peers", len(rounds)
    rows = [
        ("peers", f"{len(graph):,}" + (" with the hub" if HUB in graph else "")),
        ("links", f"{graph.number_of_edges():,}" + (" in all rounds together" if rounds else "")),
        ("degree", spread([degree for _, degree in graph.degree])),
        ("diameter", unsaid if large else diameter(graph)),
    ]
    if not rounds:
        return [*rows, ("spectral gap", unsaid if large else f"{spectral_gap(graph):.4g}")]
    whole = sum(nx.is_connected(drawn) for drawn in rounds)
    return [
        *rows,
        ("links a round", spread([drawn.number_of_edges() for drawn in rounds])),
        ("connected rounds", f"{whole} of the first {count}"),
        ("contraction", unsaid if large else f"{contraction(rounds):.4g} a round, over the first {count}"),
    ]


def diameter(graph: nx.Graph[PeerId]) -> str:
    """The longest of the shortest ways between two peers, or that there is not always one."""
    parts = nx.number_connected_components(graph)
    return f"{nx.diameter(graph, usebounds=True)}" if parts == 1 else f"none, it falls into {parts} parts"


def traffic(seen: Seen, parameters: int) -> Figures:
    """What a round sends when every link carries all parameters, dense, once each way."""
    drawn = seen.rounds or (seen.graph,)
    vectors = 2 * sum(each.number_of_edges() for each in drawn) / len(drawn)
    round_bytes = 4 * parameters * vectors
    return [
        ("vectors a round", f"{vectors:,.6g}"),
        ("bytes a round", f"{round_bytes:,.0f} ({size(round_bytes)}), of {parameters:,} parameters, dense"),
    ]


def aligned(rows: Figures) -> str:
    """One line a figure, values below each other."""
    width = max(len(label) for label, _ in rows)
    return "\n".join(f"{label:<{width}}  {value}" for label, value in rows)


def spread(counts: Sequence[int]) -> str:
    """`min 2, mean 2.5, max 3`."""
    return f"min {min(counts)}, mean {sum(counts) / len(counts):.4g}, max {max(counts)}"
