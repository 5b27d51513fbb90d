"""The same learning rate from the first step to the last.

Source: Robbins & Monro 1951, "A stochastic approximation method", whose falling rates are the other files here.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Constant:
    """No options: `lr` throughout."""

    def factor(self, done: float) -> float:
        """1, whatever share of the training is done."""
        return 1.0
