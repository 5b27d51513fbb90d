"""What each peer was doing when: a row per peer, and bars along it, in time (rounds) or over rounds (who led)."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from p2pfl.report.ending import virtual
from p2pfl.report.folder import Row, Run, last
from p2pfl.report.svg import SHADES, Picture, canvas, inline
from p2pfl.report.units import number

MOST_ROWS = 24
ALIKE = 0.05
"""Peers that came to their end within such a share of the longest time took about as long."""
MOST_VECTORS = 1500
"""Beyond so many bars they are drawn as one image."""
MOST_BLOCKS = 60
"""Beyond so many rounds, several share one shade."""
WIDTH_PX = 1080
SLOW = 1.5
SLOW_S = 0.05
"""A round is slow when its peer computed so many times the median over peers for it, and more than a moment."""


@dataclass(frozen=True)
class Bar:
    """From `start` to `end` in the row of a peer."""

    row: int
    start: float
    end: float
    shade: str


def pictures(run: Run) -> list[Picture]:
    """The time line, and who led when where somebody did."""
    return [*_time_line(run), *_leaders(run)]


def _time_line(run: Run) -> list[Picture]:
    peers, which = _longest(run)
    end_s = max((last(run, peer, "time_s") or 0.0 for peer in peers), default=0.0)
    if end_s <= 0:
        return []
    block = _block(max(int(run.rows[peer][-1]["round"]) for peer in peers))
    median_s = _medians(run)
    bars: list[Bar] = []
    for row, peer in enumerate(peers):
        bars += _merged(_rounds(row, run.rows[peer], block, median_s), end_s / WIDTH_PX)
    figure, axes = _strip(peers)
    _draw(axes, bars)
    axes.set_xlim(0, end_s)
    axes.set_xlabel(f"{'virtual ' if virtual(run) else ''}seconds since round 1 began")
    shades = "each round" if block == 1 else f"each {block} rounds"
    keys = [("even", shades), ("odd", "the next")]
    if any(bar.shade.startswith("slow") for bar in bars):
        keys.append(("slow", f"a round of more than {SLOW:g} times the median"))
    caption = "A row a peer. A gap is time outside of rounds (evaluation, or not chosen)."
    title = f"Time line of rounds{', in virtual time' if virtual(run) else ''}"
    return [Picture("time", title, inline(figure, "time", title), tuple(keys), f"{caption}{which}", wide=True)]


def _longest(run: Run) -> tuple[list[str], str]:
    """Whose rows are drawn, in the order of peers, and which of all they are: those that took longest."""
    told = [peer for peer in run.peers if peer in run.rows]
    end_s = {peer: last(run, peer, "time_s") or 0.0 for peer in told}
    if len(told) <= MOST_ROWS:
        return told, ""
    alike = [peer for peer in told if end_s[peer] >= (1 - ALIKE) * max(end_s.values())]
    if len(alike) <= MOST_ROWS:
        chosen = sorted(told, key=lambda peer: -end_s[peer])[:MOST_ROWS]
        return [peer for peer in told if peer in chosen], f" The {MOST_ROWS} of {len(told):,} peers that took longest."
    which = f"of {len(told):,} peers" if len(alike) == len(told) else f"of the {len(alike):,} that took longest"
    return _evenly(alike), f" {MOST_ROWS} {which}, evenly chosen: all of these took about as long."


def _evenly(peers: list[str]) -> list[str]:
    return [peers[k] for k in np.unique(np.linspace(0, len(peers) - 1, MOST_ROWS).astype(int))]


def _block(rounds: int) -> int:
    """How many rounds share a shade: 1, 2, 5, 10, 20, ..."""
    step = 1
    for factor in itertools.cycle((2, 2.5, 2)):
        if rounds <= MOST_BLOCKS * step:
            break
        step = round(step * factor)
    return step


def _medians(run: Run) -> dict[int, float]:
    """The median of what peers computed in each round. A lone peer is its own median."""
    spans: dict[int, list[float]] = {}
    for rows in run.rows.values():
        for row in rows:
            if (span_s := number(row.get("compute_s"))) is not None:
                spans.setdefault(row["round"], []).append(span_s)
    return {round_: float(np.median(found)) for round_, found in spans.items()}


def _rounds(row: int, rows: Iterable[Row], block: int, median_s: dict[int, float]) -> Iterator[Bar]:
    for told in rows:
        end_s, span_s = number(told.get("time_s")), number(told.get("round_s"))
        if end_s is None or span_s is None or span_s < 0:
            continue
        compute_s = number(told.get("compute_s")) or 0.0
        bound_s = max(SLOW * median_s.get(told["round"], compute_s), SLOW_S)
        shades = ("slow", "slow2") if compute_s > bound_s else ("even", "odd")
        yield Bar(row, max(0.0, end_s - span_s), end_s, shades[(told["round"] - 1) // block % 2])


def _merged(bars: Iterable[Bar], gap: float) -> Iterator[Bar]:
    """Neighbours of one shade as one bar where the gap between them would not be seen."""
    held: Bar | None = None
    for bar in bars:
        if held is not None and bar.shade == held.shade and 0 <= bar.start - held.end + gap <= 2 * gap:
            held = Bar(held.row, held.start, bar.end, held.shade)
            continue
        if held is not None:
            yield held
        held = bar
    if held is not None:
        yield held


def _strip(peers: list[str]) -> tuple[Figure, Axes]:
    """Axes with a row for each peer, the first at the top."""
    row_px = 22 if len(peers) <= 16 else 16
    figure, axes = canvas(WIDTH_PX, 60 + row_px * max(len(peers), 2), right_px=30)
    axes.set_ylim(len(peers) - 0.4, -0.6)
    axes.set_yticks(range(len(peers)), peers, fontsize=9)
    axes.grid(False, axis="y")
    axes.xaxis.set_major_locator(MaxNLocator(12))
    return figure, axes


def _draw(axes: Axes, bars: list[Bar]) -> None:
    for shade in dict.fromkeys(bar.shade for bar in bars):
        corners = [
            [(bar.start, bar.row - 0.4), (bar.start, bar.row + 0.4), (bar.end, bar.row + 0.4), (bar.end, bar.row - 0.4)]
            for bar in bars
            if bar.shade == shade
        ]
        filled = PolyCollection(corners, facecolors=SHADES[shade], linewidths=0, zorder=2)
        filled.set_rasterized(len(bars) > MOST_VECTORS)
        axes.add_collection(filled)


def _leaders(run: Run) -> list[Picture]:
    told = [peer for peer in run.peers if any(isinstance(row.get("leader"), bool) for row in run.rows.get(peer, ()))]
    if not told:
        return []
    peers = _evenly(told)
    bars: list[Bar] = []
    for row, peer in enumerate(peers):
        known = [line for line in run.rows[peer] if isinstance(line.get("leader"), bool)]
        spans = (
            Bar(row, line["round"] - 0.5, line["round"] + 0.5, "even" if line["leader"] else "odd") for line in known
        )
        bars += _merged(spans, 0.01)
    figure, axes = _strip(peers)
    _draw(axes, bars)
    axes.set_xlim(0.5, max(bar.end for bar in bars))
    axes.set_xlabel("round")
    title = "Who led when"
    keys = (("even", "leader"), ("odd", "follower"))
    caption = f"{len(peers)} of {len(told):,} peers, evenly chosen." if len(peers) < len(told) else ""
    return [Picture("leaders", title, inline(figure, "leaders", title), keys, caption, wide=True)]
