"""What batches with and without a property would have shown an attacker, from examples of its own.

Source: Melis, Song, De Cristofaro & Shmatikov 2019, "Exploiting Unintended Feature Leakage in Collaborative Learning",
section 4.3. They pool within layers; here the `MOST` numbers that vary most are taken instead, which does as well and
serves any space. What momentum and weight decay add is taken off before.
The displacement of a single step is the mean of those of its examples, so each is worked out once, however many batches
are then mixed of them. Of several steps each batch is worked through.
Shapes: N examples of the attacker's, n batches drawn, B examples of one, U things worked out, K numbers kept; O and S
as in `p2pfl.evidence`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import TypeVar

import numpy
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.func import functional_call

from p2pfl.attacks._first_order import still, walked
from p2pfl.attacks._unrolled import formed, named
from p2pfl.curiosity import Case
from p2pfl.evidence import Part, Sight
from p2pfl.messages import Watch

MOST = 4096
PROBED = 48
"""So many things are looked at to see which numbers vary most."""

Rows = NDArray[numpy.int64]
"""Places of examples among the attacker's own."""
Drawn = tuple[Rows, ...]
"""n batches of each part of a sight, n x B."""
Item = TypeVar("Item")


def draw(with_N: Rows, without_N: Rows, has_n: Rows, size: int, rng: numpy.random.Generator) -> Rows:
    """n batches of so many examples, `has_n` of each with the property, in any order."""
    count = len(has_n)
    has_nB = numpy.arange(size) < has_n[:, None]
    rows_nB = numpy.where(has_nB, picked(with_N, count, size, rng), picked(without_N, count, size, rng))
    return rng.permuted(rows_nB, axis=1)


def picked(rows_N: Rows, count: int, size: int, rng: numpy.random.Generator) -> Rows:
    """`count` x `size` of these rows, none twice in a batch as far as there are enough."""
    turns = [rng.random((count, len(rows_N))).argsort(1) for _ in range(-(-size // len(rows_N)))]
    return rows_N[numpy.concatenate(turns, 1)[:, :size]]


def features(case: Case, sight: Sight, groups: Sequence[Drawn], watch: Watch) -> list[Tensor] | None:
    """The numbers kept of what was seen (1 x K), then of each group of drawn batches (n x K); None where time is up."""
    rest_O = sight.seen(torch.stack([part.share * still(part).float() for part in sight.parts]).sum(0))
    single = all(len(part.lrs) == 1 for part in sight.parts)
    found = (mixed if single else worked_through)(case, sight, groups, watch)
    if found is None:
        return None
    kept_K, shown = found
    return [(moved_nK - rest_O[kept_K]).cpu() for moved_nK in (sight.moved_O.float()[None, kept_K], *shown)]


Found = tuple[Tensor, list[Tensor]]
"""Which K of the O numbers are kept, and these of each group, n x K."""


def mixed(case: Case, sight: Sight, groups: Sequence[Drawn], watch: Watch) -> Found | None:
    """Batches of single steps, as means of what their examples would have shown."""
    kept_K, totals = None, [torch.zeros(())] * len(groups)
    for at, part in enumerate(sight.parts):
        rows_U: Rows = numpy.unique(numpy.concatenate([drawn[at].ravel() for drawn in groups]))
        one = displacement(case, part)
        shown = (part.share * sight.seen(one([[row]])) for row in ticked(rows_U.tolist(), watch, at, len(sight.parts)))
        kept_K, shown_UK = gathered(shown, kept_K)
        if len(shown_UK) < len(rows_U):
            return None
        for number, drawn in enumerate(groups):
            totals[number] = totals[number] + means(shown_UK, numpy.searchsorted(rows_U, drawn[at]))
    return None if kept_K is None else (kept_K, totals)


def worked_through(case: Case, sight: Sight, groups: Sequence[Drawn], watch: Watch) -> Found | None:
    """Batches of several steps, one after the other."""
    runs = [displacement(case, part) for part in sight.parts]
    cuts = [numpy.cumsum(part.batches)[:-1] for part in sight.parts]
    tasks = [(drawn, row) for drawn in groups for row in range(len(drawn[0]))]

    def shown() -> Iterator[Tensor]:
        for drawn, row in ticked(tasks, watch, 0, 1):
            batches = [numpy.split(rows_nB[row], cut) for rows_nB, cut in zip(drawn, cuts, strict=True)]
            moved = [part.share * run(each) for part, run, each in zip(sight.parts, runs, batches, strict=True)]
            yield sight.seen(torch.stack(moved).sum(0))

    kept_K, shown_UK = gathered(shown(), None)
    if len(shown_UK) < len(tasks):
        return None
    return kept_K, list(torch.split(shown_UK, [len(drawn[0]) for drawn in groups]))


def ticked(items: Sequence[Item], watch: Watch, at: int, of: int) -> Iterator[Item]:
    """The items, the `at`-th lot of as many, as long as there is time."""
    for number, item in enumerate(items):
        if not watch((at + number / len(items)) / of, 0.0):
            return
        yield item


def gathered(shown: Iterable[Tensor], kept_K: Tensor | None) -> tuple[Tensor, Tensor]:
    """U vectors of O numbers, cut down to K as they come: those given, or those that vary most among the first."""
    shown = iter(shown)
    first = list(islice(shown, PROBED if kept_K is None else 0))
    if kept_K is None and not first:
        return torch.zeros(0, dtype=torch.int64), torch.zeros(0, 0)
    if kept_K is None:
        kept_K = torch.stack(first).var(0, unbiased=False).topk(min(MOST, len(first[0]))).indices
    rows = [each_O[kept_K] for each_O in first] + [each_O[kept_K] for each_O in shown]
    return kept_K, torch.stack(rows) if rows else torch.zeros(0, len(kept_K))


def means(shown_UK: Tensor, rows_nB: Rows) -> Tensor:
    """The mean of the named rows, n x K."""
    at_nB = torch.as_tensor(rows_nB, device=shown_UK.device)
    share_nU = torch.zeros(len(at_nB), len(shown_UK), device=shown_UK.device)
    share_nU.scatter_add_(1, at_nB, torch.full(at_nB.shape, 1 / max(1, at_nB.shape[1]), device=shown_UK.device))
    return share_nU @ shown_UK


def displacement(case: Case, part: Part) -> Callable[[Sequence[Sequence[int] | Rows]], Tensor]:
    """Where the steps of a part end less where they begin, as a function of their batches: the attacker's own rows.

    As `_unrolled.unrolled`, in float32 and with nothing kept for gradients.
    """
    module = formed(case.network, case.device, torch.float32)
    first_D = part.up(part.at.float()).detach()

    def moved(batches: Sequence[Sequence[int] | Rows]) -> Tensor:
        def at(step: int, point_S: Tensor) -> Tensor:
            x_D = (part.up(point_S).detach() if step else first_D).requires_grad_()
            rows = torch.as_tensor(batches[step])
            x_BCHW, y_B = case.own.x_NCHW[rows].to(case.device), case.own.y_N[rows].to(case.device)
            logits_BC = functional_call(module, named(case.network, x_D), (x_BCHW,))
            return part.down(torch.autograd.grad(torch.nn.functional.cross_entropy(logits_BC, y_B), x_D)[0])

        return walked(part, at, torch.float32)

    return moved
