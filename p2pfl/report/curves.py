"""How learning went: accuracy, loss and consensus distance over rounds and over bytes.

Shapes: R rounds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from p2pfl.report.ending import settings
from p2pfl.report.folder import Floats, Run, last, series
from p2pfl.report.svg import SHADES, Picture, canvas, inline
from p2pfl.report.units import number, numbers, share, size_unit

Curve = tuple[Floats, Floats]

SPAN = 10
"""Distances that differ by such a factor are drawn on a log scale."""
FEW_DECADES = 2000
"""Within such a factor there may be but two powers of ten, or none."""
MOST_LINES = 100
"""Beyond so many peers the thin lines are a fair choice of them: more would only be a blur."""


@dataclass(frozen=True, eq=False)
class Curves:
    """One figure of every peer over rounds, and what stands for all of them."""

    name: str
    what: str
    each: Mapping[str, Curve]
    bold: Curve
    bold_is: str
    dashed: Curve | None = None
    end: float | None = None
    target: float | None = None
    """The round in which the target was reached."""
    aim: str = ""
    """The target, where the scenario could be read."""


def pictures(run: Run) -> list[Picture]:
    """Every curve that the record can draw."""
    found: list[Picture] = []
    sent = sent_by_round(run)
    for curves in (accuracy(run), loss(run)):
        if curves is not None:
            found.append(_over(run, curves, None))
            if sent[1].size and sent[1][-1] > 0:
                found.append(_over(run, curves, sent))
    rounds_R, distance_R = series(run.whole, "consensus_distance")
    if rounds_R.size:
        found.append(_consensus(rounds_R, distance_R))
    return found


def sent_by_round(run: Run) -> Curve:
    """Rounds, and the bytes that all peers together had sent by their ends."""
    return by_round(run, "sent_bytes")


def by_round(run: Run, key: str, join: np.ufunc = np.add) -> Curve:
    """Rounds, and what a figure that only grows came to by their ends, joined over peers: summed, or the largest.

    Who is silent stays where it was.
    """
    each = [curve for rows in run.rows.values() if (curve := series(rows, key))[0].size]
    if not each:
        return np.zeros(0), np.zeros(0)
    rounds_R = np.unique(np.concatenate([rounds for rounds, _ in each]))
    joined_R = np.zeros(rounds_R.size)
    for rounds, figures in each:
        join(joined_R, np.concatenate([[0.0], figures])[np.searchsorted(rounds, rounds_R, side="right")], out=joined_R)
    return rounds_R, joined_R


def mean(each: Mapping[str, Curve]) -> Curve:
    """The mean over peers, of the rounds that at least half of them have come to."""
    if not each:
        return np.zeros(0), np.zeros(0)
    rounds = np.concatenate([rounds for rounds, _ in each.values()])
    figures = np.concatenate([figures for _, figures in each.values()])
    rounds_R, which = np.unique(rounds, return_inverse=True)
    count_R = np.bincount(which)
    mean_R = np.bincount(which, figures) / count_R
    enough_R = count_R * 2 >= count_R.max()
    return rounds_R[enough_R], mean_R[enough_R]


def _each(run: Run, key: str) -> dict[str, Curve]:
    found = {peer: series(run.rows[peer], key) for peer in run.peers if peer in run.rows}
    return {peer: curve for peer, curve in found.items() if curve[0].size}


def accuracy(run: Run) -> Curves | None:
    """Accuracy while learning: on the validation set, or on the test set where that was evaluated."""
    on = "validation" if any("validation_accuracy" in row for rows in run.rows.values() for row in rows) else "test"
    each = _each(run, f"{on}_accuracy")
    if not each:
        return None
    tests = [test for peer in run.peers if (test := last(run, peer, "test_accuracy")) is not None]
    end = numbers(run.summary.get("accuracy")).get("mean", float(np.mean(tests)) if tests else None)
    end = end if on == "validation" else None
    told = series(run.whole, "mean_accuracy")
    bold, who = (told if told[0].size else mean(each)), "mean of the peers"
    if "hub" in each:
        bold, who = each["hub"], "the hub"
    target = _reached(run, "rounds_to_target", bold)
    known = settings(run)
    aim = f"{100 * known.evaluate.target:.4g} %" if known is not None and known.evaluate.target is not None else ""
    return Curves("accuracy", f"accuracy on the {on} set", each, bold, who, end=end, target=target, aim=aim)


def loss(run: Run) -> Curves | None:
    """Training loss, and beside it validation loss; that alone where nobody trained."""
    each, checked = _each(run, "loss"), _each(run, "validation_loss")
    if not each and not checked:
        return None
    dashed = mean(checked) if each and checked else None
    bold, known = mean(each or checked), settings(run)
    aim = f"{known.evaluate.loss:g}" if known is not None and known.evaluate.loss is not None else ""
    target = _reached(run, "rounds_to_loss", bold)
    return Curves("loss", "training loss" if each else "loss", each or checked, bold, "mean", dashed, None, target, aim)


def _reached(run: Run, figure: str, bold: Curve) -> float | None:
    """The round in which a target was reached, if that is on the curve."""
    target = number(run.summary.get(figure))
    return target if target is not None and 0 < target <= bold[0][-1] else None


def _over(run: Run, curves: Curves, sent: Curve | None) -> Picture:
    """One figure of every peer: over rounds, or over the bytes sent by then."""
    figure, axes = canvas(560, 330)
    unit, bytes_each = size_unit(sent[1][-1]) if sent else ("", 1.0)

    def along(curve: Curve) -> Curve:
        return (np.interp(curve[0], *sent) / bytes_each if sent else curve[0]), curve[1]

    shown = chosen(curves)
    for peer in shown:
        x, y = thin(*along(curves.each[peer]), min(500, max(100, 16_000 // len(shown))))
        faint = max(0.22, 0.75 - len(shown) / 80)
        (line,) = axes.plot(x, y, color=SHADES["peer"], linewidth=0.9, marker=_marker(x), markersize=3, alpha=faint)
        line.set_gid(f"peer-{peer}")
    if curves.dashed is not None:
        axes.plot(*thin(*along(curves.dashed)), color=SHADES["other"], linewidth=1.5, linestyle=(0, (4, 2)))
    x, y = thin(*along(curves.bold))
    axes.plot(x, y, color=SHADES["mean"], linewidth=2.2, marker=_marker(x), markersize=4)
    if curves.end is not None and x.size:
        axes.plot(x[-1:], [curves.end], "D", color=SHADES["other"], markersize=6, clip_on=False, zorder=5)
    _scale(axes, curves, whole=sent is None)
    if curves.target is not None:
        reached = along((np.array([curves.target]), np.zeros(1)))[0][0]
        axes.axvline(reached, color=SHADES["muted"], linestyle=(0, (1, 2)))
    axes.set_xlabel(f"sent by all peers together ({unit})" if sent else "round")
    name = f"{curves.name}-{'bytes' if sent else 'rounds'}"
    title = f"{curves.what[0].upper()}{curves.what[1:]}, over {'bytes' if sent else 'rounds'}"
    return Picture(name, title, inline(figure, name, title), _keys(curves, shown))


def chosen(curves: Curves) -> list[str]:
    """Whose thin lines are drawn: everybody's, or of very many, evenly chosen ones."""
    peers = [peer for peer in curves.each if len(curves.each) > 1 and curves.bold_is != f"the {peer}"]
    return [peers[k] for k in np.unique(np.linspace(0, len(peers) - 1, MOST_LINES).astype(int))] if peers else []


