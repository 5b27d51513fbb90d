"""Gradients rounded to 16 bits.

Source: Zhu, Liu & Han 2019, "Deep Leakage from Gradients", section 5.1.

The paper tries it as a defence, and finds that neither format protects: it is here to show that. Only the gradient is
rounded; parameters keep 32 bits, and so does what travels. Under a sketch it is the sketched gradient that is rounded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from p2pfl.protection import Shield, Stake

FORMATS = {"float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class HalfPrecision:
    """Each number of a batch's gradient is rounded to `format`: 11 digits of a binary fraction, or 8 of `bfloat16`."""

    format: Literal["float16", "bfloat16"] = "float16"
    EXAMPLES: ClassVar = ({"format": "bfloat16"},)

    def guard(self, stake: Stake) -> Shield:
        """See Defence."""
        half = FORMATS[self.format]
        most = torch.finfo(half).max

        def alters(g_S: Tensor, at: int) -> Tensor:
            return g_S.clamp_(-most, most).to(half).to(g_S.dtype)

        return Shield(alters)
