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


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\0\0",
        b"PK\3\4" + GOOD[4:],
        b"\0\0\x07\2" + GOOD[4:],
        b"\0\0\x08\0",
        GOOD[:7],
        GOOD[:-1],
        GOOD + b"\0",
        b"\0\0\x08\2" + b"\xff" * 8,
        gzip.compress(GOOD)[:-9],
        gzip.compress(GOOD)[:12],
        b"\x1f\x8b rubbish",
        gzip.compress(GOOD)[:-8] + b"\0" * 8,
    ],
)
def test_a_broken_file_is_named(raw: bytes) -> None:
    with pytest.raises(ScenarioError, match=r"images\.gz"):
        idx.parse(raw, "images.gz")


@given(st.binary(max_size=40))
def test_any_bytes_are_read_or_refused(raw: bytes) -> None:
    for content in (raw, b"\0\0\x08" + raw, b"\x1f\x8b" + raw):
        with contextlib.suppress(ScenarioError):
            idx.parse(content, "f")
