"""The convolutional network of double-blind sketching on CIFAR-10.

Source: Wang & Zhang, "Matrix Sketching for Secure Collaborative Machine Learning" (DBCL), section 5.1; padded so that
a convolution keeps the size, as appendix A.2 has it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from p2pfl.learning.model import kaiming_uniform_like_torch, unfilled
from p2pfl.learning.models._convolutions import stack

BLOCKS = ((32, 64), (128,))
HIDDEN = (200,)


@dataclass(frozen=True)
class CifarCnn:
    """Convolutions of 32, 64 and 128 channels (5 x 5, ReLU), halved after the last two, then 200 units, the output."""

    def build(self, shape: tuple[int, int, int], classes: int) -> nn.Module:
        """For inputs of C x H x W, at least 4 x 4 pixels. Raises ValueError for smaller ones."""
        return unfilled(lambda: stack(shape, classes, BLOCKS, HIDDEN, nn.ReLU))

    def draw(self, module: nn.Module, generator: torch.Generator) -> None:
        """As torch initialises convolutions and linear layers."""
        kaiming_uniform_like_torch(module, generator)
