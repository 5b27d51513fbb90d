"""A learning rate that falls along half a wave of the cosine, after a rise where one is asked for.

Source: Loshchilov & Hutter 2017, "SGDR: Stochastic Gradient Descent with Warm Restarts", eq. 5, without restarts;
the rise: Goyal et al. 2017, "Accurate, Large Minibatch SGD", section 2.2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

import pydantic


@dataclass(frozen=True)
class Cosine:
    """From `lr` down to `floor` times it; before that, for the share `warmup` of the training, evenly up to `lr`."""

    floor: Annotated[float, pydantic.Field(ge=0, le=1)] = 0.0
    warmup: Annotated[float, pydantic.Field(ge=0, lt=1)] = 0.0

    def factor(self, done: float) -> float:
        """floor + (1 - floor) (1 + cos(pi t)) / 2, where t in [0, 1) is the share done of what follows the rise."""
        if done < self.warmup:
            return self.floor + (1 - self.floor) * done / self.warmup
        fallen = (done - self.warmup) / (1 - self.warmup)
        return self.floor + (1 - self.floor) * (1 + math.cos(math.pi * fallen)) / 2
