"""What was seen of some steps, as the mean of their gradients: exact for one step, to first order for several.

Source of the solver, through whatever was sketched or left out: Hestenes & Stiefel 1952, conjugate gradients on the
normal equations.
Shapes: D parameters, S numbers that steps are taken in, O numbers that were seen.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from p2pfl.evidence import Linear, Part, Sight

CLOSE, MOST = 1e-9, 200
"""How much of a slope may be left, of what it was, and after how many steps any is."""
FLOAT32 = 2.0**-24
"""How far a number may be rounded off, of its size."""
ROUNDED = 4.0
"""So many roundings of a point may add up in what is seen of it: it is a difference of posts, or of means of them."""


def weights(part: Part) -> list[float]:
    """What the gradient of each step counts for in the displacement, but for its sign.

    That is its own rate, and by momentum a share of those after it.
    """
    steps = range(len(part.lrs))
    return [float(sum(lr * part.momentum**later for later, lr in enumerate(part.lrs[k:]))) for k in steps]


def walked(part: Part, gradient: Callable[[int, Tensor], Tensor], dtype: torch.dtype) -> Tensor:
    """Where the steps of a part end less where they begin, S numbers, by its rule.

    `gradient(step, point_S)` is the gradient in the space of the steps; what flows through it flows through this.
    """
    from_S = at_S = part.at.to(dtype)
    moved_S = torch.zeros_like(at_S)
    momentum_S = None if part.momentum_S is None or not part.momentum else part.momentum_S.to(dtype)
    for step, lr in enumerate(part.lrs):
        g_S = gradient(step, from_S + moved_S)
        if part.weight_decay:
            g_S = g_S + part.weight_decay * (from_S + moved_S)
        if part.momentum:
            g_S = momentum_S = g_S if momentum_S is None else part.momentum * momentum_S + g_S
        moved_S = moved_S - lr * g_S
        if step == 0 and part.shift_S is not None:
            from_S = at_S + part.shift_S.to(dtype)
    return moved_S


def still(part: Part) -> Tensor:
    """What the displacement would come to without a gradient, S numbers, float64: earlier momentum, and weight decay.

    Of what gradients add it takes no notice: that they move the points that decay.
    """
    return walked(part, lambda step, point_S: torch.zeros_like(point_S), torch.float64)


def pushed(sight: Sight, masked: bool) -> Tensor:
    """What gradients added to what was seen, O numbers, float64: less what momentum and weight decay add by themselves.

    Where a defence masks what is sent, what is left within the rounding of points was not sent, and is 0 exactly.
    """
    rest = sum((each.share * still(each) for each in sight.parts), start=sight.moved_O.new_zeros(()))
    pushed_O = sight.moved_O.double() - sight.seen(rest)
    if not masked:
        return pushed_O
    off = ROUNDED * FLOAT32 * max(float(each.at.abs().max()) for each in sight.parts)
    return torch.where(pushed_O.abs() > off, pushed_O, 0.0)


def mean_gradient(sight: Sight, parameters: int, masked: bool = False) -> Tensor:
    """The mean gradient of the steps of a sight, D numbers, float64: the shortest that shows what was seen.

    What momentum and weight decay add is taken off; of several steps it is the mean by how much each counts. What was
    seen whole of it is as it is, what was not seen is 0, and so is what a mask left out.
    """
    part = sight.parts[0]
    counted = sum(each.share * sum(weights(each)) for each in sight.parts)
    return shortest(lambda g_D: sight.seen(part.down(g_D)), pushed(sight, masked) / -counted, parameters)


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
