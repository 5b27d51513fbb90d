"""The final accuracy of every seed as a dot, a group in each row: positions are what people compare best."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from p2pfl.report.comparison.curves import HUES, MOST_LINES, SHADES_AND_HUES, any_letters
from p2pfl.report.comparison.groups import Group, estimate
from p2pfl.report.comparison.keys import brief
from p2pfl.report.comparison.tables import ACCURACIES, accuracy
from p2pfl.report.svg import SHADES, Picture, canvas, inline
from p2pfl.report.units import share

MOST_ROWS = 60


def picture(groups: Sequence[Group]) -> Picture | None:
    """A row a group, a dot a seed; the bar is the interval of the mean."""
    judged = accuracy(groups)
    known = [(at, group) for at, group in enumerate(groups) if group.seeds(judged)]
    if len(known) > MOST_ROWS:
        ranked = sorted(known, key=lambda item: -estimate([*item[1].seeds(judged).values()])[0])[:MOST_ROWS]
        known = [item for item in known if item in ranked]
    if not known:
        return None
    labels = [brief(group.label) for _, group in known]
    figure, axes = canvas(1300, 56 + 26 * len(known) + 12, left_px=min(420, 22 + round(6.3 * max(map(len, labels)))))
    for row, (at, group) in enumerate(known):
        hue = f"hue{at}" if len(groups) <= MOST_LINES else "hue0"
        _dots(axes, row, [*group.seeds(judged).values()], HUES[hue])
    first = [*known[0][1].seeds(judged).values()]
    axes.axvline(estimate(first)[0], color=SHADES["muted"], linestyle=(0, (1, 2)), linewidth=1, zorder=1)
    axes.set_yticks(range(len(known)), labels, color=SHADES["ink"])
    axes.set_ylim(len(known) - 0.5, -0.5)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.4g} %"))
    low, high = axes.get_xlim()
    axes.set_xlim(max(low, -0.005), min(high, 1.005))  # of few seeds an interval goes beyond what there can be
    axes.set_xlabel(f"{ACCURACIES[judged]}, mean over peers")
    title = f"Final {ACCURACIES[judged]} of every seed"
    reached = share(estimate(first)[0], 2)
    caption = f"A dot a seed. The bar is the 95 % interval of the mean, the dotted line the first group's {reached}."
    if len(known) < len(groups):
        caption += f" {len(known)} of {len(groups)} groups."
    with any_letters():
        return Picture("dots", title, inline(figure, "dots", title, SHADES_AND_HUES), caption=caption, wide=True)


def _dots(axes: Axes, row: int, figures: Sequence[float], shade: str) -> None:
    mean, half = estimate(figures)
    if half is not None:
        axes.plot([mean - half, mean + half], [row, row], color=shade, linewidth=7, alpha=0.25, solid_capstyle="butt")
        axes.plot([mean], [row], "|", color=shade, markersize=15, markeredgewidth=2.2)
    axes.plot(figures, [row] * len(figures), "o", color=shade, markersize=5.5, alpha=0.8, markeredgewidth=0)
