"""The convolutional network of federated averaging on MNIST, which double-blind sketching takes over.

Source: McMahan et al. 2017, "Communication-Efficient Learning of Deep Networks from Decentralized Data", section 3:
1,663,370 parameters for 1 x 28 x 28 pixels and 10 classes, so convolutions are padded; Wang & Zhang, "Matrix Sketching
for Secure Collaborative Machine Learning" (DBCL), section 5.1, for the order of layers.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from p2pfl.learning.model import kaiming_uniform_like_torch, unfilled
from p2pfl.learning.models._convolutions import stack

BLOCKS = ((32,), (64,))
HIDDEN = (512,)


@dataclass(frozen=True)
class Cnn:
    """Convolutions of 32 and 64 channels (5 x 5, ReLU), each halved by a 2 x 2 maximum, then 512 units, the output."""

    def build(self, shape: tuple[int, int, int], classes: int) -> nn.Module:
        """For inputs of C x H x W, at least 4 x 4 pixels. Raises ValueError for smaller ones."""
        return unfilled(lambda: stack(shape, classes, BLOCKS, HIDDEN, nn.ReLU))

    def draw(self, module: nn.Module, generator: torch.Generator) -> None:
        """As torch initialises convolutions and linear layers."""
        kaiming_uniform_like_torch(module, generator)
