"""Steps of SGD on parts of a vector, and the space that they are taken in.

Source of the update: torch.optim.SGD (Sutskever et al. 2013, without dampening).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from p2pfl.contracts import Training

Fold = Callable[[Sequence[Tensor]], Sequence[Tensor]]
"""What becomes of gradients in the parameters of a module: gradients in the parts of a point."""


@dataclass(frozen=True)
class Space:
    """Where steps are taken: how a vector is cut into tensors, what precedes a step, what becomes of gradients."""

    cut: Callable[[Tensor], Sequence[Tensor]]
    refresh: Callable[[], object] = lambda: None
    folded: Fold | None = None


def flat(gradients: Sequence[Tensor]) -> Tensor:
    """Parameter tensors as a new flat vector."""
    return torch.cat([gradient.reshape(-1) for gradient in gradients])


def descend(
    points: Sequence[Tensor],
    momenta: Sequence[Tensor | None],
    gradients: Sequence[Tensor],
    training: Training,
    lr: float,
) -> None:
    """One step of torch.optim.SGD on each of `points`; alters these and `momenta` (None without momentum) in place."""
    for point, momentum, gradient in zip(points, momenta, gradients, strict=True):
        if training.weight_decay:
            gradient = torch.add(gradient, point, alpha=training.weight_decay)
        if momentum is not None:
            gradient = momentum.mul_(training.momentum).add_(gradient)
        point.add_(gradient, alpha=-lr)
