"""What every defence keeps to: its guard samples examples that there are, alters no shape, leaves a model as it was,
and counts what it spends.

Shapes: N examples held, S numbers of the vector that steps are taken in, B examples of a batch.
"""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import torch
from torch import Tensor, nn

from p2pfl.conformance import _randomness
from p2pfl.learning.clipped import clipped_sum
from p2pfl.learning.model import Model, layout_of
from p2pfl.learning.models.mlp import Mlp
from p2pfl.protection import Guard, Stake
from p2pfl.seeds import Seeds

SHAPE, CLASSES, EXAMPLES = (1, 2, 3), 4, 12
MODEL: Model = Mlp((5,), "tanh")
LAYOUT = layout_of(MODEL.build(SHAPE, CLASSES))
STAKE = Stake(examples=500, batch=50, steps=40, tellings=4, seeds=Seeds(bytes(32)), layout=LAYOUT)
NUMBERS = sum(slot.size for slot in LAYOUT)
ROUNDING = 1e-5


def samples_examples_that_there_are(plugin: Any) -> None:
    """Each at most once in a batch, or None for the usual batch; who holds few has them all at the most."""
    for stake in (STAKE, dataclasses.replace(STAKE, examples=3)):
        guard = plugin.guard(stake)
        for at in range(5):
            for telling in (False, True):
                rows_B = guard.sample(at, telling)
                if rows_B is None:
                    continue
                held = set(range(stake.examples))
                assert rows_B.dtype == torch.int64, f"its sample is of {rows_B.dtype}, not int64"
                assert set(rows_B.tolist()) <= held, f"it samples others than the {stake.examples} examples there are"
                assert len(set(rows_B.tolist())) == len(rows_B), "it samples an example twice in one step"


def makes_of_a_gradient_one_of_finite_numbers(plugin: Any) -> None:
    """Of the same form, also where a batch was empty, or a gradient is large."""
    for given in (torch.zeros(NUMBERS), torch.randn(NUMBERS, generator=_draw()), 1e6 * torch.ones(NUMBERS)):
        for dtype in (torch.float32, torch.float64):
            made = plugin.guard(STAKE).gradient(given.to(dtype, copy=True), 0)
            form = f"{tuple(made.shape)} of {made.dtype}"
            assert (made.shape, made.dtype) == (given.shape, dtype), f"of {NUMBERS} numbers of {dtype} it makes {form}"
            assert made.isfinite().all(), "it makes a gradient that is not finite"


def leaves_the_model_as_it_was(plugin: Any) -> None:
    """Its hooks are gone after each step, also one that failed; nothing is left in a parameter."""
    module, inputs, labels = _batch()
    before, point = _gradient(module, inputs, labels), [parameter.clone() for parameter in module.parameters()]
    guard = plugin.guard(STAKE)
    with guard.around(module, 0):
        _gradient(module, inputs, labels)
    try:
        with guard.around(module, 1):
            module(inputs.flatten()[:-1])
    except (RuntimeError, ValueError, IndexError):  # of a wrong form: the model says so
        pass
    else:
        raise AssertionError("around a step it hides what the model raises")
    left = [name for name, part in module.named_modules() if part._forward_hooks or part._forward_pre_hooks]
    assert not left, f"it leaves hooks in {', '.join(left) or 'the model'}: remove them in a 'finally'"
    assert all(map(torch.equal, point, module.parameters())), "it alters parameters"
    assert all(parameter.grad is None for parameter in module.parameters()), "it leaves gradients in parameters"
    assert torch.equal(before, _gradient(module, inputs, labels)), "after a step the model has other gradients"


def treats_an_example_alone_as_in_a_batch(plugin: Any) -> None:
    """So that gradients can be clipped one by one where it is at work: their sum is that of the batch."""
    module, inputs, labels = _batch()
    guard = plugin.guard(STAKE)
    with guard.around(module, 2):
        batch_S = _gradient(module, inputs, labels)
    with guard.around(module, 2):
        _, parts = clipped_sum(module, list(module.parameters()), inputs, labels, clip=1e9)
    alone_S = torch.cat([part.flatten() for part in parts]) / EXAMPLES
    apart = float((alone_S - batch_S).abs().max() / batch_S.abs().max())
    assert apart < ROUNDING, f"what it makes of examples one by one is off by {apart:.2g} of the batch's gradient"


def clips_to_a_norm_if_at_all(plugin: Any) -> None:
    """`clip` is the norm each example's gradient is cut down to, or None; and `private` is yes or no."""
    guard = plugin.guard(STAKE)
    assert guard.clip is None or 0 < guard.clip < math.inf, f"clip is {guard.clip!r}"
    assert isinstance(guard.private, bool), f"private is {guard.private!r}"


def tells_a_loss_that_is_a_number_or_none(plugin: Any) -> None:
    """nan says that it tells nothing; a loss that is none must not get out."""
    for losses_B in (torch.zeros(0), torch.ones(50), torch.tensor([math.nan, math.inf, 1e30, 2.0])):
        told = plugin.guard(STAKE).telling(losses_B, 0)
        assert isinstance(told, float), f"of {losses_B.tolist()[:4]} it tells {told!r}"
        assert not math.isinf(told), f"of {losses_B.tolist()[:4]} it tells {told!r}"


def counts_what_it_spends(plugin: Any) -> None:
    """Columns of a row, which JSON can hold; what was spent never becomes less, and a spent budget is kept to."""
    guard, before = plugin.guard(STAKE), 0.0
    assert guard.private or "epsilon" not in guard.spent(), "it has an epsilon, and tells losses as they are"
    for at in range(STAKE.steps + 3):
        if not guard.allows():
            break
        guard.gradient(torch.ones(NUMBERS), at)
        spent = guard.spent()
        json.dumps(dict(spent), allow_nan=False)
        now = spent.get("epsilon", 0.0)
        assert now >= before, f"after a step epsilon is {now:.4g}, and was {before:.4g}"
        before = now
    budget = getattr(plugin, "epsilon", None)
    assert budget is None or before <= budget, f"its budget is {budget:g}, and it spends {before:g}"


def is_a_function_of_the_peers_own_seeds(plugin: Any) -> None:
    """So that a run with a seed can be repeated, and of nothing else."""
    with _randomness.left_alone():
        once, again = (_seen(plugin.guard(STAKE)) for _ in range(2))
    assert all(map(torch.equal, once, again)), "with the same seeds it does something else the second time"


def _seen(guard: Guard) -> list[Tensor]:
    rows_B = guard.sample(3)
    module, inputs, labels = _batch()
    with guard.around(module, 3):
        found = _gradient(module, inputs, labels)
    made = guard.gradient(found, 3)
    return [torch.zeros(0) if rows_B is None else rows_B, made, torch.tensor(guard.telling(torch.ones(50), 3))]


def _batch() -> tuple[nn.Module, Tensor, Tensor]:
    """A small model at a point of its own, inputs (B x C x H x W) and labels."""
    draw, module = _draw(), MODEL.build(SHAPE, CLASSES)
    MODEL.draw(module, draw)
    return module, torch.randn(EXAMPLES, *SHAPE, generator=draw), torch.arange(EXAMPLES) % CLASSES


def _gradient(module: nn.Module, inputs_BCHW: Tensor, labels_B: Tensor) -> Tensor:
    """Of the mean loss, as one vector."""
    loss = nn.functional.cross_entropy(module(inputs_BCHW), labels_B)
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(module.parameters()))])


def _draw() -> torch.Generator:
    return torch.Generator().manual_seed(0)
