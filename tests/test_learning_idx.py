"""The IDX reader: what it reads, and that every broken file is named."""

from __future__ import annotations

import contextlib
import gzip
import struct

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pfl.errors import ScenarioError
from p2pfl.learning import idx


def dump(array: numpy.ndarray, code: int = 0x08) -> bytes:
    head = struct.pack(f">BBBB{array.ndim}I", 0, 0, code, array.ndim, *array.shape)
    return head + array.astype(idx.DTYPES[code]).tobytes()


@given(shape=st.lists(st.integers(0, 4), min_size=1, max_size=4), code=st.sampled_from(sorted(idx.DTYPES)))
def test_what_was_written_is_read(shape: list[int], code: int) -> None:
    array = numpy.random.default_rng(0).integers(0, 100, shape)
    for raw in (dump(array, code), gzip.compress(dump(array, code))):
        assert numpy.array_equal(idx.parse(raw, "f"), array)


GOOD = dump(numpy.arange(6).reshape(2, 3))


PACKED = gzip.compress(GOOD, mtime=0)  # with the hour in it, two collections of the tests would differ
BROKEN = {
    "nothing": b"",
    "two bytes": b"\0\0",
    "another format": b"PK\3\4" + GOOD[4:],
    "an unknown type": b"\0\0\x07\2" + GOOD[4:],
    "no dimensions": b"\0\0\x08\0",
    "a head cut off": GOOD[:7],
    "a byte too few": GOOD[:-1],
    "a byte too many": GOOD + b"\0",
    "a huge shape": b"\0\0\x08\2" + b"\xff" * 8,
    "packed, cut off": PACKED[:-9],
    "packed, hardly begun": PACKED[:12],
    "packed rubbish": b"\x1f\x8b rubbish",
    "packed, a wrong sum": PACKED[:-8] + b"\0" * 8,
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_file_is_named(what: str) -> None:
    with pytest.raises(ScenarioError, match=r"images\.gz"):
        idx.parse(BROKEN[what], "images.gz")


@given(st.binary(max_size=40))
def test_any_bytes_are_read_or_refused(raw: bytes) -> None:
    for content in (raw, b"\0\0\x08" + raw, b"\x1f\x8b" + raw):
        with contextlib.suppress(ScenarioError):
            idx.parse(content, "f")
