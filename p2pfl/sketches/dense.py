"""No sketch: parameters travel as they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from p2pfl.contracts import Layout


@dataclass(frozen=True)
class Dense:
    """No sketch: every parameter travels, so D numbers a vector."""

    keyed: ClassVar[bool] = False
    reach: ClassVar[float] = 1.0

    def bind(self, layout: Layout) -> Identity:
        """The identity on vectors of this layout."""
        return Identity(sum(slot.size for slot in layout))


@dataclass(frozen=True)
class Identity:
    """Both maps are the identity; what goes in comes out, not a copy of it."""

    size: int

    def down(self, x_D: Tensor, key: bytes) -> Tensor:
        """`x` itself."""
        return x_D

    def up(self, z_S: Tensor, key: bytes) -> Tensor:
        """`z` itself."""
        return z_S

    def pull(self, z_S: Tensor, key: bytes) -> Tensor:
        """`z` itself: nothing to damp."""
        return z_S
