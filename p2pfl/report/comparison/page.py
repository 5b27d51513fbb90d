"""Runs side by side as one self-contained HTML page: no script, nothing fetched, all that was recorded escaped."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace as replace_in
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2
from markupsafe import Markup

from p2pfl.errors import ScenarioError
from p2pfl.report.comparison import curves, dots, frontier, published, published_plot, roc, tables
from p2pfl.report.comparison.groups import Group, best, difference, grouped, mixed
from p2pfl.report.comparison.keys import brief, columns, slots, written
from p2pfl.report.comparison.rows import replace, table
from p2pfl.report.comparison.runs import Case, case
from p2pfl.report.comparison.tables import ACCURACIES, VERDICTS, accuracy
from p2pfl.report.svg import style
from p2pfl.report.units import count, humane

__all__ = ["table", "write"]

MOST_RUNS = 1000
"""How many runs the list of runs holds."""
LISTED = ("accuracy.min", "loss.mean", "rounds_to_target", "bytes.sent", "wall_s")
"""What it says of each, beside the accuracy that groups are judged by."""
LeftOut = tuple[str, str]
"""A folder whose figures count nowhere, and why."""


def write(folders: Sequence[Path], out: Path, title: str = "", index: Mapping[str, Any] | None = None) -> Path:
    """Write the page that compares the runs in `folders` to `out`; `index` is what sweep.json holds.

    A run that cannot be read or did not finish is named on the page. Raises ScenarioError when there is no other and
    no index to tell of.
    """
    cases, left_out = _read(folders, index or {})
    if not cases and index is None:
        where, why = left_out[0] if left_out else ("", "no run was given")
        raise ScenarioError(f"there is nothing to compare: {brief(where)}", why)
    replace(out, render(cases, left_out, out, title, index or {}))
    return out


def _read(folders: Sequence[Path], index: Mapping[str, Any]) -> tuple[list[Case], list[LeftOut]]:
    """The runs, and those that do not count with the reason: the sweep's, where it knows one."""
    told = {_name(entry): str(entry["reason"]) for entry in _entries(index) if "reason" in entry}
    cases: list[Case] = []
    left_out: list[LeftOut] = []
    for folder in {folder.resolve(): folder for folder in folders}.values():
        reason = told.pop(folder.name, "")
        try:
            found = case(folder)
            cases.append(replace_in(found, trouble=_better(found.trouble, reason)))
        except ScenarioError as error:
            left_out.append((str(folder), reason or str(error)))
    left_out += [(str(case.folder), case.trouble) for case in cases if case.trouble]
    return cases, [*left_out, *told.items()]


def _better(trouble: str, reason: str) -> str:
    """Of what a run's own folder and the sweep say, that which says more."""
    return max(trouble, reason, key=len)


def render(cases: Sequence[Case], left_out: Sequence[LeftOut], out: Path, title: str, index: Mapping[str, Any]) -> str:
    """The page; the same text for the same runs."""
    groups = grouped(cases, [str(path) for entry in _entries(index) for path in _mapping(entry.get("settings"))])
    engines = mixed([case for case in cases if not case.trouble], "engine")
    shown = curves.drawn(groups)
    judged = accuracy(groups)
    with style():
        pictures = [*curves.pictures(shown), *roc.pictures(shown)]
        every_seed = dots.picture(groups)
        paid = frontier.pictures(groups, bool(engines))
        drawn = published_plot.pictures(published.claims(index), groups)
    return _template().render(
        title=title or "Comparison",
        sentence=_sentence(groups),
        chips=_chips(cases),
        notices=_notices(groups, engines, left_out, index),
        columns=list(groups[0].cells) if groups else [],
        measures=tables.measures(groups),
        rows=tables.rows(groups, bool(engines)),
        hues=len(groups) <= curves.MOST_LINES,
        dots=every_seed,
        frontiers=paid,
        published=published.table(index, groups),
        published_plots=drawn,
        pictures=pictures,
        shown=shown,
        grids=_grids(groups),
        tuning=tables.tuning(index),
        left_out=left_out,
        runs=list(_runs(groups, out.parent, (judged, *LISTED))),
        listed=(judged, *LISTED),
        judged=ACCURACIES[judged],
        more=max(0, len(cases) - MOST_RUNS),
    )


