"""MNIST: 70,000 handwritten digits of 28 x 28.

Source: LeCun, Cortes & Burges 1998, "The MNIST database of handwritten digits".
"""

from __future__ import annotations

from dataclasses import dataclass

from p2pfl.learning.data import Data, check_validation
from p2pfl.learning.datasets import _files

NAME, CLASSES = "mnist", 10


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
        return _files.load_idx(NAME, CLASSES, self.validation, self.normalise)

    def checksums(self) -> dict[str, str]:
        """SHA-256 of each of the four files."""
        return _files.checksums(_files.idx_files(NAME))
