"""The arrays of an .npz file, some rows at a time, so that an array is never held twice, and never a pickle.

Source of the format: numpy.lib.format, "The .npy format": a header that says type and shape, then the numbers.
"""

from __future__ import annotations

import lzma
import math
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy
from numpy.lib import format as npy
from numpy.typing import NDArray

from p2pfl.errors import ScenarioError
from p2pfl.learning.data import ROWS

BROKEN = (
    *(OSError, EOFError, ValueError, KeyError, RuntimeError, NotImplementedError, SyntaxError, tokenize.TokenError),
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError),
)
"""What zipfile, its unpackers and numpy say of a file that is none, is cut, encrypted or packed as they do not know."""


@dataclass(frozen=True, eq=False)
class Array:
    """One array of an .npz file, not yet read."""

    path: Path
    name: str
    shape: tuple[int, ...]
    dtype: numpy.dtype[Any]

    @property
    def known(self) -> str:
        """How errors call it."""
        return f"{self.path} (array {self.name!r})"

    def chunks(self) -> Iterator[NDArray[Any]]:
        """Some rows at a time, all in all. Raises ScenarioError where the file is broken."""
        row_bytes = self.dtype.itemsize * math.prod(self.shape[1:])
        try:
            with zipfile.ZipFile(self.path) as archive, archive.open(f"{self.name}.npy") as file:
                header(file)
                for at in range(0, self.shape[0], ROWS):
                    count = min(ROWS, self.shape[0] - at)
                    rows = numpy.frombuffer(file.read(count * row_bytes), self.dtype)
                    yield rows.reshape(count, *self.shape[1:])
        except BROKEN as error:
            raise broken(self.path, error) from None

    def whole(self) -> NDArray[Any]:
        """All of it."""
        return numpy.concatenate([numpy.empty((0, *self.shape[1:]), self.dtype), *self.chunks()])


def arrays(path: Path) -> dict[str, Array]:
    """The arrays of an .npz file by name. Raises ScenarioError where it is broken or holds Python objects."""
    found = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                if not entry.filename.endswith(".npy"):
                    continue
                with archive.open(entry) as file:
                    shape, fortran, dtype = header(file)
                    size_bytes = file.tell() + dtype.itemsize * math.prod(shape)
                name = entry.filename.removesuffix(".npy")
                if dtype.hasobject:
                    problem = f"{path} holds Python objects in its array {name!r}, which are never loaded"
                    raise ScenarioError(problem, "save it as numbers or words, as in x.astype('float32')")
                if fortran and len(shape) > 1:
                    problem = f"{path} holds its array {name!r} column by column"
                    raise ScenarioError(problem, "save numpy.ascontiguousarray of it")
                if entry.file_size != size_bytes:
                    raise ValueError(f"{name!r} has {entry.file_size} bytes where {shape} needs {size_bytes}")
                found[name] = Array(path, name, shape, dtype)
    except BROKEN as error:
        raise broken(path, error) from None
    return found


def header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, numpy.dtype[Any]]:
    """Shape, whether the order is Fortran's, and type of the array that follows. Raises ValueError."""
    version = npy.read_magic(file)
    if version == (1, 0):
        return npy.read_array_header_1_0(file)
    if version == (2, 0):
        return npy.read_array_header_2_0(file)
    raise ValueError(f"arrays of version {version} are not read")


def broken(path: Path, error: Exception) -> ScenarioError:
    """A file that cannot be read as what it should be."""
    reason = str(error).partition("\n")[0][:120] or type(error).__name__
    return ScenarioError(f"{path} cannot be read as .npz, {reason}", "write it anew with numpy.savez")
