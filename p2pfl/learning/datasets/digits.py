"""Digits: 1,797 handwritten digits of 8 x 8, which come with scikit-learn and need no file.

Source: Alpaydin & Kaynak 1998, "Optical recognition of handwritten digits", UCI (its test part).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy

from p2pfl.learning.data import Data, check_validation, held
from p2pfl.learning.preparation import prepare

TEST_SHARE = 0.2
BRIGHTEST = 16


@dataclass(frozen=True)
class Digits:
    """1,437 and 360 handwritten digits, of 10 classes; `validation` is a share of the former."""

    normalise: bool = True
    validation: float = 0.1

    def __post_init__(self) -> None:
        check_validation(self.validation)

    def check(self) -> None:
        """Nothing can be missing."""

    def load(self) -> Data:
        """Cut the test part off by a fixed permutation."""
        from sklearn.datasets import load_digits  # a second to import: only for who asks for these data

        bunch = load_digits()
        images_NCHW, labels_N = bunch.images[:, None].astype(numpy.uint8), bunch.target
        whole = held("digits", images_NCHW, labels_N)
        return prepare([whole], [], self.validation, self.normalise, TEST_SHARE, classes=10, brightest=BRIGHTEST)

    def checksums(self) -> dict[str, str]:
        """There are no files."""
        return {}
