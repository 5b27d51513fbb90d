"""Gradient inversion: examples whose steps would have come to what was seen, by L-BFGS, whatever the model.

Source: Zhu, Liu & Han 2019, "Deep Leakage from Gradients", whose recipe is `PUBLISHED`. `strong` does better: float64,
a line search, a start within the box of the inputs, another start where one fails, a new memory where numbers overflow.
Shapes: N examples, all of one sight together; K classes; C x H x W an input.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from p2pfl.attacks._first_order import weights
from p2pfl.attacks._target import Target, Unknown, told
from p2pfl.attacks._trail import Ended, Stumbled, Trail
from p2pfl.attacks._weighed import OPEN
from p2pfl.curiosity import Case, Finding
from p2pfl.messages import Watch

ENOUGH, FAIR = 1e-9, 1e-7
"""Relative squared mismatches of one example: of an error that nobody sees; of one too small to start anew for."""
ALIKE = 0.01
"""Two starts that come to one mismatch, but for this share of it, have found all that there is to be found."""
MOST_STUMBLES, MOST_NEW = 20, 5
"""How often in a row a line search may leave what the model bears, and how often a search may go on with no memory."""
WALL, TINY = 10.0, 1e-300
GRADIENT_LEAST, CHANGE_LEAST, SCALE = 1e-12, 1e-14, 1e4
"""Where L-BFGS gives up, and what the mismatch is multiplied by, so that it does not before float64 ends."""
TORCH_LIMITS = (1e-7, 1e-9)
"""Where torch's L-BFGS gives up if nobody says otherwise, as the paper's code did not."""
Try = tuple[Unknown, Trail]


@dataclass(frozen=True)
class Recipe:
    """How L-BFGS is run: `outer` times `inner` iterations, from `restarts` points at most."""

    inner: int
    outer: int = 1
    restarts: int = 1
    strong: bool = True
    history: int = 100

    @property
    def dtype(self) -> torch.dtype:
        """What is computed in."""
        return torch.float64 if self.strong else torch.float32


PUBLISHED = Recipe(inner=20, outer=300, strong=False)


def invert(case: Case, goal: Target, recipe: Recipe, labels: Sequence[Tensor], watch: Watch) -> Finding:
    """The best of several starts, each with the next of `labels` (N, int64); without any, labels are found as well.

    Of labels that are partly OPEN only those are found. The figure `mismatch` is squared, see `told`.
    """
    most = (recipe.inner + 1) * recipe.outer
    sharp = goal.floor if goal.scant else max(goal.floor, ENOUGH / goal.examples**2)
    enough = sharp if recipe.strong else 0.0
    fair = max(10 * goal.floor, FAIR / goal.examples**2)

    def once(attempt: int, labels_N: Tensor | None) -> Try:
        trail = Trail(watch, most, enough, attempt, recipe.restarts, patient=not recipe.strong)
        return search(goal, recipe, start(case, goal, recipe, labels_N, attempt), trail), trail

    return best_of(goal, once, recipe.restarts, labels, fair)


def best_of(
    goal: Target, once: Callable[[int, Tensor | None], Try], restarts: int, labels: Sequence[Tensor], fair: float = 0.0
) -> Finding:
    """Search until a mismatch is fair, two come to the same, or time is up; each with the next of the labels."""
    tries: list[Try] = []
    for attempt in range(restarts):
        found, trail = once(attempt, labels[attempt % len(labels)] if labels else None)
        tries.append((found, trail))
        if trail.out_of_time or trail.loss <= fair or (attempt + 1 >= len(labels) and settled(tries)):
            break
    found, trail = min(tries, key=lambda each: each[1].loss)
    figures = {"evaluations": sum(each.evaluations for _, each in tries), "starts": len(tries)}
    if not trail.best:
        return Finding(goal.sight.reading, figures={"why": "the model gave no number anywhere", **figures})
    return told(goal, found, trail, figures)


def search(goal: Target, recipe: Recipe, unknown: Unknown, trail: Trail) -> Unknown:
    """Go down from one point; what overflows is gone back on, and the memory of how it came there is lost."""
    for _ in range(MOST_NEW if recipe.strong else 1):
        try:
            descend(goal, recipe, unknown, trail)
            break
        except Ended:
            break
        except Stumbled:
            unknown = unknown.at(trail.best or [each.detach() / 2 for each in unknown.free])
    return unknown.at(trail.best or unknown.free)


def descend(goal: Target, recipe: Recipe, unknown: Unknown, trail: Trail) -> None:
    """L-BFGS on what is free, in place. Raises Ended or Stumbled, as the trail does."""
    free, scale = unknown.free, SCALE if recipe.strong else as_published(goal)
    limits = (GRADIENT_LEAST, CHANGE_LEAST) if recipe.strong else TORCH_LIMITS
    line_search = "strong_wolfe" if recipe.strong else None
    most = 2 * recipe.inner if recipe.strong else recipe.inner * 5 // 4
    optimiser = torch.optim.LBFGS(free, 1.0, recipe.inner, most, *limits, recipe.history, line_search)

    def closure() -> Tensor:
        loss = goal.mismatch(unknown.x_NCHW, unknown.shares) * scale
        gradients: Sequence[Tensor] = torch.autograd.grad(loss, free)
        try:
            trail.note(float(loss.detach()) / scale, free)
        except Stumbled:
            if not recipe.strong or trail.stumbles > MOST_STUMBLES or not trail.best:
                raise
            loss, gradients = wall(trail, scale, free)
        for each, gradient in zip(free, gradients, strict=True):
            each.grad = gradient
        return loss.detach()

    for _ in range(recipe.outer):
        optimiser.step(closure)  # type: ignore[no-untyped-call]


def wall(trail: Trail, scale: float, free: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """What a line search is told of points that a model does not bear: far worse than the best, and ever more so."""
    away = [each.detach() - best for each, best in zip(free, trail.best, strict=True)]
    loss = torch.tensor(WALL * trail.loss * scale, dtype=free[0].dtype, device=free[0].device)
    length = sum(float(each.square().sum()) for each in away)
    return loss, [each * loss / max(length, TINY) for each in away]


def start(case: Case, goal: Target, recipe: Recipe, labels_N: Tensor | None, attempt: int) -> Unknown:
    """Where a search begins: anywhere in the box, as published with normal numbers."""
    draw = case.seeds.torch("start", goal.sight.reading, attempt)
    shape, classes, device = (goal.examples, *case.network.shape), case.network.classes, goal.moved_O.device
    least, most = goal.box
    if recipe.strong:
        x_NCHW = least + (most - least) * torch.rand(shape, generator=draw, dtype=recipe.dtype)
    else:
        x_NCHW = torch.randn(shape, generator=draw, dtype=recipe.dtype)
    x_NCHW = x_NCHW.to(device).requires_grad_()
    shares_NK = None if labels_N is None else given(labels_N.to(device), classes, recipe.dtype)
    if shares_NK is not None and bool(shares_NK.any(1).all()):
        return Unknown(x_NCHW, shares_NK)
    logits_NK = torch.randn(goal.examples, classes, generator=draw, dtype=recipe.dtype).to(device)
    return Unknown(x_NCHW, shares_NK, logits_NK.requires_grad_())


def given(labels_N: Tensor, classes: int, dtype: torch.dtype) -> Tensor:
    """The labels as shares, N x K; rows of those that are open are 0."""
    shares_NK = torch.nn.functional.one_hot(labels_N.clamp(min=0), classes).to(dtype)
    shares_NK[labels_N == OPEN] = 0
    return shares_NK


def settled(tries: Sequence[Try]) -> bool:
    """Whether the best two starts came to one mismatch."""
    if len(tries) < 2:
        return False
    best, second = sorted(trail.loss for _, trail in tries)[:2]
    return second - best <= ALIKE * best


def as_published(goal: Target) -> float:
    """What makes the mismatch the squared distance of gradients, as it is in the paper."""
    counted = sum(part.share * sum(weights(part)) for part in goal.sight.parts)
    return float(goal.moved_O.square().sum()) / counted**2
