"""What every defence keeps to: its guard samples examples that there are, alters no shape, and counts what it spends.

Shapes: N examples held, S numbers of the vector that steps are taken in.
"""

from __future__ import annotations

import json
import math
from typing import Any

import torch
from torch import Tensor

from p2pfl.conformance import _randomness
from p2pfl.protection import Guard, Stake
from p2pfl.seeds import Seeds

STAKE = Stake(examples=500, batch=50, steps=40, tellings=4, seeds=Seeds(bytes(32)))
NUMBERS = 64


def samples_examples_that_there_are(plugin: Any) -> None:
    """Each at most once in a batch, or None for the usual batch; who holds few has them all at the most."""
    for stake in (STAKE, Stake(3, 50, 40, 4, Seeds(bytes(32)))):
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


def tells_a_loss_that_is_a_number_or_none(plugin: Any) -> None:
    """nan says that it tells nothing; a loss that is none must not get out."""
    for losses_B in (torch.zeros(0), torch.ones(50), torch.tensor([math.nan, math.inf, 1e30, 2.0])):
        told = plugin.guard(STAKE).telling(losses_B, 0)
        assert isinstance(told, float), f"of {losses_B.tolist()[:4]} it tells {told!r}"
        assert not math.isinf(told), f"of {losses_B.tolist()[:4]} it tells {told!r}"


def counts_what_it_spends(plugin: Any) -> None:
    """Columns of a row, which JSON can hold; what was spent never becomes less, and a spent budget is kept to."""
    guard, before = plugin.guard(STAKE), 0.0
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
    made = guard.gradient(torch.ones(NUMBERS), 3)
    return [torch.zeros(0) if rows_B is None else rows_B, made, torch.tensor(guard.telling(torch.ones(50), 3))]


def _draw() -> torch.Generator:
    return torch.Generator().manual_seed(0)
