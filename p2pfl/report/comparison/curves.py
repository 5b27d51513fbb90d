"""How groups of runs learned: mean curves over rounds and over what they cost, with bands of their 95 % intervals.

Shapes: R rounds that all runs of a group evaluated, N runs.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import reduce

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from p2pfl.metrics.intervals import mean_interval
from p2pfl.report.comparison.groups import Group, axes, estimate
from p2pfl.report.comparison.keys import brief, labelled
from p2pfl.report.comparison.runs import COSTS, TRACED
from p2pfl.report.comparison.tables import accuracy
from p2pfl.report.curves import decades, thin
from p2pfl.report.folder import Floats
from p2pfl.report.svg import SHADES, Picture, canvas, inline
from p2pfl.report.units import size_unit, thousands

HUES = {
    **{"hue0": "#0072b2", "hue1": "#d55e01", "hue2": "#009e73", "hue3": "#b8508a"},
    **{"hue4": "#c98502", "hue5": "#3fa3de", "hue6": "#4b5564", "hue7": "#7a4a1f"},
}
"""Okabe & Ito 2008, told apart by the colour-blind; darkened where they would be faint on white."""
DASHES = ("", "7 2", "2 1.5", "7 2 2 2", "4 2", "9 2 2 2 2 2", "1 2", "5 1.2")
"""And by dash, as in SVG, in widths of the line."""
SHADES_AND_HUES = SHADES | HUES
MOST_LINES = len(HUES)
MOST_PANELS = 12
MOST_POINTS = 200
"""Of more rounds evenly chosen ones are drawn."""

Line = tuple[int, Group]
"""A group, and the number of its colour."""


@dataclass(frozen=True, eq=False)
class Band:
    """A group's mean curve. `half_R` is half the width of the interval; absent of a single run."""

    x_R: Floats
    mean_R: Floats
    half_R: Floats | None
    what: str


@dataclass(frozen=True, eq=False)
class Drawn:
    """Curves of learning: panels of lines, what the colours stand for, and what was left out."""

    panels: Mapping[str, Sequence[Line]]
    legend: Sequence[tuple[int, str]]
    note: str = ""


def drawn(groups: Sequence[Group]) -> Drawn:
    """Few groups in one panel; many in a panel for each value of a setting; else the first, the best and the worst."""
    counted = [group for group in groups if group.counted]
    if len(counted) <= MOST_LINES:
        coloured = groups if len(groups) <= MOST_LINES else counted  # as in the table, if it has colours
        lines = [(hue, group) for hue, group in enumerate(coloured) if group.counted]
        return Drawn({"": lines}, [(hue, group.label) for hue, group in lines])
    groups = counted
    for name in axes(groups):
        panels = _panels(groups, name)
        if panels is not None:
            return panels
    judged = accuracy(groups)
    best = sorted(groups[1:], key=lambda group: -estimate([*group.seeds(judged).values()] or [0.0])[0])
    chosen = [groups[0], *best[:4], *best[-3:]]
    lines = list(enumerate(group for group in groups if group in chosen))
    note = f"Of {len(groups)} groups the first is drawn, and of the others the best four and the worst three."
    return Drawn({"": lines}, [(hue, group.label) for hue, group in lines], note)


def _panels(groups: Sequence[Group], name: str) -> Drawn | None:
    others = [other for other in axes(groups) if other != name]
    rests = {group: ", ".join(labelled(other, group.cells[other]) for other in others) for group in groups}
    hues = {rest: hue for hue, rest in enumerate(dict.fromkeys(rests.values()))}
    panels: dict[str, list[Line]] = {}
    for group in groups:
        panels.setdefault(labelled(name, group.cells[name]), []).append((hues[rests[group]], group))
    if not 2 <= len(panels) <= MOST_PANELS or len(hues) > MOST_LINES:
        return None
    return Drawn(panels, [(hue, rest) for rest, hue in hues.items()])


def band(group: Group, name: str, over: str) -> Band | None:
    """A group's mean over its runs, in rounds that all of them evaluated; x is their mean too."""
    traces = [case.traces[name] for case in group.counted if name in case.traces]
    x_R = [x for trace in traces if (x := trace.along(over)) is not None]
    if not traces or len(x_R) < len(traces):
        return None
    shared_R = reduce(np.intersect1d, (trace.rounds_R for trace in traces))
    rounds_R, _ = thin(shared_R, shared_R, MOST_POINTS)
    if not rounds_R.size:
        return None
    at_NR = [np.searchsorted(trace.rounds_R, rounds_R) for trace in traces]
    figures_NR = np.array([trace.figures_R[at_R] for trace, at_R in zip(traces, at_NR, strict=True)])
    x_NR = np.array([x[at_R] for x, at_R in zip(x_R, at_NR, strict=True)])
    half_R = None
    if len(traces) > 1:
        intervals = [mean_interval(figures_N) for figures_N in figures_NR.T.tolist()]
        half_R = np.array([interval.high - interval.estimate for interval in intervals])
    return Band(x_NR.mean(0), figures_NR.mean(0), half_R, traces[0].what)


