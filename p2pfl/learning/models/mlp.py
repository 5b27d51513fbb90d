"""A multilayer perceptron: linear layers with an activation between them.

Source: Rumelhart, Hinton & Williams 1986, "Learning representations by back-propagating errors".
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from p2pfl.learning.model import OUTPUT, kaiming_uniform_like_torch, unfilled

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid}


@dataclass(frozen=True)
class Mlp:
    """`hidden` are the widths of the layers between input and output."""

    hidden: tuple[int, ...] = (64,)
    activation: Literal["relu", "tanh", "sigmoid"] = "relu"

    def __post_init__(self) -> None:
        if any(width < 1 for width in self.hidden):
            raise ValueError(f"hidden must hold positive widths, not {list(self.hidden)}")
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}, not {self.activation!r}")

    def build(self, shape: tuple[int, int, int], classes: int) -> nn.Module:
        """Flatten, then `hidden1 activation1 hidden2 ... output`."""
        return unfilled(lambda: self._layers(math.prod(shape), classes))

    def draw(self, module: nn.Module, generator: torch.Generator) -> None:
        """As torch initialises linear layers."""
        kaiming_uniform_like_torch(module, generator)

    def _layers(self, inputs: int, classes: int) -> nn.Module:
        layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
        for number, width in enumerate(self.hidden, start=1):
            layers[f"hidden{number}"] = nn.Linear(inputs, width)
            layers[f"activation{number}"] = ACTIVATIONS[self.activation]()
            inputs = width
        layers[OUTPUT] = nn.Linear(inputs, classes)
        return nn.Sequential(layers)
