"""Rows of the gradient of a first linear layer, w_J = b_J x^T: what inputs they hold, and how many agree on one.

Source: Phong et al. 2017, "Privacy-Preserving Deep Learning: Revisited and Enhanced", section 3; rows of batches:
Boenisch et al. 2021, "When the Curious Abandon Honesty", section 4. That rows agree is ours.
Shapes: J rows and I columns of the first layer.
"""

from __future__ import annotations

import torch
from torch import Tensor

from p2pfl.attacks._first_order import FLOAT32, weights
from p2pfl.attacks._target import Box
from p2pfl.evidence import Sight

CLEAR, AGREE, LEAST = 0.01, 16.0, 1e-10
"""By how much rounding may blur a row, of the width of the box. Mean squared distance of rows that agree, of what
rounding explains, and of the squared width at least."""
TINY = 1e-300


def least_squares(w_JI: Tensor, b_J: Tensor, masked: bool) -> Tensor:
    """The x that is nearest to `w = b x^T`, by the entries that were not masked; 0 where none is left."""
    weight_I = b_J.square() @ sent(w_JI, masked)
    return torch.where(weight_I > 0, b_J @ w_JI / weight_I.clamp(min=TINY), 0.0)


def sent(w_JI: Tensor, masked: bool) -> Tensor:
    """1 for the entries that a mask let through, else 0."""
    return (w_JI != 0).to(w_JI) if masked else torch.ones_like(w_JI)


def agreed(w_JI: Tensor, b_J: Tensor, x_I: Tensor, off: float, within: Box, masked: bool) -> bool:
    """Whether several rows are clear, and all that are hold this input, as far as rounding can tell.

    Under a mask every number of it must have come in several of them.
    """
    kept_JI, width = sent(w_JI, masked), within[1] - within[0]
    blur_J = off / b_J.abs().clamp(min=TINY) / width
    apart_J = (kept_JI * (w_JI / b_J[:, None] - x_I) / width).square().sum(1) / kept_JI.sum(1).clamp(min=1)
    clear_J = (blur_J < CLEAR) & (kept_JI.sum(1) > 0)
    several = int(kept_JI[clear_J].sum(0).min()) > 1
    return several and bool((apart_J < AGREE * blur_J.square() + LEAST)[clear_J].all())


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
