"""What a matrix lists: its axes, the product of their values, and what is excluded of it.

An axis is a dotted key and its values, or a name that is no key of a scenario: each of its values sets several keys.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from p2pfl.errors import ScenarioError
from p2pfl.plugins import brief, nearest
from p2pfl.scenario import UNBUILT, Scenario
from p2pfl.yaml_marks import Document

MOST_CASES = 10_000
EXCLUDE, SEED = "exclude", "seed"
FIXED = ("name", "matrix", "tune", "published")
"""Keys that are the same in all cases."""
KEYS = tuple(key.name for key in dataclasses.fields(Scenario))
"""The keys of a scenario."""


@dataclass(frozen=True)
class Entry:
    """A value of a list, where it stands, as ("matrix", "training.lr", 0), and what it sets by dotted keys.

    `telling` are the keys, of those, by which it is called among the values of its axis.
    """

    path: tuple[str | int, ...]
    part: Document
    sets: Mapping[str, Document]
    telling: tuple[str, ...]


Point = Mapping[str, Entry]
"""A value of every axis."""
Parts = Mapping[tuple[str | int, ...], Document]
"""The values of an axis by where they stand."""


def axes(document: Document, key: str) -> dict[str, list[Entry]]:
    """The lists of `matrix` or `tune` by the names of their axes, the seed last. Raises ScenarioError."""
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
        parts: Parts = {(key, name, k): _part(document, (key, name, k)) for k in range(len(listed))}
        if _is_key(name):
            found[name] = [Entry(path, part, {name: part}, (name,)) for path, part in parts.items()]
        else:
            found[name] = list(_together(name, parts))
    return found


def _is_key(name: str) -> bool:
    """Whether an axis is called by the key that it sets, be it a wrong one, and not by a name of its own."""
    return "." in name or name in (*KEYS, *UNBUILT, *FIXED, EXCLUDE)


def _together(name: str, parts: Parts) -> Iterator[Entry]:
    """The values of an axis with a name of its own: mappings of what they set. Raises ScenarioError."""
    if odd := [path for path, part in parts.items() if not isinstance(part.value, dict)]:
        remedy = f"{nearest(name, KEYS)} (or list mappings of dotted keys, each of which sets several)"
        raise ScenarioError(f"unknown key {brief(name)}", remedy, odd[0][:2])
    several = []
    for path, part in parts.items():
        if not part.value:
            raise ScenarioError(f"{'.'.join(map(str, path))} is {{}}", "give dotted keys, each a value", path)
        for key in part.value:
            _check_member(path, name, key)
        several.append({key: _part(part, (key,)) for key in part.value})
    for (path, part), sets, told in zip(parts.items(), several, _telling(several), strict=True):
        yield Entry(path, part, sets, told)


def _check_member(path: tuple[str | int, ...], name: str, key: str) -> None:
    """Raises ScenarioError where a value of the axis `name` must not set this key."""
    word = key.partition(".")[0]
    _check_key(str(path[0]), key, (*path, key))
    if word == SEED:
        raise ScenarioError(f"{path[0]}.{name} sets the seed", "list the seeds alone, as in seed: [1, 2]", (*path, key))
    if word not in (*KEYS, *UNBUILT):
        problem = f"unknown key {brief(word)}, set by {brief(name)}, which is no key itself"
        raise ScenarioError(problem, nearest(word, KEYS), (*path, key))


def _telling(several: Sequence[Mapping[str, Document]]) -> list[tuple[str, ...]]:
    """Of each the keys that tell it from the others, as few as their order allows; those that all set come first."""

    def told(*keys: str) -> int:
        return len({tuple(repr(sets[key].value) if key in sets else "" for key in keys) for sets in several})

    keys = dict.fromkeys(key for sets in several for key in sets)
    vary = [key for key in sorted(keys, key=lambda key: any(key not in sets for sets in several)) if told(key) > 1]
    kept: list[str] = []
    for key in vary:
        kept += [key] if told(*kept, key) > told(*kept) else []
    ours = ((sets, tuple(key for key in kept if key in sets)) for sets in several)
    return [shown or tuple(key for key in (*vary, *sets) if key in sets)[:1] for sets, shown in ours]


def _check_axis(key: str, name: str, listed: Any) -> None:
    path = (key, name)
    if not isinstance(listed, list):
        raise ScenarioError(f"{key}.{name} is {brief(listed)}", "must be a list of values", path)
    if not listed:
        raise ScenarioError(f"{key}.{name} is an empty list", "give at least one value", path)
    _check_key(key, name, path)


def _check_key(key: str, name: str, path: tuple[str | int, ...]) -> None:
    """Raises ScenarioError where the dotted key `name` is none, or `key` must not vary it."""
    word = name.partition(".")[0]
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


def refuse_twice(*several: Mapping[str, list[Entry]]) -> None:
    """Raises ScenarioError where two axes set the same key, in one of these or in two."""
    owners: dict[str, tuple[str, str]] = {}
    for name, entry in ((name, entry) for each in several for name, entries in each.items() for entry in entries):
        for key in entry.sets:
            listed, path = str(entry.path[0]), entry.path[:2] if key == name else (*entry.path, key)
            ours = (name, listed if key == name else f"{listed}.{name}")
            other = owners.setdefault(key, ours)
            if other != ours:
                raise ScenarioError(f"{key} is in {other[1]} and in {ours[1]}", "leave one of them", path)


def product(axes: Mapping[str, list[Entry]]) -> list[Point]:
    """Every choice of one value of each list, the last list varying fastest."""
    return [dict(zip(axes, chosen, strict=True)) for chosen in itertools.product(*axes.values())]


def points(document: Document, axes: Mapping[str, list[Entry]]) -> list[Point]:
    """The product, less every point that matches all of one entry of `exclude`. Raises ScenarioError."""
    excluded = (document.value.get("matrix") or {}).get(EXCLUDE) or []
    path: tuple[str | int, ...] = ("matrix", EXCLUDE)
    if not isinstance(excluded, list):
        raise ScenarioError(f"matrix.exclude is {brief(excluded)}", "must be a list of mappings", path)
    known = _known(axes)
    for at, entry in enumerate(excluded):
        _check_exclusion(entry, known, (*path, at))
    kept = [point for point in product(axes) if not any(_matches(_said(point), entry) for entry in excluded)]
    if not kept:
        raise ScenarioError("matrix.exclude leaves no case", "exclude less", path)
    return kept


def _known(axes: Mapping[str, list[Entry]]) -> dict[str, list[Any]]:
    """What may be excluded: the values of each axis, and those of each key that an axis of another name sets."""
    found: dict[str, list[Any]] = {}
    for name, entry in ((name, entry) for name, entries in axes.items() for entry in entries):
        for key, value in _said({name: entry}).items():
            found.setdefault(key, []).append(value)
    return found


def _check_exclusion(entry: Any, known: Mapping[str, list[Any]], path: tuple[str | int, ...]) -> None:
    if not isinstance(entry, dict) or not entry:
        raise ScenarioError(
            f"{'.'.join(map(str, path))} is {brief(entry)}", "give keys of the matrix, each a value", path
        )
    for key, value in entry.items():
        if key not in known:
            raise ScenarioError(f"no {key!r} in the matrix", nearest(key, list(known)), (*path, key))
        if not any(_same(one, value) for one in known[key]):
            listed = ", ".join(list(dict.fromkeys(map(brief, known[key])))[:10])
            raise ScenarioError(f"no {key} {brief(value)} in the matrix", f"there are {listed}", (*path, key))


def _matches(said: Mapping[str, Any], entry: Mapping[str, Any]) -> bool:
    return all(key in said and _same(said[key], value) for key, value in entry.items())


def _same(ours: Any, theirs: Any) -> bool:
    return bool(ours == theirs) and isinstance(ours, bool) == isinstance(theirs, bool)


def _said(point: Point) -> dict[str, Any]:
    """The values of a point's axes, and of each key that they set."""
    return {name: entry.part.value for name, entry in point.items()} | values(point)


def values(point: Point) -> dict[str, Any]:
    """What a point sets by dotted keys, as written."""
    return {key: part.value for entry in point.values() for key, part in entry.sets.items()}


def telling(point: Point) -> dict[str, Any]:
    """As much of what a point sets as tells it from the others."""
    return {key: entry.sets[key].value for entry in point.values() for key in entry.telling}
