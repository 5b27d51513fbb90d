"""Stacks of padded convolutions, halved by 2 x 2 maxima, then dense layers: what several papers train.

Source: LeCun, Bottou, Bengio & Haffner 1998, "Gradient-based learning applied to document recognition".
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import nn

from p2pfl.learning.model import OUTPUT

KERNEL, POOL = 5, 2


def stack(
    shape: tuple[int, int, int],
    classes: int,
    blocks: Sequence[Sequence[int]],
    hidden: Sequence[int],
    activation: type[nn.Module],
    kernel: int = KERNEL,
) -> nn.Module:
    """Convolutions of these channels, a pool after each of `blocks`, layers of `hidden` units, the output.

    Each but the output is followed by the activation. Raises ValueError when pools leave nothing of C x H x W pixels.
    """
    channels, height, width = shape
    if min(height, width) < POOL ** len(blocks):
        fewest = POOL ** len(blocks)
        raise ValueError(f"images of {height} x {width} pixels are smaller than {fewest} x {fewest}")
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for block, widths in enumerate(blocks, start=1):
        for part, wider in enumerate(widths, start=1):
            number = f"{block}_{part}" if len(widths) > 1 else str(block)
            layers[f"convolution{number}"] = nn.Conv2d(channels, wider, kernel, padding=kernel // 2)
            layers[f"convolved{number}"] = activation()
            channels = wider
        layers[f"pool{block}"] = nn.MaxPool2d(POOL)
        height, width = height // POOL, width // POOL
    layers["flatten"] = nn.Flatten()
    inputs = channels * height * width
    for depth, units in enumerate(hidden, start=1):
        layers[f"hidden{depth}"] = nn.Linear(inputs, units)
        layers[f"activation{depth}"] = activation()
        inputs = units
    layers[OUTPUT] = nn.Linear(inputs, classes)
    return nn.Sequential(layers)
