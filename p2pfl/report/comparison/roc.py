"""How well groups of runs tell two classes apart: the mean ROC curve of each, and a thin line for every run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from p2pfl.metrics.roc import Curve, mean, thinned
from p2pfl.report import roc
from p2pfl.report.comparison.curves import DASHES, HUES, SHADES_AND_HUES, Drawn, any_letters
from p2pfl.report.comparison.groups import Group
from p2pfl.report.comparison.keys import brief
from p2pfl.report.folder import read
from p2pfl.report.svg import SHADES, Picture, canvas, inline

AUC = "auc.mean"
"""The figure of a run that has curves."""


def pictures(shown: Drawn) -> list[Picture]:
    """One picture of the groups that are drawn, if any has curves; in as many panels as the others."""
    panels = {
        panel: [(hue, found) for hue, group in lines if (found := runs(group))] for panel, lines in shown.panels.items()
    }
    if not any(panels.values()):
        return []
    figure, every = _canvas(panels)
    for axes, (panel, lines) in zip(every, panels.items(), strict=False):
        for hue, found in lines:
            _draw(axes, hue, found)
        roc.finish(axes)
        axes.set_title(brief(panel), fontsize=9, color=SHADES["ink"])
    title = "ROC curve on the test set"
    with any_letters():
        svg = inline(figure, "roc", title, SHADES_AND_HUES)
    return [Picture("roc", title, svg, wide=len(panels) > 1)]


def runs(group: Group) -> list[Curve]:
    """The curve of each run that counts: the mean over its peers, in a star the hub's."""
    told = [roc.curves(read(case.folder)) for case in group.counted if AUC in case.figures]
    return [mean([*each.values()]) for each in told if each]


def _canvas(panels: Mapping[str, object]) -> tuple[Figure, Sequence[Axes]]:
    if len(panels) == 1:
        figure, lone = canvas(440, 310, left_px=72, right_px=24)
        return figure, [lone]
    down = -(-len(panels) // 4)
    across = -(-len(panels) // down)
    figure = Figure(figsize=(13, 3.2 * down), dpi=100, layout="constrained")
    every = list(figure.subplots(down, across, squeeze=False).flat)
    for spare in every[len(panels) :]:
        spare.set_visible(False)
    return figure, every


def _draw(axes: Axes, hue: int, found: Sequence[Curve]) -> None:
    """The mean across the diagonal of chance: the area under it is the mean of the areas."""
    shade, dash = HUES[f"hue{hue}"], tuple(map(float, DASHES[hue].split()))
    if len(found) > 1:
        for each in found:
            axes.plot(*thinned(each), color=shade, linewidth=0.8, alpha=0.45)
    axes.plot(*thinned(mean(found)), color=shade, linewidth=1.8, linestyle=(0, dash) if dash else "-")
