"""What a paper reports beside what our runs came to: its whole table, whether we ran all of it or not.

A published figure belongs to every group whose runs have all of its settings.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from p2pfl.report.comparison.groups import Group, estimate
from p2pfl.report.comparison.keys import Settings, brief, cell, columns, flat, written
from p2pfl.report.comparison.tables import MEASURES, Cell, averaged, figure_of
from p2pfl.report.units import humane, number, plain

TITLES = {measure.figure: measure.title for measure in MEASURES}


@dataclass(frozen=True, eq=False)
class Claim:
    """A published figure, as it is called in summary.json, and the flat settings that it belongs to."""

    figure: str
    value: float
    when: Settings

    def holds(self, group: Group) -> bool:
        """Whether all runs of a group have its settings."""
        return all(written(case.settings, key) == written(self.when, key) for case in group.cases for key in self.when)


@dataclass(frozen=True)
class Line:
    """A published figure beside that of one group, or of none. `group` is named where settings alone do not tell it."""

    settings: Sequence[str]
    group: str
    figure: str
    published: str
    ours: Cell
    gap: Cell


@dataclass(frozen=True)
class Table:
    """All that a source reports, one line for each figure and group."""

    source: str
    columns: Sequence[str]
    lines: Sequence[Line]

    @property
    def grouped(self) -> bool:
        """Whether some figure stands beside several groups, so that these must be named."""
        return any(line.group for line in self.lines)


def claims(index: Mapping[str, Any]) -> list[Claim]:
    """What was published, as far as sweep.json says it in a way that can be read."""
    told = index.get("published")
    listed = told.get("figures") if isinstance(told, Mapping) else None
    return [claim for entry in (listed if isinstance(listed, list) else ()) for claim in _claim(entry)]


def _claim(entry: object) -> Iterator[Claim]:
    if isinstance(entry, Mapping) and (value := number(entry.get("value"))) is not None:
        when = entry.get("when")
        yield Claim(str(entry.get("figure")), value, flat(when) if isinstance(when, Mapping) and when else {})


def table(index: Mapping[str, Any], groups: Sequence[Group]) -> Table | None:
    """The paper's table with ours beside it; None where nothing was published."""
    every = claims(index)
    if not every:
        return None
    names = columns(key for claim in every for key in claim.when)
    lines = [line for claim in every for line in _lines(claim, names, groups)]
    return Table(brief(str(index["published"].get("source", "")), 200), names, lines)


def _lines(claim: Claim, names: Sequence[str], groups: Sequence[Group]) -> Iterator[Line]:
    settings = [cell(claim.when, name, claim.when) for name in names]
    told = TITLES.get(claim.figure, brief(claim.figure)), humane(claim.figure, claim.value)
    found = [group for group in groups if claim.holds(group)]
    for group in found:
        ours = figure_of(group, claim.figure)
        yield Line(settings, group.label if len(found) > 1 else "", *told, ours, gap(claim, group))
    if not found:
        yield Line(settings, "", *told, Cell("–", "no run"), Cell("–"))


def gap(claim: Claim, group: Group) -> Cell:
    """How ours compares: of shares the difference in points of a hundred, of all else so many times the published."""
    figures = averaged(group, claim.figure)
    if not figures:
        return Cell("–")
    mean, half = estimate(figures)
    shown = 0.0 if half is None else half
    if claim.figure.partition(".")[0].endswith("accuracy"):
        told, beside = f"{_signed(100 * (mean - claim.value), '.2f')} points", f"± {100 * shown:.2f}"
    elif claim.value <= 0:
        told, beside = _signed(mean - claim.value, ".4g"), f"± {plain(shown)}"
    else:
        told, beside = f"{mean / claim.value:.2f} ×", f"± {shown / claim.value:.2f}"
    return Cell(told, beside if half is not None else "")


def _signed(figure: float, form: str) -> str:
    return f"{figure:+{form}}".replace("-", "\N{MINUS SIGN}")
