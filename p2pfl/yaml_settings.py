"""What `--set` makes of a document: a value at a dotted key, and the marks that then say where it came from."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from p2pfl.errors import ScenarioError
from p2pfl.yaml_marks import Document, Path, read


def override(document: Document, setting: str, slots: Collection[str]) -> Document:
    """The document after `--set key=value`; the word after one of `slots` chooses a plug-in. Raises ScenarioError."""
    key, equals, text = setting.partition("=")
    where = "--set " + (setting if len(setting) <= 80 else setting[:77] + "...")
    words = key.strip().split(".")
    if not equals or not all(words):
        raise ScenarioError(f"{setting!r} sets nothing", "write key=value, as in training.lr=0.1", where=where)
    part = read(text, lambda _: where)
    try:
        return assign(document, words, Document(part.value, {(): where}), slots)
    except ScenarioError as error:
        raise error if error.where else error.located(where) from None


def assign(document: Document, words: Sequence[str], part: Document, slots: Collection[str]) -> Document:
    """The document with `part` at the key of these words, and its marks; `slots` as above. Raises ScenarioError."""
    slot = next((n for n in range(1, len(words) + 1) if ".".join(words[:n]) in slots), 0)
    changed = _put(document.value, words, part.value, (), slot)
    path = _path(changed, words)
    marks = {old: mark for old, mark in document.marks.items() if _has(changed, old) and old[: len(path)] != path}
    if slot and path[: slot + 1] not in marks:
        marks.pop(path[:slot], None)
    marks |= {path[:n]: part.marks[()] for n in range(1, len(path) + 1) if path[:n] not in marks}
    return Document(changed, marks | {(*path, *inner): mark for inner, mark in part.marks.items()}, document.folder)


def _put(old: Any, words: Sequence[str], new: Any, at: tuple[str, ...], slot: int) -> Any:
    if not words:
        return new
    first, rest = words[0], words[1:]
    if isinstance(old, list):
        if not (first.isascii() and first.isdecimal() and int(first) < len(old)):
            raise ScenarioError(f"{'.'.join(at)} has no item {first!r}", f"it has {len(old)}, counted from 0")
        index = int(first)
        return [*old[:index], _put(old[index], rest, new, (*at, first), 0), *old[index + 1 :]]
    if slot and len(at) == slot:
        old = {first: old.get(first)} if isinstance(old, dict) else {}
    if old is not None and not isinstance(old, dict):
        raise ScenarioError(f"{'.'.join(at)} is {old!r}", _mapping_needed(first, at, slot))
    old = old or {}
    return {**old, first: _put(old.get(first), rest, new, (*at, first), slot)}


def _mapping_needed(word: str, at: tuple[str, ...], slot: int) -> str:
    """The remedy where `word` is to be set in what is no mapping; the value of a plug-in is its first option."""
    remedy = f"{word!r} can be set only in a mapping, so "
    if slot and len(at) == slot + 1:
        return f'{remedy}give all options of {at[-1]}, as in --set "{".".join(at[:-1])}={{{at[-1]}: {{...}}}}"'
    return f"{remedy}set {'.'.join(at)} itself"


def _path(value: Any, words: Sequence[str]) -> Path:
    path: list[str | int] = []
    for word in words:
        path.append(int(word) if isinstance(value, list) else word)
        value = value[path[-1]]
    return tuple(path)


def _has(value: Any, path: Path) -> bool:
    for part in path:
        known = range(len(value)) if isinstance(value, list) else value if isinstance(value, dict) else ()
        if part not in known:
            return False
        value = value[part]
    return True
