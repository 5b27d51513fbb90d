"""Fashion-MNIST: 70,000 pictures of clothes of 28 x 28.

Source: Xiao, Rasul & Vollgraf 2017, "Fashion-MNIST: a novel image dataset for benchmarking machine learning
algorithms".
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from p2pfl.learning.data import Data, check_validation
from p2pfl.learning.datasets import _files
from p2pfl.learning.datasets._fetching import Hear

NAME, CLASSES = "fashion-mnist", 10
MIRRORS = (
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
    "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
)
FILES = (
    ("train-images-idx3-ubyte.gz", 26421880, "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84"),
    ("train-labels-idx1-ubyte.gz", 29515, "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"),
    ("t10k-images-idx3-ubyte.gz", 4422102, "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073"),
    ("t10k-labels-idx1-ubyte.gz", 5148, "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"),
)
SOURCES = _files.idx_sources(NAME, FILES, MIRRORS)


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