def _marker(x: Floats) -> str:
    """A lone point is no line, and would not be seen."""
    return "o" if x.size == 1 else ""


def _keys(curves: Curves, shown: list[str]) -> tuple[tuple[str, str], ...]:
    peers = sum(peer != "hub" for peer in curves.each)
    thin_lines = f"each of {peers} peers" if len(shown) >= peers else f"{len(shown)} of {peers} peers"
    keys = [("peer", thin_lines)] if shown else []
    keys.append(("mean", curves.bold_is if shown or curves.bold_is == "the hub" else f"peer {next(iter(curves.each))}"))
    if curves.dashed is not None:
        keys.append(("other dashed", "validation loss"))
    if curves.end is not None:
        keys.append(("other diamond", f"test set, at the end: {share(curves.end)}"))
    if curves.target is not None:
        aim = f"target of {curves.aim}" if curves.aim else "target"
        keys.append(("muted dotted", f"{aim} reached in round {curves.target:.0f}"))
    return tuple(keys)


def thin(x: Floats, y: Floats, most: int = 500) -> Curve:
    """At most `most` points of a curve, its ends among them."""
    if x.size <= most:
        return x, y
    kept = np.unique(np.linspace(0, x.size - 1, most).round().astype(int))
    return x[kept], y[kept]


def _scale(axes: Axes, curves: Curves, whole: bool) -> None:
    """Loss that spans decades is drawn in decades; rounds are whole; bytes start at nothing."""
    figures = np.concatenate([curves.bold[1], *(y for _, y in curves.each.values())])
    if curves.name == "loss" and figures.min() > 0 and figures.max() > 30 * figures.min():
        decades(axes)
    if curves.name == "accuracy":
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.4g} %"))
    axes.xaxis.set_major_locator(MaxNLocator(7, steps=[1, 2, 2.5, 5, 10], integer=whole))
    axes.set_xlim(left=0)


def decades(axes: Axes) -> None:
    """A log scale labelled as `0.01`, in three places at least: text here is never parsed as mathematics."""
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high < FEW_DECADES * low else (1.0,)))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _consensus(rounds_R: Floats, distance_R: Floats) -> Picture:
    figure, axes = canvas(560, 390)
    x, y = thin(rounds_R, distance_R)
    spans = bool(y.min() > 0 and y.max() >= SPAN * y.min())
    axes.plot(x, y, color=SHADES["mean"], linewidth=2.2, marker=_marker(x), markersize=4)
    if spans:
        decades(axes)
    else:
        axes.set_ylim(0, 1.1 * y.max() if y.max() > 0 else 1)
        axes.yaxis.set_major_locator(MaxNLocator(6, min_n_ticks=3))
    axes.xaxis.set_major_locator(MaxNLocator(7, integer=True))
    axes.set_xlim(left=0)
    axes.set_xlabel("round")
    title = "Consensus distance, over rounds"
    scale = ", on a log scale" if spans else ""
    caption = f"How far the peers' models are from their mean{scale}; 0 where all have the same."
    return Picture("consensus", title, inline(figure, "consensus", title), caption=caption)
