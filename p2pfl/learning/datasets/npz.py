"""Your own arrays in .npz files, as numpy.savez writes them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
from numpy.typing import NDArray

from p2pfl.errors import ScenarioError
from p2pfl.learning.data import Data, Part, check_test, check_validation
from p2pfl.learning.datasets import _files, _zipped
from p2pfl.learning.preparation import prepare

CHANNELS = (1, 3, 4)
OURS = ("x", "y", "x_test", "y_test")


@dataclass(frozen=True)
class Npz:
    """Your own arrays: `path` is an .npz file, or a folder of some, that hold x, y and perhaps x_test, y_test.

    x are images, N x H x W, N x H x W x C or N x C x H x W, or features, N x F; bytes (0 to 255) or floats. Of four
    axes, the second or the last is that of the channels: the smaller one of 1, 3 or 4, the last if both are alike.
    y are labels of any type. Further arrays of N values become columns; of several files, the `file` is one.
    Without x_test a share `test` is cut off by a permutation that is the same in every run.
    """

    path: Path
    test: float = 0.2
    normalise: bool = True
    validation: float = 0.1

    def __post_init__(self) -> None:
        check_test(self.test)
        check_validation(self.validation)

    def check(self) -> None:
        """Raise ScenarioError when there is no such file."""
        _files.listed(self.path, ".npz")

    def load(self) -> Data:
        """Read all files. Raises ScenarioError that names the file, the array and the remedy."""
        files = _files.listed(self.path, ".npz")
        held = [_zipped.arrays(path) for path in files]
        train = [part(path, arrays, "") for path, arrays in zip(files, held, strict=True)]
        tested = ["x_test" in arrays or "y_test" in arrays for arrays in held]
        if any(tested) and not all(tested):
            raise ScenarioError(f"{files[tested.index(False)]} has no x_test, others have", "give it to all, or none")
        test = [part(path, arrays, "_test") for path, arrays in zip(files, held, strict=True)] if all(tested) else []
        if len(files) > 1:
            train = [with_file(each, path) for each, path in zip(train, files, strict=True)]
        return prepare(alike(train), test, self.validation, self.normalise, self.test)

    def checksums(self) -> dict[str, str]:
        """SHA-256 of each file."""
        return _files.checksums(_files.listed(self.path, ".npz"))


def part(path: Path, arrays: dict[str, _zipped.Array], suffix: str) -> Part:
    """The examples `x` and `y` of one file, or its `x_test` and `y_test`. Raises ScenarioError."""
    missing = [name for name in (f"x{suffix}", f"y{suffix}") if name not in arrays]
    if missing:
        raise ScenarioError(f"{path} has no array {missing[0]!r}, it has {', '.join(arrays) or 'none'}", "add it")
    x, y = arrays[f"x{suffix}"], arrays[f"y{suffix}"]
    if len(y.shape) != 1 or x.shape[:1] != y.shape or y.dtype.kind not in "uifbUS":
        problem = f"{y.known} is {y.dtype} of shape {y.shape} for x of shape {x.shape}"
        raise ScenarioError(problem, "give one number or word for each example of x")
    others = {} if suffix else {name: array for name, array in arrays.items() if name not in OURS}
    columns = {name: array.whole() for name, array in others.items() if array.shape == y.shape}
    return images(x, y.whole(), columns)


def images(x: _zipped.Array, labels_N: NDArray[Any], columns: dict[str, NDArray[Any]]) -> Part:
    """A part whose inputs are that array, brought to N x C x H x W. Raises ScenarioError where it has another form."""
    axis = channel_axis(x)
    shape = tuple(numpy.moveaxis(numpy.empty((1, *padded(x)[1:]), bool), axis, 1).shape[1:])

    def chunks() -> Iterator[NDArray[Any]]:
        return (numpy.moveaxis(chunk.reshape(-1, *padded(x)[1:]), axis, 1) for chunk in x.chunks())

    return Part(x.known, (shape[0], shape[1], shape[2]), x.dtype, labels_N, chunks, columns)


def padded(x: _zipped.Array) -> tuple[int, ...]:
    """The shape of four axes: features become N x 1 x 1 x F, images without channels N x 1 x H x W."""
    return (x.shape[0], *(1,) * (4 - len(x.shape)), *x.shape[1:])


def channel_axis(x: _zipped.Array) -> int:
    """Which of the four axes is that of the channels. Raises ScenarioError where none can be."""
    if len(x.shape) in (2, 3) and 0 not in x.shape[1:]:
        return 1
    if len(x.shape) == 4 and 0 not in x.shape[1:]:
        fit = [axis for axis in (3, 1) if x.shape[axis] in CHANNELS]
        if fit:
            return min(fit, key=lambda axis: x.shape[axis])
    remedy = "give N x F, N x H x W, N x H x W x C or N x C x H x W with C of 1, 3 or 4"
    raise ScenarioError(f"{x.known} has the shape {x.shape}", remedy)


def with_file(part: Part, path: Path) -> Part:
    """The part, each example of which knows its file."""
    column = numpy.full(len(part.labels_N), path.name)
    return Part(part.source, part.shape, part.dtype, part.labels_N, part.chunks, {**part.columns, "file": column})


def alike(parts: list[Part]) -> list[Part]:
    """The same parts. Raises ScenarioError unless all have the columns of the first."""
    for each in parts:
        if different := set(each.columns) ^ set(parts[0].columns):
            raise ScenarioError(f"{each.source} and {parts[0].source} differ in {min(different)!r}", "make them alike")
    return parts
