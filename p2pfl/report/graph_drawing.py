"""A peer graph as a picture: who could speak to whom, peers coloured by degree, links as wide as their mixing weight.

Where links change from round to round, the first rounds stand beside the union of all, every peer in the same place.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import networkx as nx
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.typing import ColorType

from p2pfl.errors import ScenarioError
from p2pfl.messages import PeerId, peer_name
from p2pfl.mixing import metropolis
from p2pfl.report.graph_figures import Figures, Seen
from p2pfl.report.peer_graph import (
    MOST_LABELS,
    MOST_VECTORS,
    Places,
    circle,
    dots,
    faintness,
    label,
    layout,
    soft_viridis,
)
from p2pfl.report.svg import SHADES, style
from p2pfl.report.units import peer_order

UNDATED: dict[str, dict[str, None]] = {".png": {}, ".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
"""The formats, and what keeps the date out of each: the same graph gives the same bytes."""
ROUNDS_SHOWN = 6
MOST_SHADES = 8
"""Of so many different degrees the legend names the colour."""
SIDE_PT = 330.0
"""How wide and high the peers of the large graph are together; a small one has as much of it as it is smaller."""
WIDTH_IN, HEIGHT_IN, ROUND_IN, HEAD_IN, FOOT_IN = 6.6, 5.6, 2.8, 0.95, 0.4


@dataclass(frozen=True, eq=False)
class Look:
    """What all panels of one picture share."""

    places: Places
    colours: Mapping[int, ColorType]
    """By degree, in ascending order."""
    widest: float
    """The largest Metropolis weight."""


def write(seen: Seen, rows: Figures, path: Path) -> None:
    """Draw the graph, titled with its figures, into a .png, .svg or .pdf file. Raises ScenarioError."""
    suffix = path.suffix.lower()
    if suffix not in UNDATED:
        raise ScenarioError(f"cannot draw {path}", f"let its name end in {', '.join(UNDATED)}")
    buffer = io.BytesIO()
    with style():
        picture(seen, rows).savefig(buffer, format=suffix[1:], dpi=150, metadata=UNDATED[suffix])
    try:
        path.write_bytes(buffer.getvalue())
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ScenarioError(f"cannot write {path}, {reason}", "name a file that can be written") from None


def picture(seen: Seen, rows: Figures) -> Figure:
    """The graph alone, or its first rounds to the right of it."""
    rounds = seen.rounds[:ROUNDS_SHOWN]
    columns = -(-len(rounds) // 2)
    width_in, height_in = WIDTH_IN + columns * ROUND_IN, HEIGHT_IN + HEAD_IN + FOOT_IN
    figure = Figure(figsize=(width_in, height_in), facecolor=SHADES["card"])
    graphs = [seen.graph, *rounds]
    look = _look(seen, graphs)
    box = (0.02, FOOT_IN / height_in, (WIDTH_IN - 1.0) / width_in, HEIGHT_IN / height_in)
    whole = figure.add_axes(box)
    _panel(whole, seen.graph, look, 1.0)
    if rounds:
        whole.set_title("all rounds together", color=SHADES["muted"], fontsize=9, y=0.97)
    tall = HEIGHT_IN / 2 / height_in
    for number, drawn in enumerate(rounds, 1):
        across, down = (number - 1) % columns, (number - 1) // columns
        left = (WIDTH_IN + across * ROUND_IN) / width_in
        axes = figure.add_axes((left, FOOT_IN / height_in + (1 - down) * tall, ROUND_IN / width_in, 0.88 * tall))
        _panel(axes, drawn, look, 0.45)
        axes.set_title(f"round {number}", color=SHADES["muted"], fontsize=9, pad=2)
    _legend(figure, look, (WIDTH_IN - 0.98) / width_in)
    _words(figure, seen, rows, look)
    return figure


def _look(seen: Seen, graphs: list[nx.Graph[PeerId]]) -> Look:
    degrees = sorted({degree for graph in graphs for _, degree in graph.degree})
    along = [rank / (len(degrees) - 1) for rank in range(len(degrees))] if len(degrees) > 1 else [0.5]
    colours = {degree: soft_viridis()(at) for degree, at in zip(degrees, along, strict=True)}
    weights = [weight for graph in graphs for row in metropolis(graph).values() for weight in row.values()]
    return Look(_places(seen), colours, max(weights, default=1.0))


def _places(seen: Seen) -> Places:
    """Those of the report, or the order of the peers around a circle where the family says so."""
    named: nx.Graph[str] = nx.Graph()
    named.add_nodes_from(map(peer_name, seen.graph))
    named.add_edges_from((peer_name(i), peer_name(j)) for i, j in seen.graph.edges)
    return circle(sorted(named, key=peer_order)) if seen.circular else layout(named)


def _panel(axes: Axes, graph: nx.Graph[PeerId], look: Look, scale: float) -> None:
    axes.set_axis_off()
    axes.set_aspect("equal")
    _frame(axes, look.places)
    weights, crowd = metropolis(graph), min(1.0, 60 / max(graph.number_of_edges(), 1))
    segments = [(look.places[peer_name(i)], look.places[peer_name(j)]) for i, j in graph.edges]
    widths = [scale**0.5 * crowd**0.5 * (0.3 + 1.9 * weights[i][j] / look.widest) for i, j in graph.edges]
    lines = LineCollection(segments, linewidths=widths, colors=SHADES["muted"], zorder=1)
    lines.set_alpha(0.8 * faintness(len(segments)))
    lines.set_rasterized(len(segments) > MOST_VECTORS)
    axes.add_collection(lines)
    peers = list(graph)
    points = np.array([look.places[peer_name(peer)] for peer in peers])
    colours = [look.colours[graph.degree[peer]] for peer in peers]
    area, outline = dots(points, SIDE_PT * scale)
    area *= scale if outline else 1.0
    edge = 0.75 * outline
    axes.scatter(points[:, 0], points[:, 1], s=area, c=colours, edgecolors=SHADES["card"], linewidths=edge, zorder=2)
    if len(peers) <= MOST_LABELS * scale:
        for peer, place, colour in zip(peers, points, colours, strict=True):
            label(axes, peer_name(peer), place, colour, (9.0 if len(peers) <= 26 * scale else 7.0) * scale**0.3)


def _frame(axes: Axes, places: Places) -> None:
    """All panels show the same square: one peer, or peers in one row, span none of their own."""
    points = np.array(list(places.values()))
    low, high = points.min(axis=0), points.max(axis=0)
    reach = 0.59 * max(float((high - low).max()), 1e-3)
    (x, y) = (low + high) / 2
    axes.set_xlim(x - reach, x + reach)
    axes.set_ylim(y - reach, y + reach)


def _legend(figure: Figure, look: Look, left: float) -> None:
    """Which colour is which degree, of at most 8 of them; nothing where all peers have the same."""
    degrees = list(look.colours)
    shown = [degrees[at] for at in np.unique(np.linspace(0, len(degrees) - 1, MOST_SHADES).astype(int))]
    if len(shown) > 1:
        dots = [Line2D([], [], marker="o", markersize=9, linewidth=0, color=look.colours[degree]) for degree in shown]
        words = [f"{degree}" for degree in shown]
        figure.legend(dots, words, loc="center left", bbox_to_anchor=(left, 0.5), title="degree", frameon=False)


def _words(figure: Figure, seen: Seen, rows: Figures, look: Look) -> None:
    """The name and the figures above, what the width of a link says below."""
    width_in, height_in = figure.get_size_inches()
    left = 0.25 / width_in
    figure.text(left, 1 - 0.32 / height_in, seen.name, fontsize=14, fontweight="bold", color=SHADES["ink"])
    said = textwrap.fill(" · ".join(f"{name} {value}" for name, value in rows), round(width_in * 15))
    figure.text(left, 1 - 0.48 / height_in, said, fontsize=9, color=SHADES["muted"], va="top", linespacing=1.4)
    note = f"A link is as wide as its Metropolis weight (at most {look.widest:.3g})."
    if seen.rounds:
        note += " The large graph has the links of all rounds; each small one those of its round."
    figure.text(left, 0.16 / height_in, note, fontsize=8, color=SHADES["muted"])
