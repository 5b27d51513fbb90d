"""A learning rate that drops at given moments, and stays in between.

Source: He et al. 2016, "Deep Residual Learning for Image Recognition", section 4.2: divided by 10 at 1/2 and 3/4 of
the training on CIFAR-10.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import pydantic


@dataclass(frozen=True)
class Milestones:
    """At each of the moments `at`, which are shares of the training, the rate is multiplied by `by`."""

    at: tuple[float, ...] = (0.5, 0.75)
    by: Annotated[float, pydantic.Field(gt=0, le=1)] = 0.1

    def __post_init__(self) -> None:
        if not all(0 < share < 1 for share in self.at):
            raise ValueError(f"at must hold shares of the training in (0, 1), not {list(self.at)}: 0.5 is half of it")

    def factor(self, done: float) -> float:
        """`by` to the power of how many moments have come."""
        return self.by ** sum(share <= done for share in self.at)
