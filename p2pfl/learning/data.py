"""A data set in memory: three parts that every peer shares, and the examples of a file before they are that.

Shapes: N examples, B of a chunk, C channels, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy
from numpy.typing import NDArray
from torch import Tensor

from p2pfl.errors import ScenarioError

ROWS = 1024
"""Examples that are read, counted or scaled at once, so that what numpy copies in between stays small."""


@dataclass(frozen=True, eq=False)
class Examples:
    """What a partition may look at: the labels of N training examples, and columns of N values beside them."""

    labels_N: NDArray[Any]
    columns: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.labels_N)

    def column(self, name: str) -> NDArray[Any]:
        """The N values of that column. Raises ScenarioError that says which columns there are."""
        if name not in self.columns:
            there = ", ".join(sorted(self.columns))
            remedy = f"there are {there}" if there else "these data have none, take another partition"
            raise ScenarioError(f"the data have no column {name!r}", remedy)
        return self.columns[name]


@dataclass(frozen=True, eq=False)
class Data:
    """Inputs are float32 of N x C x H x W, labels int64 of N; a peer's shard is a list of rows of `train`.

    `columns` hold what else is known of each training example: who wrote it, which file it comes from.
    """

    train_x: Tensor
    train_y: Tensor
    validation_x: Tensor
    validation_y: Tensor
    test_x: Tensor
    test_y: Tensor
    classes: int
    columns: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, int, int]:
        """C, H, W of one input."""
        _, channels, height, width = self.train_x.shape
        return channels, height, width

    @property
    def examples(self) -> Examples:
        """What a partition may look at."""
        return Examples(self.train_y.numpy(), self.columns)


class DataSet(Protocol):
    """Where examples come from: what every plug-in of `datasets/` is."""

    def check(self) -> None:
        """Raise ScenarioError when files are missing; looks, but reads nothing."""

    def load(self) -> Data:
        """Read it all. Raises ScenarioError when a file is missing or broken."""

    def checksums(self) -> dict[str, str]:
        """SHA-256 of each file, by its name."""


@dataclass(frozen=True, eq=False)
class Part:
    """The N examples of one `source` (a file, for errors), which are read when they are wanted, B at a time."""

    source: str
    shape: tuple[int, int, int]
    dtype: numpy.dtype[Any]
    """Of the inputs: bytes, or floats."""
    labels_N: NDArray[Any]
    chunks: Callable[[], Iterator[NDArray[Any]]]
    """Begins to read: inputs of B x C x H x W, N in all."""
    columns: Mapping[str, NDArray[Any]] = field(default_factory=dict)


def held(source: str, images_NCHW: NDArray[Any], labels_N: NDArray[Any]) -> Part:
    """The part whose inputs lie in memory already."""
    count, *shape = images_NCHW.shape
    channels, height, width = shape

    def chunks() -> Iterator[NDArray[Any]]:
        return (images_NCHW[at : at + ROWS] for at in range(0, count, ROWS))

    return Part(source, (channels, height, width), images_NCHW.dtype, labels_N, chunks)


def check_validation(share: float) -> None:
    """Raise ValueError unless a validation set can be this share of the training part."""
    if not 0 <= share < 1:
        raise ValueError(f"validation must lie in [0, 1), not {share}")


def check_test(share: float) -> None:
    """Raise ValueError unless a test set can be this share of all examples."""
    if not 0 < share < 1:
        raise ValueError(f"test must lie in (0, 1), not {share}")
