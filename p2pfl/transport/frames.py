"""Messages to bytes and back, by a socket-free protocol: what a peer sends is hostile until it is checked.

A message travels as one or more chunks, each of a msgpack header and at most 1 MiB of payload:

    first chunk   [VERSION, FIRST, run, number, kind, round, [[name, dtype, shape], ...], figures]   payload
    later chunk   [VERSION, LATER, run, number, offset]                                              payload
    beat          [VERSION, BEAT, run, round, learning]                                              -

The payload is the bytes of the tensors in the order of the table, little-endian, without gaps; a chunk never spans
two tensors, and is full unless it ends one. Nothing is ever unpickled.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import msgpack
import numpy
import numpy.typing
import torch
from torch import Tensor

from p2pfl.errors import LocalError, RemoteError
from p2pfl.messages import Form, Message
from p2pfl.transport.forms import DTYPES, Anything, Table, Wanted, check, check_numbers, read_table, size_bytes

assert sys.byteorder == "little", "tensors travel as they lie in memory"

VERSION = 1
CHUNK_BYTES = 1 << 20
HEADER_BYTES = 1 << 16
LAST_ROUND = 1 << 62
ALIGNMENT_BYTES = 64
"""As torch aligns its own tensors: the order of sums, and so the last bit of figures, may hang on it."""
CURVE_BYTES = 33
"""What CURVE adds to a frame (RFC 26): command name, nonce, authenticator, flags."""
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


def encode(run: bytes, number: int, message: Message) -> list[Chunk]:
    """The chunks of a message; payloads are views of its tensors' memory, not copies. Raises LocalError."""
    tensors = [(name, t.detach().contiguous()) for name, t in message.tensors.items()]
    table = [[name, _name(t.dtype), list(t.shape)] for name, t in tensors]
    head = msgpack.packb([VERSION, Part.FIRST, run, number, message.kind, message.round, table, dict(message.figures)])
    if len(head) > HEADER_BYTES:
        raise LocalError(f"the figures of a {message.kind!r} message take {len(head)} bytes: at most {HEADER_BYTES}")
    chunks: list[Chunk] = []
    offset = 0
    for piece in (piece for _, t in tensors for piece in _pieces(t)):
        header = msgpack.packb([VERSION, Part.LATER, run, number, offset]) if chunks else head
        chunks.append((header, _bytes_of(piece).data))
        offset += piece.nbytes
    return chunks or [(head, None)]


def encode_beat(run: bytes, beat: Beat) -> bytes:
    """The one frame of a beat."""
    packed: bytes = msgpack.packb([VERSION, Part.BEAT, run, beat.round, beat.learning])
    return packed


def wire_bytes(chunk: Chunk, sealed: bool) -> int:
    """What a chunk takes on the wire (ZMTP 3.1, RFC 37), sealed by CURVE or not."""
    sizes = [len(part) + (CURVE_BYTES if sealed else 0) for part in chunk if part is not None]
    return sum(size + (2 if size < 256 else 9) for size in sizes)


def _name(dtype: torch.dtype) -> str:
    name = str(dtype).removeprefix("torch.")
    if name not in DTYPES:
        raise LocalError(f"no message can carry a tensor of {name}: it may be of {', '.join(DTYPES)}")
    return name


def _pieces(tensor: Tensor) -> Iterator[Tensor]:
    """The parts of a tensor that travel as one chunk each."""
    flat, count = tensor.view(-1), CHUNK_BYTES // tensor.itemsize
    return (flat[at : at + count] for at in range(0, len(flat), count))


def _bytes_of(tensor: Tensor) -> numpy.typing.NDArray[numpy.uint8]:
    bytes_of: numpy.typing.NDArray[numpy.uint8] = tensor.view(-1).view(torch.uint8).numpy()
    return bytes_of


