"""Inputs by division where a model begins with a linear layer: of one example x = dL/dW_j : dL/db_j in each row j.

Source: Phong et al. 2017, "Privacy-Preserving Deep Learning: Revisited and Enhanced", section 3; rows of batches:
Boenisch et al. 2021, "When the Curious Abandon Honesty", section 4.
Of one example it is exact and done at once, for any activation and label: all rows are taken together, by least
squares. Of a batch each row holds a mean of the inputs, by how much each moves the row: exact where only one does, as
behind a ReLU may be. Rows that agree are such, and are told first; what is left is filled up with rows that blend
several inputs. The figure `exact` counts the inputs that several rows agree on: none under noise, or where a sketch
loses some of x, of which it gives the rest, the shortest vector that fits.
Shapes: J rows and I columns of the first layer, B examples, D and O as in `p2pfl.evidence`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch

from p2pfl.attacks._first_order import mean_gradient, shortest
from p2pfl.attacks._labels import counts, dealt
from p2pfl.attacks._rows import agreed, least_squares, rounding, told_apart
from p2pfl.attacks._target import batches_of, examples_of, readings
from p2pfl.curiosity import Case, Finding, Network
from p2pfl.evidence import MEMORYLESS, SERVER, STATEFUL, Sight
from p2pfl.messages import Watch

FOLDED = (MEMORYLESS, SERVER, STATEFUL)
"""Readings that take what a sketch left of a gradient for all of it."""
SAME = 1e-4
"""How far of its size what is solved for may be off where nothing of it is lost."""


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
    g_D = mean_gradient(sight, sum(slot.size for slot in case.network.layout), case.masks)
    w_JI, b_J = g_D[: rows * columns].view(rows, columns), g_D[rows * columns :][:rows]
    if not bool(b_J.any()):
        return Finding(sight.reading, figures={"why": "the bias of the first layer was not seen"})
    off, within = rounding(sight), case.network.box
    if count > 1:
        x_BI, exact = told_apart(w_JI, b_J, off, within, count)
    else:
        x_BI = least_squares(w_JI, b_J, case.masks)[None]
        exact = int(agreed(w_JI, b_J, x_BI[0], off, within, case.masks))
    exact = exact if exact and sight.reading not in FOLDED and lossless(case, sight, rows * (columns + 1)) else 0
    counts_C = counts(case, sight, case.network)
    labels = dealt(counts_C, sight, 1) if count == 1 else []
    return Finding(
        sight.reading,
        batches_of(sight),
        x_BI.view(len(x_BI), *case.network.shape).clamp(*within).float().cpu(),
        labels[0] if labels else None,
        counts=counts_C.cpu(),
        figures={"exact": exact},
    )


def lossless(case: Case, sight: Sight, size: int) -> bool:
    """Whether any gradient of the first so many parameters could be told from what a sight shows: no sketch folds them.

    Where one does, rows agree on what it leaves of the inputs.
    """
    parameters, device = sum(slot.size for slot in case.network.layout), sight.moved_O.device
    probe_D = torch.zeros(parameters, dtype=torch.float64, device=device)
    probe_D[:size] = torch.randn(size, generator=case.seeds.torch("probe"), dtype=torch.float64).to(device)
    down = sight.parts[0].down
    left_D = shortest(lambda g_D: sight.seen(down(g_D)), sight.seen(down(probe_D)), parameters) - probe_D
    return float(left_D[:size].norm()) <= SAME * float(probe_D.norm())


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
