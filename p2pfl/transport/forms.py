"""What a message must look like: its claims are checked before memory is taken for it, its numbers as they come.

Each kind of message has one `Form` in each round, and a message of any other form is refused; so are numbers that are
not finite. A record, which is of `Anything`, tells what was: there only sizes and plain types are checked.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from p2pfl.errors import RemoteError
from p2pfl.messages import Form, Message

DTYPES: Mapping[str, torch.dtype] = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.uint8)
}
DIMENSIONS = 8
NESTING = 8
Table = Mapping[str, tuple[torch.dtype, tuple[int, ...]]]
"""Which tensors a message has: the dtype and shape of each name."""


@dataclass(frozen=True)
class Anything:
    """In place of a Form: figures of any plain type, and tensors of any shape of at most so many bytes."""

    limit_bytes: int


Wanted = Form | Anything | None


def size_bytes(table: Table) -> int:
    """How many bytes its tensors take."""
    return sum(dtype.itemsize * math.prod(shape) for dtype, shape in table.values())


def read_table(kind: str, rows: list[Any]) -> Table:
    """The table of a header, of rows [name, dtype, shape]. Raises RemoteError."""
    table: dict[str, tuple[torch.dtype, tuple[int, ...]]] = {}
    for row in rows:
        match row:
            case [str(name), str(dtype), list(shape)] if dtype in DTYPES and len(shape) <= DIMENSIONS:
                if not all(type(n) is int and 0 <= n < 1 << 40 for n in shape):
                    raise RemoteError(f"a {kind!r} message with a broken shape")
                table[name] = (DTYPES[dtype], tuple(shape))
            case _:
                raise RemoteError(f"a {kind!r} message with a broken table")
    if len(table) != len(rows):
        raise RemoteError(f"a {kind!r} message that names a tensor twice")
    return table


def check(kind: str, table: Table, figures: Mapping[Any, Any], wanted: Form | Anything) -> None:
    """Raises RemoteError unless a message with this table and these figures is what is wanted."""
    if isinstance(wanted, Anything):
        volume = sum(dtype.itemsize * math.prod(max(n, 1) for n in shape) for dtype, shape in table.values())
        if volume > wanted.limit_bytes:
            raise RemoteError(f"a {kind!r} message of {volume} bytes: at most {wanted.limit_bytes}")
    elif table != dict(wanted.tensors) or {n: type(f) for n, f in figures.items()} != dict(wanted.figures):
        raise RemoteError(f"a {kind!r} message of another form")
    if not _plain(figures, NESTING, must_be_finite=isinstance(wanted, Form)):
        raise RemoteError(f"a {kind!r} message with a figure that is not plain, or not finite")


def check_whole(message: Message, wanted: Form | Anything) -> None:
    """The same check of a message that came without bytes, its numbers included. Raises RemoteError."""
    table = {name: (x.dtype, tuple(x.shape)) for name, x in message.tensors.items()}
    check(message.kind, table, message.figures, wanted)
    for x in message.tensors.values():
        check_numbers(message.kind, x, wanted)


def check_numbers(kind: str, x: Tensor, wanted: Form | Anything) -> None:
    """Raises RemoteError for numbers that are not finite, where that matters."""
    if isinstance(wanted, Form) and x.is_floating_point() and not finite(x):
        raise RemoteError(f"numbers that are not finite in a {kind!r} message")


def finite(x: Tensor) -> bool:
    """Whether all numbers are finite: one pass for the sum, and a second look only where the sum overflowed."""
    return math.isfinite(float(x.sum())) or bool(torch.isfinite(x).all())


def _plain(figure: object, nesting: int, must_be_finite: bool) -> bool:
    if type(figure) is float:
        return not must_be_finite or math.isfinite(figure)
    if type(figure) is list:
        return nesting > 0 and all(_plain(part, nesting - 1, must_be_finite) for part in figure)
    if isinstance(figure, Mapping):
        return nesting > 0 and all(
            isinstance(name, str) and _plain(part, nesting - 1, must_be_finite) for name, part in figure.items()
        )
    return figure is None or type(figure) in (int, bool, str, bytes)
