"""iDLG: the labels at once from the output layer's gradient, then the inputs alone by L-BFGS.

Source: Zhao, Mopuri & Bilen 2020, "iDLG: Improved Deep Leakage from Gradients". Of a batch the numbers of examples by
label come from the bias' gradient instead (see `_labels.py`). Several batches in one displacement do not say which of
the labels belongs to which: where there are few ways to deal them out each is tried, else labels are found as in DLG.
But if some count for more than others, that tells them apart; those that count for too little are found as in DLG.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, ClassVar

import pydantic

from p2pfl.attacks._inversion import Recipe, invert
from p2pfl.attacks._labels import guesses
from p2pfl.attacks._target import readings, target
from p2pfl.curiosity import Case, Finding
from p2pfl.evidence import Sight
from p2pfl.messages import Watch

Positive = Annotated[int, pydantic.Field(gt=0)]


@dataclass(frozen=True)
class Idlg:
    """Labels from signs, then images by L-BFGS: `iterations` from each of up to `restarts` points."""

    iterations: Positive = 3000
    restarts: Positive = 4
    scores: ClassVar[str] = "images"

    def spy(self, case: Case) -> Iterator[Finding]:
        """See Attack: the examples of all batches of each reading."""

        def solve(sight: Sight, watch: Watch) -> Finding:
            recipe = Recipe(self.iterations, restarts=self.restarts)
            labels = guesses(case, sight, case.network, self.restarts)
            return invert(case, target(case, sight), recipe, labels, watch)

        return readings(case, solve)
