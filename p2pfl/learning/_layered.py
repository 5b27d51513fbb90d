"""The gradients of each example in dense layers and convolutions: from what came in, and the gradient of what went out.

One pass forward and one backward give both for all examples, without any gradient in a parameter.
Source: Goodfellow 2015, "Efficient Per-Example Gradient Computations"; Rochette, Manoel & Tramel 2019, "Efficient
Per-Example Gradient Computations in Convolutional Neural Networks": a convolution of as many groups as examples.
Shapes: B examples, of a layer I inputs and O outputs, P the shape of a parameter.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge
from torch.nn.grad import conv2d_weight

from p2pfl.learning._each import Each, Formed, Outer

Layer = nn.Linear | nn.Conv2d
Call = tuple[Layer, Tensor, Any]
"""A layer, what it computed with, and the place of its output in autograd's graph."""
DIMENSIONS = {nn.Linear: 2, nn.Conv2d: 4}
"""Of what comes in, where its first is the examples."""
APART = (
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish, nn.Softplus),
    *(nn.Sigmoid, nn.Tanh, nn.Hardtanh, nn.Identity, nn.Dropout, nn.Dropout2d),
    *(nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveMaxPool2d, nn.AdaptiveAvgPool2d),
)
"""What has no parameters, and takes the b-th example of rows or of images to the b-th of what it gives."""
ROUNDING = 1e-5


def layers_of(module: nn.Module, parameters: Sequence[Tensor]) -> list[Layer] | None:
    """The layers that own all the parameters, in their order; None where others, or several, own one."""
    owners = [layer for layer in module.modules() if any(p is not None for p in layer._parameters.values())]
    layers = [layer for layer in owners if _is_known(layer) and not layer._forward_hooks]
    owned = [parameter for layer in layers for parameter in _owned(layer)]
    alike = len(owned) == len(parameters) and all(a is b for a, b in zip(owned, parameters, strict=True))
    return layers if alike and len(layers) == len(owners) else None


def is_chain(module: nn.Module) -> bool:
    """Whether it is known through and through: row b is example b everywhere, weights are read by their layers alone.

    Of any other module that has to be seen.
    """
    return all(layer is not None and (_is_known(layer) or _is_apart(layer)) for layer in _links(module))


def by_layers(
    module: nn.Module, layers: Sequence[Layer], trusted: bool, inputs_BCHW: Tensor, labels_B: Tensor
) -> tuple[Tensor, list[Each]] | None:
    """Losses of the examples, and their gradients in each parameter.

    None unless each layer was called once, its b-th row serves the b-th loss alone, and nobody else read its weights:
    `trusted` where the last two are known beforehand. Raises what the module raises.
    """
    losses_B, calls = _called(module, layers, inputs_BCHW, labels_B)
    if [layer for layer, *_ in calls] != list(layers):
        return None
    if any(edge is None or a.dim() != DIMENSIONS[type(layer)] or len(a) != len(labels_B) for layer, a, edge in calls):
        return None
    edges = [edge for *_, edge in calls]
    ds = torch.autograd.grad(losses_B.sum(), edges, allow_unused=True, retain_graph=not trusted)
    if any(d is None for d in ds) or not (trusted or (_read_once(losses_B, layers) and _apart(losses_B, edges, ds))):
        return None
    each = (_gradients(layer, a, d) for (layer, a, _), d in zip(calls, ds, strict=True))
    return losses_B.detach(), [part for parts in each for part in parts]


