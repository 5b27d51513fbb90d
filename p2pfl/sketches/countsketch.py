"""CountSketch of every weight matrix along its input side: W -> W S, by random buckets and signs.

Source: Wang & Zhang, "Matrix Sketching for Secure Collaborative Machine Learning" (DBCL), section 2:
every row of S (d_in x s) has one non-zero entry, at a random bucket, of random sign; E[S S^T] = I.
Balanced (the default): the buckets are dealt out like cards from a shuffled deck, so each holds d_in / s
coordinates or one more: still unbiased, half the noise. The matrices are those of two or more dimensions
but the output layer's, as `flatten(1)`; biases and the output layer travel whole.

Damping: with bucket loads q, `pull(z) = (z / q) S^T` makes `pull(down(x))` the orthogonal projection of x
onto the range of S, whatever the loads; where s divides d_in this is s/d_in times `up`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Annotated, ClassVar

import numpy
import pydantic
import torch
from torch import Tensor

from p2pfl.peer import Layout, Slot


@dataclass(frozen=True)
class CountSketch:
    """DBCL's CountSketch: `ratio` of the columns of each weight matrix travels, under a key."""

    ratio: Annotated[float, pydantic.Field(gt=0, le=1)] = 0.5
    balanced: bool = True
    keyed: ClassVar[bool] = True

    def bind(self, layout: Layout) -> Buckets:
        """The maps for parameters of this layout."""
        widths = tuple(width(slot, self.ratio) for slot in layout)
        return Buckets(layout, widths, self.balanced)


def width(slot: Slot, ratio: float) -> int:
    """s, how many columns of a slot's matrix travel; 0 where it travels whole."""
    if slot.output or len(slot.shape) < 2:
        return 0
    return max(1, round(ratio * (slot.size // slot.shape[0])))


@dataclass(frozen=True)
class Hash:
    """S of one matrix: column i goes to `bucket_d[i]` with `sign_d[i]`; `order_d` lists the columns as dealt."""

    order_d: Tensor
    order_sign_d: Tensor
    bucket_d: Tensor
    sign_d: Tensor
    load_s: Tensor


@dataclass(frozen=True)
class Buckets:
    """The pair of maps, bound to a layout; `widths` holds s of each slot, 0 for a slot that travels whole."""

    layout: Layout
    widths: tuple[int, ...]
    balanced: bool
    size: int = field(init=False)

    def __post_init__(self) -> None:
        sizes = (slot.shape[0] * s if s else slot.size for slot, s in zip(self.layout, self.widths, strict=True))
        object.__setattr__(self, "size", sum(sizes))

    def down(self, x_D: Tensor, key: bytes) -> Tensor:
        """`W S` for each matrix, the rest as it is."""
        z_S = x_D.new_empty(self.size)
        for at, (x, z, s) in enumerate(self._slots(x_D, z_S)):
            if s == 0:
                z.copy_(x)
            else:
                self._sum(x, z, self._hash(at, x.shape[1], s, key, x.device))
        return z_S

    def up(self, z_S: Tensor, key: bytes) -> Tensor:
        """`Z S^T` for each matrix, the rest as it is."""
        return self._spread(z_S, key, damped=False)

    def pull(self, z_S: Tensor, key: bytes) -> Tensor:
        """`(Z / q) S^T` for each matrix, the rest as it is."""
        return self._spread(z_S, key, damped=True)

    def _spread(self, z_S: Tensor, key: bytes, damped: bool) -> Tensor:
        x_D = z_S.new_empty(sum(slot.size for slot in self.layout))
        for at, (x, z, s) in enumerate(self._slots(x_D, z_S)):
            if s == 0:
                x.copy_(z)
            else:
                hashed = self._hash(at, x.shape[1], s, key, x.device)
                factor_d = hashed.sign_d / hashed.load_s[hashed.bucket_d] if damped else hashed.sign_d
                torch.index_select(z, 1, hashed.bucket_d, out=x)
                x.mul_(factor_d)
        return x_D

    def _sum(self, x: Tensor, z: Tensor, hashed: Hash) -> None:
        if not self.balanced:
            z.zero_().index_add_(1, hashed.bucket_d, x * hashed.sign_d)
            return
        s = z.shape[1]
        dealt = x.index_select(1, hashed.order_d).mul_(hashed.order_sign_d)
        z.copy_(dealt[:, :s])
        for start in range(s, dealt.shape[1], s):
            block = dealt[:, start : start + s]
            z[:, : block.shape[1]].add_(block)

    def _slots(self, x_D: Tensor, z_S: Tensor) -> Iterator[tuple[Tensor, Tensor, int]]:
        at_x = at_z = 0
        for slot, s in zip(self.layout, self.widths, strict=True):
            rows = slot.shape[0] if s else 1
            columns = slot.size // rows
            x, z = x_D[at_x : at_x + slot.size], z_S[at_z : at_z + rows * (s or columns)]
            yield (x.view(rows, columns), z.view(rows, s), s) if s else (x, z, 0)
            at_x, at_z = at_x + x.numel(), at_z + z.numel()

    def _hash(self, at: int, columns: int, s: int, key: bytes, device: torch.device) -> Hash:
        return draw(key + at.to_bytes(4, "little"), columns, s, self.balanced, device)


@lru_cache(maxsize=64)
def draw(key: bytes, columns: int, s: int, balanced: bool, device: torch.device) -> Hash:
    """S for `columns` columns and `s` buckets, from SHAKE-256 of the key: the same on every machine and version."""
    words = numpy.frombuffer(hashlib.shake_256(key).digest(16 * columns), numpy.uint64)
    order_d = numpy.argsort(words[:columns], kind="stable")
    sign_d = 1.0 - 2.0 * (words[columns:] & numpy.uint64(1)).astype(numpy.float32)
    if balanced:
        bucket_d = numpy.empty(columns, numpy.int64)
        bucket_d[order_d] = numpy.arange(columns) % s
    else:
        bucket_d = ((words[columns:] >> numpy.uint64(1)) % numpy.uint64(s)).astype(numpy.int64)
    load_s = numpy.maximum(1, numpy.bincount(bucket_d, minlength=s)).astype(numpy.float32)
    parts = (order_d, sign_d[order_d], bucket_d, sign_d, load_s)
    return Hash(*(torch.from_numpy(part).to(device) for part in parts))
