"""What steps of SGD would have come to on these examples: the victim's rule, run again so that gradients flow.

The rule is that of `p2pfl.learning` (torch.optim.SGD, without dampening), step by step: the gradient of the mean cross
entropy at `up(point)`, made one in the space of the steps by `down`. All is float64, so that what is left of a mismatch
is the rounding of what was sent. Source of matching displacements by unrolling: Geiping et al. 2020, "Inverting
Gradients", section 6.
Shapes: B examples, C classes, D parameters, S numbers that steps are taken in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call

from p2pfl.attacks._first_order import walked
from p2pfl.curiosity import Network
from p2pfl.evidence import Part

Batch = tuple[Tensor, Tensor]
"""Inputs of B x C x H x W and, of each example, what probability each label has: B x C. float64."""
Forward = Callable[[Tensor], Tensor]
Displacement = Callable[[Sequence[Batch]], Tensor]


def standing(network: Network, part: Part) -> Forward:
    """The model where the steps of a part began: inputs to logits, float64."""
    module = formed(network, part.at.device, torch.float64)
    tensors = named(network, part.up(part.at.double()))
    return lambda inputs: functional_call(module, tensors, (inputs,))


def unrolled(network: Network, module: nn.Module, part: Part, dtype: torch.dtype = torch.float64) -> Displacement:
    """Where the steps of a part end less where they begin, S numbers, as a function of its batches: differentiable.

    `module` is of the network's form; its own parameters are neither read nor altered. Of a single step the gradient
    is taken where the parameters themselves lie: nothing precedes it that depends on the batch.
    """
    first_D = part.up(part.at.to(dtype)).detach()

    def moved(batches: Sequence[Batch]) -> Tensor:
        def at(step: int, point_S: Tensor) -> Tensor:
            x_D = part.up(point_S) if step else first_D.requires_grad_()
            return part.down(gradient(network, module, x_D, *batches[step]))

        return walked(part, at, dtype)

    return moved


def gradient(network: Network, module: nn.Module, x_D: Tensor, inputs: Tensor, shares_BC: Tensor) -> Tensor:
    """The gradient of the mean cross entropy at `x_D`, D numbers, through which gradients flow; 0 of no example."""
    if len(inputs) == 0:
        return torch.zeros_like(x_D)
    loss = cross_entropy(functional_call(module, named(network, x_D), (inputs,)), shares_BC)
    return torch.autograd.grad(loss, x_D, create_graph=True)[0]


def formed(network: Network, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """A module of the network's form, its parameters not filled."""
    return network.make().to(device, dtype).requires_grad_(False)


def named(network: Network, x_D: Tensor) -> dict[str, Tensor]:
    """A flat vector as the parameters of the model, by name: views of it."""
    parts = x_D.split_with_sizes([slot.size for slot in network.layout])
    return {slot.name: part.view(slot.shape) for slot, part in zip(network.layout, parts, strict=True)}


def cross_entropy(logits_BC: Tensor, shares_BC: Tensor) -> Tensor:
    """The mean cross entropy for labels that are shares."""
    return -(shares_BC * logits_BC.log_softmax(1)).sum(1).mean()
