"""Runs as groups: equal in all settings but the seed, which is the repetition; and how sure their differences are.

The unit is the run, not the peer. Runs of the same seed are paired: they share data, peers' shards and first points.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from p2pfl.metrics.intervals import Interval, mean_interval, paired_interval, unpaired_interval
from p2pfl.report.comparison.keys import Settings, brief, cell, column, columns, labelled, varying, written
from p2pfl.report.comparison.runs import Case

Seed = int | str
"""A seed; of a run without one, its folder: nothing pairs with it."""

ASIDE = ("engine", "transport", "training.device", "hosts", "save", "name", "folder")
"""What does not matter to learning. It is a setting only where all else is equal, the seeds too."""
SURE = ((5, "for a claim"), (3, "indicative"), (0, "anecdote"))
"""How many seeds are enough for what."""


@dataclass(frozen=True, eq=False)
class Group:
    """Runs that differ in nothing but their seeds. `cells` are its settings by column, `label` those that tell."""

    cells: Mapping[str, str]
    label: str
    cases: tuple[Case, ...]

    @property
    def counted(self) -> tuple[Case, ...]:
        """Those that came to their end."""
        return tuple(case for case in self.cases if not case.trouble)

    @property
    def repetitions(self) -> int:
        """How many seeds came to their end."""
        return len({_repetition(case) for case in self.counted})

    def seeds(self, figure: str) -> dict[Seed, float]:
        """A figure of each seed that has it; of a seed that ran several times their mean."""
        found: dict[Seed, list[float]] = {}
        for case in self.counted:
            if figure in case.figures:
                found.setdefault(_repetition(case), []).append(case.figures[figure])
        return {seed: sum(figures) / len(figures) for seed, figures in found.items()}


@dataclass(frozen=True)
class Difference:
    """Of two groups' means. `interval` is absent when there are too few seeds for one."""

    estimate: float
    interval: Interval | None
    how: str

    @property
    def sign(self) -> int:
        """1 or -1 when the interval lies on one side of nothing, else 0."""
        if self.interval is None:
            return 0
        return (self.interval.low > 0) - (self.interval.high < 0)


def grouped(cases: Sequence[Case], first: Sequence[str] = ()) -> list[Group]:
    """Groups in the order of their first runs. The columns of the settings `first` go first."""
    keys = _telling(cases)
    shown = columns(keys, first)
    found: dict[tuple[str, ...], list[Case]] = {}
    for case in cases:
        found.setdefault(tuple(written(case.settings, key) for key in keys), []).append(case)
    told_apart = [
        key for key in keys if len({written(case.settings, key) for case in cases if key in case.settings}) > 1
    ]
    several = [members[0].settings for members in found.values()]
    cells = [{name: cell(settings, name, told_apart) for name in shown} for settings in several]
    needed = _needed(cells, shown)
    hidden = _hidden(cells, several, needed, told_apart)
    groups = []
    for told, settings, members in zip(cells, several, found.values(), strict=True):
        label = ", ".join(labelled(name, cell(settings, name, told_apart, hidden)) for name in needed)
        groups.append(Group(told, label or _name(members), tuple(members)))
    return groups


def _hidden(
    cells: Sequence[Mapping[str, str]], several: Sequence[Settings], needed: Sequence[str], options: Sequence[str]
) -> list[str]:
    """The options of plug-ins that an earlier column implies, as where each sketch has a hub's step of its own."""
    found = []
    for key in (key for key in options if column(key) in needed and key not in needed):
        whole = [{**told, key: written(settings, key)} for told, settings in zip(cells, several, strict=True)]
        if any(_implies(whole, known, key) for known in needed[: needed.index(column(key))]):
            found.append(key)
    return found


def _repetition(case: Case) -> Seed:
    return str(case.folder) if case.seed is None else case.seed


def _name(cases: Sequence[Case]) -> str:
    """What runs are called that differ in nothing."""
    return "all runs" if mixed(cases, "name") else brief(written(cases[0].settings, "name"))


