"""A linear map and its transpose as one step of autograd: each is the other's gradient, so none is ever recorded.

Autograd would keep what a map multiplies by until the gradient is asked for, and of a matrix that is only ever drawn
in blocks that would be all of it.
Shapes: R rows, d and s columns.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from p2pfl.contracts import Map

Rows = Callable[[Tensor], Tensor]
"""A linear map of rows, R x d to R x s or back, which gives a new tensor."""


def apply(x: Tensor, there: Rows, back: Rows) -> Tensor:
    """`there(x)`, whose gradient is `back` of what comes: gradients of any order flow, also under torch.func."""
    applied: Tensor = Applied.apply(x, there, back)  # type: ignore[no-untyped-call]
    return applied


def folded(s_map: Map, x: Tensor, s: int) -> Tensor:
    """`x S` of a map from d to s columns, as one step of autograd."""
    return apply(x, *_products(s_map, x.shape[1], s))


def unfolded(s_map: Map, z: Tensor, d: int) -> Tensor:
    """`z S^T`, not damped, of a map from d to s columns, as one step of autograd."""
    down, up = _products(s_map, d, z.shape[1])
    return apply(z, up, down)


def _products(s_map: Map, d: int, s: int) -> tuple[Rows, Rows]:
    """What a map does to rows, and its transpose, as functions that give new tensors."""

    def down(x: Tensor) -> Tensor:
        z = x.new_empty(len(x), s)
        s_map.fold(x, z)
        return z

    def up(z: Tensor) -> Tensor:
        x = z.new_empty(len(z), d)
        s_map.unfold(z, x, False)
        return x

    return down, up


class Applied(torch.autograd.Function):
    """`there(x)`, `back` being its transpose; a class, since autograd takes a function in no other form."""

    @staticmethod
    def forward(x: Tensor, there: Rows, back: Rows) -> Tensor:
        """What autograd does not look into."""
        return there(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Rows, Rows], output: Tensor) -> None:
        """Keep the maps, and no tensor."""
        _, ctx.there, ctx.back = inputs

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        """The transpose of the gradient: linear, so the same again."""
        return apply(gradients[0], ctx.back, ctx.there), None, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int, None, None], x: Tensor, there: Rows, back: Rows) -> tuple[Tensor, int]:
        """Many matrices are one of more rows."""
        batched = x.movedim(in_dims[0], 0)
        return apply(batched.flatten(0, 1), there, back).view(*batched.shape[:2], -1), 0
