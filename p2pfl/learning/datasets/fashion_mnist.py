"""Fashion-MNIST: 70,000 pictures of clothes of 28 x 28.

Source: Xiao, Rasul & Vollgraf 2017, "Fashion-MNIST: a novel image dataset for benchmarking machine learning
algorithms".
"""

from __future__ import annotations

from dataclasses import dataclass

from p2pfl.learning.data import Data, check_validation
from p2pfl.learning.datasets import _files

NAME, CLASSES = "fashion-mnist", 10


@dataclass(frozen=True)
class FashionMnist:
    """60,000 and 10,000 pictures of clothes, of 10 classes; `validation` is a share of the former."""

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