def pictures(shown: Drawn) -> list[Picture]:
    """All that is traced, over rounds and over each cost, as far as they were recorded: a row for each of these."""
    found = [_picture(shown, name, over) for over in ("rounds", *COSTS) for name in TRACED]
    return [picture for picture in found if picture is not None]


def _picture(shown: Drawn, name: str, over: str) -> Picture | None:
    bands = {
        panel: [(hue, found) for hue, group in lines if (found := band(group, name, over)) is not None]
        for panel, lines in shown.panels.items()
    }
    everything = [found for lines in bands.values() for _, found in lines]
    furthest = max((float(found.x_R.max()) for found in everything), default=0.0)
    if furthest <= 0:
        return None
    label, each = _axis(over, furthest)
    figure, every = _canvas(bands)
    for at, (panel, lines) in enumerate(bands.items()):
        for hue, found in lines:
            _draw(every[at], hue, found, each, faint=0.14 if len(lines) <= 4 else 0.06)
        _finish(every[at], name, everything, furthest / each)
        every[at].set_title(brief(panel), fontsize=9, color=SHADES["ink"])
        every[at].set_xlabel(label)
    what = everything[0].what
    title = f"{what[0].upper()}{what[1:]}, over {over}"
    with any_letters():
        svg = inline(figure, f"{name}-{over}", title, SHADES_AND_HUES)
    return Picture(f"{name}-{over}", title, svg, wide=len(bands) > 1)


def _axis(over: str, furthest: float) -> tuple[str, float]:
    """What stands below an axis that reaches so far, and how many of its units it counts as one."""
    unit, each = {"bytes": size_unit, "vectors": thousands}.get(over, lambda _: ("", 1.0))(furthest)
    words = {
        "rounds": "round",
        "vectors": "parameter vectors sent by all peers together",
        "bytes": "sent by all peers together",
        "time": "seconds",
        "epsilon": "epsilon, the largest of any peer",
    }
    return f"{words[over]} ({unit})" if unit else words[over], each


def _canvas(bands: Mapping[str, object]) -> tuple[Figure, list[Axes]]:
    if len(bands) == 1:
        figure, lone = canvas(440, 310)
        return figure, [lone]
    down = -(-len(bands) // 4)
    across = -(-len(bands) // down)
    figure = Figure(figsize=(13, 2.9 * down), dpi=100, layout="constrained")
    every = list(figure.subplots(down, across, sharey=True, squeeze=False).flat)
    for spare in every[len(bands) :]:
        spare.set_visible(False)
    return figure, every


def _draw(axes: Axes, hue: int, found: Band, each: float, faint: float) -> None:
    x, y = found.x_R / each, found.mean_R
    shade = HUES[f"hue{hue}"]
    if not x.any():  # it sends nothing: what it comes to, where it costs nothing
        axes.plot(x[-1:], y[-1:], "o", color=shade, markersize=6, clip_on=False, zorder=5)
        return
    dash = tuple(map(float, DASHES[hue].split()))
    style = (0, dash) if dash else "-"
    axes.plot(x, y, color=shade, linewidth=1.8, linestyle=style, marker="o" if x.size == 1 else "", markersize=4)
    if found.half_R is not None:
        axes.fill_between(x, y - found.half_R, y + found.half_R, color=shade, alpha=faint, linewidth=0)


def _finish(axes: Axes, name: str, everything: Sequence[Band], furthest: float) -> None:
    """Loss or distance that spans decades is drawn in them; all panels share their scales, and begin at nothing."""
    figures = np.concatenate([found.mean_R for found in everything])
    if name != "accuracy" and figures.min() > 0 and figures.max() > 30 * figures.min():
        axes.set_ylim(figures.min() / 1.4, figures.max() * 1.4)  # an interval that reaches nothing has no decade
        decades(axes)
    else:
        axes.set_ylim(*_reach(everything, name == "accuracy"))
    if name == "accuracy":
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.4g} %"))
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
    axes.set_xlim(0, 1.02 * furthest)


def _reach(everything: Sequence[Band], is_share: bool) -> tuple[float, float]:
    """From the lowest to the highest: of the means whole, of the intervals as much as leaves the means legible."""
    mean_R = np.concatenate([found.mean_R for found in everything])
    half_R = np.concatenate(
        [np.zeros_like(found.mean_R) if found.half_R is None else found.half_R for found in everything]
    )
    span = float(np.ptp(mean_R)) or 0.01
    low = max(float((mean_R - half_R).min()), float(mean_R.min()) - 0.3 * span) - 0.05 * span
    high = min(float((mean_R + half_R).max()), float(mean_R.max()) + 0.3 * span) + 0.05 * span
    low = max(low, -0.02 * span) if mean_R.min() >= 0 else low
    return low, (min(high, 1.01) if is_share else high)


@contextmanager
def any_letters() -> Iterator[None]:
    """Within, labels may hold letters that the plot's own font lacks; the browser has them."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")
        yield
