"""The matrix S of a CountSketch, drawn from a key: the same on every machine and library version.

Source: Wang & Zhang, "Matrix Sketching for Secure Collaborative Machine Learning" (DBCL), section 2.
Shapes: d columns, s buckets.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache, partial

import numpy
import torch
from torch import Tensor

LAYERS = 16
"""From more columns a bucket on, buckets are filled one column at a time."""


@dataclass(frozen=True)
class Hash:
    """S of one matrix: column i goes to `bucket_d[i]` with `sign_d[i]`; `damped_d` is the sign over the bucket's load.

    `layers` are the columns as dealt, s at a time, so that buckets fill in parallel; none where that does not pay.
    """

    bucket_d: Tensor
    sign_d: Tensor
    damped_d: Tensor
    layers: tuple[Tensor, ...]


@lru_cache(maxsize=64)
def draw(key: bytes, columns: int, s: int, balanced: bool, device: torch.device) -> Hash:
    """S for `columns` columns and `s` buckets, from SHAKE-256 of the key: the same on every machine and version.

    Each column gets a word of 64 random bits. The lowest is its sign. Balanced, columns are dealt in the order of
    their words, the lowest bits of which make room for the column, so that no two are equal.
    """
    word_d = numpy.frombuffer(hashlib.shake_256(key).digest(8 * columns), "<u8")
    sign_d = 1 - 2 * (word_d & 1).astype(numpy.float32)
    if balanced:
        low = numpy.uint64((1 << columns.bit_length()) - 1)
        order_d = (numpy.sort(word_d & ~low | numpy.arange(columns, dtype=numpy.uint64)) & low).astype(numpy.int64)
        bucket_d = numpy.empty(columns, numpy.int64)
        bucket_d[order_d] = numpy.arange(columns) % s
    else:
        bucket_d = ((word_d >> 1) % s).astype(numpy.int64)
    load_s = numpy.bincount(bucket_d, minlength=s).astype(numpy.float32)
    on = partial(torch.as_tensor, device=device)
    layers = torch.split(on(order_d), s) if balanced and columns <= LAYERS * s else ()
    return Hash(on(bucket_d), on(sign_d), on(sign_d / load_s[bucket_d]), layers)
