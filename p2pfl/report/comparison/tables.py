"""Groups of runs as tables: figures with their intervals, settings against settings, and what was tuned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from p2pfl.report.comparison import edges
from p2pfl.report.comparison.groups import Group, axes, best, certainty, difference, estimate
from p2pfl.report.comparison.keys import labelled, named
from p2pfl.report.units import count, humane, number, plain, share
from p2pfl.scenario.publication import READINGS

ACCURACIES = {"accuracy.mean": "test accuracy", "validation_accuracy.mean": "validation accuracy"}
AWAITED = ("to_target", "to_loss")
"""How figures end that a run has only if it came to what was waited for."""
WIDEST = 12
"""So many columns a table of settings against settings may have."""
LEAKS = {
    **{"leak.recovered": "images read", "leak.label_accuracy": "labels read"},
    **{"leak.property_auc": "AUC of a property", "leak.membership_auc": "AUC of membership"},
}
"""What may have leaked, by what tells most of it."""
VERDICTS = {1: "better", -1: "worse", 0: "no difference shown"}


@dataclass(frozen=True)
class Measure:
    """A column of figures, as they are called in summary.json; `engine` says that it hangs on what ran the peers.

    What was `asked` for, as a budget, makes no group the best; nor does what leaked, which is a gain to who attacks.
    """

    figure: str
    title: str
    larger: bool = False
    engine: bool = False
    asked: bool = False


MEASURES = (
    *(Measure(figure, title, larger=True) for figure, title in ACCURACIES.items()),
    Measure("accuracy.min", "worst peer", larger=True),
    Measure("auc.mean", "AUC", larger=True),
    Measure("loss.mean", "training loss"),
    Measure("rounds_to_target", "rounds to target"),
    Measure("rounds_to_loss", "rounds to loss"),
    Measure("vectors_to_loss", "vectors to loss"),
    Measure("privacy.epsilon.max", "epsilon", asked=True),
    Measure("privacy.to_target", "epsilon at target"),
    Measure("leak.recovered", "images read", asked=True),
    Measure("leak.psnr_db", "their PSNR", asked=True),
    Measure("leak.label_accuracy", "labels read", asked=True),
    *(
        Measure(f"leak.{reading}.{kind}_auc", f"AUC of {kind}, {reading}", asked=True)
        for kind in ("property", "membership")
        for reading in READINGS
    ),
    Measure("bytes.sent", "sent", engine=True),
    Measure("bytes.to_target", "sent to target", engine=True),
    Measure("round_s.median", "a round", engine=True),
    Measure("wall_s", "wall time", engine=True),
)


@dataclass(frozen=True)
class Cell:
    """A figure, and how sure it is."""

    text: str
    beside: str = ""
    mark: str = ""


@dataclass(frozen=True)
class Row:
    """One group."""

    settings: Sequence[str]
    seeds: Cell
    gap: Cell
    figures: Sequence[Cell]


@dataclass(frozen=True)
class Grid:
    """A table with a head for each row and column. `shades` are 0 to 1, or None where a cell is empty."""

    corner: str
    heads: Sequence[str]
    rows: Sequence[tuple[str, Sequence[Cell]]]
    shades: Sequence[Sequence[float | None]] = ()


def accuracy(groups: Sequence[Group]) -> str:
    """What groups are judged by: accuracy on the test set; on the validation set where no run read the other."""
    return next(
        (figure for figure in ACCURACIES if any(group.seeds(figure) for group in groups)), next(iter(ACCURACIES))
    )


def measures(groups: Sequence[Group]) -> list[Measure]:
    """The columns for which some group has a figure."""
    return [measure for measure in MEASURES if any(group.seeds(measure.figure) for group in groups)]


def rows(groups: Sequence[Group], engines: bool) -> list[Row]:
    """A row a group, the best of a column marked; not of one that hangs on the engine where `engines` were mixed."""
    shown = measures(groups)
    winners = {
        measure.figure: best(groups, measure.figure, measure.larger)
        for measure in shown
        if not measure.asked and not (engines and measure.engine)
    }
    return [
        Row(
            settings=tuple(group.cells.values()),
            seeds=_seeds(group),
            gap=_gap(group, groups[0], accuracy(groups)),
            figures=[figure_of(group, measure.figure, winners.get(measure.figure) is group) for measure in shown],
        )
        for group in groups
    ]


def _seeds(group: Group) -> Cell:
    failed = len(group.cases) - len(group.counted)
    return Cell(count(group.repetitions, "seed"), certainty(group.repetitions), f"{failed} left out" if failed else "")


def averaged(group: Group, figure: str) -> list[float]:
    """A figure by seed, of which a mean may be taken: nothing where not every seed reached its target."""
    seeds = group.seeds(figure)
    return [] if figure.endswith(AWAITED) and len(seeds) < group.repetitions else [*seeds.values()]


def figure_of(group: Group, figure: str, wins: bool = False) -> Cell:
    """The mean of a figure and its interval; a dash where there is none."""
    found = averaged(group, figure)
    if not found:
        reached = len(group.seeds(figure))
        return Cell("–", f"reached by {reached} of {group.repetitions}" if reached else "")
    mean, half = estimate(found)
    return Cell(humane(figure, mean), "one seed" if half is None else f"± {_half(figure, half)}", "best" * wins)


def _half(figure: str, half: float) -> str:
    """Half of an interval, of two digits: more would feign to be sure of how unsure it is."""
    if figure.partition(".")[0].endswith("accuracy"):
        return f"{plain(float(f'{100 * half:.2g}'))} %"
    return humane(figure, float(f"{half:.2g}"))


def _gap(group: Group, baseline: Group, figure: str) -> Cell:
    """The difference of accuracy to the baseline, in points of a hundred, and in plain words."""
    if group is baseline:
        return Cell("baseline")
    gap = difference(group, baseline, figure)
    if gap is None:
        return Cell("–")
    told = f"{100 * gap.estimate:+.2f}".replace("-", "\N{MINUS SIGN}")
    if gap.interval is not None and gap.interval.high == gap.interval.low != 0:
        return Cell(told, f"{gap.how}, all alike", "too few to tell")  # shares of few examples: no spread, no certainty
    if gap.interval is not None:
        told += f" ± {50 * (gap.interval.high - gap.interval.low):.2f}"
    return Cell(told, gap.how, VERDICTS[gap.sign])


def leak(groups: Sequence[Group]) -> str | None:
    """The figure that tells most of what leaked; None where nobody attacked."""
    return next((figure for figure in LEAKS if any(group.seeds(figure) for group in groups)), None)


def grid(groups: Sequence[Group], judged: str = "") -> Grid | None:
    """The mean of a figure, settings against settings, where at least two of them vary and most of their pairs ran.

    Of accuracy, if no figure is named.
    """
    judged = judged or accuracy(groups)
    names = axes(groups)
    if len(names) < 2:
        return None
    across = {
        name: {tuple(group.cells[other] for other in names if other != name) for group in groups} for name in names
    }
    down = names[0] if len(across[names[0]]) <= WIDEST else min(names, key=lambda name: len(across[name]))
    others = [name for name in names if name != down]
    heads = list(dict.fromkeys(_among(group, others) for group in groups))
    lines = list(dict.fromkeys(group.cells[down] for group in groups))
    known = {(group.cells[down], _among(group, others)): group for group in groups}
    if len(heads) > WIDEST or len(heads) < 2 or 2 * len(known) < len(lines) * len(heads):
        return None
    cells = [[_mean(known.get((line, head)), judged) for head in heads] for line in lines]
    figures = [figure for row in cells for figure in row if figure is not None]
    if len(figures) < 2:
        return None
    low, span = min(figures), max(figures) - min(figures) or 1.0
    shades = [[None if figure is None else (figure - low) / span for figure in row] for row in cells]
    texts = [[Cell("–" if figure is None else humane(judged, figure)) for figure in row] for row in cells]
    return Grid(down, heads, list(zip(lines, texts, strict=True)), shades)


def _among(group: Group, names: Sequence[str]) -> str:
    return ", ".join(labelled(name, group.cells[name]) for name in names)


def _mean(group: Group | None, figure: str) -> float | None:
    seeds = group.seeds(figure) if group is not None else {}
    return estimate([*seeds.values()])[0] if seeds else None


def tuning(index: Mapping[str, Any]) -> tuple[Grid, str, str] | None:
    """Each candidate's accuracy by setting, the chosen ones marked; how it was chosen; what lies at the edge.

    None where nothing was tuned.
    """
    told = index.get("tuning")
    tried = [entry for entry in told if isinstance(entry, Mapping)] if isinstance(told, list) else []
    if not tried:
        return None
    heads = list(dict.fromkeys(_written(entry.get("candidate")) for entry in tried))
    lines: dict[str, dict[str, Cell]] = {}
    for entry in tried:
        found = number(entry.get("validation_accuracy"))
        cell = Cell("no figure" if found is None else share(found, 2), mark="chosen" * (entry.get("chosen") is True))
        lines.setdefault(_written(entry.get("setting")), {})[_written(entry.get("candidate"))] = cell
    budgets = {len(cells) for cells in lines.values()}
    each = count(max(budgets), "candidate")
    budget = f"with the same budget for every setting: {each}, one run each" if len(budgets) == 1 else "so far"
    said = f"Chosen on the validation split, {budget}. The test set was read once, after the choice."
    body = [(line or "all runs", [cells.get(head, Cell("–")) for head in heads]) for line, cells in lines.items()]
    return Grid("setting", heads, body), said, edges.sentence(index)


def _written(settings: object) -> str:
    """Settings of a sweep, by dotted paths, as they are listed."""
    if not isinstance(settings, Mapping):
        return "" if settings is None else named(settings)
    return ", ".join(labelled(str(path), named(value)) for path, value in settings.items())
