"""Top-k: of every parameter tensor the numbers of largest magnitude travel, each with its position.

Source: Stich, Cordonnier & Jaggi 2018, "Sparsified SGD with Memory", section 2: |x - Q(x)|^2 <= (1 - k/d) |x|^2.
Of each tensor by itself, as the authors of CHOCO do in deep learning (epfml/ChocoSGD): layers whose numbers are small
are not forgotten for those whose numbers are large.
Shapes: D parameters, K numbers that travel.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from p2pfl.contracts import Layout


@dataclass(frozen=True)
class TopK:
    """Q, bound to a layout: of each tensor the share `ratio`, at least one number."""

    ratio: float
    layout: Layout

    @property
    def form(self) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
        """8 bytes a number: its value, and where it stands in the flat vector."""
        count = sum(self._counts())
        return {"values": (torch.float32, (count,)), "positions": (torch.int32, (count,))}

    def pack(self, x_D: Tensor) -> dict[str, Tensor]:
        """What travels in place of `x_D`, positions in ascending order; on the CPU."""
        parts = x_D.split_with_sizes([slot.size for slot in self.layout])
        chosen, begin = [], 0
        for part, count in zip(parts, self._counts(), strict=True):
            chosen.append(part.abs().topk(count, sorted=False).indices + begin)
            begin += len(part)
        positions_K = torch.cat(chosen).sort().values
        return {"values": x_D[positions_K].cpu(), "positions": positions_K.to(torch.int32).cpu()}

    def unpack(self, tensors: Mapping[str, Tensor], device: torch.device) -> Tensor | None:
        """Q(x), D numbers; None for positions that are not ascending, or are of no parameter."""
        positions_K, size = tensors["positions"].long(), sum(slot.size for slot in self.layout)
        ascending = bool((positions_K[1:] > positions_K[:-1]).all())
        if not ascending or int(positions_K[0]) < 0 or int(positions_K[-1]) >= size:
            return None
        x_D = torch.zeros(size, device=device)
        x_D[positions_K.to(device)] = tensors["values"].to(device)
        return x_D

    def _counts(self) -> list[int]:
        return [max(1, round(self.ratio * slot.size)) for slot in self.layout]
