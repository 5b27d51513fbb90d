"""DLG: inputs and labels together by L-BFGS, so that their gradient becomes the one that was seen.

Source: Zhu, Liu & Han 2019, "Deep Leakage from Gradients". `published` is its recipe, and that of its code: float32, no
line search, 300 times 20 iterations from normal numbers; it overflows for many images. But the best point that it met
is told, where the paper shows the last, which then is no number. `strong` mends the overflow.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import pydantic

from p2pfl.attacks._inversion import PUBLISHED, Recipe, invert
from p2pfl.attacks._target import readings, target
from p2pfl.curiosity import Case, Finding
from p2pfl.evidence import Sight
from p2pfl.messages import Watch

Positive = Annotated[int, pydantic.Field(gt=0)]


@dataclass(frozen=True)
class Dlg:
    """Images and labels together by L-BFGS. `recipe: published` is how the paper ran it, with budgets of its own.

    `strong` takes up to `iterations` from each of up to `restarts` points.
    """

    recipe: Literal["strong", "published"] = "strong"
    iterations: Positive = 3000
    restarts: Positive = 4
    scores: ClassVar[str] = "images"

    def spy(self, case: Case) -> Iterator[Finding]:
        """See Attack: the examples of all batches of each reading."""
        strong = Recipe(self.iterations, restarts=self.restarts)
        recipe = strong if self.recipe == "strong" else PUBLISHED

        def solve(sight: Sight, watch: Watch) -> Finding:
            return invert(case, target(case, sight, recipe.dtype), recipe, [], watch)

        return readings(case, solve)
