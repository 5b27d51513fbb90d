"""Many scenarios of one: the product of the values that `matrix` lists, and what `tune` tries in each of its settings.

Keys are dotted paths, as for `--set`. All is read before anything starts, and an error names the line of the matrix.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from p2pfl import scenario, yaml_marks, yaml_settings
from p2pfl.errors import ScenarioError
from p2pfl.runtime.sweeps.axes import (
    SEED,
    Entry,
    Point,
    axes,
    points,
    product,
    refuse_too_many,
    refuse_twice,
    telling,
    values,
)
from p2pfl.scenario import PUBLISHED, SLOTS, Published, Scenario

LONGEST_SLUG, LONGEST_TOLD = 60, 120
"""Letters of a case's label that its folder has, and that an error does."""


@dataclass(frozen=True)
class Case:
    """One run of a sweep. `settings` are the keys that it sets and their values as written, `label` those that tell."""

    number: int
    label: str
    settings: Mapping[str, Any]
    scenario: Scenario = field(repr=False)
    digest: str

    @property
    def folder(self) -> str:
        """The name of its folder."""
        return f"{self.label[:LONGEST_SLUG]}-{self.digest}"


@dataclass(frozen=True)
class Candidate:
    """What `tune` tries in a setting: the run that tells how good it is, and the cases there are if it is chosen.

    Without `tune` there is one, of no `values` and no `trial`.
    """

    values: Mapping[str, Any]
    trial: Case | None
    cases: tuple[Case, ...]
    document: yaml_marks.Document = field(repr=False)


@dataclass(frozen=True)
class Setting:
    """What the matrix sets, whatever the seed: all its cases take the same candidate."""

    values: Mapping[str, Any]
    candidates: tuple[Candidate, ...]


@dataclass(frozen=True)
class Sweep:
    """All cases of a scenario with a `matrix` or `tune`.

    `text` is its YAML, relative paths in it go from the folder `beside`; `seed` is the one that `tune` tries with.
    `digest` is a short hash of all that it says but what was `published`: 8 hexadecimal digits.
    """

    name: str
    text: str = field(repr=False)
    beside: str
    settings: tuple[Setting, ...]
    seed: int | None
    digest: str
    published: Published | None = None

    @property
    def cases(self) -> tuple[Case, ...]:
        """The cases by their numbers; where something is tuned, as they are with the first candidate."""
        return tuple(case for setting in self.settings for case in setting.candidates[0].cases)

    @property
    def tuned(self) -> tuple[str, ...]:
        """The keys whose values are chosen."""
        return tuple(dict.fromkeys(key for candidate in self.settings[0].candidates for key in candidate.values))


def is_sweep(source: str | Path | Mapping[str, Any], sets: Sequence[str] = ()) -> bool:
    """Whether this makes more than one run. Raises ScenarioError when it cannot be read at all."""
    with scenario.located(source, sets) as document:
        return any(document.value.get(key) not in ({}, None) for key in ("matrix", "tune"))


def cases(source: str | Path | Mapping[str, Any], sets: Sequence[str] = ()) -> Sweep | None:
    """Every case of a sweep, each read as strictly as a scenario; None where there is no `matrix` and no `tune`.

    The seed varies fastest, then the last key. Raises ScenarioError, with the place of the culprit.
    """
    if not is_sweep(source, sets):
        return None
    with scenario.located(source, sets) as document:
        matrix, tune = axes(document, "matrix"), axes(document, "tune")
        refuse_twice(matrix, tune)
        refuse_too_many(matrix, tune)
        settings = _Reader(document, product(tune), matrix.get(SEED, [])).settings(points(document, matrix))
        first = settings[0].candidates[0]
        seed = (first.trial or first.cases[0]).scenario.seed
        published, name = scenario.published(document, first.document), first.cases[0].scenario.name
        text = yaml_marks.dump(document.value)
        return Sweep(name, text, document.folder, settings, seed, _digest(document), published)


def _digest(document: yaml_marks.Document) -> str:
    said = {key: part for key, part in document.value.items() if key != PUBLISHED}
    return hashlib.sha256(yaml_marks.dump(said).encode()).hexdigest()[:8]


