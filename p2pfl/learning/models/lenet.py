"""The LeNet of gradient inversion: sigmoids and strides, so that it is twice differentiable everywhere.

Source: Zhu, Liu & Han 2019, "Deep Leakage from Gradients", and its code.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import torch
from torch import nn

from p2pfl.learning.model import OUTPUT, unfilled

CHANNELS, KERNEL, PADDING = 12, 5, 2
STRIDES = (2, 2, 1)
BOUND = 0.5


@dataclass(frozen=True)
class Lenet:
    """Three convolutions of 12 channels, then one linear layer."""

    def build(self, shape: tuple[int, int, int], classes: int) -> nn.Module:
        """For any input of C x H x W."""
        return unfilled(lambda: layers(shape, classes))

    @torch.no_grad()
    def draw(self, module: nn.Module, generator: torch.Generator) -> None:
        """Every weight and bias U(-0.5, 0.5): from torch's own initialisation gradients are tiny, inversion fails."""
        for parameter in module.parameters():
            parameter.uniform_(-BOUND, BOUND, generator=generator)


def layers(shape: tuple[int, int, int], classes: int) -> nn.Module:
    """conv(C->12, stride 2), conv(12->12, stride 2), conv(12->12, stride 1), each with a sigmoid; then linear."""
    channels, height, width = shape
    stack: OrderedDict[str, nn.Module] = OrderedDict()
    for number, stride in enumerate(STRIDES, start=1):
        stack[f"convolution{number}"] = nn.Conv2d(channels, CHANNELS, KERNEL, stride, PADDING)
        stack[f"sigmoid{number}"] = nn.Sigmoid()
        channels, height, width = CHANNELS, shrunk(height, stride), shrunk(width, stride)
    stack["flatten"] = nn.Flatten()
    stack[OUTPUT] = nn.Linear(channels * height * width, classes)
    return nn.Sequential(stack)


def shrunk(pixels: int, stride: int) -> int:
    """How many pixels a convolution leaves of a side."""
    return (pixels + 2 * PADDING - KERNEL) // stride + 1
