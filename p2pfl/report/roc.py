"""How well the models tell two classes apart: the ROC curves of a run's last evaluation, on the test set.

Shapes: P points of a curve.
"""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MultipleLocator

from p2pfl.metrics.roc import Curve, mean, read, thinned
from p2pfl.report.curves import MOST_LINES
from p2pfl.report.folder import Run, last
from p2pfl.report.svg import SHADES, Picture, canvas, inline


def curves(run: Run) -> dict[str, Curve]:
    """The last curve of each peer that has one; in a star, the hub's."""
    voices = ("hub",) if "hub" in run.peers else run.peers
    found = {peer: [curve for row in run.rows.get(peer, ()) if (curve := read(row.get("test_roc")))] for peer in voices}
    return {peer: told[-1] for peer, told in found.items() if told}


def pictures(run: Run) -> list[Picture]:
    """One picture, where there are two classes: each peer's curve, their mean, and what chance would draw."""
    each = curves(run)
    if not each:
        return []
    figure, axes = canvas(560, 390, left_px=72, right_px=24)
    shown = list(each.values())[:: -(-len(each) // MOST_LINES)] if len(each) > 1 else []
    for fpr_P, tpr_P in shown:
        axes.plot(fpr_P, tpr_P, color=SHADES["peer"], linewidth=0.9, alpha=max(0.22, 0.75 - len(shown) / 80))
    axes.plot(*thinned(mean([*each.values()])), color=SHADES["mean"], linewidth=2.2)
    finish(axes)
    title = "ROC curve on the test set"
    caption = "At every threshold: the share of the second label found, over that of the first mistaken for it."
    return [Picture("roc", title, inline(figure, "roc", title), _keys(run, list(each), len(shown)), caption)]


def _keys(run: Run, peers: list[str], shown: int) -> tuple[tuple[str, str], ...]:
    known = [area for peer in peers if (area := last(run, peer, "test_auc")) is not None]
    told = f", area {sum(known) / len(known):.4f}" if known else ""
    who = "mean of the peers" if shown else "the hub" if peers == ["hub"] else f"peer {peers[0]}"
    thin = f"each of {shown} peers" if shown == len(peers) else f"{shown} of {len(peers)} peers"
    return (*([("peer", thin)] if shown else []), ("mean", f"{who}{told}"), ("muted dotted", "chance, area 0.5"))


def finish(axes: Axes) -> None:
    """The line of chance, and both axes from 0 to 1."""
    axes.plot([0, 1], [0, 1], color=SHADES["muted"], linestyle=(0, (1, 2)), linewidth=1)
    axes.set_xlim(-0.01, 1.01)
    axes.set_ylim(-0.01, 1.01)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MultipleLocator(0.2))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.4g} %"))
    axes.set_xlabel("false positive rate")
    axes.set_ylabel("true positive rate")
