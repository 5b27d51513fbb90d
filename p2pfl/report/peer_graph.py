"""Who could speak to whom: the peer graph, coloured by what each peer came to and drawn by what each link carried."""

from __future__ import annotations

import math

import networkx as nx
import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import Colormap, LinearSegmentedColormap, Normalize, to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from matplotlib.typing import ColorType
from scipy.spatial import KDTree  # type: ignore[import-untyped]

from p2pfl.report.ending import looked_at
from p2pfl.report.folder import Floats, Run, absences, crashed, last, lost
from p2pfl.report.svg import SHADES, Picture, inline
from p2pfl.report.units import count, peer_order, share, size

MOST_LABELS = 60
MOST_FORCES = 400
"""Beyond so many peers a layout by forces takes seconds, and shows nothing that an even one does not."""
MOST_AROUND = 150
"""Beyond so many, peers around a circle would hide each other: they fill a disc."""
SIDE_PT = 220.0
"""How wide and high the peers of the picture are together."""
MOST_VECTORS = 1500
"""Beyond so many links they are drawn as one image."""

Places = dict[str, Floats]


def pictures(run: Run) -> list[Picture]:
    """The peer graph; nothing when the record names no peer."""
    if not run.peers:
        return []
    graph: nx.Graph[str] = nx.Graph()
    graph.add_nodes_from(run.peers)
    graph.add_edges_from(run.links)
    places = layout(graph)
    figure, axes = sheet(0.80)
    _links(axes, run, places)
    _peers(figure, axes, run, places)
    title = "Peer graph"
    return [Picture("graph", title, inline(figure, "graph", title), _keys(run), _caption(run))]


def sheet(width: float) -> tuple[Figure, Axes]:
    """A figure for a graph, which takes so much of its width, drawn as wide as high."""
    figure = Figure(figsize=(5.6, 3.9), dpi=100)
    axes = figure.add_axes((0.02, 0.02, width, 0.96))
    axes.set_axis_off()
    axes.set_aspect("equal")
    axes.margins(0.09)
    return figure, axes


def layout(graph: nx.Graph[str]) -> Places:
    """Where each peer is drawn, the same each time: a hub in the middle, rings as rings, else by forces."""
    members = sorted((peer for peer in graph if peer != "hub"), key=peer_order)
    degrees = {graph.degree(peer) for peer in graph}
    if "hub" in graph:
        return {"hub": np.zeros(2), **_around(members)}
    if degrees == {2} and nx.is_connected(graph):
        return circle([edge[0] for edge in nx.find_cycle(graph, members[0])])
    complete = len(degrees) == 1 and degrees.pop() == len(members) - 1
    if complete or len(members) > MOST_FORCES or not graph.number_of_edges():
        return _around(members)
    hubs = [peer for peer in members if graph.degree(peer) == len(members) - 1]
    if len(hubs) == 1 and graph.number_of_edges() == len(members) - 1:
        return {hubs[0]: np.zeros(2), **_around([peer for peer in members if peer != hubs[0]])}
    if len(members) <= MOST_LABELS and nx.is_connected(graph):
        return dict(nx.kamada_kawai_layout(graph))
    return dict(nx.spring_layout(graph, seed=1, iterations=80, method="force"))


def circle(peers: list[str]) -> Places:
    """Evenly around a circle, the first at the top, clockwise."""
    angles = (2 * math.pi * k / max(len(peers), 1) for k in range(len(peers)))
    return {peer: np.array([math.sin(angle), math.cos(angle)]) for peer, angle in zip(peers, angles, strict=True)}


def _around(peers: list[str]) -> Places:
    """Around a circle, or so many of them evenly over a disc, from its middle outwards.

    Source: H. Vogel, A better way to construct the sunflower head, Mathematical Biosciences 44, 1979.
    """
    if len(peers) <= MOST_AROUND:
        return circle(peers)
    golden, rim = math.pi * (3 - math.sqrt(5)), len(peers) + 0.5
    spiral = ((math.sqrt((k + 1) / rim), golden * k) for k in range(len(peers)))
    points = (np.array([radius * math.sin(angle), radius * math.cos(angle)]) for radius, angle in spiral)
    return dict(zip(peers, points, strict=True))


def dots(points: Floats, side_pt: float) -> tuple[float, float]:
    """The area of a dot and the width of its outline, in points, where the longer side of all is `side_pt` long.

    Very many are as large as the distance between neighbours lets them be, and have no outline: it would hide others.
    """
    if len(points) <= MOST_LABELS:
        return min(430.0, 9_000 / len(points)), 2.0
    nearest, _ = KDTree(points).query(points, k=2)
    apart_pt = float(np.median(nearest[:, 1])) * side_pt / float(np.ptp(points, axis=0).max())
    across_pt = min(10.0, max(2.5, 0.8 * apart_pt))
    return across_pt * across_pt, 0.0


def _links(axes: Axes, run: Run, places: Places) -> None:
    """A link is as wide as the bytes it carried; one that carried none is dotted."""
    most = max((sent for sent in run.links.values() if sent), default=0.0)
    crowd = min(1.0, 60 / max(len(run.links), 1))
    segments = [(places[a], places[b]) for a, b in run.links]
    widths = [crowd**0.5 * (0.5 + 3.5 * sent / most) if sent and most else 0.7 for sent in run.links.values()]
    dashes: list[str | tuple[float, tuple[float, float]]] = [
        (0.0, (1.0, 2.0)) if sent == 0 or (sent is None and most) else "solid" for sent in run.links.values()
    ]
    lines = LineCollection(segments, linewidths=widths, linestyles=dashes, colors=SHADES["none"], zorder=1)
    lines.set_alpha(faintness(len(run.links)))
    lines.set_rasterized(len(segments) > MOST_VECTORS)
    axes.add_collection(lines)


