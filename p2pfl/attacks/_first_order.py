"""What was seen of some steps, as the mean of their gradients: exact for one step, to first order for several.

Source of the solver, through whatever was sketched or left out: Hestenes & Stiefel 1952, conjugate gradients on the
normal equations.
Shapes: D parameters, S numbers that steps are taken in, O numbers that were seen.
"""

from __future__ import annotations

import torch
from torch import Tensor

from p2pfl.evidence import Linear, Part, Sight

CLOSE, MOST = 1e-9, 200
"""How much of a slope may be left, of what it was, and after how many steps any is."""


def weights(part: Part) -> list[float]:
    """What the gradient of each step counts for in the displacement, but for its sign.

    That is its own rate, and by momentum a share of those after it.
    """
    steps = range(len(part.lrs))
    return [float(sum(lr * part.momentum**later for later, lr in enumerate(part.lrs[k:]))) for k in steps]


def still(part: Part) -> Tensor:
    """What the displacement holds besides gradients of examples, S numbers: earlier momentum, and weight decay.

    The latter to first order, as if no gradient moved the points that decayed.
    """
    counted = weights(part)
    moved_S = part.at.double() * (-part.weight_decay * sum(counted))
    if part.shift_S is not None:
        moved_S = moved_S - part.weight_decay * sum(counted[1:]) * part.shift_S.double()
    if part.momentum_S is None:
        return moved_S
    lasting = sum(lr * part.momentum ** (k + 1) for k, lr in enumerate(part.lrs))
    return moved_S - lasting * part.momentum_S.double()


def mean_gradient(sight: Sight, parameters: int) -> Tensor:
    """The mean gradient of the steps of a sight, D numbers, float64: the shortest that shows what was seen.

    What momentum and weight decay add is taken off; of several steps it is the mean by how much each counts. What was
    seen whole of it is as it is, what was not seen is 0.
    """
    part, device = sight.parts[0], sight.moved_O.device
    counted = sum(each.share * sum(weights(each)) for each in sight.parts)
    rest = sum((each.share * still(each) for each in sight.parts), start=torch.zeros((), device=device))
    shown_O = (sight.moved_O.double() - sight.seen(rest)) / -counted
    return shortest(lambda g_D: sight.seen(part.down(g_D)), shown_O, parameters)


def shortest(show: Linear, shown_O: Tensor, parameters: int) -> Tensor:
    """The shortest vector of D numbers that a linear map takes nearest to `shown_O`: at once where it only picks some.

    CGLS, which needs no more than the map and its transpose.
    """
    zero_D = torch.zeros(parameters, dtype=shown_O.dtype, device=shown_O.device, requires_grad=True)
    zero_O = show(zero_D)

    def back(v_O: Tensor) -> Tensor:
        return torch.autograd.grad(zero_O, zero_D, v_O, retain_graph=True)[0]

    g_D, left_O, slope_D = zero_D.detach(), shown_O, back(shown_O)
    way_D, steep = slope_D, float(slope_D.square().sum())
    stop = steep * CLOSE**2
    for _ in range(MOST):
        if steep <= stop:
            break
        way_O = show(way_D)
        length = steep / float(way_O.square().sum())
        g_D, left_O = g_D + length * way_D, left_O - length * way_O
        slope_D, before = back(left_O), steep
        steep = float(slope_D.square().sum())
        way_D = slope_D + steep / before * way_D
    return g_D
