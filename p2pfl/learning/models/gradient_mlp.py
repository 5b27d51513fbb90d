"""A multilayer perceptron on oriented gradients: filters that nobody learns, and dense layers after them.

Where noise pays for every number that is learned, as under differential privacy, features that are known beforehand are
worth much (Tramer & Boneh 2021, "Differentially Private Learning Needs Better Features (or Much More Data)"). These
are histograms of oriented gradients in a simple form (Dalal & Triggs 2005): the image is smoothed, its slope in eight
directions is cut at 0 and averaged around every fourth pixel, near ones weighing more, of that the square root. What
the directions of a cell have in common is told apart, as one more feature, so that all are small on the average; then
each image is scaled by itself. They hang on no data but the image.
Shapes: B images of C x H x W, P = B C planes, D directions, N = ceil(H / 4) ceil(W / 4) cells, F = 9 C N features.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass
from typing import Annotated

import pydantic
import torch
from torch import Tensor, nn

from p2pfl.learning.model import OUTPUT, kaiming_uniform_like_torch, unfilled

DIRECTIONS, CELL = 8, 4
DEVIATION = 0.5
"""Of the features of each image."""
TINY = 1e-8


@dataclass(frozen=True)
class GradientMlp:
    """Fixed oriented gradients, then rectified layers of the widths `hidden`."""

    hidden: tuple[Annotated[int, pydantic.Field(gt=0)], ...] = (100,)

    def build(self, shape: tuple[int, int, int], classes: int) -> nn.Module:
        """`gradients hidden1 relu1 ... output`."""
        features = (DIRECTIONS + 1) * shape[0] * math.ceil(shape[1] / CELL) * math.ceil(shape[2] / CELL)
        return unfilled(lambda: self._layers(features, classes))

    def draw(self, module: nn.Module, generator: torch.Generator) -> None:
        """As torch initialises linear layers."""
        kaiming_uniform_like_torch(module, generator)

    def _layers(self, inputs: int, classes: int) -> nn.Module:
        layers: OrderedDict[str, nn.Module] = OrderedDict(gradients=OrientedGradients())
        for number, width in enumerate(self.hidden, start=1):
            layers[f"hidden{number}"] = nn.Linear(inputs, width)
            layers[f"relu{number}"] = nn.ReLU()
            inputs = width
        layers[OUTPUT] = nn.Linear(inputs, classes)
        return nn.Sequential(layers)


class OrientedGradients(nn.Module):
    """Features of each image by itself, without parameters."""

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """B x F."""
        images, channels, height, width = x_BCHW.shape
        planes = x_BCHW.reshape(images * channels, 1, height, width)
        slopes = nn.functional.conv2d(planes, kernels().to(planes), padding=2).clamp_min(0)
        around = triangle().to(planes).expand(DIRECTIONS, 1, -1, -1)
        pooled = nn.functional.conv2d(slopes, around, stride=CELL, padding=CELL - 1, groups=DIRECTIONS)
        cells_PDN = pooled.add(TINY).sqrt().flatten(2)
        strength_P1N = cells_PDN.mean(1, keepdim=True)
        common_P1N = strength_P1N - strength_P1N.mean(2, keepdim=True)
        told_PFN = torch.cat([cells_PDN - strength_P1N, common_P1N], 1)
        told_BF = told_PFN.reshape(images, channels * told_PFN.shape[1] * told_PFN.shape[2])
        return told_BF * (DEVIATION / (told_BF.square().mean(1, keepdim=True) + TINY).sqrt())


def kernels() -> Tensor:
    """Smoothing and slope in each direction at once: 8 x 1 x 5 x 5."""
    smooth, slope = torch.tensor([1.0, 2.0, 1.0]) / 4, torch.tensor([-1.0, 0.0, 1.0])
    along = torch.nn.functional.conv1d(smooth[None, None], slope.flip(0)[None, None], padding=2)[0, 0]
    across = torch.nn.functional.pad(smooth, (1, 1))
    angles = [2 * math.pi * k / DIRECTIONS for k in range(DIRECTIONS)]
    turned = [math.cos(a) * across[:, None] * along + math.sin(a) * along[:, None] * across for a in angles]
    return torch.stack(turned)[:, None]


def triangle() -> Tensor:
    """The weights of the pixels around one: 7 x 7, their sum 1."""
    side = torch.tensor([1.0, 2.0, 3.0, 4.0, 3.0, 2.0, 1.0]) / CELL**2
    return side[:, None] * side
