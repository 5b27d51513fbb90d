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

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Annotated, ClassVar

import pydantic
import torch
from torch import Tensor

from p2pfl.contracts import Layout, Slot
from p2pfl.sketches._hashing import Hash, draw

BLOCK = 1 << 18
"""Numbers of a matrix that are worked on at once: 1 MiB stays in a core's cache."""


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
                add_up(x, z, self._hash(at, x, s, key))
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
                continue
            hashed = self._hash(at, x, s, key)
            factor_d = hashed.damped_d if damped else hashed.sign_d
            for x_B, z_B in blocks(x, z):
                torch.index_select(z_B, 1, hashed.bucket_d, out=x_B).mul_(factor_d)
        return x_D

    def _slots(self, x_D: Tensor, z_S: Tensor) -> Iterator[tuple[Tensor, Tensor, int]]:
        at_x = at_z = 0
        for slot, s in zip(self.layout, self.widths, strict=True):
            rows = slot.shape[0] if s else 1
            columns = slot.size // rows
            x, z = x_D[at_x : at_x + slot.size], z_S[at_z : at_z + rows * (s or columns)]
            yield (x.view(rows, columns), z.view(rows, s), s) if s else (x, z, 0)
            at_x, at_z = at_x + x.numel(), at_z + z.numel()

    def _hash(self, at: int, x: Tensor, s: int, key: bytes) -> Hash:
        return draw(key + at.to_bytes(4, "little"), x.shape[1], s, self.balanced, x.device)


def blocks(x: Tensor, z: Tensor) -> Iterable[tuple[Tensor, Tensor]]:
    """The same rows of both, so many at once that they stay in the cache; a GPU takes all."""
    if x.numel() <= BLOCK or x.device.type != "cpu":
        return ((x, z),)
    rows = max(1, BLOCK // x.shape[1])
    return zip(torch.split(x, rows), torch.split(z, rows), strict=True)


def add_up(x: Tensor, z: Tensor, hashed: Hash) -> None:
    """Fill `z` (rows x s) with `x S`; x (rows x d) is read once, in the order in which it lies."""
    signed = dealt = x.new_empty(0)
    for x_B, z_B in blocks(x, z):
        if len(signed) != len(x_B):
            signed, dealt = torch.empty_like(x_B), torch.empty_like(z_B)
        torch.mul(x_B, hashed.sign_d, out=signed)
        if not hashed.layers:
            z_B.zero_().index_add_(1, hashed.bucket_d, signed)
            continue
        torch.index_select(signed, 1, hashed.layers[0], out=z_B)
        for layer in hashed.layers[1:]:
            z_B[:, : len(layer)].add_(torch.index_select(signed, 1, layer, out=dealt[:, : len(layer)]))
