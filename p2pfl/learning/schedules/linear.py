"""A learning rate that falls along a straight line.

Source: Defazio et al. 2023, "When, Why and How Much? Adaptive Learning Rate Scheduling by Refinement", which finds
linear decay to be what both theory and practice advise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import pydantic


@dataclass(frozen=True)
class Linear:
    """From `lr` evenly down to `floor` times it."""

    floor: Annotated[float, pydantic.Field(ge=0, le=1)] = 0.0

    def factor(self, done: float) -> float:
        """1 - (1 - floor) times the share done."""
        return 1 - (1 - self.floor) * done