class Decoder:
    """Puts together what one sender says over one connection.

    `wanted(kind, round)` gives the form that such a message must have, `Anything`, or None where it is not kept:
    mail that is too old or too far ahead, which is nobody's fault. It raises RemoteError for a kind that nobody sends.
    The later chunks of a message that is not kept, was refused, or began on an earlier connection pass unheard.
    """

    def __init__(self, run: bytes, wanted: Callable[[str, int], Wanted]) -> None:
        self._run, self._wanted = run, wanted
        self._number = -1
        self._partial: _Partial | None = None
        self._skipping = True

    def feed(self, header: Any, payload: Any) -> Message | Beat | None:
        """Take one chunk (two buffers; `payload` None where there is none); returns what it completes.

        Raises RemoteError when the chunk breaks a rule; what was put together so far of that message is dropped.
        """
        try:
            match self._unpack(header):
                case [_, Part.FIRST, _, int(number), str(kind), int(round), list(rows), dict(figures)]:
                    return self._first(number, kind, round, rows, figures, payload)
                case [_, Part.LATER, _, int(number), int(offset)]:
                    return self._later(number, offset, payload)
                case [_, Part.BEAT, _, int(round), bool(learning)] if payload is None and 0 <= round < LAST_ROUND:
                    return Beat(round, learning)
            raise RemoteError("a header of no known form")
        except RemoteError:
            self._partial, self._skipping = None, True
            raise

    def _unpack(self, header: Any) -> list[Any]:
        if len(header) > HEADER_BYTES:
            raise RemoteError(f"a header of {len(header)} bytes: at most {HEADER_BYTES}")
        try:
            parts = msgpack.unpackb(header, strict_map_key=True, max_ext_len=0)
        except (ValueError, TypeError, RecursionError, msgpack.UnpackException) as error:
            raise RemoteError(f"a header that is not msgpack: {type(error).__name__}") from None
        if not isinstance(parts, list) or len(parts) < 3 or parts[0] != VERSION or parts[2] != self._run:
            raise RemoteError("a header of another version or another run")
        return parts

    def _first(
        self, number: int, kind: str, round: int, rows: list[Any], figures: dict[Any, Any], payload: Any
    ) -> Message | None:
        if number <= self._number or self._partial is not None:
            raise RemoteError(f"message number {number} after, or within, {self._number}")
        if not 0 <= round < LAST_ROUND:
            raise RemoteError(f"a {kind!r} message of round {round}")
        self._number, self._skipping = number, False
        wanted = self._wanted(kind, round)
        if wanted is None:
            self._skipping = True
            return None
        table = read_table(kind, rows)
        check(kind, table, figures, wanted)
        self._partial = _Partial(Message(kind, round, {}, figures), table, wanted)
        return self._add(0, payload)

    def _later(self, number: int, offset: int, payload: Any) -> Message | None:
        if self._skipping:
            return None
        if self._partial is None or number != self._number:
            raise RemoteError("a chunk of no message")
        return self._add(offset, payload)

    def _add(self, offset: int, payload: Any) -> Message | None:
        assert self._partial is not None
        whole = self._partial.add(offset, payload)
        if whole is not None:
            self._partial = None
        return whole


class _Partial:
    """A message on its way: its tensors, filled in order."""

    def __init__(self, head: Message, table: Table, wanted: Form | Anything) -> None:
        tensors = {name: _empty(dtype, shape) for name, (dtype, shape) in table.items()}
        self._message = Message(head.kind, head.round, tensors, head.figures)
        self._wanted, self._size, self._offset = wanted, size_bytes(table), 0
        self._due = (piece for t in tensors.values() for piece in _pieces(t))

    def add(self, offset: int, payload: Any) -> Message | None:
        """Take the next chunk; returns the message when it was the last. Raises RemoteError."""
        size = 0 if payload is None else len(payload)
        if offset != self._offset:
            raise RemoteError(f"a chunk at byte {offset} where {self._offset} was due")
        if self._offset < self._size:
            due = next(self._due)
            if size != due.nbytes:
                raise RemoteError(f"a chunk of {size} bytes where {due.nbytes} were due")
            numpy.copyto(_bytes_of(due), numpy.frombuffer(payload, numpy.uint8))
            check_numbers(self._message.kind, due, self._wanted)
        elif size:
            raise RemoteError(f"a chunk of {size} bytes where none were due")
        self._offset += size
        return self._message if self._offset == self._size else None


def _empty(dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
    """Memory for a tensor, from numpy, which asks for huge pages and is seen by tracemalloc."""
    size = size_bytes({"": (dtype, shape)})
    room = numpy.empty(size + ALIGNMENT_BYTES, numpy.uint8)
    start = -room.ctypes.data % ALIGNMENT_BYTES
    return torch.from_numpy(room[start : start + size]).view(dtype).view(shape)