def _grids(groups: Sequence[Group]) -> list[tuple[str, tables.Grid]]:
    """Settings against settings: in accuracy, and in what leaked where somebody attacked."""
    judged, leak = accuracy(groups), tables.leak(groups)
    told = [(f"Mean {ACCURACIES[judged]}", judged), *([(f"What leaked: {tables.LEAKS[leak]}", leak)] if leak else [])]
    return [(title, grid) for title, figure in told if (grid := tables.grid(groups, figure)) is not None]


def _template() -> jinja2.Template:
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.globals |= {"drawn": lambda picture: Markup(picture.svg), "dashes": curves.DASHES}
    return environment.get_template("page.html")


def _entries(index: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    told = index.get("cases")
    return [entry for entry in told if isinstance(entry, Mapping)] if isinstance(told, list) else []


def _name(entry: Mapping[str, Any]) -> str:
    """What the folder of a case is called; of one that has none yet, its number."""
    return Path(str(entry.get("folder") or f"case {entry.get('number')}")).name


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _sentence(groups: Sequence[Group]) -> str:
    """What was compared, and what came of it."""
    judged = accuracy(groups)
    counted = [group for group in groups if group.seeds(judged)]
    runs = sum(len(group.counted) for group in groups)
    text = f"{count(runs, 'finished run')} in {count(len(groups), 'group')}."
    if len(groups) < 2 or not counted:
        return text
    gaps = [gap for group in groups[1:] if (gap := difference(group, groups[0], judged)) is not None]
    signs = Counter(gap.sign for gap in gaps if gap.interval is not None)
    told = [f"{signs[sign]} {VERDICTS[sign]}" for sign in (1, -1) if signs[sign]]
    told += [f"no difference shown for {signs[0]}"] if signs[0] else []
    if signs:
        text += f" In {ACCURACIES[judged]}, against {groups[0].label}: {', '.join(told)}."
    winner = best(groups, judged, larger=True)
    return f"{text} The best of all is {winner.label}." if winner is not None else text


def _chips(cases: Sequence[Case]) -> list[str]:
    """What all runs have in common, as far as it says what they are about."""
    keys = [*columns(slots()), "peers", "rounds", "training.lr"]
    same = [key for key in keys if cases and not mixed(cases, key) and key in cases[0].settings]
    return [f"{key} {written(cases[0].settings, key)}" for key in same]


def _notices(
    groups: Sequence[Group], engines: Sequence[str], left_out: Sequence[LeftOut], index: Mapping[str, Any]
) -> Iterator[str]:
    """What a reader must know before the figures."""
    finished = {run.folder.name for group in groups for run in group.counted}
    unfinished = [entry for entry in _entries(index) if _name(entry) not in finished]
    if unfinished:
        every = len(_entries(index))
        yield f"The sweep is not complete: {every - len(unfinished)} of {count(every, 'case')} count here."
    if left_out:
        yield f"{count(len(left_out), 'run')} left out of all figures: see the end of the page."
    if engines:
        yield f"The runs had different engines ({', '.join(engines)}): their bytes and times do not compare."
    seeds = [[run.seed for run in group.counted if run.seed is not None] for group in groups]
    if any(len(found) > len(set(found)) for found in seeds):
        yield "Some seeds ran more than once with the same settings: their means count, as one run each."


def _runs(
    groups: Sequence[Group], beside: Path, listed: Sequence[str]
) -> Iterator[tuple[str, str, str, str, list[str], str]]:
    """Each run: its name, where its page is, its group, its seed, its figures, and what is wrong with it."""
    every = [(group, run) for group in groups for run in group.cases][:MOST_RUNS]
    for group, run in every:
        path = os.path.relpath(run.folder / "report.html", beside)
        figures = [humane(key, run.figures[key]) if key in run.figures else "–" for key in listed]
        seed = "–" if run.seed is None else str(run.seed)
        yield run.folder.name, quote(path, errors="replace"), group.label, seed, figures, run.trouble
