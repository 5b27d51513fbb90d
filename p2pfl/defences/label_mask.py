"""A mask that hides labels: what an example teaches is that its label is one of many, drawn anew in each step.

Source: Jin & Ghahramani 2002, "Learning with Multiple Labels": the loss is -log of the probability of a set of labels
that holds the right one. Of a set of all classes but one it is the negative learning of Kim et al. 2019, "NLNL"; of one
class the cross entropy. Its gradient in the logits is p_c where c is not in the set, which pushes it down, and lifts
the set's in proportion to their p, the label no more than others: it is put in the place of p_c - [c is the label]
before that goes back through the network, times (C - 1) / (C - `among`), so that it goes about as far on the average.

It claims: one gradient of one example tells only the set, to anybody, also to who knows the example, the model, all
layers and this code. What is left is chance among the set, and the model's own opinion of the example, which the output
layer's gradient shows under every mask, since a row of it over its bias is the features.
Measured on MNIST at batch 1, a perceptron and LeNet, by who reads signs, sizes and zeros, and solves the layer below
for the logits' gradient: fresh models 10-13 % (100 % without it, under a random mask, and where the output layer is not
sent at all); models of 91-94 %, on the examples that they get wrong, 6-9 % (100 %, 100 %; the others they tell anyway).
It costs: 8 peers on a ring, MNIST, 600 rounds of one step, batch 32: 94.7 % `among` 9, 96.9 % among 5, 97.4 % among 2,
against 97.5 %; no output layer at all 94.9 %.
It does not claim that inputs are hidden, that many steps on one example say no more than one (each excludes others),
that a large batch mostly of one class does not show it, nor anything of losses told to others, as by LEASGD: the loss
of one example names its label. After momentum or several steps what travels is the sum over their batches.
Shapes: B examples, C classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, ClassVar

import pydantic
import torch
from torch import Tensor, nn

from p2pfl.defences._output import output_of
from p2pfl.protection import Shield, Stake


@dataclass(frozen=True)
class LabelMask:
    """Each example learns only that its label is one of `among` classes, drawn anew in each step; null: all but one.

    Nobody tells which of these it is from one gradient. The fewer they are, the faster is learned.
    """

    among: Annotated[int, pydantic.Field(ge=2)] | None = None
    EXAMPLES: ClassVar = ({"among": 2},)

    def guard(self, stake: Stake) -> Shield:
        """See Defence. Raises ValueError where there are no more classes than `among`."""
        classes = output_of(stake.layout).classes
        among = classes - 1 if self.among is None else self.among
        if not 1 < among < classes:
            raise ValueError(
                f"among must be from 2 to {classes - 1}, one less than there are classes, not {among}: "
                "take data of three classes or more, and set it accordingly"
            )

        @contextmanager
        def hooks(module: nn.Module, at: int) -> Iterator[None]:
            draw = stake.seeds.noise("labels", at, device=next(module.parameters()).device)

            def mask(_: nn.Module, inputs: tuple[Tensor, ...], logits_BC: Tensor) -> Tensor:
                order_BC = torch.rand(logits_BC.shape, generator=draw, device=logits_BC.device)
                return veiled(logits_BC, order_BC, classes - among)

            hook = module.register_forward_hook(mask)
            try:
                yield
            finally:
                hook.remove()

        return Shield(hooks=hooks)


def veiled(logits_BC: Tensor, order_BC: Tensor, excluded: int) -> Tensor:
    """The same logits, which on its way back turn the gradient of cross entropy into that of a set of labels.

    Of each example so many wrong classes are `excluded` from the set: those that come first in `order_BC`.
    """
    given_BC = logits_BC.detach()

    def back(d_BC: Tensor) -> Tensor:
        label_B1 = d_BC.argmin(1, keepdim=True)  # the one entry below 0, however the loss is weighed
        rows = order_BC.scatter(1, label_B1, -1.0).topk(excluded, 1).indices
        out_BC = torch.zeros_like(d_BC).scatter(1, rows, 1.0)
        down_BC = d_BC * out_BC
        share_BC = given_BC.masked_fill(out_BC > 0, -torch.inf).softmax(1)
        return (down_BC - down_BC.sum(1, keepdim=True) * share_BC) * ((d_BC.shape[1] - 1) / excluded)

    same_BC = logits_BC.clone()  # a node of its own: who takes the gradient of the output layer's gets it altered
    same_BC.register_hook(back)  # type: ignore[no-untyped-call]
    return same_BC
