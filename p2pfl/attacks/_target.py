"""What candidate examples are held against: what an attacker saw, and what they would have shown it.

All mismatches are relative to what was seen, so that neither the size of a gradient nor that of a step matters.
Shapes: N examples, all of one sight together; K classes; S, O and C x H x W as in `p2pfl.evidence`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from p2pfl.attacks._first_order import FLOAT32, pushed
from p2pfl.attacks._trail import Trail
from p2pfl.attacks._unrolled import formed, unrolled
from p2pfl.curiosity import Case, Finding
from p2pfl.evidence import Sight
from p2pfl.messages import Figure, Watch

Box = tuple[float, float]


@dataclass(frozen=True, eq=False)
class Target:
    """The coordinates `moved_O` that were seen of the sum of displacements, and how candidates come to theirs.

    `floor` is the relative squared mismatch that the rounding of what was sent leaves. `box` is where inputs lie.
    `scant` says that fewer numbers were seen than the model has parameters, so that one mismatch says less.
    """

    sight: Sight
    moved_O: Tensor
    kept_O: Tensor | None
    floor: float
    scant: bool
    box: Box
    displacements: Callable[[Tensor, Tensor], list[Tensor]]

    @property
    def examples(self) -> int:
        """N."""
        return examples_of(self.sight)

    def shown(self, x_NCHW: Tensor, shares_NK: Tensor) -> Tensor:
        """What these examples would have shown, as `moved_O`; gradients flow."""
        moved = zip(self.sight.parts, self.displacements(x_NCHW, shares_NK), strict=True)
        zero = self.moved_O.new_zeros(())
        shown_O = self.sight.seen(sum((part.share * moved_S for part, moved_S in moved), start=zero))
        return shown_O if self.kept_O is None else shown_O[self.kept_O]

    def mismatch(self, x_NCHW: Tensor, shares_NK: Tensor) -> Tensor:
        """The squared distance to what was seen, of its squared length."""
        return (self.shown(x_NCHW, shares_NK) - self.moved_O).square().sum() / self.moved_O.square().sum()


@dataclass(frozen=True, eq=False)
class Unknown:
    """What is looked for: inputs, and logits of labels that `shares_NK` does not say: it is None, or 0 in a row."""

    x_NCHW: Tensor
    shares_NK: Tensor | None
    logits_NK: Tensor | None = None

    @property
    def free(self) -> list[Tensor]:
        """The tensors to be found."""
        return [self.x_NCHW] if self.logits_NK is None else [self.x_NCHW, self.logits_NK]

    @property
    def shares(self) -> Tensor:
        """What probability each label has."""
        if self.logits_NK is None:
            assert self.shares_NK is not None
            return self.shares_NK
        found_NK = self.logits_NK.softmax(1)
        return (
            found_NK if self.shares_NK is None else torch.where(self.shares_NK.any(1, True), self.shares_NK, found_NK)
        )

    def at(self, free: list[Tensor]) -> Unknown:
        """The same elsewhere."""
        x_NCHW, *logits = (each.detach().clone().requires_grad_() for each in free)
        return replace(self, x_NCHW=x_NCHW, logits_NK=logits[0] if logits else None)


def target(case: Case, sight: Sight, dtype: torch.dtype = torch.float64) -> Target:
    """What to hold candidates against. Of what a mask left out nothing is known, so it is not compared."""
    module = formed(case.network, sight.moved_O.device, dtype)
    runs = [unrolled(case.network, module, part, dtype) for part in sight.parts]
    sizes = sizes_of(sight)

    def displacements(x_NCHW: Tensor, shares_NK: Tensor) -> list[Tensor]:
        batches = iter(list(zip(x_NCHW.split_with_sizes(sizes), shares_NK.split_with_sizes(sizes), strict=True)))
        return [run([next(batches) for _ in part.batches]) for run, part in zip(runs, sight.parts, strict=True)]

    kept_O = pushed(sight, True).nonzero()[:, 0] if case.masks else None
    moved_O = (sight.moved_O if kept_O is None else sight.moved_O[kept_O]).to(dtype)
    rounded = sum(part.share**2 * float(part.at.double().square().sum()) for part in sight.parts) * FLOAT32**2
    floor = rounded / float(moved_O.double().square().sum())
    scant = len(moved_O) < sum(slot.size for slot in case.network.layout)
    return Target(sight, moved_O, kept_O, floor, scant, case.network.box, displacements)


def sizes_of(sight: Sight) -> list[int]:
    """How many examples each batch holds, in order."""
    return [size for part in sight.parts for size in part.batches]


def examples_of(sight: Sight) -> int:
    """How many examples all batches of all parts hold."""
    return sum(sizes_of(sight))


def batches_of(sight: Sight) -> tuple[tuple[int, int], ...]:
    """Whose batches they are, and their numbers, in order."""
    return tuple((part.peer, part.first + k) for part in sight.parts for k in range(len(part.batches)))


def readings(case: Case, solve: Callable[[Sight, Watch], Finding]) -> Iterator[Finding]:
    """What `solve` makes of each sight of the clue, those of fewest examples first; each has time of its own."""
    sights = () if case.clue is None else sorted(case.clue.sights, key=examples_of)
    for at, sight in enumerate(sights):

        def watch(done: float, loss: float, at: int = at) -> bool:
            return case.watch((at + min(done, 1.0)) / len(sights), loss)

        there = placed(sight, case.device)
        why = nothing(there, case.masks)
        yield solve(there, watch) if why is None else Finding(sight.reading, figures={"why": why})


def nothing(sight: Sight, masked: bool) -> str | None:
    """Why there is nothing to be found in a sight; None where there may be."""
    given = [
        sight.moved_O,
        *(each for p in sight.parts for each in (p.at, p.momentum_S, p.shift_S) if each is not None),
    ]
    if not all(bool(each.isfinite().all()) for each in given):
        return "what was seen is not finite"
    if not bool((pushed(sight, True) if masked else sight.moved_O).any()):
        return "nothing moved in what was seen"
    return None if examples_of(sight) else "the batches hold no examples"


def placed(sight: Sight, device: torch.device) -> Sight:
    """The same on this device."""

    def moved(z_S: Tensor | None) -> Tensor | None:
        return None if z_S is None else z_S.to(device)

    parts = tuple(
        replace(p, at=p.at.to(device), momentum_S=moved(p.momentum_S), shift_S=moved(p.shift_S)) for p in sight.parts
    )
    return replace(sight, moved_O=sight.moved_O.to(device), parts=parts)


def told(goal: Target, found: Unknown, trail: Trail, figures: Mapping[str, Figure]) -> Finding:
    """The finding of a search: only here inputs are cut down to where they can lie.

    Its figure `mismatch` is that of `Target`, whatever was searched by: **squared**, so that 1e-6 is 0.1 % of the
    length of what was seen; and that of the inputs before they are cut down.
    """
    sight, (least, most) = goal.sight, goal.box
    mismatch = float(goal.mismatch(found.x_NCHW, found.shares).detach())
    moved = (each.detach().float().cpu() for each in goal.displacements(found.x_NCHW, found.shares))
    frames_FCHW, frames_at = trail.strip()
    return Finding(
        sight.reading,
        batches_of(sight),
        found.x_NCHW.detach().clamp(least, most).float().cpu(),
        found.shares.detach().argmax(1).cpu(),
        frames_FCHW=frames_FCHW.clamp(least, most),
        frames_at=frames_at,
        displacements={(part.peer, part.first): each for part, each in zip(sight.parts, moved, strict=True)},
        figures={"mismatch": mismatch, **figures},
    )
