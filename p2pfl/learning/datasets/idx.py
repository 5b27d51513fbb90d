"""Your own images as four IDX files in a folder, named like MNIST's.

Source of the format: LeCun, Cortes & Burges 1998, "The MNIST database of handwritten digits".
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from p2pfl.learning.data import Data, check_validation
from p2pfl.learning.datasets import _files

REMEDY = f"name the four files {', '.join(_files.IDX_NAMES)}, gzipped or not"


@dataclass(frozen=True)
class Idx:
    """Your own grey images: the folder `path` holds four IDX files, named like MNIST's, gzipped or not."""

    path: Path
    normalise: bool = True
    validation: float = 0.1

    def __post_init__(self) -> None:
        check_validation(self.validation)

    def check(self) -> None:
        """Raise ScenarioError when a file is missing."""
        _files.four(self.path, REMEDY)

    def load(self) -> Data:
        """Read the four files; the classes are those of the labels. Raises ScenarioError when one is broken."""
        return _files.load_idx(_files.four(self.path, REMEDY), None, self.validation, self.normalise)

    def checksums(self) -> dict[str, str]:
        """SHA-256 of each of the four files."""
        return _files.checksums(_files.four(self.path, REMEDY).values())
