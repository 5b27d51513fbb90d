"""A random mask of the output layer's gradient: of each column a few entries travel, all others are sent as 0.

Source: the report "Diverse subgroups", section 3.2: "use random mask to report at most two entries in each column",
against whoever reads the label of a single example off the signs of that gradient (Zhao et al. 2020, iDLG): its rows
are (p_c - [c is the label]) times the features, so that the label's row alone has another sign.

It claims that two entries of a column are too few to tell which sign is the odd one. Measured, that fails: features
behind a ReLU or a sigmoid are never negative, so one negative entry anywhere names the label, and over F columns the
label's row is all but surely among those sent. On MNIST at batch 1 the label is read in 100 % of cases, of a perceptron
and of LeNet, fresh and trained, also of one entry a column and with the bias masked. Features of both signs help not:
the bias, of which the paper does not speak, tells the label, as do the layers below, of which nothing is hidden; the
row of the largest entries does in 99 %. Under momentum, or after several steps, what travels adds up several masks.
See `label_mask`.
Shapes: S numbers of the vector that steps are taken in, C classes, F features.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import pydantic
import torch
from torch import Tensor

from p2pfl.defences._output import output_of
from p2pfl.protection import Shield, Stake


@dataclass(frozen=True)
class RandomMask:
    """Of each column of the output layer's gradient `entries` random ones travel, the others are 0, anew in each step.

    With `bias` that of the bias is one more such column; else it travels whole, as in the paper, and shows the label.
    """

    entries: Annotated[int, pydantic.Field(gt=0)] = 2
    bias: bool = False
    EXAMPLES: ClassVar = ({"entries": 1, "bias": True},)
    masks: ClassVar[bool] = True

    def guard(self, stake: Stake) -> Shield:
        """See Defence. Raises ValueError where the output layer is not the model's last, or all would travel."""
        output = output_of(stake.layout)
        if self.entries >= output.classes:
            raise ValueError(f"entries must be below {output.classes}, the classes, not {self.entries}: lower it")

        def alters(g_S: Tensor, at: int) -> Tensor:
            draw = stake.seeds.torch("mask", at, device=g_S.device)
            weight_CF, bias_C = output.weight(g_S), output.bias(g_S)
            shape = output.classes, output.features + 1
            sent = torch.rand(shape, generator=draw, device=g_S.device).topk(self.entries, 0).indices
            kept = torch.zeros(shape, dtype=torch.bool, device=g_S.device).scatter_(0, sent, True)
            weight_CF[~kept[:, :-1]] = 0
            if self.bias and output.biased:
                bias_C[~kept[:, -1]] = 0
            return g_S

        return Shield(alters)
