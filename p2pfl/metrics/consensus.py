"""How far the peers are from agreeing, and what they would agree on.

Source: Kong et al. 2021, "Consensus control for decentralized deep learning": Xi^2 = (1/n) sum_i ||x_i - mean||^2.
Shapes: N peers, D parameters. Sums are taken in float64 and in the order given, whatever the number of threads.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy
import torch
from torch import Tensor


def consensus_model(models_ND: Sequence[Tensor]) -> Tensor:
    """The mean of N >= 1 models, of D numbers, in the type and on the device of the first."""
    return mean_float64(models_ND).to(models_ND[0])


def consensus_distance(models_ND: Sequence[Tensor]) -> float:
    """sqrt(mean_i ||x_i - mean||^2) of N >= 1 models; 0 when they agree."""
    mean_D = mean_float64(models_ND)
    squares = [squared_norm(model_D.to(mean_D).sub_(mean_D)) for model_D in models_ND]
    return math.sqrt(sum(squares) / len(squares))


def mean_float64(models_ND: Sequence[Tensor]) -> Tensor:
    """Their mean, in float64 on the CPU. Raises ValueError when there are none."""
    if not models_ND:
        raise ValueError("no models: a mean needs at least one")
    sum_D = torch.zeros(models_ND[0].shape, dtype=torch.float64)
    for model_D in models_ND:
        sum_D += model_D.detach().cpu()
    return sum_D.div_(len(models_ND))


def squared_norm(x_D: Tensor) -> float:
    """||x||^2, summed by numpy: one thread, so one order."""
    return float(numpy.square(x_D.numpy()).sum())
