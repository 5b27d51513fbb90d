"""Who can read whom: a square for each attacker and victim, the redder the more was read, whatever the method."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from p2pfl.report.folder import Run
from p2pfl.report.leaks import READ, Leak, mean, strongest
from p2pfl.report.svg import SHADES, Picture, inline
from p2pfl.report.units import peer_order, share

MOST_PEERS, MOST_NUMBERS = 32, 12
"""Of more attackers and victims only so many are shown; beyond so many there is no room for numbers."""
FAINTEST = 0.12
"""How strong the colour is of what was judged, and came to nothing."""
FOOT_IN = 0.55
SIDE = 0.46
"""Half the side of a square, where 1 is the distance of two."""

Several = TypeVar("Several", str, tuple[str, ...])


@dataclass(frozen=True)
class Measure:
    """A figure that is told of an attacker and a victim, and what one has who reads `all` of it."""

    figure: str
    title: str
    all: str
    caption: str
    chance: float = 0.0


MEASURES = (
    Measure(
        *("recovered", "Who can read whom: images", "all images read"),
        f"The share of images with a mean squared error below {READ:g}, and how sharp the sharpest is.",
    ),
    Measure("label_accuracy", "Who can read whom: labels", "all labels read", "The share of labels told rightly."),
    Measure(
        *("property_auc", "Who can tell a property of whose examples", "sure"),
        "Area under ROC of the attack: chance, 0.5, is faint.",
        chance=0.5,
    ),
    Measure(
        *("membership_auc", "Who can tell whose examples were learned from", "sure"),
        "Area under ROC of the attack: chance, 0.5, is faint.",
        chance=0.5,
    ),
)


@dataclass(frozen=True)
class Square:
    """What an attacker made of a victim: a figure of 0 to 1, None where nothing came of it; and the sharpest image."""

    figure: float | None
    psnr_db: float | None = None

    def strength(self, measure: Measure) -> float:
        """How red it is, of 1."""
        told = ((self.figure or 0.0) - measure.chance) / (1 - measure.chance)
        return FAINTEST + (1 - FAINTEST) * min(1.0, max(0.0, told))


Squares = dict[tuple[tuple[str, ...], str], Square]
"""By attackers and victim; who was never attacked has none."""


def told(leaks: Sequence[Leak]) -> list[tuple[Measure, Squares]]:
    """The figures that anybody has, of all who attacked; where nobody found anything, the first of figures."""
    every = [(measure, squares(leaks, measure.figure)) for measure in MEASURES] if leaks else []
    known = [each for each in every if any(square.figure is not None for square in each[1].values())]
    return known or every[:1]


def squares(leaks: Sequence[Leak], figure: str) -> Squares:
    """By attackers and victim: over all rounds, of the strongest finding of each."""
    pairs: dict[tuple[tuple[str, ...], str], list[Leak]] = {}
    for leak in leaks:
        pairs.setdefault((leak.attackers, leak.victim), []).append(leak)
    sharp = {pair: [one.figures["psnr_db"] for one in ours if "psnr_db" in one.figures] for pair, ours in pairs.items()}
    return {
        pair: Square(
            mean(strongest(ours, figure), figure), max(sharp[pair], default=None) if figure == "recovered" else None
        )
        for pair, ours in pairs.items()
    }


def picture(run: Run, measure: Measure, found: Squares) -> Picture:
    """The squares, attackers downwards and victims across."""
    who = _some(sorted({attackers for attackers, _ in found}, key=lambda each: [*map(peer_order, each)]))
    victims = {victim for _, victim in found}
    everybody = sorted({*run.peers, *victims}, key=peer_order)
    whom = _some(everybody if len(everybody) <= MOST_NUMBERS else sorted(victims, key=peer_order))
    figure, axes = _canvas([" + ".join(each) for each in who], whom)
    for (attackers, victim), square in found.items():
        if attackers in who and victim in whom:
            _draw(axes, whom.index(victim), who.index(attackers), square, measure, len(whom) <= MOST_NUMBERS)
    name = f"leak-map-{measure.figure.replace('_', '-')}"
    return Picture(
        name,
        measure.title,
        inline(figure, name, measure.title),
        keys(found, measure),
        _caption(measure, found, len(who), len(whom)),
    )


def keys(found: Squares, measure: Measure) -> tuple[tuple[str, str], ...]:
    """What the colours say."""
    judged = [square for square in found.values() if square.figure is not None]
    said = (
        [("bad", measure.all), ("bad faint", "fewer, or none" if not measure.chance else "less sure")] if judged else []
    )
    return (*said, *([("none", "attacked, nothing found")] if len(judged) < len(found) else []))


def _caption(measure: Measure, found: Squares, who: int, whom: int) -> str:
    attackers, victims = (len({pair[at] for pair in found}) for at in (0, 1))
    few = f" {who} of {attackers:,} attackers, evenly chosen." if who < attackers else ""
    few += f" {whom} of {victims:,} victims, evenly chosen." if whom < victims else ""
    of = "the mean over methods and readings" if measure.chance else "each by the strongest method and reading"
    return f"{measure.caption} Of all rounds, {of}. Blank where nobody attacked.{few}"


def _some(those: list[Several]) -> list[Several]:
    return [those[k] for k in np.unique(np.linspace(0, len(those) - 1, MOST_PEERS).astype(int))]


def _canvas(who: list[str], whom: list[str]) -> tuple[Figure, Axes]:
    high = min(3.9, FOOT_IN + max(1.0, 4.8 / len(whom) * len(who)))
    figure = Figure(figsize=(5.6, high), dpi=100)
    axes = figure.add_axes((0.12, FOOT_IN / high, 0.86, 0.98 - FOOT_IN / high))
    axes.set_aspect("equal", anchor="C")
    axes.grid(False)
    axes.spines[:].set_visible(False)
    axes.set_xlim(-0.6, len(whom) - 0.4)
    axes.set_ylim(len(who) - 0.4, -0.6)
    small = len(whom) > MOST_NUMBERS or len(who) > MOST_NUMBERS
    axes.set_xticks(range(len(whom)), whom, fontsize=7 if small else 9, rotation=90 if small else 0)
    axes.set_yticks(range(len(who)), who, fontsize=7 if small else 9)
    axes.set_xlabel("victim")
    axes.set_ylabel("attacker")
    return figure, axes


def _draw(axes: Axes, x: int, y: int, square: Square, measure: Measure, numbers: bool) -> None:
    judged = square.figure is not None
    strength = square.strength(measure) if judged else 1.0
    shade = SHADES["bad" if judged else "none"]
    axes.add_patch(Rectangle((x - SIDE, y - SIDE), 2 * SIDE, 2 * SIDE, facecolor=shade, alpha=strength, linewidth=0))
    if square.figure is None or not numbers:
        return
    said = f"{square.figure:.2f}" if measure.chance else share(square.figure, 0)
    said += f"\n{square.psnr_db:.0f} dB" if square.psnr_db is not None else ""
    ink = SHADES["card" if strength > 0.55 else "ink"]
    axes.text(x, y, said, color=ink, fontsize=8, ha="center", va="center", linespacing=1.3, zorder=4)
