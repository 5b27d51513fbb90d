"""Messages to bytes and back, by a socket-free protocol: what a peer sends is hostile until it is checked.

A message travels as one or more chunks, each of a msgpack header and at most 1 MiB of payload:

    first chunk   [VERSION, FIRST, run, number, kind, round, [[name, dtype, shape], ...], figures]   payload
    later chunk   [VERSION, LATER, run, number, offset]                                              payload
    beat          [VERSION, BEAT, run, round, learning]                                              -

The payload is the bytes of the tensors in the order of the table, little-endian, without gaps; a chunk never spans
two tensors. Before memory is taken the table is held against the `Form` that this kind of message must have in its
round; numbers that are not finite are refused as they come. Nothing is ever unpickled.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import msgpack
import numpy
import torch
from torch import Tensor

from p2pfl.errors import RemoteError
from p2pfl.messages import Form, Message

VERSION = 1
CHUNK_BYTES = 1 << 20
HEADER_BYTES = 1 << 16
DTYPES: Mapping[str, torch.dtype] = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.uint8)
}
Chunk = tuple[bytes, memoryview | None]


class Part(IntEnum):
    """What a frame is."""

    FIRST = 0
    LATER = 1
    BEAT = 2


@dataclass(frozen=True)
class Beat:
    """A sign of life: the round its sender works on, and whether it learns (else it waits for mail, or measures)."""

    round: int
    learning: bool


@dataclass(frozen=True)
class Anything:
    """In place of a Form: figures of any plain type, and tensors of any shape of at most so many bytes."""

    limit_bytes: int


Wanted = Form | Anything | None


def encode(run: bytes, number: int, message: Message) -> Iterator[Chunk]:
    """The chunks of a message; payloads are views of its tensors' memory, not copies."""
    tensors = [(name, t.detach().contiguous()) for name, t in message.tensors.items()]
    table = [[name, str(t.dtype).removeprefix("torch."), list(t.shape)] for name, t in tensors]
    pieces = _pieces([t for _, t in tensors])
    head = [VERSION, Part.FIRST, run, number, message.kind, message.round, table, dict(message.figures)]
    packed = msgpack.packb(head)
    if len(packed) > HEADER_BYTES:
        raise ValueError(f"the figures of a {message.kind!r} message take {len(packed)} bytes: at most {HEADER_BYTES}")
    yield packed, next(pieces, (0, None))[1]
    for offset, piece in pieces:
        yield msgpack.packb([VERSION, Part.LATER, run, number, offset]), piece


def encode_beat(run: bytes, beat: Beat) -> bytes:
    """The one frame of a beat."""
    packed: bytes = msgpack.packb([VERSION, Part.BEAT, run, beat.round, beat.learning])
    return packed


def _pieces(tensors: list[Tensor]) -> Iterator[tuple[int, memoryview | None]]:
    start = 0
    for tensor in tensors:
        view = _bytes_of(tensor)
        for at in range(0, len(view), CHUNK_BYTES):
            yield start + at, view[at : at + CHUNK_BYTES]
        start += len(view)


def _bytes_of(tensor: Tensor) -> memoryview:
    return memoryview(tensor.view(-1).view(torch.uint8).numpy()) if tensor.numel() else memoryview(b"")


class Decoder:
    """Puts together what one sender says; one per sender and run.

    `wanted(kind, round)` gives the form that such a message must have, `Anything`, or None where it is not kept:
    mail that is too old or too far ahead, which is nobody's fault. It raises RemoteError for a kind that nobody sends.
    """

    def __init__(self, run: bytes, wanted: Callable[[str, int], Wanted]) -> None:
        self._run, self._wanted = run, wanted
        self._number = -1
        self._partial: _Partial | None = None

    def feed(self, header: Any, payload: Any) -> Message | Beat | None:
        """Take one chunk (two buffers; `payload` None where there is none); returns what it completes.

        Raises RemoteError when the chunk breaks a rule; what was put together so far of that message is dropped.
        """
        try:
            match self._unpack(header):
                case [_, Part.FIRST, _, int(number), str(kind), int(round), list(table), dict(figures)]:
                    return self._first(number, kind, round, table, figures, payload)
                case [_, Part.LATER, _, int(number), int(offset)]:
                    return self._later(number, offset, payload)
                case [_, Part.BEAT, _, int(round), bool(learning)] if payload is None and 0 <= round < 1 << 62:
                    return Beat(round, learning)
            raise RemoteError("a header of no known form")
        except RemoteError:
            self._partial = None
            raise

    def _unpack(self, header: Any) -> list[Any]:
        if len(header) > HEADER_BYTES:
            raise RemoteError(f"a header of {len(header)} bytes: at most {HEADER_BYTES}")
        try:
            parts = msgpack.unpackb(header, strict_map_key=True, max_ext_len=0, use_list=True)
        except (ValueError, TypeError, RecursionError, msgpack.UnpackException) as error:
            raise RemoteError(f"a header that is not msgpack: {type(error).__name__}") from None
        if not isinstance(parts, list) or len(parts) < 3 or parts[0] != VERSION or parts[2] != self._run:
            raise RemoteError("a header of another version or another run")
        return parts

    def _first(self, number: int, kind: str, round: int, table: list[Any], figures: dict[str, Any], payload: Any) -> Message | None:
        if number <= self._number:
            raise RemoteError(f"message number {number} after {self._number}")
        self._number = number
        wanted = self._wanted(kind, round)
        shapes = _checked(kind, table, figures, wanted)
        self._partial = _Partial(kind, round, figures, shapes, keep=wanted is not None)
        return self._add(0, payload)

    def _later(self, number: int, offset: int, payload: Any) -> Message | None:
        if self._partial is None or number != self._number:
            raise RemoteError("a chunk of no message")
        return self._add(offset, payload)

    def _add(self, offset: int, payload: Any) -> Message | None:
        partial = self._partial
        assert partial is not None
        partial.add(offset, payload)
        if partial.missing_bytes:
            return None
        self._partial = None
        return Message(partial.kind, partial.round, partial.tensors, partial.figures) if partial.keep else None


