"""The momentum that a peer's steps begin with, as whoever has seen all its steps before can tell.

Source: torch.optim.SGD's m_k = mu m_(k-1) + g_k, of which the steps -lr_k m_k were seen, one by one or summed.
Shapes: D parameters.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from p2pfl.algorithms._known import Known
from p2pfl.evidence import Notes
from p2pfl.messages import PeerId

if TYPE_CHECKING:
    from p2pfl.algorithms._replay import Replay


def before(replay: Replay, victim: PeerId, r: int) -> dict[str, Tensor]:
    """The momentum that the victim's steps began with, from what all its steps before came to, where that is known.

    Of single steps it is known; of several in a row the gradient is taken to be the same in all.
    """
    steps, origin_D, kept = replay.notes.steps(victim), replay.notes.origin_D, replay.notes.estimates
    if not replay.notes.trainings[victim].momentum:
        return {}
    latest = max((q for q in range(r) if ("momentum", victim, q) in kept), default=-1)
    for q in range(latest + 1, r):  # what lies before the post of round 1, then what lies between two posts
        moved_D = _moved(replay, victim, q)
        if q == 0 and (steps == 1 or origin_D is None or moved_D is None):
            continue
        if moved_D is None:
            return {}
        before_D = kept.get(("momentum", victim, q - 1), torch.zeros_like(moved_D))
        first, count = (0, steps - 1) if q == 0 else (q * steps - 1, steps)
        kept["momentum", victim, q] = _carried(replay.notes, victim, before_D, moved_D, first, count)
    before = kept.get(("momentum", victim, r - 1))
    return {} if before is None else {"momentum_S": before}


def _moved(replay: Replay, victim: PeerId, q: int) -> Tensor | None:
    """What the victim's steps came to after its post of round q (0: since all began), where nothing is unknown."""
    end = replay.post(victim, q + 1)
    if q == 0:
        start, pulled = (None if replay.notes.origin_D is None else Known(replay.notes.origin_D)), None
    else:
        start, pulled = replay.post(victim, q), replay.pulled(victim, q)
    if start is None or end is None or not (start.sure and end.sure) or (q and (pulled is None or not pulled.sure)):
        return None
    return end.x_D - start.x_D - (0.0 if pulled is None else pulled.x_D)


def _carried(notes: Notes, victim: PeerId, before_D: Tensor, moved_D: Tensor, first: int, count: int) -> Tensor:
    """The momentum after steps that came to `moved_D`: m_k = mu m_(k-1) + g with one g for all, sum -lr_k m_k."""
    mu = notes.trainings[victim].momentum
    of_before, of_g, power, series = 0.0, 0.0, 1.0, 0.0
    for at in range(first, first + count):
        power, series = power * mu, series * mu + 1
        of_before += notes.lr(victim, at) * power
        of_g += notes.lr(victim, at) * series
    gradient_D = (-moved_D - of_before * before_D) / of_g
    return power * before_D + series * gradient_D
