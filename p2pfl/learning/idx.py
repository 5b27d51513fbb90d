"""The IDX file format: a four-byte magic, one big-endian size a dimension, then the numbers.

Source: LeCun, Cortes & Burges 1998, "The MNIST database of handwritten digits". Pure: bytes in, an array out.
"""

from __future__ import annotations

import gzip
import math
import zlib
from typing import Any

import numpy
from numpy.typing import NDArray

from p2pfl.errors import ScenarioError

GZIP_MAGIC = b"\x1f\x8b"
REMEDY = "replace the file by a fresh download"
DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
"""The third byte of the magic says what the numbers are."""


def parse(raw: bytes, source: str) -> NDArray[Any]:
    """The array that `raw` holds, gzipped or plain, read-only; `source` is the file's name, for errors.

    Raises ScenarioError when the magic, the dimensions or the length are not those of an IDX file.
    """
    content = unpack(raw, source)
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] not in DTYPES:
        raise ScenarioError(f"{source} is not an IDX file: it begins with {content[:4].hex() or 'nothing'}", REMEDY)
    dtype, dimensions = numpy.dtype(DTYPES[content[2]]), content[3]
    begin = 4 + 4 * dimensions
    if dimensions == 0 or len(content) < begin:
        raise ScenarioError(f"{source} is broken: {len(content)} bytes cannot hold {dimensions} dimensions", REMEDY)
    shape = tuple(int.from_bytes(content[at : at + 4], "big") for at in range(4, begin, 4))
    expected = begin + math.prod(shape) * dtype.itemsize
    if len(content) != expected:
        raise ScenarioError(f"{source} is broken: {len(content)} bytes where {shape} needs {expected}", REMEDY)
    return numpy.frombuffer(content, dtype, offset=begin).reshape(shape)


def unpack(raw: bytes, source: str) -> bytes:
    """`raw`, unzipped if it is gzipped. Raises ScenarioError when it is gzipped and broken."""
    if not raw.startswith(GZIP_MAGIC):
        return raw
    try:
        return gzip.decompress(raw)
    except (OSError, EOFError, zlib.error) as error:
        raise ScenarioError(f"{source} is broken: {error}", REMEDY) from None
