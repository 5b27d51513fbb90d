"""CIFAR-10: 60,000 colour pictures of 32 x 32, of things and animals.

Source: Krizhevsky 2009, "Learning multiple layers of features from tiny images"; its binary version, in which an
example is a byte of label and 3,072 bytes of pixels, channel by channel.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
from numpy.typing import NDArray

from p2pfl.errors import ScenarioError
from p2pfl.learning.data import ROWS, Data, Part, check_validation
from p2pfl.learning.datasets import _files
from p2pfl.learning.datasets._fetching import Hear, Source, fetch_archive
from p2pfl.learning.preparation import prepare

NAME, CLASSES, SHAPE = "cifar-10-batches-bin", 10, (3, 32, 32)
EXAMPLE_BYTES = 3073
FILE_BYTES = 10_000 * EXAMPLE_BYTES
ARCHIVE = Source(
    "cifar-10-binary.tar.gz",
    170_052_171,
    "md5:c32a1d4ab5d03f1284b67883e8d87530",
    ("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",),
)
MEMBERS = (
    Source(f"{NAME}/data_batch_1.bin", FILE_BYTES, "md5:5dd7e06a14cb22eb9f671a540d1b7c25"),
    Source(f"{NAME}/data_batch_2.bin", FILE_BYTES, "md5:5ea93a67294ea407fff1d09f752e9692"),
    Source(f"{NAME}/data_batch_3.bin", FILE_BYTES, "md5:942cd6a4bcdd0dd3c604fbe906cb4421"),
    Source(f"{NAME}/data_batch_4.bin", FILE_BYTES, "md5:ae636b3ba5c66a11e91e8cb52e771fcb"),
    Source(f"{NAME}/data_batch_5.bin", FILE_BYTES, "md5:53f37980c15c3d472c316c40844f3f0d"),
    Source(f"{NAME}/test_batch.bin", FILE_BYTES, "md5:803d5f7f4d78ea53de84dbe85f74fb6d"),
)


@dataclass(frozen=True)
class Cifar10:
    """50,000 and 10,000 colour pictures, of 10 classes; `validation` is a share of the former."""

    normalise: bool = True
    validation: float = 0.1

    def __post_init__(self) -> None:
        check_validation(self.validation)

    def check(self) -> None:
        """Raise ScenarioError when a file is missing."""
        for path in self.kept():
            if not path.is_file():
                remedy = f"run 'p2pfl data cifar10', or set P2PFL_DATA to the folder that holds {NAME}/"
                raise ScenarioError(f"no file {path.name} in {path.parent}", remedy)

    def load(self) -> Data:
        """Read the six files. Raises ScenarioError when one is missing or broken."""
        self.check()
        *train, test = (read(path) for path in self.kept())
        return prepare(train, [test], self.validation, self.normalise, classes=CLASSES)

    def checksums(self) -> dict[str, str]:
        """SHA-256 of each of the six files."""
        self.check()
        return _files.checksums(self.kept())

    @staticmethod
    def kept() -> list[Path]:
        """Where the six files lie, or would."""
        return [_files.root() / member.path for member in MEMBERS]

    @staticmethod
    def fetch(hear: Hear) -> list[str]:
        """Have the six files, and say of each whether it was there. Raises ScenarioError."""
        return fetch_archive(ARCHIVE, MEMBERS, _files.root(), hear)


def read(path: Path) -> Part:
    """The examples of one file; its bytes are mapped, not held. Raises ScenarioError when it is broken."""
    size_bytes = path.stat().st_size
    if size_bytes == 0 or size_bytes % EXAMPLE_BYTES:
        problem = f"{path} has {size_bytes:,} bytes, which are no examples of {EXAMPLE_BYTES:,}"
        raise ScenarioError(problem, "move it away, and run 'p2pfl data cifar10'")
    rows = numpy.memmap(path, numpy.uint8, "r").reshape(-1, EXAMPLE_BYTES)
    labels_N = rows[:, 0].copy()
    if labels_N.max() >= CLASSES:
        raise ScenarioError(f"{path} holds a label outside 0..9", "move it away, and run 'p2pfl data cifar10'")

    def chunks() -> Iterator[NDArray[Any]]:
        return (rows[at : at + ROWS, 1:].reshape(-1, *SHAPE) for at in range(0, len(rows), ROWS))

    return Part(str(path), SHAPE, rows.dtype, labels_N, chunks)
