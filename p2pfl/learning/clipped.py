"""The gradient of each example by itself, cut down to a norm and summed: what private training steps by.

Source: Abadi et al. 2016, "Deep Learning with Differential Privacy", Algorithm 1: g <- g / max(1, |g|_2 / C).
Modules of dense layers and convolutions are done layer by layer (see `_layered`), any other by torch.func or, where
that cannot, one example after the other.
Shapes: D parameters, B examples, C x H x W an input, P the shape of a parameter.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap

from p2pfl.learning._each import Each, Formed
from p2pfl.learning._layered import by_layers, is_chain, layers_of
from p2pfl.learning.descent import Fold

CPU_ROOM_BYTES, GPU_ROOM_BYTES = 1 << 26, 1 << 30
"""What the gradients of single examples may take, unless one example alone takes more."""


def clipped_sum(
    module: nn.Module,
    parameters: Sequence[Tensor],
    inputs_BCHW: Tensor,
    labels_B: Tensor,
    clip: float,
    folded: Fold | None = None,
) -> tuple[Tensor, list[Tensor]]:
    """Losses of the examples (B; cross entropy), and the sum of each one's gradient cut down to L2 norm `clip`.

    The norm is that over all parameters together, the sum one tensor a parameter; zeros when B is 0. `parameters` are
    the module's own, in its order; neither they nor their `.grad` are altered. With `folded` it is what that makes of
    the list of one example's gradients that is cut down and summed. A tensor that it gives back as it was given stays
    as it is: the others must not hang on it, and for it no gradient of one example need be formed.
    An example whose gradient is not finite, or too large to be squared, counts as zero.
    Raises what the module raises.
    """
    points = [parameter.detach() for parameter in parameters]
    there = points if folded is None else folded(points)
    folds = {at for at, point in enumerate(points) if not (at < len(there) and there[at] is point)}
    if len(labels_B) == 0:
        return inputs_BCHW.new_zeros(0), [torch.zeros_like(part) for part in there]
    losses: list[Tensor] = []
    sums: list[Tensor] = []
    for losses_B, parts in _each(module, parameters, inputs_BCHW, labels_B, folds):
        if folded is not None and folds:
            parts = _folded(parts, folded, folds, points)
        totals = _cut_down(parts, clip)
        sums = [s.add_(total) for s, total in zip(sums, totals, strict=True)] if sums else totals
        losses.append(losses_B)
    return torch.cat(losses), sums


def _each(
    module: nn.Module, parameters: Sequence[Tensor], inputs_BCHW: Tensor, labels_B: Tensor, folds: set[int]
) -> Iterator[tuple[Tensor, list[Each]]]:
    """Losses and gradients of all examples, some at a time; gradients in the parameters of `folds` will be formed."""
    layers = layers_of(module, parameters)
    if layers is None:
        yield from _in_general(module, parameters, inputs_BCHW, labels_B)
        return
    trusted = is_chain(module)
    formed = [parameter for at, parameter in enumerate(parameters) if at in folds or parameter.dim() == 4]
    for x, y in _in_turns(inputs_BCHW, labels_B, formed):
        found = by_layers(module, layers, trusted, x, y)
        if found is None:
            yield from _in_general(module, parameters, x, y)
        else:
            yield found


def _in_turns(inputs_BCHW: Tensor, labels_B: Tensor, formed: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
    """As many examples at a time as there is room for their gradients in the parameters `formed`."""
    bytes_each = sum(parameter.nbytes for parameter in formed)
    room_bytes = CPU_ROOM_BYTES if inputs_BCHW.device.type == "cpu" else GPU_ROOM_BYTES
    chunk = max(1, min(len(labels_B), room_bytes // max(1, bytes_each)))
    return zip(torch.split(inputs_BCHW, chunk), torch.split(labels_B, chunk), strict=True)


def _in_general(
    module: nn.Module, parameters: Sequence[Tensor], inputs_BCHW: Tensor, labels_B: Tensor
) -> Iterator[tuple[Tensor, list[Each]]]:
    """Losses and gradients of the examples, for any module that does not mix them."""
    names = [name for name, _ in module.named_parameters()]

    def loss_at(points: Sequence[Tensor], x: Tensor, y: Tensor) -> Tensor:
        logits = functional_call(module, dict(zip(names, points, strict=True)), (x[None],))
        return nn.functional.cross_entropy(logits, y[None])

    points = [parameter.detach() for parameter in parameters]
    each = vmap(grad_and_value(loss_at), (None, 0, 0), randomness="different")
    for x, y in _in_turns(inputs_BCHW, labels_B, parameters):
        try:
            gradients, losses_B = each(points, x, y)
        except RuntimeError:  # vmap does not know all that modules do: recurrent layers, branches on data
            gradients, losses_B = _one_by_one(module, parameters, x, y)
        yield losses_B, [Formed(g_BP) for g_BP in gradients]


def _one_by_one(
    module: nn.Module, parameters: Sequence[Tensor], x_BCHW: Tensor, y_B: Tensor
) -> tuple[list[Tensor], Tensor]:
    """Gradients (B x P each) and losses of the examples: what every module can."""
    losses, gradients = [], []
    for x, y in zip(x_BCHW, y_B, strict=True):
        loss = nn.functional.cross_entropy(module(x[None]), y[None])
        gradients.append(torch.autograd.grad(loss, list(parameters), allow_unused=True, materialize_grads=True))
        losses.append(loss.detach())
    return [torch.stack(column) for column in zip(*gradients, strict=True)], torch.stack(losses)


def _folded(parts: Sequence[Each], folded: Fold, folds: set[int], points: Sequence[Tensor]) -> list[Each]:
    """The gradients where `folded` takes them, example by example; those that it gives back are not formed for it."""
    formed = {at: parts[at].formed() for at in folds}
    examples = len(next(iter(formed.values())))
    rows = [
        folded([formed[at][b] if at in folds else point for at, point in enumerate(points)]) for b in range(examples)
    ]
    columns = enumerate(zip(*rows, strict=True))
    kept = set(range(len(parts))) - folds
    return [parts[at] if at in kept else Formed(torch.stack(column)) for at, column in columns]


def _cut_down(parts: Sequence[Each], clip: float) -> list[Tensor]:
    """The sum over the examples of min(1, clip / norm) times the gradient."""
    norm_B = torch.stack([part.squares() for part in parts]).sum(0).sqrt_()
    finite_B = norm_B.isfinite()
    if not bool(finite_B.all()):  # left out, since 0 * inf is not 0
        rows = finite_B.nonzero().flatten()
        parts, norm_B = [part.of(rows) for part in parts], norm_B[rows]
    weight_B = clip / norm_B.clamp(min=clip)
    return [part.total(weight_B) for part in parts]


def mixes_examples(module: nn.Module, shape: tuple[int, ...], classes: int) -> bool:
    """Whether the gradient of one example hangs on the others of its batch, or of an earlier one.

    Found by trial with a copy of the module, in training mode, at a point of its own: neither the module nor the
    global random state is altered. `shape` is that of one input. Raises what the module raises.
    """
    generator = torch.Generator().manual_seed(0)
    trial = copy.deepcopy(module).train()
    for parameter in trial.parameters():
        fan_in = parameter[0].numel() if parameter.dim() > 1 else 1
        parameter.data.copy_(torch.randn(parameter.shape, generator=generator) / fan_in**0.5)
    first, one, other, last = torch.randn(4, *shape, generator=generator)
    found = [_beside(copy.deepcopy(trial), first, (companion, last), classes) for companion in (one, 3 * other)]
    scales = [max(1e-5 * float(g.abs().max()), torch.finfo(g.dtype).tiny) for g in found[0]]
    return not all(
        torch.allclose(a, b, rtol=0, atol=atol, equal_nan=True) for a, b, atol in zip(*found, scales, strict=True)
    )


def _beside(module: nn.Module, first: Tensor, companions: Sequence[Tensor], classes: int) -> list[Tensor]:
    """The gradients of the first example's loss beside one companion after the other."""
    parameters = list(module.parameters())
    device = parameters[0].device
    gradients: list[Tensor] = []
    with torch.random.fork_rng([device] if device.type == "cuda" else []):  # each trial drops out the same
        for companion in companions:
            inputs_2CHW = torch.stack([first, companion]).to(device, parameters[0].dtype)
            labels_2 = torch.tensor([0, classes - 1], device=device)
            losses_2 = nn.functional.cross_entropy(module(inputs_2CHW), labels_2, reduction="none")
            gradients += torch.autograd.grad(losses_2[0], parameters, allow_unused=True, materialize_grads=True)
    return gradients
