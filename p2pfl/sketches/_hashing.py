"""The matrix S of a CountSketch, drawn from a key: the same on every machine and library version.

Source: Wang & Zhang, "Matrix Sketching for Secure Collaborative Machine Learning" (DBCL), section 2.
Shapes: d columns, s buckets.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import numpy
import torch
from numpy.typing import NDArray
from torch import Tensor

from p2pfl.sketches._matrices import blocks

MOST_RUNS = 32
"""From more runs on, buckets are filled one column at a time."""


def words(key: bytes, columns: int) -> NDArray[numpy.uint64]:
    """64 random bits for each of d columns, from SHAKE-256 of the key: the same on every machine and version."""
    return numpy.frombuffer(hashlib.shake_256(key).digest(8 * columns), "<u8")


@dataclass(frozen=True)
class Run:
    """Neighbouring columns that go to neighbouring buckets from `bucket` on, with their parts of the two factors."""

    columns: int
    bucket: int
    sign: Tensor
    damped: Tensor


@dataclass(frozen=True)
class Hash:
    """S of one matrix: column i goes to `bucket_d[i]` with `sign_d[i]`; `damped_d` is the sign over the bucket's load.

    `runs` say the same of whole stretches of columns, one after the other, so that all is done in the order in which
    memory lies; there are none where that does not pay.
    """

    bucket_d: Tensor
    sign_d: Tensor
    damped_d: Tensor
    runs: tuple[Run, ...]
    s: int

    def fold(self, x: Tensor, z: Tensor) -> None:
        """Fill `z` (rows x s) with `x S`; x is rows x d."""
        for at, (run, part) in enumerate(self._stretches(x)):
            if at == 0:  # it fills every bucket once
                torch.mul(part, run.sign, out=z)
            else:
                z.narrow(1, run.bucket, run.columns).addcmul_(part, run.sign)
        for x_B, z_B in () if self.runs else blocks(x, z):
            z_B.zero_().index_add_(1, self.bucket_d, x_B * self.sign_d)

    def unfold(self, z: Tensor, x: Tensor, damped: bool) -> None:
        """Fill `x` (rows x d) with `z S^T`, or damped with `(z / q) S^T`, q being the loads of the buckets."""
        for run, part in self._stretches(x):
            factor = run.damped if damped else run.sign
            torch.mul(z.narrow(1, run.bucket, run.columns), factor, out=part)
        for x_B, z_B in () if self.runs else blocks(x, z):
            torch.index_select(z_B, 1, self.bucket_d, out=x_B).mul_(self.damped_d if damped else self.sign_d)

    def _stretches(self, x: Tensor) -> Iterable[tuple[Run, Tensor]]:
        """Each run with its columns of x."""
        if not self.runs:
            return ()
        return zip(self.runs, x.split_with_sizes([run.columns for run in self.runs], 1), strict=True)

    def folded(self, x: Tensor) -> Tensor:
        """`fold` for autograd."""
        return x.new_zeros(len(x), self.s).index_add(1, self.bucket_d, x * self.sign_d)

    def unfolded(self, z: Tensor, damped: bool) -> Tensor:
        """`unfold` for autograd."""
        return z.index_select(1, self.bucket_d) * (self.damped_d if damped else self.sign_d)


@lru_cache(maxsize=64)
def draw(key: bytes, columns: int, s: int, balanced: bool, device: torch.device) -> Hash:
    """S for `columns` columns and `s` buckets: a column's lowest bit is its sign.

    Balanced, every s neighbouring columns go to neighbouring buckets, from one on that is drawn for them; what is
    beyond the last bucket goes on at the first. Else the other bits of each column are its bucket.
    """
    word_d = words(key, columns)
    sign_d = 1 - 2 * (word_d & 1).astype(numpy.float32)
    turns = rotations(word_d, s) if balanced else []
    if balanced:
        bucket_d = numpy.concatenate([numpy.arange(bucket, bucket + count) for count, bucket in turns])
    else:
        bucket_d = ((word_d >> 1) % s).astype(numpy.int64)
    load_s = numpy.bincount(bucket_d, minlength=s).astype(numpy.float32)
    on = partial(torch.as_tensor, device=device)
    sign, damped = on(sign_d), on(sign_d / load_s[bucket_d])
    sizes = [count for count, _ in turns] if len(turns) <= MOST_RUNS else []
    cut = zip(turns, *(each[: sum(sizes)].split_with_sizes(sizes) for each in (sign, damped)), strict=False)
    return Hash(on(bucket_d), sign, damped, tuple(Run(*turn, *factors) for turn, *factors in cut), s)


def rotations(word_d: NDArray[Any], s: int) -> list[tuple[int, int]]:
    """How many columns go to which bucket and those after it, one stretch after the other.

    The first block of s columns stays, every other is turned by an offset drawn from its word. Turning the first as
    well would only number the buckets otherwise.
    """
    turns = [(s, 0)]
    for start in range(s, len(word_d), s):
        count, offset = min(s, len(word_d) - start), int(word_d[start] >> 1) % s
        turns += [(min(count, s - offset), offset), (count - s + offset, 0)]
    return [(count, bucket) for count, bucket in turns if count > 0]
