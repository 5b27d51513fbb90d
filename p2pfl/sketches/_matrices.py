"""What sketches of weight matrices share: which matrices, and the walk over all of them.

Source: Wang & Zhang, "Matrix Sketching for Secure Collaborative Machine Learning" (DBCL), section 4: each weight
matrix is sketched along its input side, W -> W S with S of d_in x s. The matrices are those of two or more dimensions
but the output layer's, as `flatten(1)`; biases and the output layer travel whole.
Shapes: D parameters, S numbers on the wire; of one matrix d columns, and s of its sketch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from p2pfl.contracts import Layout, Map

BLOCK = 1 << 18
"""Numbers of a matrix that are worked on at once: 1 MiB stays in a core's cache."""


NEARLY = 0.99
"""Of a limit that must not be reached."""


class Draw(Protocol):
    """How S comes about, always the same from the same key."""

    def __call__(self, key: bytes, columns: int, s: int, *, device: torch.device) -> Map:
        """S of d x s."""


@dataclass(frozen=True)
class Matrices:
    """A pair of maps along a layout, when `draw` says what S is; `widths` holds s of each slot, 0 for a whole one.

    `reach` multiplies what is pulled of the matrices, as far as each bears: of a narrow one rounding may send more.
    """

    layout: Layout
    widths: tuple[int, ...]
    draw: Draw
    reach: float = 1.0
    size: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", sum(self._sizes()))

    def down(self, x_D: Tensor, key: bytes) -> Tensor:
        """`W S` for each matrix, the rest as it is; where `x_D` wants a gradient, it flows."""
        maps, x_parts = self.maps(key, x_D.device), self._matrices_of(x_D)
        if x_D.requires_grad and torch.is_grad_enabled():
            return torch.cat([(s.folded(x) if s else x).reshape(-1) for s, x in zip(maps, x_parts, strict=True)])
        z_S = x_D.new_empty(self.size)
        for s, x, z in zip(maps, x_parts, self.sketches_of(z_S), strict=True):
            if s is None:
                z.copy_(x)
            else:
                s.fold(x, z)
        return z_S

    def up(self, z_S: Tensor, key: bytes) -> Tensor:
        """`Z S^T` for each matrix, the rest as it is; where `z_S` wants a gradient, it flows."""
        return self._spread(z_S, key, damped=False)

    def pull(self, z_S: Tensor, key: bytes) -> Tensor:
        """`Z S^T` damped, times `reach`, for each matrix, the rest as it is; differentiable as `up` is."""
        return self._spread(z_S, key, damped=True)

    def _spread(self, z_S: Tensor, key: bytes, damped: bool) -> Tensor:
        maps, z_parts = self.maps(key, z_S.device), self.sketches_of(z_S)
        factors = self._reaches() if damped else [1.0] * len(maps)
        if z_S.requires_grad and torch.is_grad_enabled():
            parts = zip(maps, z_parts, factors, strict=True)
            return torch.cat([(s.unfolded(z, damped) * factor if s else z).reshape(-1) for s, z, factor in parts])
        x_D = z_S.new_empty(sum(slot.size for slot in self.layout))
        for s, z, x, factor in zip(maps, z_parts, self._matrices_of(x_D), factors, strict=True):
            if s is None:
                x.copy_(z)
                continue
            s.unfold(z, x, damped)
            if factor != 1:
                x.mul_(factor)
        return x_D

    def _reaches(self) -> list[float]:
        """How far each slot is pulled: below d / s, at which nothing would be damped."""
        columns = [slot.size // slot.shape[0] for slot in self.layout]
        both = zip(columns, self.widths, strict=True)
        return [min(self.reach, max(1.0, NEARLY * d / s)) if s else 1.0 for d, s in both]

    def maps(self, key: bytes, device: torch.device) -> Sequence[Map | None]:
        """S of each slot, None for a whole one: no two of one key alike, so that equal matrices tell nothing."""
        return [
            self.draw(key + at.to_bytes(4, "little"), slot.size // slot.shape[0], s, device=device) if s else None
            for at, (slot, s) in enumerate(zip(self.layout, self.widths, strict=True))
        ]

    def _matrices_of(self, x_D: Tensor) -> list[Tensor]:
        """The matrices of a parameter vector, rows x d, and what travels whole."""
        parts = x_D.split_with_sizes([slot.size for slot in self.layout])
        rows = zip(parts, self.layout, self.widths, strict=True)
        return [x.view(slot.shape[0], -1) if s else x for x, slot, s in rows]

    def sketches_of(self, z_S: Tensor) -> list[Tensor]:
        """The matrices of a sketch, rows x s, and what travels whole."""
        parts = z_S.split_with_sizes(self._sizes())
        return [z.view(-1, s) if s else z for z, s in zip(parts, self.widths, strict=True)]

    def _sizes(self) -> list[int]:
        both = zip(self.layout, self.widths, strict=True)
        return [slot.shape[0] * s if s else slot.size for slot, s in both]


def blocks(x: Tensor, z: Tensor) -> Iterable[tuple[Tensor, Tensor]]:
    """The same rows of both, so many at once that they stay in the cache; a GPU takes all."""
    if x.numel() <= BLOCK or x.device.type != "cpu":
        return ((x, z),)
    rows = max(1, BLOCK // x.shape[1])
    return zip(torch.split(x, rows), torch.split(z, rows), strict=True)