def axes(groups: Sequence[Group]) -> list[str]:
    """The columns that vary, but for those that another one implies (as a topology that goes with its algorithm)."""
    return _needed([group.cells for group in groups], list(groups[0].cells)) if groups else []


def mixed(cases: Sequence[Case], key: str) -> list[str]:
    """The values of a key, if there are several."""
    found = list(dict.fromkeys(written(case.settings, key) for case in cases))
    return found if len(found) > 1 else []


def estimate(figures: Sequence[float]) -> tuple[float, float | None]:
    """Their mean, and the half width of its 95 % interval; None of a single run."""
    if len(figures) < 2:
        return figures[0], None
    interval = mean_interval(figures)
    return interval.estimate, (interval.high - interval.low) / 2


def difference(ours: Group, theirs: Group, figure: str) -> Difference | None:
    """How much more `ours` has: over the seeds that both have, else as unrelated runs; None if one has no figure."""
    a, b = ours.seeds(figure), theirs.seeds(figure)
    if not a or not b:
        return None
    shared = [seed for seed in a if seed in b]
    if len(shared) > 1:
        interval = paired_interval([a[seed] for seed in shared], [b[seed] for seed in shared])
        return Difference(interval.estimate, interval, f"paired, {len(shared)} seeds")
    if min(len(a), len(b)) > 1:
        interval = unpaired_interval([*a.values()], [*b.values()])
        return Difference(interval.estimate, interval, f"Welch, {len(a)} and {len(b)} runs")
    if shared:
        return Difference(a[shared[0]] - b[shared[0]], None, "one shared seed")
    return Difference(estimate([*a.values()])[0] - estimate([*b.values()])[0], None, "no shared seed")


def best(groups: Sequence[Group], figure: str, larger: bool) -> Group | None:
    """The group that beats every other by an interval; None where none does."""
    known = [group for group in groups if group.seeds(figure)]
    if len(known) < 2:
        return None
    sign = 1 if larger else -1
    first = max(known, key=lambda group: sign * estimate([*group.seeds(figure).values()])[0])
    apart = (difference(first, other, figure) for other in known if other is not first)
    return first if all(gap is not None and gap.sign == sign for gap in apart) else None


def certainty(seeds: int) -> str:
    """What so many seeds are good for."""
    return next(word for least, word in SURE if seeds >= least)


def _telling(cases: Sequence[Case]) -> list[str]:
    """The keys that tell groups apart: all that vary, but the seed and what does not matter."""
    vary = [key for key in varying([case.settings for case in cases]) if key != "seed"]
    aside = {word: [key for key in vary if f"{key}.".startswith(f"{word}.")] for word in ASIDE}
    keys = [key for key in vary if not any(key in known for known in aside.values())]
    for word, further in aside.items():
        if further and _crossed(cases, keys, further, word == "folder"):
            keys += further
    return keys


def _crossed(cases: Sequence[Case], keys: Sequence[str], further: Sequence[str], seeded: bool) -> bool:
    """Whether runs that agree in `keys` ran with the same seeds for every value of `further`."""
    found: dict[tuple[str, ...], dict[tuple[str, ...], set[int | None]]] = {}
    for case in (case for case in cases if not case.trouble):
        values = found.setdefault(_values(case.settings, keys), {})
        values.setdefault(_values(case.settings, further), set()).add(case.seed)
    several = [list(values.values()) for values in found.values() if len(values) > 1]
    return bool(several) and all(
        seeds == sets[0] and not (seeded and None in seeds) for sets in several for seeds in sets
    )


def _values(settings: Settings, keys: Sequence[str]) -> tuple[str, ...]:
    return tuple(written(settings, key) for key in keys)


def _needed(cells: Sequence[Mapping[str, str]], shown: Sequence[str]) -> list[str]:
    """Those of the columns that no earlier one implies."""
    kept: list[str] = []
    for name in shown:
        if not any(_implies(cells, known, name) for known in kept):
            kept.append(name)
    return kept


def _implies(cells: Sequence[Mapping[str, str]], known: str, name: str) -> bool:
    return len({(told[known], told[name]) for told in cells}) == len({told[known] for told in cells})
