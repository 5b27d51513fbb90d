"""A data set in memory: three parts that every peer shares, and how any data set is cut and scaled to that form.

Shapes: N examples, C channels, H x W pixels. What is test and what validation is the same for every run and seed:
the cut is the permutation of `numpy.random.RandomState(0)`, a stream that numpy has frozen for good.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy
import torch
from numpy.typing import NDArray
from torch import Tensor

ROWS = 1024
"""Images that are counted or scaled at once, so that what numpy copies in between stays small."""


@dataclass(frozen=True, eq=False)
class Data:
    """Inputs are float32 of N x C x H x W, labels int64 of N; a peer's shard is a list of rows of `train`."""

    train_x: Tensor
    train_y: Tensor
    validation_x: Tensor
    validation_y: Tensor
    test_x: Tensor
    test_y: Tensor
    classes: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """C, H, W of one input."""
        _, channels, height, width = self.train_x.shape
        return channels, height, width


class DataSet(Protocol):
    """Where examples come from: what every plug-in of `datasets/` is."""

    def check(self) -> None:
        """Raise ScenarioError when files are missing; looks, but reads nothing."""

    def load(self) -> Data:
        """Read it all. Raises ScenarioError when a file is missing or broken."""

    def checksums(self) -> dict[str, str]:
        """SHA-256 of each file, by its name."""


def check_validation(share: float) -> None:
    """Raise ValueError unless a validation set can be this share of the training part."""
    if not 0 <= share < 1:
        raise ValueError(f"validation must lie in [0, 1), not {share}")


def fixed_order(count: int) -> NDArray[Any]:
    """The one permutation of `count` that every run uses, whatever its seed."""
    return numpy.random.RandomState(0).permutation(count)


def prepare(
    train: tuple[NDArray[Any], NDArray[Any]],
    test: tuple[NDArray[Any], NDArray[Any]],
    classes: int,
    validation: float,
    normalise: bool,
    brightest: int = 255,
) -> Data:
    """`Data` from two pairs of images (uint8 of N x C x H x W, from 0 to `brightest`) and labels (N).

    A `validation` share is cut off the training part, and what remains keeps its order. With `normalise`
    each channel gets mean 0 and standard deviation 1 on what remains; without, inputs lie in [0, 1].
    """
    images, labels = train
    held_out = numpy.zeros(len(labels), bool)
    held_out[fixed_order(len(labels))[: int(validation * len(labels))]] = True
    parts = (images[~held_out], labels[~held_out]), (images[held_out], labels[held_out]), test
    scale_C = [scale(parts[0][0][:, channel], brightest, normalise) for channel in range(images.shape[1])]
    train_x, validation_x, test_x = (tensor_of(x, scale_C) for x, _ in parts)
    train_y, validation_y, test_y = (torch.from_numpy(y.astype(numpy.int64)) for _, y in parts)
    return Data(train_x, train_y, validation_x, validation_y, test_x, test_y, classes)


def scale(image_NHW: NDArray[Any], brightest: int, normalise: bool) -> NDArray[numpy.float32]:
    """What each byte 0..255 of a channel becomes: a table of 256 numbers.

    Mean and deviation (1 where it is 0) come from counts of bytes, which are exact: sums of floats would
    depend on the order, and so on how many threads there are.
    """
    value = numpy.arange(256) / brightest
    if normalise:
        count = numpy.zeros(256, numpy.int64)
        for at in range(0, len(image_NHW), ROWS):
            count += numpy.bincount(image_NHW[at : at + ROWS].reshape(-1), minlength=256)
        mean = (count @ value) / count.sum()
        deviation = numpy.sqrt((count @ numpy.square(value - mean)) / count.sum())
        value = (value - mean) / (deviation or 1.0)
    return value.astype(numpy.float32)


def tensor_of(images: NDArray[Any], scale_C: list[NDArray[numpy.float32]]) -> Tensor:
    """Images of bytes as float32 of N x C x H x W, each channel through its own table."""
    x_NCHW = numpy.empty(images.shape, numpy.float32)
    for channel, table in enumerate(scale_C):
        for at in range(0, len(images), ROWS):
            x_NCHW[at : at + ROWS, channel] = table[images[at : at + ROWS, channel]]
    return torch.from_numpy(x_NCHW)
