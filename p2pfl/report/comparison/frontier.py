"""What a group reached against what it sent: the Pareto frontier of accuracy and bytes.

On the frontier is who reached more than everybody that sent as little or less.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

from p2pfl.report.comparison.curves import HUES, MOST_LINES, SHADES_AND_HUES
from p2pfl.report.comparison.groups import Group, estimate
from p2pfl.report.comparison.tables import ACCURACIES, accuracy
from p2pfl.report.svg import SHADES, Picture, canvas, inline
from p2pfl.report.units import share, size

SENT = "bytes.sent"
ALIKE = 1.01
"""Groups whose bytes differ by less than such a factor send the same."""
FEW_DECADES = 200
"""Within such a factor there are few powers of ten to label."""


@dataclass(frozen=True, eq=False)
class Point:
    """A group (the `at`-th) as means over its seeds. `half` is half of the interval; absent of a single run."""

    at: int
    group: Group
    sent_bytes: float
    accuracy: float
    half: float | None


def points(groups: Sequence[Group]) -> list[Point]:
    """The groups whose accuracy and bytes are known."""
    judged, found = accuracy(groups), []
    for at, group in enumerate(groups):
        reached, sent = group.seeds(judged), group.seeds(SENT)
        if reached and sent:
            found.append(Point(at, group, estimate([*sent.values()])[0], *estimate([*reached.values()])))
    return found


def frontier(known: Sequence[Point]) -> list[Point]:
    """Those that nobody beats, from the fewest bytes on: each sent more than the one before it, and reached more."""
    kept: list[Point] = []
    for point in sorted(known, key=lambda point: (point.sent_bytes, -point.accuracy)):
        if not kept or point.accuracy > kept[-1].accuracy:
            kept.append(point)
    return kept


def picture(groups: Sequence[Group]) -> Picture | None:
    """A point a group, its interval as a bar, the frontier as a line; None where all send the same."""
    known = points(groups)
    paid = [point.sent_bytes for point in known if point.sent_bytes > 0]
    if len(known) < 2 or not paid or (len(paid) == len(known) and max(paid) <= ALIKE * min(paid)):
        return None
    best, few = frontier(known), len(groups) <= MOST_LINES
    figure, axes = canvas(1300, 340)
    edge = min(paid) / 1.6
    for point in known:
        shade = HUES[f"hue{point.at}"] if few else HUES["hue0" if point in best else "hue6"]
        _draw(axes, point, max(point.sent_bytes, edge), shade)
    axes.step(
        [*(max(point.sent_bytes, edge) for point in best), 1.6 * max(paid)],
        [*(point.accuracy for point in best), best[-1].accuracy],
        where="post", color=SHADES["muted"], linewidth=1.2, linestyle=(0, (4, 3)), zorder=1,
    )  # fmt: skip
    axes.set_xlim(edge, 1.6 * max(paid))
    logarithmic(axes, size)
    _reach(axes, known)
    judged = ACCURACIES[accuracy(groups)]
    axes.set_xlabel("sent by all peers together, on a log scale")
    title = f"Final {judged} against bytes sent"
    keys = tuple((str(point.at), point.group.label) for point in known) if few else ()
    return Picture("frontier", title, inline(figure, "frontier", title, SHADES_AND_HUES), keys, _said(known, best))


def _draw(axes: Axes, point: Point, x: float, shade: str) -> None:
    if point.half is not None:
        ends = [point.accuracy - point.half, point.accuracy + point.half]
        axes.plot([x, x], ends, color=shade, linewidth=5, alpha=0.25, solid_capstyle="butt")
    axes.plot([x], [point.accuracy], "o", color=shade, markersize=7, clip_on=False, zorder=5)


def _reach(axes: Axes, known: Sequence[Point]) -> None:
    """All means are within; of the intervals as much as leaves the means legible."""
    means = [point.accuracy for point in known]
    span = max(means) - min(means) or 0.01
    low = min(point.accuracy - min(point.half or 0.0, 0.3 * span) for point in known)
    high = max(point.accuracy + min(point.half or 0.0, 0.3 * span) for point in known)
    axes.set_ylim(max(low - 0.05 * span, -0.01), min(high + 0.05 * span, 1.01))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.4g} %"))


def _said(known: Sequence[Point], best: Sequence[Point]) -> str:
    told = "; ".join(f"{point.group.label} ({share(point.accuracy, 2)}, {size(point.sent_bytes)})" for point in best)
    text = f"The dashed line is the frontier: nobody reached more for as little. On it, the cheapest first: {told}."
    nothing = any(point.sent_bytes == 0 for point in known)
    return f"{text} Who sends nothing stands at the left edge." if nothing else text


def logarithmic(axes: Axes, told: Callable[[float], str]) -> None:
    """A log scale along x, its labels as `told`; of few decades with 2 and 5 between the powers of ten."""
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high < FEW_DECADES * low else (1.0,)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: told(value)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
