"""What a model is: a module whose numbers are drawn from one stream, and never from torch's global one.

A model keeps all its numbers in parameters (no running statistics), so that the flat vector of D of them is the model.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

import torch
from torch import nn

from p2pfl.contracts import Layout, Slot

OUTPUT = "output"
"""The attribute that holds a model's last layer."""


class Model(Protocol):
    """A family of networks: what every plug-in of `models/` is."""

    def build(self, shape: tuple[int, int, int], classes: int) -> nn.Module:
        """A module for inputs of C x H x W, its last layer called `output`, its parameters not yet filled."""

    def draw(self, module: nn.Module, generator: torch.Generator) -> None:
        """Fill every parameter of `module` (on the CPU) in place."""


def unfilled(make: Callable[[], nn.Module]) -> nn.Module:
    """The module that `make` returns, on the CPU, its parameters not filled and no random number drawn.

    This is what `Module.to_empty` does, which for one call imports sympy: 0.2 s in every process.
    """
    with torch.device("meta"):
        module = make()
    for layer in module.modules():
        for name, parameter in list(layer.named_parameters(recurse=False)):
            setattr(layer, name, nn.Parameter(torch.empty(parameter.shape, dtype=parameter.dtype, device="cpu")))
    return module


def layout_of(module: nn.Module) -> Layout:
    """The slots of the module's parameters, in the order of the flat vector."""
    return tuple(
        Slot(name, tuple(parameter.shape), name.startswith(f"{OUTPUT}."))
        for name, parameter in module.named_parameters()
    )


@torch.no_grad()
def kaiming_uniform_like_torch(module: nn.Module, generator: torch.Generator) -> None:
    """Fill linear, convolution and norm layers as torch's constructors do: U(+-1/sqrt(fan_in)), norms 1 and 0.

    Raises TypeError for a layer with parameters of any other type.
    """
    for layer in module.modules():
        if isinstance(layer, (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)):
            bound = 1 / math.sqrt(layer.weight[0].numel())
            for parameter in layer.parameters(recurse=False):
                parameter.uniform_(-bound, bound, generator=generator)
        elif isinstance(layer, (nn.GroupNorm, nn.LayerNorm)):
            for name, parameter in layer.named_parameters(recurse=False):
                parameter.fill_(1.0 if name == "weight" else 0.0)
        elif next(layer.parameters(recurse=False), None) is not None:
            raise TypeError(f"no rule to draw the parameters of {type(layer).__name__}")
