"""Inputs by division where a model begins with a linear layer: of one example x = dL/dW_j : dL/db_j in each row j.

Source: Phong et al. 2017, "Privacy-Preserving Deep Learning: Revisited and Enhanced", section 3; rows of batches:
Boenisch et al. 2021, "When the Curious Abandon Honesty", section 4.
Of one example it is exact and done at once, for any activation and label: all rows are taken together, by least
squares. Of a batch each row holds a mean of the inputs, by how much each moves the row: exact where only one does, as
behind a ReLU may be. Rows that agree are such, and are told first; what is left is filled up with rows that blend
several inputs. Under a sketch it gives that of x which is not lost in S, the shortest vector that fits.
Shapes: J rows and I columns of the first layer, B examples, D and O as in `p2pfl.evidence`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from p2pfl.attacks._first_order import mean_gradient, weights
from p2pfl.attacks._labels import counts, dealt
from p2pfl.attacks._target import FLOAT32, Box, batches_of, box, examples_of, readings
from p2pfl.curiosity import Case, Finding, Network
from p2pfl.evidence import Sight
from p2pfl.messages import Watch

CLEAR, AGREE, LEAST = 0.01, 16.0, 1e-10
"""By how much rounding may blur a row, of the width of the box. Mean squared distance of rows that agree, of what
rounding explains, and of the squared width at least."""
TINY = 1e-300


@dataclass(frozen=True)
class Analytic:
    """Images by one division, for models that begin with a linear layer: exact for one example, at no cost."""

    scores: ClassVar[str] = "images"

    def spy(self, case: Case) -> Iterator[Finding]:
        """See Attack: the batch of each reading; nothing, and why, where the model begins otherwise."""
        begins = begins_linear(case.network)

        def solve(sight: Sight, watch: Watch) -> Finding:
            if not begins or len(sight.parts) > 1:
                no = "the model does not begin with a linear layer that has a bias"
                mixed = "what was seen mixes the steps of several"
                return Finding(sight.reading, figures={"why": mixed if begins else no})
            return divided(case, sight)

        return readings(case, solve)


def divided(case: Case, sight: Sight) -> Finding:
    """The finding for the steps of one peer."""
    (rows, columns), count = case.network.layout[0].shape, examples_of(sight)
    g_D = mean_gradient(sight, sum(slot.size for slot in case.network.layout))
    w_JI, b_J = g_D[: rows * columns].view(rows, columns), g_D[rows * columns :][:rows]
    if not bool(b_J.any()):
        return Finding(sight.reading, figures={"why": "the bias of the first layer was not seen"})
    x_BI, exact = least_squares(w_JI, b_J, case.masks)[None], 1
    if count > 1:
        x_BI, exact = told_apart(w_JI, b_J, rounding(sight), box(case), count)
    counts_C = counts(case, sight, case.network)
    labels = dealt(counts_C, sight, 1) if count == 1 else []
    return Finding(
        sight.reading,
        batches_of(sight),
        x_BI.view(len(x_BI), *case.network.shape).clamp(*box(case)).float().cpu(),
        labels[0] if labels else None,
        counts=counts_C.cpu(),
        figures={"exact": exact},
    )


def least_squares(w_JI: Tensor, b_J: Tensor, masked: bool) -> Tensor:
    """The x that is nearest to `w = b x^T`, by the entries that were not masked; 0 where none is left."""
    kept_JI = (w_JI != 0).to(w_JI) if masked else torch.ones_like(w_JI)
    weight_I = b_J.square() @ kept_JI
    return torch.where(weight_I > 0, b_J @ w_JI / weight_I.clamp(min=TINY), 0.0)


def rounding(sight: Sight) -> float:
    """How far each number of a gradient may be off, as points were rounded when they were sent."""
    (part,) = sight.parts
    return FLOAT32 * float(part.at.double().square().mean().sqrt()) / sum(weights(part))


def told_apart(w_JI: Tensor, b_J: Tensor, off: float, within: Box, count: int) -> tuple[Tensor, int]:
    """So many inputs, and of how many of them several rows agree: these first. All blended where no row is clear."""
    least, most = within
    blur_J = off / b_J.abs().clamp(min=TINY) / (most - least)
    share_JI = (w_JI / b_J[:, None] - least) / (most - least)
    clear_J = (blur_J < CLEAR) & ((share_JI - share_JI.clamp(0, 1)).abs().amax(1) < CLEAR)
    if not bool(clear_J.any()):
        return least_squares(w_JI, b_J, False).repeat(count, 1), 0
    chosen, exact = choice(share_JI[clear_J], blur_J[clear_J], count)
    return least + (most - least) * share_JI[clear_J][chosen], exact


def choice(x_JI: Tensor, blur_J: Tensor, count: int) -> tuple[list[int], int]:
    """So many of the rows, those first that most others agree with, then those least like the chosen; how many agree.

    `blur_J` is by how much rounding may have moved the numbers of each.
    """
    apart_JJ = torch.cdist(x_JI, x_JI, compute_mode="donot_use_mm_for_euclid_dist").square() / x_JI.shape[1]
    alike_JJ = apart_JJ < AGREE * (blur_J.square()[:, None] + blur_J.square()) + LEAST
    agreeing_J, chosen = alike_JJ.sum(1), list[int]()
    while len(chosen) < count and int(agreeing_J.max()) > 1:
        chosen.append(int(agreeing_J.argmax()))
        agreeing_J[alike_JJ[chosen[-1]]] = 0
    exact, chosen = len(chosen), chosen or [int(blur_J.argmin())]
    while len(chosen) < count:
        chosen.append(int(apart_JJ[:, chosen].amin(1).argmax()))
    return chosen, exact


def begins_linear(network: Network) -> bool:
    """Whether the first two tensors are the weights and bias of a layer that reads the inputs as they are."""
    if len(network.layout) < 2:
        return False
    weight, bias = network.layout[:2]
    owner, _, _ = weight.name.rpartition(".")
    inputs = math.prod(network.shape)
    if weight.shape != (*bias.shape, inputs) or bias.name.rpartition(".")[0] != owner:
        return False
    module, read = network.make(), []
    hook = module.get_submodule(owner).register_forward_pre_hook(lambda layer, given: read.append(given[0]))
    x_BCHW = torch.linspace(0, 1, 2 * inputs).view(2, *network.shape)
    with torch.no_grad():
        module(x_BCHW)
    hook.remove()
    return len(read) == 1 and torch.equal(read[0].flatten(1), x_BCHW.flatten(1))
