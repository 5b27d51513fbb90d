"""The output layer within the vector that steps are taken in: the end of it, in every space.

Sketches let that layer travel whole, and in the order of parameters it comes last: so its numbers are the last of any
such vector, whatever the others are sketched to.
Shapes: S numbers of the vector, C classes, F features that the output layer is given.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from p2pfl.contracts import Layout


@dataclass(frozen=True)
class Output:
    """Where an output layer of C x F weights lies. `path` is its name within the module."""

    path: str
    classes: int
    features: int
    biased: bool

    def weight(self, g_S: Tensor) -> Tensor:
        """The weight's part of a vector, C x F: a view of it."""
        end = len(g_S) - self.classes * self.biased
        return g_S[end - self.classes * self.features : end].view(self.classes, self.features)

    def bias(self, g_S: Tensor) -> Tensor:
        """The bias's part of a vector, C numbers or none: a view of it."""
        return g_S[len(g_S) - self.classes * self.biased :]


def output_of(layout: Layout) -> Output:
    """The output layer of parameters that lie so.

    Raises ValueError unless it is the last, and has a weight of two or more dimensions, and a bias or none.
    """
    slots = [slot for slot in layout if slot.output]
    if not slots or list(layout[-len(slots) :]) != slots:
        raise ValueError("the output layer's parameters are not the model's last: let the module list `output` last")
    weight, *rest = slots
    if len(weight.shape) < 2 or [slot.shape for slot in rest] not in ([], [weight.shape[:1]]):
        shapes = ", ".join(str(slot.shape) for slot in slots)
        raise ValueError(
            f"the output layer has parameters of {shapes}, not a weight and a bias: take a model whose `output` is a "
            "dense layer"
        )
    return Output(weight.name.rpartition(".")[0], weight.shape[0], math.prod(weight.shape[1:]), bool(rest))
