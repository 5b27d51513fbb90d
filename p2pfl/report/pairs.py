"""Who paired with whom, and how often: a square for each two peers that are linked, darker the oftener they paired."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from matplotlib.path import Path

from p2pfl.report.folder import Link, Row, Run
from p2pfl.report.svg import SHADES, Picture, inline
from p2pfl.report.units import count, peer_label

MOST_PEERS = 32
MOST_NUMBERS = 16
"""Beyond so many peers there is no room for numbers in the squares."""
LEVELS = 8
"""How many shades tell how often."""
FAINTEST = 0.18
SIDE = 0.42
"""Half the side of a square, where 1 is the distance of two."""

Pairs = Counter[Link]
"""How often each peer named another as its partner: by who names, and whom."""


def counted(run: Run) -> Pairs:
    """Every pair that the rows name, from the side of who names it."""
    known = {*run.peers}
    named = ((peer, partner) for peer, rows in run.rows.items() for row in rows for partner in _named(row))
    return Counter(pair for pair in named if pair[1] in known)


def _named(row: Row) -> Iterator[str]:
    """Whom a row names: its `partners` where there may be several, else its `partner`."""
    told = row.get("partners")
    for value in told if isinstance(told, list) else [row.get("partner")]:
        if (label := peer_label(value)) is not None:
            yield label


def pictures(run: Run) -> list[Picture]:
    """The squares; nothing of a run in which nobody paired."""
    pairs = counted(run)
    peers = [peer for peer in run.peers if peer != "hub" or any("hub" in pair for pair in pairs)]
    if not pairs:
        return []
    shown = [peers[k] for k in np.unique(np.linspace(0, len(peers) - 1, MOST_PEERS).astype(int))]
    figure, axes = _canvas(shown)
    unpaired = _draw(axes, run, pairs, shown)
    title = "Who paired with whom"
    most, rounds = max(pairs.values()), "rounds" if max(pairs.values()) > 1 else "round"
    keys = [("mean", f"paired in {most:,} {rounds}, the most"), ("mean faint", "in fewer")]
    keys += [("muted hollow", "linked, never paired")] if unpaired else []
    return [Picture("pairs", title, inline(figure, "pairs", title), tuple(keys), _caption(pairs, shown, len(peers)))]


def _caption(pairs: Pairs, shown: list[str], peers: int) -> str:
    both = all(pairs[b, a] == times for (a, b), times in pairs.items())
    said = "How often two peers were partners" if both else "How often the peer of a row named that of a column"
    few = f" {len(shown)} of {count(peers, 'peer')}, evenly chosen." if len(shown) < peers else ""
    return f"{said}. Blank where there is no link.{few}"


def _canvas(shown: list[str]) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(5.6, 3.9), dpi=100)
    axes = figure.add_axes((0.02, 0.09, 0.96, 0.87))
    axes.set_aspect("equal", anchor="C")
    axes.grid(False)
    axes.spines[:].set_visible(False)
    axes.set_xlim(-0.5, len(shown) - 0.5)
    axes.set_ylim(len(shown) - 0.5, -0.5)
    few = len(shown) <= MOST_NUMBERS
    axes.set_xticks(range(len(shown)), shown, fontsize=9 if few else 7, rotation=0 if few else 90)
    axes.set_yticks(range(len(shown)), shown, fontsize=9 if few else 7)
    return figure, axes


def _draw(axes: Axes, run: Run, pairs: Pairs, shown: list[str]) -> bool:
    """Draw the squares, those of one shade as one path; returns whether some links never paired."""
    levels: dict[int, list[tuple[int, int]]] = {}
    most, linked = max(pairs.values()), {*run.links, *((b, a) for a, b in run.links)}
    for row, a in enumerate(shown):
        for column, b in enumerate(shown):
            times = pairs[a, b]
            if times or (a, b) in linked:
                levels.setdefault(-(-LEVELS * times // most), []).append((column, row))
            if times and len(shown) <= MOST_NUMBERS:
                _number(axes, column, row, times, -(-LEVELS * times // most))
    for level, places in levels.items():
        shade = {"facecolor": SHADES["mean"], "linewidth": 0, "alpha": FAINTEST + (1 - FAINTEST) * level / LEVELS}
        if level == 0:
            shade = {"facecolor": "none", "edgecolor": SHADES["muted"], "linewidth": 0.8}
        axes.add_patch(PathPatch(Path.make_compound_path(*map(_square, places)), **shade))
    return 0 in levels


def _square(place: tuple[int, int]) -> Path:
    x, y = place
    corners = [(x - SIDE, y - SIDE), (x + SIDE, y - SIDE), (x + SIDE, y + SIDE), (x - SIDE, y + SIDE)]
    return Path([*corners, corners[0]], closed=True)


def _number(axes: Axes, x: int, y: int, times: int, level: int) -> None:
    """How often, light on dark squares and dark on faint ones, whatever colours the page has."""
    ink = SHADES["card" if level > LEVELS / 2 else "ink"]
    axes.text(x, y, f"{times:,}", color=ink, fontsize=8, ha="center", va="center_baseline", zorder=4)