class _Partial:
    """A message on its way: its tensors, filled in order. What is not kept is counted but never stored."""

    def __init__(self, kind: str, round: int, figures: dict[str, Any], shapes: _Shapes, keep: bool) -> None:
        self.kind, self.round, self.figures, self.keep = kind, round, figures, keep
        self.tensors = {name: torch.empty(shape, dtype=dtype) for name, (dtype, shape) in shapes.items()} if keep else {}
        self._sizes = [dtype.itemsize * math.prod(shape) for dtype, shape in shapes.values()]
        self._targets = [t.view(-1).view(torch.uint8) for t in self.tensors.values() if t.numel()] if keep else []
        self._dtypes = [dtype for (dtype, _), size in zip(shapes.values(), self._sizes, strict=True) if size]
        self._sizes = [size for size in self._sizes if size]
        self.missing_bytes = sum(self._sizes)
        self._at = self._filled = self._offset = 0

    def add(self, offset: int, payload: Any) -> None:
        size = 0 if payload is None else len(payload)
        if offset != self._offset:
            raise RemoteError(f"a chunk at byte {offset} where {self._offset} was due")
        if size > CHUNK_BYTES or (size == 0) != (self.missing_bytes == 0):
            raise RemoteError(f"a chunk of {size} bytes")
        if size == 0:
            return
        here = self._sizes[self._at]
        if size > here - self._filled:
            raise RemoteError(f"a chunk of {size} bytes where {here - self._filled} were due")
        if self.keep:
            self._store(payload, size)
        self._filled, self._offset, self.missing_bytes = self._filled + size, self._offset + size, self.missing_bytes - size
        if self._filled == here:
            self._at, self._filled = self._at + 1, 0

    def _store(self, payload: Any, size: int) -> None:
        dtype = self._dtypes[self._at]
        if size % dtype.itemsize:
            raise RemoteError(f"a chunk of {size} bytes of {dtype}")
        target = self._targets[self._at][self._filled : self._filled + size]
        numpy.copyto(target.numpy(), numpy.frombuffer(payload, numpy.uint8))
        if dtype.is_floating_point and not finite(target.view(dtype)):
            raise RemoteError(f"numbers that are not finite in a {self.kind!r} message")


_Shapes = dict[str, tuple[torch.dtype, tuple[int, ...]]]


def finite(x_N: Tensor) -> bool:
    """Whether all numbers are finite: one pass for the sum, and a second look only where the sum overflowed."""
    return math.isfinite(float(x_N.sum())) or bool(torch.isfinite(x_N).all())


def _checked(kind: str, table: list[Any], figures: dict[str, Any], wanted: Wanted) -> _Shapes:
    """The shapes that a table names. Raises RemoteError unless they and the figures are what is wanted."""
    shapes: _Shapes = {}
    for row in table:
        match row:
            case [str(name), str(dtype), list(shape)] if dtype in DTYPES and all(
                type(n) is int and 0 <= n < 1 << 40 for n in shape
            ):
                shapes[name] = (DTYPES[dtype], tuple(shape))
            case _:
                raise RemoteError(f"a {kind!r} message with a broken table")
    if len(shapes) != len(table) or not all(isinstance(name, str) for name in figures):
        raise RemoteError(f"a {kind!r} message that names a thing twice or by no name")
    if isinstance(wanted, Form) and (
        shapes != dict(wanted.tensors) or {n: type(f) for n, f in figures.items()} != dict(wanted.figures)
    ):
        raise RemoteError(f"a {kind!r} message of another form")
    size = sum(dtype.itemsize * math.prod(shape) for dtype, shape in shapes.values())
    if isinstance(wanted, Anything) and size > wanted.limit_bytes:
        raise RemoteError(f"a {kind!r} message of {size} bytes: at most {wanted.limit_bytes}")
    if any(isinstance(f, float) and not math.isfinite(f) for f in figures.values()) and isinstance(wanted, Form):
        raise RemoteError(f"a {kind!r} message with a figure that is not finite")
    return shapes
