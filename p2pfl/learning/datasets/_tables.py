"""CSV files in two passes: one that finds what is in them, one that reads the numbers, so that nothing is held twice.

Source of the format: RFC 4180; commas, a header, quotes where a value needs them.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
from numpy.typing import NDArray

from p2pfl.errors import ScenarioError
from p2pfl.learning.data import ROWS, Part

Row = tuple[int, list[str]]
"""The line that a row ends on, and its values."""


@dataclass(frozen=True)
class Plan:
    """What each column of the files is, by its place in the header."""

    header: tuple[str, ...]
    label: int
    features: tuple[int, ...]
    columns: tuple[int, ...]


@dataclass(frozen=True)
class Table:
    """What the first pass found in one file."""

    path: Path
    labels: list[str]
    columns: Mapping[str, list[str]]


def plan(path: Path, label: str, kept_out: Sequence[str]) -> Plan:
    """What the columns are, by the header and the first row of a file. Raises ScenarioError."""
    rows = read(path)
    _, header = next(rows, (1, []))
    line, first = next(rows, (2, []))
    if not first:
        raise ScenarioError(f"{path} holds no examples", "give a header and a row for each example")
    for name in (label, *kept_out):
        if name not in header:
            raise ScenarioError(f"{path} has no column {name!r}", f"name one of {', '.join(header)}")
    for at, name in enumerate(header):
        if not name or name in header[:at]:
            problem = f"{path} calls column {at + 1} {name!r}"
            raise ScenarioError(problem, "give each column a name of its own, and write no row numbers")
    if len(first) != len(header):
        raise ragged(path, line, len(first), len(header))
    others = [at for at, name in enumerate(header) if name != label]
    if unsaid := [header[at] for at in others if not first[at] and header[at] not in kept_out]:
        problem = f"{path} has no value for {unsaid[0]!r} in line {line}, by which it would be a number or not"
        raise ScenarioError(problem, "give it one, or name the column in columns")
    features = tuple(at for at in others if header[at] not in kept_out and number(first[at]) is not None)
    if not features:
        raise ScenarioError(f"{path} has no column of numbers beside {label!r}", "give features as numbers")
    columns = tuple(at for at in others if at not in features)
    return Plan(tuple(header), header.index(label), features, columns)


def survey(path: Path, plan: Plan) -> Table:
    """Labels and columns of a file; every number is looked at, none kept. Raises ScenarioError with the line."""
    labels: list[str] = []
    columns: dict[str, list[str]] = {plan.header[at]: [] for at in plan.columns}
    rows = read(path)
    _, header = next(rows, (1, []))
    if tuple(header) != plan.header:
        raise ScenarioError(
            f"{path} has another header than the files beside it", f"begin with {','.join(plan.header)}"
        )
    for line, row in rows:
        if len(row) != len(header):
            raise ragged(path, line, len(row), len(header))
        if not row[plan.label]:
            raise ScenarioError(f"{path} has no label in line {line}", "give it one, or remove the line")
        for at in plan.features:
            value = number(row[at])
            if value is None or not math.isfinite(value):
                problem = f"{path} has {row[at]!r} for the number {header[at]!r} in line {line}"
                raise ScenarioError(problem, "give a number, remove the line, or name the column in columns")
        labels.append(row[plan.label])
        for at in plan.columns:
            columns[header[at]].append(row[at])
    return Table(path, labels, columns)


def part(table: Table, plan: Plan, labels_N: NDArray[Any], columns: Mapping[str, NDArray[Any]]) -> Part:
    """The examples of a file, whose features the second pass reads, as 1 x 1 x F."""
    shape = (1, 1, len(plan.features))

    def chunks() -> Iterator[NDArray[Any]]:
        rows: list[list[float]] = []
        for at, (_, row) in enumerate(read(table.path)):
            if at > 0:
                rows.append([float(row[feature]) for feature in plan.features])
            if len(rows) == ROWS:
                yield numpy.array(rows).reshape(-1, *shape)
                rows = []
        if rows:
            yield numpy.array(rows).reshape(-1, *shape)

    return Part(str(table.path), shape, numpy.dtype(numpy.float64), labels_N, chunks, columns)


def numbers(labels: Sequence[Sequence[str]]) -> list[NDArray[Any]]:
    """The labels of each file, as numbers where all of all files are numbers: 10 comes after 9."""
    found = [[number(label) for label in each] for each in labels]
    if any(value is None for each in found for value in each):
        return [numpy.array(each, str) for each in labels]
    return [numpy.array(each, numpy.float64) for each in found]


def number(text: str) -> float | None:
    """The number that a value is; None where it is none."""
    with suppress(ValueError):
        return float(text)
    return None


def read(path: Path) -> Iterator[Row]:
    """The rows of a file with the lines they end on, the header first; empty lines are left out.

    Raises ScenarioError where it is no text, or its quotes do not match.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, skipinitialspace=True, strict=True)
            for row in reader:
                if row:
                    yield reader.line_num, row
    except OSError as error:
        raise ScenarioError(f"cannot read {path}, {error.strerror}", "let this user read it") from None
    except UnicodeDecodeError as error:
        raise ScenarioError(f"{path} is no text in UTF-8, {error.reason}", "save it as UTF-8") from None
    except csv.Error as error:
        raise ScenarioError(f"{path} is broken in line {reader.line_num}, {error}", "correct the line") from None


def ragged(path: Path, line: int, found: int, expected: int) -> ScenarioError:
    """A row that is too long or too short."""
    return ScenarioError(f"{path} has {found} values in line {line}, its header {expected}", "correct the line")
