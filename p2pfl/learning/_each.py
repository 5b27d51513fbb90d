"""The gradients of B examples in one parameter, and what clipping asks of them: their norms, a weighted sum.

Source: Goodfellow 2015, "Efficient Per-Example Gradient Computations": in a dense layer they are outer products, whose
norms are products of norms and whose weighted sum is one matrix product.
Shapes: B examples, of a dense layer I inputs and O outputs, P the shape of a parameter.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class Each(Protocol):
    """One gradient for each of B examples."""

    def squares(self) -> Tensor:
        """Their squared L2 norms: B numbers, float64; not finite where one does not exist in the dtype at hand."""

    def total(self, weight_B: Tensor) -> Tensor:
        """Their weighted sum, in the shape of the parameter."""

    def of(self, rows: Tensor) -> Each:
        """Those of these examples."""

    def formed(self) -> Tensor:
        """All of them, B x P."""


@dataclass(frozen=True, eq=False)
class Formed:
    """They lie in memory."""

    g_BP: Tensor

    def squares(self) -> Tensor:
        norm_B: Tensor = torch.linalg.vector_norm(self._rows(), dim=1)
        return norm_B.double().square_()

    def total(self, weight_B: Tensor) -> Tensor:
        return (weight_B.to(self.g_BP.dtype) @ self._rows()).view(self.g_BP.shape[1:])

    def of(self, rows: Tensor) -> Formed:
        return Formed(self.g_BP[rows])

    def formed(self) -> Tensor:
        return self.g_BP

    def _rows(self) -> Tensor:
        return self.g_BP.reshape(len(self.g_BP), math.prod(self.g_BP.shape[1:]))


@dataclass(frozen=True, eq=False)
class Outer:
    """Those of a dense layer's weight: what came in, times the gradient of what went out."""

    d_BO: Tensor
    a_BI: Tensor

    def squares(self) -> Tensor:
        return Formed(self.d_BO).squares() * Formed(self.a_BI).squares()

    def total(self, weight_B: Tensor) -> Tensor:
        return (self.d_BO * weight_B.to(self.d_BO.dtype)[:, None]).T @ self.a_BI

    def of(self, rows: Tensor) -> Outer:
        return Outer(self.d_BO[rows], self.a_BI[rows])

    def formed(self) -> Tensor:
        return self.d_BO[:, :, None] * self.a_BI[:, None, :]