@dataclass
class _Reader:
    """Makes cases of points. Counts what it made, and remembers it, so that no case is there twice."""

    document: yaml_marks.Document
    tried: list[Point]
    seeds: list[Entry]
    cases: int = 0
    trials: int = 0
    seen: dict[str, tuple[str, Point]] = field(default_factory=dict)

    def settings(self, points: list[Point]) -> tuple[Setting, ...]:
        """The points by what they set beside the seed, each with all candidates. Raises ScenarioError, located."""
        kept = {key: part for key, part in self.document.value.items() if key not in ("matrix", "tune", PUBLISHED)}
        self.base = dataclasses.replace(self.document, value=kept)
        grouped = itertools.groupby(points, lambda point: [entry.path for key, entry in point.items() if key != SEED])
        return tuple(self.setting(list(group)) for _, group in grouped)

    def setting(self, group: list[Point]) -> Setting:
        """One setting, from its points of every seed."""
        outer = {key: entry for key, entry in group[0].items() if key != SEED}
        seeds = [{SEED: point[SEED]} if SEED in point else {} for point in group]
        found = tuple(self.candidate(outer, inner, seeds) for inner in self.tried)
        self.cases += len(group)
        return Setting(values(outer), found)

    def candidate(self, outer: Point, inner: Point, seeds: Sequence[Point]) -> Candidate:
        """One candidate of a setting."""
        point = {**outer, **inner}
        document, trial = _assigned(self.base, point), None
        if inner:
            self.trials += 1
            trial = self.case(self.trials, document, point, {SEED: self.seeds[0]} if self.seeds else {}, blind=True)
        made = [self.case(self.cases + at, document, point, seed) for at, seed in enumerate(seeds, 1)]
        for case, seed in zip(made, seeds, strict=True):
            self.refuse_twin(case, {**point, **seed})
        return Candidate(values(inner), trial, tuple(made), document)

    def case(self, number: int, document: yaml_marks.Document, point: Point, seed: Point, blind: bool = False) -> Case:
        """A case with its seed; a `blind` one never looks at the test set."""
        document, whole = _assigned(document, seed), {**point, **seed}
        told = label(telling(whole))
        try:
            made = scenario.settled(document)
        except ScenarioError as error:
            raise document.locate(of_run(error, number, told, blind)) from None
        if blind:
            evaluate = dataclasses.replace(made.evaluate, split="validation", test=False)
            made = dataclasses.replace(made, evaluate=evaluate)
        return Case(number, told, values(whole), made, scenario.digest(made))

    def refuse_twin(self, case: Case, point: Point) -> None:
        """Raises ScenarioError when another case came to the same scenario."""
        if case.digest in self.seen:
            twin, other = self.seen[case.digest]
            path = next(entry.path for key, entry in point.items() if entry.path != other[key].path)
            raise ScenarioError(f"{twin} and {case.label} are the same", "list what differs, or exclude one", path)
        self.seen[case.digest] = case.label, point


def _assigned(document: yaml_marks.Document, point: Point) -> yaml_marks.Document:
    for key, part in (item for entry in point.values() for item in entry.sets.items()):
        try:
            document = yaml_settings.assign(document, key.split("."), part, SLOTS)
        except ScenarioError as error:
            raise error.located(part.mark(())) from None
    return document


def of_run(error: ScenarioError, number: int, label: str, trial: bool) -> ScenarioError:
    """The same error, saying of which case it is, or of what that tuning tries: a line of the matrix may make many."""
    told = label if len(label) <= LONGEST_TOLD else f"{label[: LONGEST_TOLD - 3]}..."
    problem = f"in {'tuning' if trial else 'case'} {number} ({told}) {error.problem}"
    return ScenarioError(problem, error.remedy, error.path, error.where)


def label(settings: Mapping[str, Any]) -> str:
    """Settings in the letters of a file name, each key by its last word where that tells it from the others."""
    last = Counter(key.rpartition(".")[2] for key in settings)
    names = {key: word if last[word := key.rpartition(".")[2]] == 1 else key for key in settings}
    return ",".join(f"{names[key]}={_word(value)}" for key, value in settings.items())


def _word(value: Any) -> str:
    """A value in the letters of a file name: `countsketch-ratio=0.5`, `64-64`."""
    if isinstance(value, dict):
        return "-".join(_word(key) if part in ({}, None) else _pair(key, part) for key, part in value.items())
    if isinstance(value, list):
        return "-".join(_word(part) for part in value)
    text = value if isinstance(value, str) else json.dumps(value).replace("e+", "e")
    return re.sub(r"[^A-Za-z0-9=._-]+", "_", text)


def _pair(key: str, part: Any) -> str:
    return f"{_word(key)}-{_word(part)}" if isinstance(part, dict) else f"{_word(key)}={_word(part)}"
