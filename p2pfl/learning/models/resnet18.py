"""ResNet-18 for small images: residual blocks, group norms in place of batch norms.

Source: He et al. 2016, "Deep Residual Learning for Image Recognition"; its stem for 32 x 32 pixels (3 x 3, stride 1,
no pool) as in section 4.2. Norms: Wu & He 2018, "Group Normalization", 16 channels a group (table 3), since running
statistics are no parameters. Sigmoids without strides, to be inverted: Zhu, Liu & Han 2019, "Deep Leakage from
Gradients", section 4.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

import pydantic
import torch
from torch import Tensor, nn

from p2pfl.learning.model import OUTPUT, kaiming_uniform_like_torch, unfilled

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "sigmoid": nn.Sigmoid}
STAGES, BLOCKS = 4, 2
GROUP = 16


@dataclass(frozen=True)
class Resnet18:
    """Four stages of two blocks, of `width` channels and twice as many each; the last three halve the image.

    Gradient inversion wants `{activation: sigmoid, strides: false}`: smooth, and no stage halves the image.
    """

    width: Annotated[int, pydantic.Field(gt=0)] = 64
    activation: Literal["relu", "sigmoid"] = "relu"
    strides: bool = True

    def build(self, shape: tuple[int, int, int], classes: int) -> nn.Module:
        """For inputs of C x H x W, any size."""
        return unfilled(lambda: nn.Sequential(OrderedDict(self._layers(shape[0], classes))))

    def draw(self, module: nn.Module, generator: torch.Generator) -> None:
        """Convolutions as torch initialises them, norms as the identity."""
        kaiming_uniform_like_torch(module, generator)

    def _layers(self, channels: int, classes: int) -> Iterator[tuple[str, nn.Module]]:
        activation = ACTIVATIONS[self.activation]
        yield "convolution", convolution(channels, self.width, 3, 1)
        yield "norm", norm(self.width)
        yield "activation", activation()
        channels = self.width
        for stage in range(STAGES):
            for block in range(BLOCKS):
                wider = self.width << stage
                stride = 2 if self.strides and stage > 0 and block == 0 else 1
                yield f"block{stage + 1}_{block + 1}", Residual(channels, wider, stride, activation)
                channels = wider
        yield "pool", nn.AdaptiveAvgPool2d(1)
        yield "flatten", nn.Flatten()
        yield OUTPUT, nn.Linear(channels, classes)


class Residual(nn.Module):
    """A block of two convolutions, to the outcome of which its input is added (by 1 x 1 where its shape changes).

    torch wants a module with a sum in it to be a class of its own; nothing else here inherits.
    """

    def __init__(self, channels: int, wider: int, stride: int, activation: type[nn.Module]) -> None:
        super().__init__()
        self.convolution1, self.norm1 = convolution(channels, wider, 3, stride), norm(wider)
        self.convolution2, self.norm2 = convolution(wider, wider, 3, 1), norm(wider)
        self.activation = activation()
        self.shortcut = nn.Sequential()
        if stride != 1 or channels != wider:
            self.shortcut = nn.Sequential(convolution(channels, wider, 1, stride), norm(wider))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """activation(F(x) + x), of `wider` channels."""
        inner: Tensor = self.activation(self.norm1(self.convolution1(x_BCHW)))
        outer: Tensor = self.activation(self.norm2(self.convolution2(inner)) + self.shortcut(x_BCHW))
        return outer


def convolution(channels: int, wider: int, kernel: int, stride: int) -> nn.Conv2d:
    """Padded, so that only a stride makes the image smaller; without a bias, since a norm follows."""
    return nn.Conv2d(channels, wider, kernel, stride, padding=kernel // 2, bias=False)


def norm(channels: int) -> nn.GroupNorm:
    """Groups of 16 channels or a little more: fewer leave nothing to norm where an image is down to one pixel."""
    fitting = (groups for groups in range(channels // GROUP, 1, -1) if channels % groups == 0)
    return nn.GroupNorm(next(fitting, 1), channels)
