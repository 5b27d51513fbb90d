"""A vector that is known but for some peers' steps: a constant and unknown parts, added up.

Shapes: D parameters.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from p2pfl.evidence import Part
from p2pfl.messages import PeerId


@dataclass(frozen=True, eq=False)
class Known:
    """A vector as far as it is known: a constant, plus unknown steps by their share.

    `guessed` says that something else is not known, and was taken for what is likely; `rough`, that a part began at a
    point which is itself not known but for other parts.
    """

    x_D: Tensor
    parts: Mapping[tuple[PeerId, int], Part] = field(default_factory=dict)
    guessed: bool = False
    rough: bool = False

    @property
    def sure(self) -> bool:
        """Whether the constant is all there is to it."""
        return not self.parts and not self.guessed

    def plus(self, other: Known, factor: float) -> Known:
        """The sum with a multiple of another."""
        parts = dict(self.parts)
        for name, part in other.parts.items():
            before = parts[name].share if name in parts else 0.0
            parts[name] = dataclasses.replace(part, share=before + factor * part.share)
        kept = {name: part for name, part in parts.items() if part.share}
        known = self.guessed or other.guessed, self.rough or other.rough
        return Known(self.x_D + factor * other.x_D, kept, *known)
