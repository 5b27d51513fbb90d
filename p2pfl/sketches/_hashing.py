"""The matrix S of a CountSketch, drawn from a key: the same on every machine and library version.

Source: Wang & Zhang, "Matrix Sketching for Secure Collaborative Machine Learning" (DBCL), section 2.
Shapes: d columns, s buckets.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import numpy
import torch
from numpy.typing import NDArray
from torch import Tensor

from p2pfl.sketches._matrices import blocks

LAYERS = 16
"""From more columns a bucket on, buckets are filled one column at a time."""


def words(key: bytes, columns: int) -> NDArray[numpy.uint64]:
    """64 random bits for each of d columns, from SHAKE-256 of the key: the same on every machine and version."""
    return numpy.frombuffer(hashlib.shake_256(key).digest(8 * columns), "<u8")


def deck(word_d: NDArray[Any]) -> NDArray[numpy.int64]:
    """All columns, shuffled: in the order of their words, whose lowest bits make room for the column's number."""
    columns = len(word_d)
    low = numpy.uint64((1 << columns.bit_length()) - 1)
    return (numpy.sort(word_d & ~low | numpy.arange(columns, dtype=numpy.uint64)) & low).astype(numpy.int64)


@dataclass(frozen=True)
class Hash:
    """S of one matrix: column i goes to `bucket_d[i]` with `sign_d[i]`; `damped_d` is the sign over the bucket's load.

    `layers` are the columns as dealt, s at a time, so that buckets fill in parallel; none where that does not pay.
    """

    bucket_d: Tensor
    sign_d: Tensor
    damped_d: Tensor
    layers: tuple[Tensor, ...]
    s: int

    def fold(self, x: Tensor, z: Tensor) -> None:
        """Fill `z` (rows x s) with `x S`; x (rows x d) is read once, in the order in which it lies."""
        signed = dealt = x.new_empty(0)
        for x_B, z_B in blocks(x, z):
            if len(signed) != len(x_B):
                signed, dealt = torch.empty_like(x_B), torch.empty_like(z_B)
            torch.mul(x_B, self.sign_d, out=signed)
            if not self.layers:
                z_B.zero_().index_add_(1, self.bucket_d, signed)
                continue
            torch.index_select(signed, 1, self.layers[0], out=z_B)
            for layer in self.layers[1:]:
                z_B[:, : len(layer)].add_(torch.index_select(signed, 1, layer, out=dealt[:, : len(layer)]))

    def unfold(self, z: Tensor, x: Tensor, damped: bool) -> None:
        """Fill `x` (rows x d) with `z S^T`, or damped with `(z / q) S^T`, q being the loads of the buckets."""
        factor_d = self.damped_d if damped else self.sign_d
        for x_B, z_B in blocks(x, z):
            torch.index_select(z_B, 1, self.bucket_d, out=x_B).mul_(factor_d)

    def folded(self, x: Tensor) -> Tensor:
        """`fold` for autograd."""
        return x.new_zeros(len(x), self.s).index_add(1, self.bucket_d, x * self.sign_d)

    def unfolded(self, z: Tensor, damped: bool) -> Tensor:
        """`unfold` for autograd."""
        return z.index_select(1, self.bucket_d) * (self.damped_d if damped else self.sign_d)


@lru_cache(maxsize=64)
def draw(key: bytes, columns: int, s: int, balanced: bool, device: torch.device) -> Hash:
    """S for `columns` columns and `s` buckets: a column's lowest bit is its sign.

    Balanced, columns are dealt as cards, one to each bucket in turn; else the other bits are the bucket.
    """
    word_d = words(key, columns)
    sign_d = 1 - 2 * (word_d & 1).astype(numpy.float32)
    if balanced:
        order_d = deck(word_d)
        bucket_d = numpy.empty(columns, numpy.int64)
        bucket_d[order_d] = numpy.arange(columns) % s
    else:
        bucket_d = ((word_d >> 1) % s).astype(numpy.int64)
    load_s = numpy.bincount(bucket_d, minlength=s).astype(numpy.float32)
    on = partial(torch.as_tensor, device=device)
    layers = torch.split(on(order_d), s) if balanced and columns <= LAYERS * s else ()
    return Hash(on(bucket_d), on(sign_d), on(sign_d / load_s[bucket_d]), layers, s)
