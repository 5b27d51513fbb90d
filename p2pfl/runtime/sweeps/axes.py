"""What a matrix lists: its axes, the product of their values, and what is excluded of it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from p2pfl.errors import ScenarioError
from p2pfl.plugins import brief, nearest
from p2pfl.yaml_marks import Document

MOST_CASES = 10_000
EXCLUDE, SEED = "exclude", "seed"
FIXED = ("name", "matrix", "tune", "published")
"""Keys that are the same in all cases."""


@dataclass(frozen=True)
class Entry:
    """A value of a list, and where it stands: ("matrix", "training.lr", 0)."""

    path: tuple[str | int, ...]
    part: Document


Point = Mapping[str, Entry]
"""A value for every key."""


def axes(document: Document, key: str) -> dict[str, list[Entry]]:
    """The lists of `matrix` or `tune` by their dotted keys, the seed last. Raises ScenarioError."""
    written = document.value.get(key)
    if written in ({}, None):
        return {}
    if not isinstance(written, dict) or set(written) == {EXCLUDE}:
        raise ScenarioError(f"{key} is {brief(written)}", "give keys, each with a list of values", (key,))
    found = {}
    for name, listed in sorted(written.items(), key=lambda item: item[0] == SEED):
        if (key, name) == ("matrix", EXCLUDE):
            continue
        _check_axis(key, name, listed)
        found[name] = [Entry((key, name, k), _part(document, (key, name, k))) for k in range(len(listed))]
    return found


def _check_axis(key: str, name: str, listed: Any) -> None:
    path, word = (key, name), name.partition(".")[0]
    if not isinstance(listed, list):
        raise ScenarioError(f"{key}.{name} is {brief(listed)}", "must be a list of values", path)
    if not listed:
        raise ScenarioError(f"{key}.{name} is an empty list", "give at least one value", path)
    if word in FIXED or (key, word) == ("tune", SEED):
        raise ScenarioError(f"{key} must not vary {word!r}", "leave it as it is in all that is compared", path)
    if not all(name.split(".")):
        raise ScenarioError(f"{key} has a key {name!r}", "write it as in training.lr", path)


def _part(document: Document, path: tuple[str | int, ...]) -> Document:
    """What stands at `path`, as a document of its own."""
    value = document.value
    for word in path:
        value = value[word]
    inner = {old[len(path) :]: mark for old, mark in document.marks.items() if old[: len(path)] == path}
    return Document(value, {(): document.mark(path)} | inner)


def refuse_too_many(*several: Mapping[str, list[Entry]]) -> None:
    """Raises ScenarioError where the product of all the lists is more than anybody means."""
    count = math.prod(len(entries) for each in several for entries in each.values())
    if count > MOST_CASES:
        key = "matrix" if several[0] else "tune"
        raise ScenarioError(f"{key} makes {count:,} cases", f"{MOST_CASES:,} are the most", (key,))


def product(axes: Mapping[str, list[Entry]]) -> list[Point]:
    """Every choice of one value of each list, the last list varying fastest."""
    return [dict(zip(axes, chosen, strict=True)) for chosen in itertools.product(*axes.values())]


def points(document: Document, axes: Mapping[str, list[Entry]]) -> list[Point]:
    """The product, less every point that matches all of one entry of `exclude`. Raises ScenarioError."""
    excluded = (document.value.get("matrix") or {}).get(EXCLUDE) or []
    path: tuple[str | int, ...] = ("matrix", EXCLUDE)
    if not isinstance(excluded, list):
        raise ScenarioError(f"matrix.exclude is {brief(excluded)}", "must be a list of mappings", path)
    for at, entry in enumerate(excluded):
        _check_exclusion(entry, axes, (*path, at))
    kept = [point for point in product(axes) if not any(_matches(point, entry) for entry in excluded)]
    if not kept:
        raise ScenarioError("matrix.exclude leaves no case", "exclude less", path)
    return kept


def _check_exclusion(entry: Any, axes: Mapping[str, list[Entry]], path: tuple[str | int, ...]) -> None:
    if not isinstance(entry, dict) or not entry:
        raise ScenarioError(
            f"{'.'.join(map(str, path))} is {brief(entry)}", "give keys of the matrix, each a value", path
        )
    for key, value in entry.items():
        if key not in axes:
            raise ScenarioError(f"no {key!r} in the matrix", nearest(key, list(axes)), (*path, key))
        if not any(_same(one.part.value, value) for one in axes[key]):
            listed = ", ".join(brief(one.part.value) for one in axes[key][:10])
            raise ScenarioError(f"no {key} {brief(value)} in the matrix", f"there are {listed}", (*path, key))


def _matches(point: Point, entry: Mapping[str, Any]) -> bool:
    return all(_same(point[key].part.value, value) for key, value in entry.items())


def _same(ours: Any, theirs: Any) -> bool:
    return bool(ours == theirs) and isinstance(ours, bool) == isinstance(theirs, bool)


def values(point: Point) -> dict[str, Any]:
    """What a point sets, as written."""
    return {key: entry.part.value for key, entry in point.items()}
