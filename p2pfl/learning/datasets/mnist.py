"""MNIST: 70,000 handwritten digits of 28 x 28.

Source: LeCun, Cortes & Burges 1998, "The MNIST database of handwritten digits".
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from p2pfl.learning.data import Data, check_validation
from p2pfl.learning.datasets import _files
from p2pfl.learning.datasets._fetching import Hear

NAME, CLASSES = "mnist", 10
MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
FILES = (
    ("train-images-idx3-ubyte.gz", 9912422, "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"),
    ("train-labels-idx1-ubyte.gz", 28881, "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"),
    ("t10k-images-idx3-ubyte.gz", 1648877, "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"),
    ("t10k-labels-idx1-ubyte.gz", 4542, "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"),
)
SOURCES = _files.idx_sources(NAME, FILES, MIRRORS)


@dataclass(frozen=True)
class Mnist:
    """60,000 and 10,000 handwritten digits, of 10 classes; `validation` is a share of the former."""

    normalise: bool = True
    validation: float = 0.1

    def __post_init__(self) -> None:
        check_validation(self.validation)

    def check(self) -> None:
        """Raise ScenarioError when a file is missing."""
        _files.idx_files(NAME)

    def load(self) -> Data:
        """Read the four files. Raises ScenarioError when one is missing or broken."""
        return _files.load_idx(_files.idx_files(NAME), CLASSES, self.validation, self.normalise)

    def checksums(self) -> dict[str, str]:
        """SHA-256 of each of the four files."""
        return _files.checksums(_files.idx_files(NAME).values())

    @staticmethod
    def kept() -> list[Path]:
        """Where the four files lie, or would."""
        return _files.kept_idx(NAME)

    @staticmethod
    def fetch(hear: Hear) -> list[str]:
        """Have the four files, and say of each whether it was there. Raises ScenarioError."""
        return _files.fetch_idx(SOURCES, hear)
