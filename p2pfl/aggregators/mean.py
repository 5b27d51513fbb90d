"""The weighted sum of what was sent: with Metropolis weights plain gossip averaging, with n_i / N FedAvg's mean.

Sources: Lian et al. 2017, Algorithm 1; McMahan et al. 2017, Algorithm 1.
Shapes: D parameters, K messages received.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Mean:
    """No options, and no defence: one lying row moves it as far as it likes."""

    def merge(self, rows_KD: Sequence[Tensor], weights_K: Sequence[float]) -> Tensor:
        """sum_k w_k row_k, of D numbers: one vector is allocated, each row read once, none altered."""
        merged_D = torch.mul(rows_KD[0], weights_K[0])
        for row_D, weight in zip(rows_KD[1:], weights_K[1:], strict=True):
            merged_D.add_(row_D, alpha=weight)
        return merged_D
