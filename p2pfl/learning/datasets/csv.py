"""Your own table, or a folder of tables, as comma-separated values (RFC 4180) with a header."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy

from p2pfl.learning.data import Data, check_test, check_validation
from p2pfl.learning.datasets import _files, _tables
from p2pfl.learning.preparation import prepare


@dataclass(frozen=True)
class Csv:
    """Your own table: a CSV file with a header, or a folder of some. Every number but the `label` is a feature.

    A column whose first value is no number is none either: it becomes a column that a partition can go by, as do
    those that `columns` name, which are kept out of the features; of a folder, the `file` is one.
    A share `test` is cut off by a permutation that is the same in every run.
    """

    path: Path
    label: str = "label"
    columns: tuple[str, ...] = ()
    test: float = 0.2
    normalise: bool = True
    validation: float = 0.1

    def __post_init__(self) -> None:
        check_test(self.test)
        check_validation(self.validation)

    def check(self) -> None:
        """Raise ScenarioError when there is no such file."""
        _files.listed(self.path, ".csv")

    def load(self) -> Data:
        """Read all files, each twice. Raises ScenarioError that names the file, the row and the remedy."""
        files = _files.listed(self.path, ".csv")
        plan = _tables.plan(files[0], self.label, self.columns)
        tables = [_tables.survey(path, plan) for path in files]
        labels = _tables.numbers([table.labels for table in tables])
        parts = []
        for table, labels_N in zip(tables, labels, strict=True):
            columns = {name: numpy.array(values) for name, values in table.columns.items()}
            if self.path.is_dir():
                columns["file"] = numpy.full(len(labels_N), table.path.name)
            parts.append(_tables.part(table, plan, labels_N, columns))
        return prepare(parts, [], self.validation, self.normalise, self.test)

    def checksums(self) -> dict[str, str]:
        """SHA-256 of each file."""
        return _files.checksums(_files.listed(self.path, ".csv"))
