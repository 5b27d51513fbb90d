"""How CHOCO compresses what it sends: the largest numbers alone, or all of them in eight bits.

Shapes: D parameters.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal, Protocol

import pydantic
import torch
from torch import Tensor

from p2pfl.algorithms._eight_bits import EightBits
from p2pfl.algorithms._top_k import TopK
from p2pfl.contracts import Layout


class Compressor(Protocol):
    """Q of CHOCO, bound to one layout: E|x - Q(x)|^2 <= (1 - delta) |x|^2 for some delta > 0. Pure; any device."""

    @property
    def form(self) -> Mapping[str, tuple[torch.dtype, tuple[int, ...]]]:
        """What travels: the dtype and shape of each tensor."""

    def pack(self, x_D: Tensor) -> dict[str, Tensor]:
        """What travels in place of `x_D`, on the CPU, in memory of its own."""

    def unpack(self, tensors: Mapping[str, Tensor], device: torch.device) -> Tensor | None:
        """Q(x), D numbers, bit for bit the same wherever it is made; None where it cannot have been packed."""


@dataclass(frozen=True)
class Compression:
    """Exactly one of these. `top_k`: of each parameter tensor this share of the numbers, those of largest magnitude,
    travels, each with its position in 8 bytes; `bits`: all numbers travel in 8 bits instead of 32.
    """

    top_k: Annotated[float, pydantic.Field(gt=0, le=1)] | None = None
    bits: Literal[8] | None = None

    def __post_init__(self) -> None:
        if (self.top_k is None) == (self.bits is None):
            raise ValueError("give exactly one of top_k and bits: {top_k: 0.0625} or {bits: 8}")

    @property
    def share(self) -> float:
        """The bytes that travel, of those of the parameters themselves."""
        return 1 / 4 if self.top_k is None else 2 * self.top_k

    @property
    def gamma(self) -> float:
        """CHOCO's consensus step size where nothing else is said.

        With the root peers came together from anywhere on all graphs tried (rings of 8 and 16, a star, a barbell, a
        complete graph) and for all shares tried, from 1/64 on; with 1.5 times as much not on complete ones.
        """
        return 1.0 if self.top_k is None else math.sqrt(self.top_k)

    def bind(self, layout: Layout) -> Compressor:
        """Q of parameters of this layout."""
        return EightBits(layout) if self.top_k is None else TopK(self.top_k, layout)
