"""Multinomial logistic regression: one linear layer on the flattened input, a convex problem.

Source: Cox 1958, "The regression analysis of binary sequences".
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass

import torch
from torch import nn

from p2pfl.learning.model import OUTPUT, kaiming_uniform_like_torch, unfilled


@dataclass(frozen=True)
class Logistic:
    """No options."""

    def build(self, shape: tuple[int, int, int], classes: int) -> nn.Module:
        """One linear layer."""

        def make() -> nn.Module:
            return nn.Sequential(
                OrderedDict([("flatten", nn.Flatten()), (OUTPUT, nn.Linear(math.prod(shape), classes))])
            )

        return unfilled(make)

    def draw(self, module: nn.Module, generator: torch.Generator) -> None:
        """As torch initialises a linear layer."""
        kaiming_uniform_like_torch(module, generator)