def faintness(links: int) -> float:
    """How opaque a link is: a few are plain to see, thousands only a ground for the peers."""
    return max(0.12, math.pow(min(1.0, 60 / max(links, 1)), 0.45))


def _peers(figure: Figure, axes: Axes, run: Run, places: Places) -> None:
    """Circles coloured by accuracy, who was lost or missed ringed, and labels where there is room."""
    gone, missed = lost(run), absences(run)
    accuracy = {peer: None if peer in gone else _accuracy(run, peer) for peer in run.peers}
    known = [figure for figure in accuracy.values() if figure is not None]
    middle, reach = (min(known) + max(known)) / 2 if known else 0.5, (max(known) - min(known)) / 2 if known else 0.5
    norm = Normalize(middle - max(reach, 0.005), middle + max(reach, 0.005))
    shades = soft_viridis()
    blank = {peer: SHADES["bad" if peer in gone else "none"] for peer in run.peers}
    colours = [blank[peer] if found is None else shades(norm(found)) for peer, found in accuracy.items()]
    at_times = [peer in missed and peer not in gone for peer in run.peers]
    points = np.array([places[peer] for peer in run.peers])
    area, outline = dots(points, SIDE_PT)
    sizes = [area * (1.7 if peer == "hub" else 1.0) for peer in run.peers]
    rings = [SHADES["slow" if late else "card"] for late in at_times]
    widths = [max(outline, 1.0) if late else outline for late in at_times]
    axes.scatter(points[:, 0], points[:, 1], s=sizes, c=colours, edgecolors=rings, linewidths=widths, zorder=2)
    if len(run.peers) <= MOST_LABELS:
        for peer, colour in zip(run.peers, colours, strict=True):
            label(axes, peer, places[peer], colour, 9.0 if len(run.peers) <= 26 else 7.0)
    if reach > 0 and known:
        _colour_bar(figure, ScalarMappable(norm, shades), _judged(run))


def _accuracy(run: Run, peer: str) -> float | None:
    return last(run, peer, "test_accuracy", "validation_accuracy")


def _judged(run: Run) -> str:
    """On what the accuracies were measured that colour the peers."""
    return "test" if any(last(run, peer, "test_accuracy") is not None for peer in run.peers) else "validation"


def soft_viridis() -> Colormap:
    """Viridis without its ends, which are too dark for a dark page and too bright for a light one."""
    return LinearSegmentedColormap.from_list("peers", colormaps["viridis"](np.linspace(0.14, 0.94, 64)))


def label(axes: Axes, peer: str, place: Floats, colour: ColorType, points: float) -> None:
    """A peer's name, light on dark shades and dark on light ones."""
    rgb = to_rgb(colour)
    dark = 0.3 * rgb[0] + 0.59 * rgb[1] + 0.11 * rgb[2] < 0.5
    ink = "#ffffff" if dark else "#111111"
    axes.text(place[0], place[1], peer, color=ink, fontsize=points, ha="center", va="center_baseline", zorder=4)


def _colour_bar(figure: Figure, scale: ScalarMappable, judged: str) -> None:
    bar = figure.colorbar(scale, cax=figure.add_axes((0.85, 0.18, 0.03, 0.62)))
    bar.outline.set_visible(False)
    if bar.solids is not None:
        bar.solids.set_rasterized(True)
    digits = 1 if np.ptp(scale.get_clim()) < 0.06 else 0
    bar.ax.yaxis.set_major_locator(MaxNLocator(5))
    bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: share(value, digits)))
    bar.ax.grid(False)
    figure.text(0.85, 0.83, f"a peer's\n{judged}\naccuracy", color=SHADES["muted"])


def _keys(run: Run) -> tuple[tuple[str, str], ...]:
    gone, missed = lost(run), absences(run)
    failed = set(gone) & set(crashed(run))
    ways = [way for way, some in (("crashed", failed), ("stopped before the end", set(gone) - failed)) if some]
    keys = [("bad", " or ".join(ways))] if gone else []
    if any(peer in run.peers and peer not in gone for peer in missed):
        keys.append(("slow", "absent at times"))
    if any(_accuracy(run, peer) is None for peer in run.peers if peer not in gone):
        keys.append(("none", "not evaluated"))
    return tuple(keys)


def _caption(run: Run) -> str:
    sent = [bytes_ for bytes_ in run.links.values() if bytes_]
    members = sum(peer != "hub" for peer in run.peers)
    who = count(members, "peer") + (" and a hub" if members < len(run.peers) else "")
    links = f"{who}, {count(len(run.links), 'link')}{' in all rounds together' if looked_at(run) else ''}."
    known = {found for peer in run.peers if peer not in lost(run) and (found := _accuracy(run, peer)) is not None}
    if len(known) == 1:
        whose = "The hub" if "hub" in run.peers else "Every peer that was evaluated"
        links += f" {whose} came to {share(known.pop())} {_judged(run)} accuracy."
    if not sent:
        return links
    low, high = size(min(sent)), size(max(sent))
    return f"{links} A link is as wide as the bytes it carried: {low if low == high else f'{low} to {high}'} each."