def _called(
    module: nn.Module, layers: Sequence[Layer], inputs_BCHW: Tensor, labels_B: Tensor
) -> tuple[Tensor, list[Call]]:
    """The losses, and every call of a layer, those of one layer after those of the layer before it."""
    calls: dict[nn.Module, list[Call]] = {layer: [] for layer in layers}

    def keep(layer: Layer, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        known = len(inputs) == 1 and output.requires_grad
        a, edge = (inputs[0], get_gradient_edge(output)) if known else (output, None)
        calls[layer].append((layer, a.detach(), edge))  # no tensor but an edge: what follows may work in place

    hooks = [layer.register_forward_hook(keep) for layer in layers]
    try:
        losses_B = nn.functional.cross_entropy(module(inputs_BCHW), labels_B, reduction="none")
    finally:
        for hook in hooks:
            hook.remove()
    return losses_B, [call for each in calls.values() for call in each]


def _read_once(losses_B: Tensor, layers: Sequence[Layer]) -> bool:
    """Whether autograd's graph leads to each parameter in one way: the call of its layer."""
    reads: Counter[int] = Counter()
    seen, nodes = set(), [losses_B.grad_fn]
    while nodes:
        node = nodes.pop()
        if node in seen:
            continue
        seen.add(node)
        following = [other for other, _ in node.next_functions if other is not None] if node is not None else []
        reads.update(id(leaf.variable) for leaf in following if hasattr(leaf, "variable"))
        nodes += [other for other in following if not hasattr(other, "variable")]
    return all(reads[id(parameter)] == 1 for layer in layers for parameter in _owned(layer))


def _apart(losses_B: Tensor, edges: Sequence[Any], ds: Sequence[Tensor]) -> bool:
    """Whether loss b alone goes back to row b: then losses taken w_b times make their own rows w_b times as large."""
    weight_B = torch.linspace(1, 2, len(losses_B), dtype=losses_B.dtype, device=losses_B.device)
    weighted = torch.autograd.grad((weight_B * losses_B).sum(), edges)
    for d, w in zip(ds, weighted, strict=True):
        rows, expected = w.flatten(1), d.flatten(1) * weight_B[:, None]
        if not bool(((rows - expected).abs().amax(1) <= ROUNDING * expected.abs().amax(1)).all()):
            return False
    return True


def _links(module: nn.Module) -> Iterator[nn.Module | None]:
    """The layers of nested chains in order; None for a chain that does more than call them."""
    if type(module) is not nn.Sequential:
        yield module
    elif module._forward_hooks or module._forward_pre_hooks:
        yield None
    else:
        for layer in module:
            yield from _links(layer)


def _is_known(layer: nn.Module) -> TypeGuard[Layer]:
    """Whether it has parameters, and is done here; a convolution only where it pads as many zeros as it says."""
    if type(layer) is nn.Conv2d:
        return layer.padding_mode == "zeros" and not isinstance(layer.padding, str)
    return type(layer) is nn.Linear


def _is_apart(layer: nn.Module) -> bool:
    """Whether it has no parameters, and keeps examples apart where they are."""
    if layer._forward_hooks or layer._forward_pre_hooks:
        return False
    if type(layer) is nn.Flatten:
        return (layer.start_dim, layer.end_dim) == (1, -1)
    return type(layer) in APART


def _owned(layer: Layer) -> list[Tensor]:
    """Its parameters in the order in which a module lists them."""
    return [layer.weight] if layer.bias is None else [layer.weight, layer.bias]


def _gradients(layer: Layer, a: Tensor, d: Tensor) -> list[Each]:
    """Of each example, in the parameters of one layer, which computed with `a`; `d` is the gradient of its output."""
    bias: list[Each] = [] if layer.bias is None else [Formed(d if d.dim() == 2 else d.sum((2, 3)))]
    if type(layer) is nn.Conv2d:
        return [Formed(_of_kernels(layer, a, d)), *bias]
    return [Outer(d, a), *bias]


def _of_kernels(layer: nn.Conv2d, a_BIHW: Tensor, d_BOHW: Tensor) -> Tensor:
    """B x P of the weight: examples beside each other as groups of channels of a single one."""
    count, (outputs, *kernel) = len(d_BOHW), layer.weight.shape
    a, d = (x.reshape(1, -1, *x.shape[2:]) for x in (a_BIHW, d_BOHW))
    groups, shape = count * layer.groups, (count * outputs, *kernel)
    g: Tensor = conv2d_weight(a, shape, d, layer.stride, layer.padding, layer.dilation, groups)  # type: ignore[no-untyped-call]
    return g.view(count, outputs, *kernel)
