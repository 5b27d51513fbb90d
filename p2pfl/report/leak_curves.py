"""What attacks found along the training rounds: images read, their error, labels and certainty, a line a reading."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from p2pfl.report.curves import Curve, decades
from p2pfl.report.leaks import AREAS, READ, Leak, mean
from p2pfl.report.svg import SHADES, Picture, canvas, inline
from p2pfl.report.units import plain

MOST_LINES = 12
"""Beyond so many lines, those of one reading are one, whatever the method."""
SHADE = {
    **{"plain": "mean", "memoryless": "muted", "server": "slow", "stateful": "bad", "matched": "other"},
    **{"head": "even", "linear": "none"},
}
"""The colour of each reading."""
DASHES = {"": "solid", "dashed": (0, (4, 2)), "dotted": (0, (1, 2))}
"""How the lines of the first, second and further methods are drawn."""
FINEST = 1e-12
"""Errors below are drawn there: they are as good as none."""

AREA = "Area under ROC of the attack: 0.5 is chance, 1 is sure."


@dataclass(frozen=True)
class Measure:
    """A figure of findings that is drawn over rounds."""

    figure: str
    title: str
    caption: str
    share: bool = True


MEASURES = (
    Measure("recovered", "Images read, over rounds", f"The share of images with a mean squared error below {READ:g}."),
    Measure("mse", "Error of images, over rounds", "The median over images, on a scale of 0 to 1.", share=False),
    Measure("label_accuracy", "Labels read, over rounds", "The share of labels that were told rightly."),
    Measure("property_auc", "Certainty of a property, over rounds", AREA, share=False),
    Measure("membership_auc", "Certainty of membership, over rounds", AREA, share=False),
)

Lines = dict[tuple[str, str], Curve]
"""By method and reading; the method is empty where it is all of them."""


def pictures(leaks: Sequence[Leak]) -> list[Picture]:
    """A picture for each figure that was measured in several rounds."""
    found = ((measure, lines(leaks, measure.figure)) for measure in MEASURES)
    return [_picture(measure, drawn) for measure, drawn in found if _moves(measure, drawn)]


def lines(leaks: Sequence[Leak], figure: str) -> Lines:
    """A line for each method and reading that has the figure; for each reading, where those are too many."""
    told = [leak for leak in leaks if leak.figures.get(figure) is not None]
    told.sort(key=lambda leak: (leak.rank, leak.method))
    named = list(dict.fromkeys((leak.method, leak.reading) for leak in told))
    several = len(named) <= MOST_LINES
    named = named if several else list(dict.fromkeys(("", reading) for _, reading in named))
    return {
        (method, reading): _line([one for one in told if one.reading == reading and method in ("", one.method)], figure)
        for method, reading in named
    }


def _line(leaks: Sequence[Leak], figure: str) -> Curve:
    rounds = sorted({leak.round for leak in leaks})
    found = [mean([leak for leak in leaks if leak.round == r], figure) for r in rounds]
    return np.array(rounds, float), np.array(found, float)


def _moves(measure: Measure, drawn: Lines) -> bool:
    """Whether there are several rounds; of what is reckoned over all rounds together, whether any differs."""
    several = any(rounds.size > 1 for rounds, _ in drawn.values())
    return several and (measure.figure not in AREAS or any(np.ptp(found) > 0 for _, found in drawn.values()))


def _picture(measure: Measure, drawn: Lines) -> Picture:
    figure, axes = canvas(560, 330)
    methods, keys = list(dict.fromkeys(method for method, _ in drawn)), []
    for at, ((method, reading), (x, y)) in enumerate(drawn.items()):
        shade, dash = SHADE.get(reading, "peer"), [*DASHES][min(methods.index(method), 2)]
        y = np.maximum(y, FINEST) if measure.figure == "mse" else y
        marker = "o" if x.size < 30 else ""
        width = max(1.2, 3.6 - 0.5 * at)  # of lines that lie upon each other all are seen
        axes.plot(x, y, marker, color=SHADES[shade], linewidth=width, linestyle=DASHES[dash], markersize=width + 2)
        keys.append((f"{shade} {dash}".strip(), _named(method if len(methods) > 1 else "", reading)))
    _scale(axes, measure, drawn)
    name = f"leak-{measure.figure.replace('_', '-')}"
    return Picture(name, measure.title, inline(figure, name, measure.title), tuple(keys), measure.caption)


def _named(method: str, reading: str) -> str:
    return ", ".join(filter(None, (reading, method))) or "found"


def _scale(axes: Axes, measure: Measure, drawn: Lines) -> None:
    axes.set_xlabel("round")
    axes.xaxis.set_major_locator(MaxNLocator(7, steps=[1, 2, 2.5, 5, 10], integer=True))
    if measure.figure == "mse":
        decades(axes)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: plain(value)))
        return
    axes.set_ylim(-0.02, 1.02)
    if measure.share:
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.4g} %"))
