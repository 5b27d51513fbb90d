"""Eight bits: every number travels as one of 255 levels, evenly spaced from -max to max of its parameter tensor.

Rounded to the nearest level, of which zero is one and the largest number another: so |x - Q(x)|^2 <= (1 - delta) |x|^2
with delta = 4 * 127^2 / (4 * 127^2 + d - 1), d being the numbers of the largest tensor, and no vector is made longer
than it is wrong. Rounding at random is without bias, but in many dimensions no such contraction; CHOCO needs the
contraction (Koloskova, Stich & Jaggi 2019, assumption 1), and what rounding keeps back is sent in later rounds.
Shapes: D parameters, T tensors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from p2pfl.contracts import Layout

LEVELS = 127
"""On either side of zero."""
ZERO = 128
"""The code of zero."""


@dataclass(frozen=True)
class EightBits:
    """Q, bound to a layout."""

    layout: Layout

    @property
    def form(self) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
        """A byte a number, and of each tensor how far its levels are apart."""
        return {"codes": (torch.uint8, (sum(self._sizes()),)), "scales": (torch.float32, (len(self.layout),))}

    def pack(self, x_D: Tensor) -> dict[str, Tensor]:
        """What travels in place of `x_D`; on the CPU."""
        scales_T = torch.stack([part.abs().max() for part in x_D.split_with_sizes(self._sizes())]) / LEVELS
        apart_D = self._spread(scales_T)
        levels_D = (x_D / apart_D.where(apart_D > 0, 1.0)).round_().clamp_(-LEVELS, LEVELS)
        return {"codes": levels_D.add_(ZERO).to(torch.uint8).cpu(), "scales": scales_T.cpu()}

    def unpack(self, tensors: Mapping[str, Tensor], device: torch.device) -> Tensor:
        """Q(x), D numbers; not finite where a scale is beyond all reason."""
        levels_D = tensors["codes"].to(device).float().sub_(ZERO)
        return levels_D.mul_(self._spread(tensors["scales"].to(device)))

    def _spread(self, scales_T: Tensor) -> Tensor:
        """The scale of each number."""
        sizes_T = torch.tensor(self._sizes(), device=scales_T.device)
        return scales_T.repeat_interleave(sizes_T, output_size=sum(self._sizes()))

    def _sizes(self) -> list[int]:
        return [slot.size for slot in self.layout]
