"""What a user wrote, and where: YAML as plain values, and the line of each.

Scalars are those of YAML 1.2's core schema (yaml.org/spec/1.2.2, 10.3.2): `1e-5` is a float, `010` is ten, `yes` is
a word. Duplicate keys, tags, anchors and aliases are refused. The only file that imports yaml.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from p2pfl.errors import ScenarioError

Path = tuple[str | int, ...]

LARGEST_BYTES = 1 << 20
DEEPEST = 32
LONGEST_INT = 400
WIDEST = 1 << 20

WORDS: Mapping[str, bool | None] = {
    **{"": None, "~": None, "null": None, "Null": None, "NULL": None},
    **{"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False},
}
INT = re.compile(r"[-+]?[0-9]+")
BASED_INT = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
SPECIAL_FLOAT = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


@dataclass(frozen=True)
class Document:
    """A plain value (mappings, lists, scalars), and where each part of it was written, by its path.

    `folder` is that of the file, from which its relative paths go; empty for where the user stands.
    """

    value: Any
    marks: Mapping[Path, str]
    folder: str = ""

    def locate(self, error: ScenarioError) -> ScenarioError:
        """The same error with the place of its culprit, or of what the culprit is missing from."""
        return error if error.where else error.located(self.mark(error.path))

    def mark(self, path: Path) -> str:
        """Where the part at `path` was written, or what it is missing from."""
        prefixes = (path[:length] for length in range(len(path), -1, -1))
        return next((self.marks[prefix] for prefix in prefixes if prefix in self.marks), "")


def parse(raw: bytes, name: str) -> Document:
    """The mapping that the YAML file `name` holds. Raises ScenarioError, located."""
    if len(raw) > LARGEST_BYTES:
        raise ScenarioError(f"{name} is larger than {LARGEST_BYTES} bytes", "a scenario is one short YAML file")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line, byte = raw[: error.start].count(b"\n") + 1, raw[error.start]
        raise ScenarioError(f"byte {byte:#04x} is not UTF-8", "save it as UTF-8 text", where=f"{name}:{line}") from None
    document = read(text, lambda line: f"{name}:{line}")
    if document.value is None:
        raise ScenarioError(f"{name} is empty", "write at least 'name: ...'", where=f"{name}:1")
    return mapping(document)


def wrap(value: object) -> Document:
    """The mapping that was given from Python, each part called by its dotted key. Raises ScenarioError, located."""
    marks: dict[Path, str] = {}
    return mapping(Document(_plain(value, (), marks), marks))


def mapping(document: Document) -> Document:
    """The same document. Raises ScenarioError, located, unless it holds a mapping."""
    if isinstance(document.value, dict):
        return document
    kind = "a list" if isinstance(document.value, list) else repr(document.value)[:60]
    raise document.locate(ScenarioError(f"the scenario is {kind}", "write a mapping, as in 'name: ...'"))


def dump(value: object) -> str:
    """YAML of a plain value, which `parse` reads back as it was."""
    text = yaml.dump(value, Dumper=_Dumper, sort_keys=False, default_flow_style=None, width=WIDEST, allow_unicode=True)
    return str(text)


def scalar(text: str) -> str | int | float | bool | None:
    """What a plain (unquoted) scalar means in the core schema; an int of too many digits becomes a float."""
    if text in WORDS:
        return WORDS[text]
    if INT.fullmatch(text) and len(text) <= LONGEST_INT:
        return int(text)
    if BASED_INT.fullmatch(text) and len(text) <= LONGEST_INT:
        return int(text, 0)
    if FLOAT.fullmatch(text):
        return float(text)
    return float(text.replace(".", "", 1)) if SPECIAL_FLOAT.fullmatch(text) else text


def read(text: str, where: Callable[[int], str]) -> Document:
    marks: dict[Path, str] = {}
    try:
        value = _Builder(yaml.parse(text, Loader=yaml.SafeLoader), where, marks).document()
    except yaml.MarkedYAMLError as error:
        marked = (error.problem_mark, error.context_mark)
        mark = next(filter(None, reversed(marked) if "stream end" in str(error.problem) else marked), None)
        problem = f"this is not YAML, {error.problem or error.context}"
        raise ScenarioError(problem, "mend the line", where=where(mark.line + 1 if mark else 1)) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        problem = f"{chr(error.character)!r} must not stand in YAML"
        raise ScenarioError(problem, "remove the character", where=where(line)) from None
    return Document(value, marks)


@dataclass(frozen=True)
class _Builder:
    """Plain values from the events of the YAML parser."""

    events: Iterator[Any]
    where: Callable[[int], str]
    marks: dict[Path, str]

    def document(self) -> Any:
        next(self.events)
        if isinstance(event := next(self.events), yaml.StreamEndEvent):
            return None
        value = self.value(next(self.events), ())
        next(self.events)
        if not isinstance(event := next(self.events), yaml.StreamEndEvent):
            raise self.refusal(event, "there is more than one YAML document", "write one scenario a file")
        return value

    def value(self, event: Any, path: Path) -> Any:
        self.marks.setdefault(path, self.where(event.start_mark.line + 1))
        if event.anchor is not None:
            raise self.refusal(event, f"{event.anchor!r} is a YAML anchor or alias", "write the value out")
        if event.tag is not None:
            raise self.refusal(event, f"{event.tag!r} is a YAML tag", "remove it: the key says what a value is")
        if len(path) > DEEPEST:
            raise self.refusal(event, f"values are nested more than {DEEPEST} deep", "no key needs that")
        if isinstance(event, yaml.SequenceStartEvent):
            return self.items(path)
        if isinstance(event, yaml.MappingStartEvent):
            return self.pairs(path)
        return self.scalar(event)

    def items(self, path: Path) -> list[Any]:
        items: list[Any] = []
        while not isinstance(event := next(self.events), yaml.SequenceEndEvent):
            items.append(self.value(event, (*path, len(items))))
        return items

    def pairs(self, path: Path) -> dict[str, Any]:
        pairs: dict[str, Any] = {}
        while not isinstance(event := next(self.events), yaml.MappingEndEvent):
            key = self.scalar(event) if isinstance(event, yaml.ScalarEvent) and event.tag is None else None
            if not isinstance(key, str):
                raise self.refusal(event, f"a key is {getattr(event, 'value', 'no word')!r}", "keys must be words")
            if key in pairs:
                raise self.refusal(event, f"{key!r} is given twice", f"it stands at {self.marks[(*path, key)]} too")
            self.marks[(*path, key)] = self.where(event.start_mark.line + 1)
            pairs[key] = self.value(next(self.events), (*path, key))
        return pairs

    def scalar(self, event: Any) -> str | int | float | bool | None:
        if not event.value.isascii() and any("\ud800" <= letter <= "\udfff" for letter in event.value):
            raise self.refusal(event, f"{event.value[:40]!r} holds half a letter", "remove the lone surrogate")
        return scalar(event.value) if event.style is None else str(event.value)

    def refusal(self, event: Any, problem: str, remedy: str) -> ScenarioError:
        return ScenarioError(problem, remedy, where=self.where(event.start_mark.line + 1))


class _Dumper(yaml.SafeDumper):
    """Quotes the words that the core schema would read as something else."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    plain = text.isprintable() and scalar(text) == text
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if plain else '"')


_Dumper.add_representer(str, _text)


def _plain(value: object, path: Path, marks: dict[Path, str]) -> Any:
    marks[path] = ".".join(map(str, path)) or "scenario"
    if isinstance(value, Mapping) and len(path) < DEEPEST:
        if odd := [key for key in value if not isinstance(key, str)]:
            raise ScenarioError(f"a key is {odd[0]!r}", "keys must be words", where=marks[path])
        return {key: _plain(part, (*path, key), marks) for key, part in value.items()}
    if isinstance(value, list | tuple) and len(path) < DEEPEST:
        return [_plain(part, (*path, index), marks) for index, part in enumerate(value)]
    if value is None or isinstance(value, str | int | float):
        return value
    raise ScenarioError(f"a value is {repr(value)[:60]}", "give words, numbers, lists or mappings", where=marks[path])
