"""Gaussian noise on every gradient, without clipping.

Source: Zhu, Liu & Han 2019, "Deep Leakage from Gradients", section 5.1.

It claims nothing formal: nothing bounds what one example does, so there is no epsilon (see `dp`). It shall blur what is
recovered from a gradient. Measured against inversion by L-BFGS, one example, gradients of mean size 0.09: deviations of
1e-4, 1e-3, 1e-2 leave a mean squared error of 8e-7, 8e-5, 8e-3, and the last is still recognised; the label leaks
through all of them, and through 1 as well (97 % of a fresh LeNet, on MNIST: the rows of the output layer are long
enough to average over). The paper gives variances. Noise is drawn anew in each step, so whoever sees many steps
averages it away; momentum adds up that of former steps. Under a sketch it is added to the sketched gradient.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import pydantic
import torch
from torch import Tensor

from p2pfl.protection import Shield, Stake


@dataclass(frozen=True)
class GaussianNoise:
    """Normal noise on each number of a batch's mean gradient, of the deviation `scale`; no privacy is promised."""

    scale: Annotated[float, pydantic.Field(gt=0)] = 0.01
    EXAMPLES: ClassVar = ({"scale": 0.1},)

    def guard(self, stake: Stake) -> Shield:
        """See Defence."""

        def alters(g_S: Tensor, at: int) -> Tensor:
            draw = stake.seeds.noise("noise", at, device=g_S.device)
            return g_S.add_(torch.empty_like(g_S).normal_(generator=draw), alpha=self.scale)

        return Shield(alters)
