"""Dropout before the output layer: in each step a random part of what it is given counts as 0, for each example.

Source: Srivastava et al. 2014, "Dropout: A Simple Way to Prevent Neural Networks from Overfitting", scaled while
training as is usual now; as a defence Scheliga, Maeder & Seeland 2022, "Dropout is NOT All You Need to Prevent Gradient
Leakage".

It claims to hide the input, since the gradient is that of a network which the attacker does not know: that holds
against one who matches gradients without dropout. One who looks for the mask too gets through, as that paper shows:
the columns of the output layer's gradient that are 0 tell the mask of a single example. The label leaks as without it.
Masks are drawn anew for each step and example. Also under a sketch, which leaves the output layer as it is, and where
gradients are clipped one by one.
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
class Dropout:
    """The `share` of the features before the output layer that is dropped at random, in each step, for each example."""

    share: Annotated[float, pydantic.Field(gt=0, lt=1)] = 0.5
    EXAMPLES: ClassVar = ({"share": 0.1},)

    def guard(self, stake: Stake) -> Shield:
        """See Defence. Raises ValueError where the output layer is not the model's last."""
        path = output_of(stake.layout).path

        @contextmanager
        def hooks(module: nn.Module, at: int) -> Iterator[None]:
            device = next(module.parameters()).device
            draw = stake.seeds.noise("dropout", at, device=device)

            def drop(_: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor:
                features = inputs[0]
                kept = torch.rand(features.shape, generator=draw, device=device) >= self.share
                return features * kept / (1 - self.share)

            hook = module.get_submodule(path).register_forward_pre_hook(drop)
            try:
                yield
            finally:
                hook.remove()

        return Shield(hooks=hooks)
