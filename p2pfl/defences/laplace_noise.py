"""Laplace noise on every gradient, without clipping.

Source: Zhu, Liu & Han 2019, "Deep Leakage from Gradients", section 5.1.

It claims nothing formal: nothing bounds what one example does, so there is no epsilon (see `dp`). Of the same variance
it protects as `gaussian_noise` does, and what is said there holds for it. It is drawn as the difference of two
exponential variables.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import pydantic
import torch
from torch import Tensor

from p2pfl.protection import Shield, Stake


@dataclass(frozen=True)
class LaplaceNoise:
    """Laplace noise on each number of a batch's mean gradient, its b being `scale`; no privacy is promised.

    Its deviation is 1.41 times `scale`.
    """

    scale: Annotated[float, pydantic.Field(gt=0)] = 0.01
    EXAMPLES: ClassVar = ({"scale": 0.1},)

    def guard(self, stake: Stake) -> Shield:
        """See Defence."""

        def alters(g_S: Tensor, at: int) -> Tensor:
            draw = stake.seeds.noise("noise", at, device=g_S.device)
            up, down = (torch.empty_like(g_S).exponential_(generator=draw) for _ in range(2))
            return g_S.add_(up.sub_(down), alpha=self.scale)

        return Shield(alters)
