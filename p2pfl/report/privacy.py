"""What a run gave away of its peers' examples: epsilon over rounds, what it is worth, and what it does not cover."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from p2pfl.report.curves import Curves, by_round, chosen, thin
from p2pfl.report.ending import settings
from p2pfl.report.folder import Run, last, series, spent_out
from p2pfl.report.svg import SHADES, Picture, canvas, inline
from p2pfl.report.units import count, number, numbers, plain

UNITS = {"example": "one example of one peer, added or removed"}
"""What epsilon hides the presence of, by the word in summary.json."""
COVERED = (
    "Everything that a peer ever sends, all of it together: its models of every round, as they are or sketched, and "
    "the losses that it tells, so also who leads and who pairs.",
    "Against all other peers together, who may keep all that they receive, and against whoever reads along.",
)
NOT_COVERED = (
    "That a peer took part, and how many examples it has.",
    "The constants that data are standardised by, and the partition: both were made from all data at once.",
    "Choices made on the validation split, such as learning rates, clips, and when to stop.",
    "This run's folder: its losses and accuracies are the experimenter's own, measured on the data, without noise.",
    "When messages come: a step on more examples takes longer.",
    "What the noise is made of: floating-point numbers, of a generator that is seeded like a cipher and is none.",
)
REPLAYABLE = "Replayable, not for release: the noise of a run with a seed can be drawn again by whoever knows the seed."


@dataclass(frozen=True)
class Statement:
    """The panel beside the picture: figures as label and value, and a warning where one is due."""

    figures: tuple[tuple[str, str], ...]
    warning: str = ""
    covered: tuple[str, ...] = COVERED
    not_covered: tuple[str, ...] = NOT_COVERED


def epsilons(run: Run) -> dict[str, float]:
    """What each peer has spent, by its last word; empty where none is private."""
    found = {peer: last(run, peer, "epsilon") for peer in run.peers}
    return {peer: figure for peer, figure in found.items() if figure is not None}


def told(run: Run) -> Mapping[str, Any]:
    """`privacy` of the summary; of a run that left none, what its rows say."""
    summed = run.summary.get("privacy")
    if isinstance(summed, Mapping):
        return summed
    spent = [*epsilons(run).values()]
    return {"epsilon": {"max": max(spent), "mean": sum(spent) / len(spent)}} if spent else {}


def statement(run: Run) -> Statement | None:
    """What the panel says; None where nobody is private."""
    privacy = told(run)
    epsilon = numbers(privacy.get("epsilon"))
    if "max" not in epsilon:
        return None
    delta, unit = number(privacy.get("delta")), str(privacy.get("unit", "example"))
    figures = [("epsilon, the largest of any peer", plain(epsilon["max"]) + ("" if run.finished else " so far"))]
    if "mean" in epsilon:
        figures.append(("epsilon, mean over peers", plain(epsilon["mean"])))
    if "max" in (claimed := numbers(privacy.get("claimed"))):
        figures.append(("epsilon as the paper reckons it, which does not hold", plain(claimed["max"])))
    if delta is not None:
        figures.append(("delta", plain(delta)))
    figures.append(("unit", UNITS.get(unit, unit)))
    if accountant := privacy.get("accountant"):
        figures.append(("accountant", str(accountant).upper()))
    if (reached := number(privacy.get("to_target"))) is not None:
        figures.append(("epsilon when the target was first reached", plain(reached)))
    figures += _audit(privacy)
    return Statement(tuple(figures), REPLAYABLE if privacy.get("replayable") is True else "")


def _audit(privacy: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What the canaries prove, and by what guesses."""
    audit = numbers(privacy.get("audit"))
    if "epsilon" not in audit:
        return []
    found = [("audit: at least this was given away (95 %)", plain(audit["epsilon"]))]
    if {"right", "guessed", "canaries"} <= audit.keys():
        guesses = f"{plain(audit['right'])} of {plain(audit['guessed'])}, of {count(audit['canaries'], 'canary')}"
        found.append(("audit: guesses that were right", guesses.replace("canarys", "canaries")))
    return found


def picture(run: Run) -> Picture | None:
    """Epsilon over rounds: a line for each peer, the largest in bold, the budget and what the audit proved."""
    each = {peer: curve for peer in run.peers if (curve := series(run.rows.get(peer, ()), "epsilon"))[0].size}
    if not each:
        return None
    curves = Curves("epsilon", "epsilon", each, by_round(run, "epsilon", np.maximum), "the largest of any peer")
    shown = chosen(curves)
    figure, axes = canvas(560, 330)
    faint = max(0.22, 0.75 - len(shown) / 80)
    for peer in shown:
        (line,) = axes.plot(*thin(*each[peer]), color=SHADES["peer"], linewidth=0.9, alpha=faint)
        line.set_gid(f"peer-{peer}")
    x, y = thin(*curves.bold)
    axes.plot(x, y, color=SHADES["mean"], linewidth=2.2, marker="o" if x.size == 1 else "", markersize=4)
    keys = [("peer", f"each of {len(each)} peers" if len(shown) == len(each) else f"{len(shown)} of {len(each)} peers")]
    keys = [*(keys if shown else []), ("mean", curves.bold_is), *_bounds(run, axes)]
    axes.set_ylim(bottom=0)
    axes.set_xlim(left=0)
    axes.xaxis.set_major_locator(MaxNLocator(7, steps=[1, 2, 2.5, 5, 10], integer=True))
    axes.set_xlabel("round")
    stopped = spent_out(run)
    caption = f"{count(len(stopped), 'peer')} spent the budget and stopped training." if stopped else ""
    title = "Epsilon, over rounds"
    return Picture("epsilon", title, inline(figure, "epsilon", title), tuple(keys), caption)


def _bounds(run: Run, axes: Axes) -> list[tuple[str, str]]:
    """Draw the budget, where there is one, and what the audit proved; their keys."""
    keys = []
    known = settings(run)
    budgets = (getattr(choice.value, "epsilon", None) for choice in (known.defences if known is not None else ()))
    if (budget := number(next(budgets, None))) is not None:
        axes.axhline(budget, color=SHADES["muted"], linestyle=(0, (1, 2)))
        keys.append(("muted dotted", f"budget of {plain(budget)}"))
    proved = numbers(told(run).get("audit")).get("epsilon")
    if proved is not None:
        axes.axhline(proved, color=SHADES["other"], linewidth=1.5, linestyle=(0, (4, 2)))
        keys.append(("other dashed", f"proved by the audit, at the end: {plain(proved)}"))
    return keys
