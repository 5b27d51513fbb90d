"""Published figures that differ in one number only, drawn over it: the paper's hollow, ours filled."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from p2pfl.report.comparison.curves import DASHES, HUES, MOST_LINES, SHADES_AND_HUES, any_letters
from p2pfl.report.comparison.frontier import logarithmic
from p2pfl.report.comparison.groups import Group, estimate
from p2pfl.report.comparison.keys import brief, cell, columns, labelled
from p2pfl.report.comparison.published import TITLES, Claim
from p2pfl.report.comparison.tables import averaged
from p2pfl.report.curves import decades
from p2pfl.report.svg import SHADES, Picture, canvas, inline
from p2pfl.report.units import humane, number, plain

SPAN = 10
"""Numbers that differ by such a factor are drawn on a log scale."""
MOST_PLOTS = 6

Row = list[tuple[float, Claim]]
"""Published figures by the number in which alone they differ."""


@dataclass(frozen=True, eq=False)
class Plot:
    """A figure over a setting, a row of published figures for each choice of all other settings."""

    figure: str
    key: str
    rows: dict[str, Row]


def plots(claims: Sequence[Claim]) -> Iterator[Plot]:
    """Every figure over every numeric setting in which alone some of its published values differ."""
    numeric = {(claim.figure, key): None for claim in claims for key in claim.when if _x(claim, key) is not None}
    for figure, key in numeric:
        rows: dict[str, Row] = {}
        for claim in claims:
            if claim.figure == figure and (x := _x(claim, key)) is not None:
                rows.setdefault(_rest(claim, key), []).append((x, claim))
        kept = {rest: sorted(row, key=lambda item: item[0]) for rest, row in rows.items() if len(dict(row)) > 1}
        if kept and len(kept) <= MOST_LINES:
            yield Plot(figure, key, kept)


def _x(claim: Claim, key: str) -> float | None:
    return number(claim.when.get(key))


def _rest(claim: Claim, key: str) -> str:
    """All settings but one, in a few words."""
    rest = {other: value for other, value in claim.when.items() if other != key}
    return ", ".join(labelled(name, cell(rest, name, rest)) for name in columns(rest)) or "published"


def pictures(claims: Sequence[Claim], groups: Sequence[Group]) -> list[Picture]:
    """A small plot each, of the first few."""
    return [_picture(at, plot, groups) for at, plot in enumerate(plots(claims)) if at < MOST_PLOTS]


def _picture(at: int, plot: Plot, groups: Sequence[Group]) -> Picture:
    figure, axes = canvas(440, 310, left_px=62)
    ys = [y for hue, row in enumerate(plot.rows.values()) for y in _draw(axes, hue, row, groups)]
    _scale(axes, min(ys), max(ys))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: humane(plot.figure, value)))
    xs = [x for row in plot.rows.values() for x, _ in row]
    if min(xs) > 0 and max(xs) >= SPAN * min(xs):
        logarithmic(axes, plain)
    else:
        axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.set_xlabel(brief(plot.key))
    title = f"{TITLES.get(plot.figure, plot.figure).capitalize()}, over {plot.key}"
    with any_letters():
        svg = inline(figure, f"published-{at}", "a published figure beside ours", SHADES_AND_HUES)
    keys = tuple((str(hue), brief(rest)) for hue, rest in enumerate(plot.rows))
    return Picture(f"published-{at}", title, svg, keys)


def _scale(axes: Axes, low: float, high: float) -> None:
    """All that is published and all means are within; of intervals as much as leaves these legible."""
    if low > 0 and high >= SPAN * low:
        axes.set_ylim(low / 1.4, high * 1.4)
        decades(axes)
    else:
        span = high - low or abs(high) or 1.0
        axes.set_ylim(low - 0.3 * span if low < 0 else max(low - 0.3 * span, -0.03 * span), high + 0.3 * span)


def _draw(axes: Axes, hue: int, row: Row, groups: Sequence[Group]) -> list[float]:
    """Draw a row of published figures and ours; returns all values."""
    shade, dash = HUES[f"hue{hue}"], tuple(map(float, DASHES[hue].split()))
    published = [claim.value for _, claim in row]
    axes.plot([x for x, _ in row], published, "o", color=shade, markerfacecolor=SHADES["card"], markersize=8, zorder=4)
    ours = [(x, *estimate(found)) for x, claim in row if (found := _ours(claim, groups))]
    if ours:
        x, mean, _ = zip(*ours, strict=True)
        style = (0, dash) if dash else "-"
        axes.plot(x, mean, color=shade, linewidth=1.6, linestyle=style, marker="o", markersize=5, zorder=5)
    for at, middle, half in ours:
        bar = [middle - (half or 0.0), middle + (half or 0.0)]
        axes.plot([at, at], bar, color=shade, linewidth=5, alpha=0.25, solid_capstyle="butt")
    return [*published, *(mean for _, mean, _ in ours)]


def _ours(claim: Claim, groups: Sequence[Group]) -> list[float]:
    """Ours by seed, where one group alone has the settings."""
    found = [group for group in groups if claim.holds(group)]
    return averaged(found[0], claim.figure) if len(found) == 1 else []
