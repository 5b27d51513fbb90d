"""How the examples of any files become a data set: cut in three, gathered, scaled.

Shapes: N examples, B of a chunk, C channels, H x W pixels, P pixels of a plane. What is test and what validation is
the same for every run and seed: the cut is the permutation of `numpy.random.RandomState(0)`, a stream that numpy has
frozen for good. Examples are read chunk by chunk, right to where they stay, and scaled there: there is one copy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy
import torch
from numpy.typing import NDArray

from p2pfl.errors import ScenarioError
from p2pfl.learning.data import ROWS, Data, Part

Floats = NDArray[numpy.float32]


def prepare(
    train: Sequence[Part],
    test: Sequence[Part],
    validation: float,
    normalise: bool,
    cut: float = 0.0,
    classes: int | None = None,
    brightest: int = 255,
) -> Data:
    """`Data` from parts whose inputs are bytes (0 to `brightest`) or floats, all of one form.

    Where there is no `test`, the share `cut` of all examples becomes it. A `validation` share is cut off the training
    part. With `normalise` each channel (of 1 x 1 x W features: each feature) gets mean 0 and standard deviation 1 on
    what remains; without, bytes are scaled to [0, 1] and floats left alone. Labels are 0 to `classes` - 1; where that
    is None they are of any type, and numbered in sorted order. Raises ScenarioError that names the source.
    """
    check_forms([*train, *test])
    labels_N, tests_N, classes = number(train, test, classes)
    rows = cuts(len(labels_N), 0.0 if test else cut, validation)
    if len(rows[0]) == 0:
        raise ScenarioError(f"{train[0].source} leaves no example to train with", "give more examples")
    inputs, labels = read_scaled(train, test, rows, normalise, brightest), [labels_N[each] for each in rows]
    if test:
        labels[2] = tests_N
    (train_x, validation_x, test_x), (train_y, validation_y, test_y) = (
        map(torch.from_numpy, parts) for parts in (inputs, labels)
    )
    columns = {name: joined([part.columns[name] for part in train])[rows[0]] for name in train[0].columns}
    return Data(train_x, train_y, validation_x, validation_y, test_x, test_y, classes, columns)


def read_scaled(
    train: Sequence[Part], test: Sequence[Part], rows: Sequence[NDArray[Any]], normalise: bool, brightest: int
) -> list[Floats]:
    """The inputs to train with, to validate with and to test with, ready for use; `test`, if given, is the last."""
    floats = train[0].dtype.kind == "f"
    origin = origin_of(train[0]) if floats and normalise else None
    inputs = gather(train, rows, origin)
    if test:
        inputs[2:] = gather(test, [numpy.arange(sum(len(part.labels_N) for part in test))], origin)
    if normalise or not floats:
        rescale(inputs, None if floats else brightest, normalise)
    return inputs


def origin_of(part: Part) -> NDArray[numpy.float64]:
    """The first value of each channel (of features: of each feature), 1 x C x 1 x 1 (1 x 1 x 1 x W)."""
    first_1CHW = next(part.chunks())[:1].astype(numpy.float64)
    return first_1CHW if tabular(part.shape) else first_1CHW[:, :, :1, :1]


def tabular(shape: Sequence[int]) -> bool:
    """Whether inputs of this shape are features, 1 x 1 x W, and not images."""
    return shape[0] == shape[1] == 1


def check_forms(parts: Sequence[Part]) -> None:
    """Raise ScenarioError unless all parts hold bytes, or all floats, of one shape."""
    first = parts[0]
    for part in parts:
        if part.dtype != numpy.uint8 and part.dtype.kind != "f":
            raise ScenarioError(f"{part.source} holds {part.dtype}", "give bytes (uint8, from 0 to 255) or floats")
        if (part.shape, part.dtype.kind) != (first.shape, first.dtype.kind):
            problem = f"{part.source} holds {part.dtype} of {part.shape}, {first.source} {first.dtype} of {first.shape}"
            raise ScenarioError(problem, "make them alike")


def number(
    train: Sequence[Part], test: Sequence[Part], classes: int | None
) -> tuple[NDArray[numpy.int64], NDArray[numpy.int64], int]:
    """Labels of the training and the test examples from 0, and how many classes there are. Raises ScenarioError."""
    for parts in (train, test):
        if parts and not any(len(part.labels_N) for part in parts):
            raise ScenarioError(f"{parts[0].source} holds no examples", "give it some")
    source, count = train[0].source, sum(len(part.labels_N) for part in train)
    if len({part.labels_N.dtype.kind in "US" for part in (*train, *test)}) > 1:
        raise ScenarioError(f"{source} and what belongs to it mix numbers and words as labels", "use one of the two")
    labels_N = joined([part.labels_N for part in (*train, *test)])
    if classes is None:
        labels_N, values = in_order(labels_N, source)
        classes = len(values)
        if unseen := sorted(set(labels_N[count:].tolist()) - set(labels_N[:count].tolist())):
            problem = f"{test[0].source} has the label {values[unseen[0]]!s}, which no training example has"
            raise ScenarioError(problem, "correct the label, or train with it too")
    return labels_N[:count].astype(numpy.int64), labels_N[count:].astype(numpy.int64), classes


def in_order(labels_N: NDArray[Any], source: str) -> tuple[NDArray[Any], NDArray[Any]]:
    """Labels of any type as 0, 1, ... in sorted order, and what they were. Raises ScenarioError."""
    if labels_N.dtype.kind == "f" and not (finite_N := numpy.isfinite(labels_N)).all():
        row = int(numpy.flatnonzero(~finite_N)[0])
        raise ScenarioError(f"{source} has no finite label for example {row} (from 0)", "give it one")
    values, codes_N = numpy.unique(labels_N, return_inverse=True)
    if len(values) < 2:
        raise ScenarioError(f"{source} has the label {values[0]!s} only", "give examples of at least two classes")
    return codes_N, values


def joined(arrays: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """The arrays one after another; the array itself where there is only one."""
    return arrays[0] if len(arrays) == 1 else numpy.concatenate(arrays)


def fixed_order(count: int) -> NDArray[Any]:
    """The one permutation of `count` that every run uses, whatever its seed."""
    return numpy.random.RandomState(0).permutation(count)


def cuts(count: int, test: float, validation: float) -> list[NDArray[Any]]:
    """The rows to train with, to validate with and to test with: these shares of `count`, the same in every run."""
    order = fixed_order(count) if test else numpy.arange(count)
    kept, tests = numpy.split(order, [count - math.ceil(test * count)])
    held_out = numpy.zeros(len(kept), bool)
    held_out[fixed_order(len(kept))[: int(validation * len(kept))]] = True
    return [kept[~held_out], kept[held_out], tests]


def gather(parts: Sequence[Part], cuts: Sequence[NDArray[Any]], origin: NDArray[Any] | None) -> list[Floats]:
    """The inputs of each cut (rows counted over all parts), in its order, read once; less `origin`, if given.

    The origin keeps large numbers that differ little (years, say) exact in float32. Raises ScenarioError.
    """
    count = sum(len(part.labels_N) for part in parts)
    owner_N, place_N = numpy.full(count, -1), numpy.zeros(count, numpy.int64)
    for owner, rows in enumerate(cuts):
        owner_N[rows], place_N[rows] = owner, numpy.arange(len(rows))
    inputs = [numpy.empty((len(rows), *parts[0].shape), numpy.float32) for rows in cuts]
    row = 0
    for part in parts:
        first = row
        for chunk in part.chunks():
            with numpy.errstate(invalid="ignore"):  # an infinite number is named right below
                chunk_BCHW = chunk if origin is None else chunk - origin
            if chunk.dtype.kind == "f":
                check_finite(chunk_BCHW, part.source, row - first)
            owner_B, place_B = owner_N[row : row + len(chunk)], place_N[row : row + len(chunk)]
            for owner, x_NCHW in enumerate(inputs):
                mine_B = owner_B == owner
                x_NCHW[place_B[mine_B]] = chunk_BCHW[mine_B]
            row += len(chunk)
    return inputs


def check_finite(chunk_BCHW: NDArray[Any], source: str, first: int) -> None:
    """Raise ScenarioError where a number is not finite in float32; the chunk begins with example `first`."""
    with numpy.errstate(over="ignore"):  # too large for float32: that is what is looked for
        bad_B = ~numpy.isfinite(chunk_BCHW.astype(numpy.float32)).reshape(len(chunk_BCHW), -1).all(1)
    if bad_B.any():
        row = first + int(numpy.flatnonzero(bad_B)[0])
        raise ScenarioError(f"{source} holds a number that is not finite in example {row} (from 0)", "correct it")


def rescale(inputs: Sequence[Floats], brightest: int | None, normalise: bool) -> None:
    """Scale all inputs in place as the first of them asks for: floats, or bytes from 0 to `brightest`."""
    _, channels, height, width = inputs[0].shape
    planes = (width, 1) if tabular((channels, height)) else (channels, height * width)  # of features, each is a plane
    views = [x_NCHW.reshape(len(x_NCHW), *planes) for x_NCHW in inputs]
    if brightest is None:
        mean_C1, deviation_C1 = moments(views[0])
        for x_NCP in views:
            for at in range(0, len(x_NCP), ROWS):
                x_NCP[at : at + ROWS] = (x_NCP[at : at + ROWS] - mean_C1) / deviation_C1
        return
    for plane in range(planes[0]):
        table = scale(views[0][:, plane], brightest, normalise)
        for x_NCP in views:
            for at in range(0, len(x_NCP), ROWS):
                x_NCP[at : at + ROWS, plane] = table[x_NCP[at : at + ROWS, plane].astype(numpy.uint8)]


def moments(x_NCP: Floats) -> tuple[NDArray[numpy.float64], NDArray[numpy.float64]]:
    """Mean and standard deviation (1 where it is 0) of each plane, C x 1 each.

    Summed in float64 by numpy, whose order does not depend on how many threads there are.
    """
    chunks = [x_NCP[at : at + ROWS] for at in range(0, len(x_NCP), ROWS)]
    count = len(x_NCP) * x_NCP.shape[2]
    mean_C1 = sum(chunk.sum((0, 2), numpy.float64) for chunk in chunks)[:, None] / count
    square_C1 = sum(numpy.square(chunk - mean_C1).sum((0, 2)) for chunk in chunks)[:, None] / count
    deviation_C1 = numpy.sqrt(square_C1)
    return mean_C1, numpy.where(deviation_C1 > 0, deviation_C1, 1.0)


def scale(byte_NP: Floats, brightest: int, normalise: bool) -> Floats:
    """What each byte 0..255 of a plane becomes: a table of 256 numbers.

    Mean and deviation (1 where it is 0) come from counts of bytes, which are exact: sums of floats would
    depend on the order, and so on how many threads there are.
    """
    value = numpy.arange(256) / brightest
    if normalise:
        count = numpy.zeros(256, numpy.int64)
        for at in range(0, len(byte_NP), ROWS):
            count += numpy.bincount(byte_NP[at : at + ROWS].astype(numpy.uint8).reshape(-1), minlength=256)
        mean = (count @ value) / count.sum()
        deviation = numpy.sqrt((count @ numpy.square(value - mean)) / count.sum())
        value = (value - mean) / (deviation or 1.0)
    return value.astype(numpy.float32)
