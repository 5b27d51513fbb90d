"""What a group reached against what it cost: the Pareto frontiers of accuracy and bytes, and of accuracy and epsilon.

On the frontier is who reached more than everybody that paid as little or less.
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
from p2pfl.report.units import count, plain, share, size

ALIKE = 1.01
"""Groups whose costs differ by less than such a factor pay the same."""
FEW_DECADES = 200
"""Within such a factor there are few powers of ten to label."""


@dataclass(frozen=True)
class Cost:
    """A figure of summary.json that is paid for accuracy; `engine` says that it hangs on what ran the peers."""

    name: str
    figure: str
    title: str
    label: str
    told: Callable[[float], str]
    engine: bool = False


COSTS = (
    Cost("frontier", "bytes.sent", "bytes sent", "sent by all peers together", size, engine=True),
    Cost("privacy-frontier", "privacy.epsilon.max", "epsilon", "epsilon, the largest of any peer", plain),
)


@dataclass(frozen=True, eq=False)
class Point:
    """A group (the `at`-th) as means over its seeds. `half` is half of the interval; absent of a single run."""

    at: int
    group: Group
    cost: float
    accuracy: float
    half: float | None


def points(groups: Sequence[Group], cost: Cost) -> list[Point]:
    """The groups whose accuracy and cost are known."""
    judged, found = accuracy(groups), []
    for at, group in enumerate(groups):
        reached, paid = group.seeds(judged), group.seeds(cost.figure)
        if reached and paid:
            found.append(Point(at, group, estimate([*paid.values()])[0], *estimate([*reached.values()])))
    return found


def frontier(known: Sequence[Point]) -> list[Point]:
    """Those that nobody beats, from the cheapest on: each paid more than the one before it, and reached more."""
    kept: list[Point] = []
    for point in sorted(known, key=lambda point: (point.cost, -point.accuracy)):
        if not kept or point.accuracy > kept[-1].accuracy:
            kept.append(point)
    return kept


def pictures(groups: Sequence[Group], engines: bool) -> list[Picture]:
    """A picture for each cost in which groups differ; where `engines` were mixed not of one that hangs on them."""
    found = [picture(groups, cost) for cost in COSTS if not (engines and cost.engine)]
    return [picture for picture in found if picture is not None]


def picture(groups: Sequence[Group], cost: Cost) -> Picture | None:
    """A point a group, its interval as a bar, the frontier as a line; None where all pay the same."""
    known = points(groups, cost)
    paid = [point.cost for point in known if point.cost > 0]
    if len(known) < 2 or not paid or (len(paid) == len(known) and max(paid) <= ALIKE * min(paid)):
        return None
    best, few = frontier(known), len(groups) <= MOST_LINES
    figure, axes = canvas(1300, 340)
    edge = min(paid) / 1.6
    for point in known:
        shade = HUES[f"hue{point.at}"] if few else HUES["hue0" if point in best else "hue6"]
        _draw(axes, point, max(point.cost, edge), shade)
    axes.step(
        [*(max(point.cost, edge) for point in best), 1.6 * max(paid)],
        [*(point.accuracy for point in best), best[-1].accuracy],
        where="post", color=SHADES["muted"], linewidth=1.2, linestyle=(0, (4, 3)), zorder=1,
    )  # fmt: skip
    axes.set_xlim(edge, 1.6 * max(paid))
    logarithmic(axes, cost.told)
    _reach(axes, known)
    judged = ACCURACIES[accuracy(groups)]
    axes.set_xlabel(f"{cost.label}, on a log scale")
    title = f"Final {judged} against {cost.title}"
    keys = tuple((str(point.at), point.group.label) for point in known) if few else ()
    svg = inline(figure, cost.name, title, SHADES_AND_HUES)
    return Picture(cost.name, title, svg, keys, _said(groups, known, best, cost))


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


def _said(groups: Sequence[Group], known: Sequence[Point], best: Sequence[Point], cost: Cost) -> str:
    listed = (f"{point.group.label} ({share(point.accuracy, 2)}, {cost.told(point.cost)})" for point in best)
    text = "The dashed line is the frontier: nobody reached more for as little. On it, the cheapest first: "
    text += f"{'; '.join(listed)}."
    text += " Who pays nothing stands at the left edge." if any(point.cost == 0 for point in known) else ""
    unknown = sum(bool(group.counted) for group in groups) - len(known)
    return f"{text} {unknown} of {count(len(groups), 'group')} without such a figure." if unknown else text


def logarithmic(axes: Axes, told: Callable[[float], str]) -> None:
    """A log scale along x, its labels as `told`; of few decades with 2 and 5 between the powers of ten."""
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high < FEW_DECADES * low else (1.0,)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: told(value)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
