"""Pruning of gradients: the entries of the smallest size are sent as 0.

Source: Zhu, Liu & Han 2019, "Deep Leakage from Gradients", section 5.2, after Lin et al. 2018, "Deep Gradient
Compression". Here all layers are pruned together, and what is left out is lost: nothing of it is kept for later steps.

It claims to hide the input once some 20 % are pruned. That holds against an attacker who takes the zeros for values.
Measured against one who compares only what was sent: 30, 70, 90 % leave a mean squared error of 1e-10, 1e-8, 7e-5;
99 % protects. The label leaks through all of them. What travels after several steps adds up their gradients, momentum
those of former steps: fewer zeros than of one step. Under a sketch it is the sketched gradient that is pruned.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import pydantic
import torch
from torch import Tensor

from p2pfl.protection import Shield, Stake


@dataclass(frozen=True)
class Prune:
    """The `share` of a batch's gradient that is smallest in size is 0, in each step; of equals some go."""

    share: Annotated[float, pydantic.Field(gt=0, lt=1)] = 0.9
    EXAMPLES: ClassVar = ({"share": 0.3},)
    masks: ClassVar[bool] = True

    def guard(self, stake: Stake) -> Shield:
        """See Defence."""

        def alters(g_S: Tensor, at: int) -> Tensor:
            kept = g_S.abs().topk(len(g_S) - int(self.share * len(g_S)), sorted=False).indices
            return torch.zeros_like(g_S).index_copy_(0, kept, g_S[kept])

        return Shield(alters)
