"""The convolutional network of double-blind sketching on LFW: who sees a face says whether it is a man's.

Source: Wang & Zhang, "Matrix Sketching for Secure Collaborative Machine Learning" (DBCL), section 5.2; padded so that a
convolution keeps the size, as appendix A.2 has it. The paper ends in one sigmoid and we in two logits, the same family
of classifiers: of two classes softmax is the sigmoid of the logits' difference, and cross entropy the same loss.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from p2pfl.learning.model import kaiming_uniform_like_torch, unfilled
from p2pfl.learning.models._convolutions import stack

BLOCKS = ((64,), (64,), (128,))
HIDDEN = (32, 32)
KERNEL = 3


@dataclass(frozen=True)
class LfwCnn:
    """Convolutions of 64, 64 and 128 channels (3 x 3, ReLU), each halved by a 2 x 2 maximum, twice 32 units, output.

    For faces of 62 x 47 in colour and two classes it has 257,090 parameters.
    """

    def build(self, shape: tuple[int, int, int], classes: int) -> nn.Module:
        """For inputs of C x H x W, at least 8 x 8 pixels. Raises ValueError for smaller ones."""
        return unfilled(lambda: stack(shape, classes, BLOCKS, HIDDEN, nn.ReLU, KERNEL))

    def draw(self, module: nn.Module, generator: torch.Generator) -> None:
        """As torch initialises convolutions and linear layers."""
        kaiming_uniform_like_torch(module, generator)
