"""The peer graph, coloured by what was really read over it: each half of a link by what its other end read there.

Shapes: two coordinates a place.
"""

from __future__ import annotations

import networkx as nx
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection

from p2pfl.report.folder import Floats, Run
from p2pfl.report.leak_map import Measure, Square, Squares, keys
from p2pfl.report.peer_graph import MOST_LABELS, MOST_VECTORS, SIDE_PT, Places, dots, faintness, label, layout, sheet
from p2pfl.report.svg import SHADES, Picture, inline

LEAST = 0.3
"""How opaque a line is over which nothing was read: it is thinner than a square."""
Half = tuple[Floats, Floats]
"""From where to where a line goes."""


def picture(run: Run, measure: Measure, found: Squares) -> Picture:
    """The graph: links, who attacked, and what each read of whom."""
    graph: nx.Graph[str] = nx.Graph()
    graph.add_nodes_from([*run.peers, *(peer for attackers, victim in found for peer in (*attackers, victim))])
    graph.add_edges_from(run.links)
    places = layout(graph)
    figure, axes = sheet(0.96)
    _ground(axes, graph, places)
    apart = _read(axes, graph, measure, found, places)
    attackers = {peer for those, _ in found for peer in those}
    _peers(axes, places, attackers)
    title = "What was read over the peer graph"
    named = (*keys(found, measure), ("slow", "attacker"), ("peer", "other peer"))
    caption = "The half of a link at a peer is coloured by what its other end read of that peer."
    caption += " Dotted: read by a peer that has no link to it." if apart else ""
    return Picture("leak-graph", title, inline(figure, "leak-graph", title), named, caption)


def _ground(axes: Axes, graph: nx.Graph[str], places: Places) -> None:
    """Every link, faint: over most of them nobody spied."""
    lines = LineCollection([(places[a], places[b]) for a, b in graph.edges], colors=SHADES["grid"], zorder=1)
    lines.set_linewidth(1.2)
    lines.set_alpha(faintness(graph.number_of_edges()))
    lines.set_rasterized(graph.number_of_edges() > MOST_VECTORS)
    axes.add_collection(lines)


def _read(axes: Axes, graph: nx.Graph[str], measure: Measure, found: Squares, places: Places) -> bool:
    """Draw what was read; returns whether anything was by a peer that has no link to its victim."""
    near: list[tuple[Half, Square]] = []
    far: list[tuple[Half, Square]] = []
    for (attackers, victim), square in found.items():
        linked = [peer for peer in attackers if graph.has_edge(peer, victim)]
        near += [(((places[peer] + places[victim]) / 2, places[victim]), square) for peer in linked]
        far += [((places[attackers[0]], places[victim]), square)] if not linked else []
    for halves, dash in ((near, "solid"), (far, "dotted")):
        _lines(axes, halves, measure, dash)
    return bool(far)


def _lines(axes: Axes, halves: list[tuple[Half, Square]], measure: Measure, dash: str) -> None:
    """Those of one strength as one collection: thicker and less faint, the more was read."""
    for square in dict.fromkeys(square for _, square in halves):
        judged = square.figure is not None
        strength = square.strength(measure) if judged else 0.0
        segments = [half for half, one in halves if one == square]
        lines = LineCollection(segments, colors=SHADES["bad" if judged else "none"], linestyles=dash, zorder=2)
        lines.set_linewidth(2.5 + 2.0 * strength)
        lines.set_alpha(LEAST + (1 - LEAST) * strength if judged else 1.0)
        lines.set_rasterized(len(halves) > MOST_VECTORS)
        axes.add_collection(lines)


def _peers(axes: Axes, places: Places, attackers: set[str]) -> None:
    peers = [*places]
    points = np.array([places[peer] for peer in peers])
    colours = [SHADES["slow" if peer in attackers else "peer"] for peer in peers]
    area, outline = dots(points, SIDE_PT)
    axes.scatter(points[:, 0], points[:, 1], s=area, c=colours, edgecolors=SHADES["card"], linewidths=outline, zorder=3)
    if len(peers) <= MOST_LABELS:
        for peer, colour in zip(peers, colours, strict=True):
            label(axes, peer, places[peer], colour, 9.0 if len(peers) <= 26 else 7.0)
