"""Inverting Gradients: inputs whose displacement points where the seen one does, by signed Adam, smooth ones preferred.

Source: Geiping, Bauermeister, Droege & Moeller 2020, "Inverting Gradients - How easy is it to break privacy in
federated learning?", section 4 and their code: 1 - cosine + tv * total variation; Adam on the signs of gradients, rate
0.1, a tenth of it after 3/8, 5/8 and 7/8; every step is put back into the box of the inputs. Several local steps are
unrolled (section 6). For models that are not smooth, where L-BFGS fails; slower and less sharp where they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, ClassVar

import pydantic
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from p2pfl.attacks._inversion import Recipe, Try, best_of, start
from p2pfl.attacks._labels import guesses
from p2pfl.attacks._target import Target, Unknown, readings, target
from p2pfl.attacks._trail import Ended, Stumbled, Trail
from p2pfl.curiosity import Case, Finding
from p2pfl.evidence import Sight
from p2pfl.messages import Watch

Positive = Annotated[int, pydantic.Field(gt=0)]
RATE, DECAY, DECAYED_AT = 0.1, 0.1, (3 / 8, 5 / 8, 7 / 8)
ENOUGH = 1e-9
"""1 - cosine at which nothing more can be seen."""


@dataclass(frozen=True)
class InvertingGradients:
    """Images by cosine distance and signed Adam: `iterations` from each of `restarts` points, the best of them.

    `tv` is the weight of their total variation: more for large images of natural scenes, less for few parameters.
    """

    iterations: Positive = 2400
    tv: Annotated[float, pydantic.Field(ge=0)] = 1e-4
    restarts: Positive = 2
    scores: ClassVar[str] = "images"

    def spy(self, case: Case) -> Iterator[Finding]:
        """See Attack: the examples of all batches of each reading."""

        def solve(sight: Sight, watch: Watch) -> Finding:
            goal = target(case, sight)
            labels = guesses(case, sight, case.network, self.restarts)

            def once(attempt: int, labels_N: Tensor | None) -> Try:
                trail = Trail(watch, self.iterations, 0.0, attempt, self.restarts, patient=True)
                return self._search(goal, start(case, goal, Recipe(1), labels_N, attempt), trail), trail

            return best_of(goal, once, self.restarts, labels)

        return readings(case, solve)

    def _search(self, goal: Target, unknown: Unknown, trail: Trail) -> Unknown:
        """Go down from one point, in place, and return the best that was met."""
        free = unknown.free
        optimiser = torch.optim.Adam(free, RATE * (goal.box[1] - goal.box[0]))
        milestones = [int(self.iterations * share) for share in DECAYED_AT]
        rates = torch.optim.lr_scheduler.MultiStepLR(optimiser, milestones, DECAY)
        try:
            while True:
                away = 1 - cosine_similarity(goal.shown(unknown.x_NCHW, unknown.shares), goal.moved_O, dim=0)
                loss = away + self.tv * total_variation(unknown.x_NCHW)
                for each, gradient in zip(free, torch.autograd.grad(loss, free), strict=True):
                    each.grad = gradient.sign()
                trail.note(float(loss.detach()), free)
                if float(away.detach()) <= ENOUGH:
                    break
                optimiser.step()
                rates.step()
                unknown.x_NCHW.data.clamp_(*goal.box)
        except (Ended, Stumbled):
            pass
        return unknown.at(trail.best or free)


def total_variation(x_NCHW: Tensor) -> Tensor:
    """The mean distance of neighbouring pixels, along rows and along columns (Rudin, Osher & Fatemi 1992)."""
    down = (x_NCHW[:, :, 1:] - x_NCHW[:, :, :-1]).abs().mean() if x_NCHW.shape[2] > 1 else x_NCHW.new_zeros(())
    right = (x_NCHW[..., 1:] - x_NCHW[..., :-1]).abs().mean() if x_NCHW.shape[3] > 1 else x_NCHW.new_zeros(())
    return down + right
