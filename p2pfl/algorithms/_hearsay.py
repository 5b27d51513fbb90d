"""Hearsay: the last known loss of every peer, carried along by whatever mail there is; who leads, going by it.

Of two that tell of the same peer the newer is believed, and of its own loss a peer believes nobody.
Shapes: M peers that learn, in the order of the roster.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy
import torch
from torch import Tensor

from p2pfl.messages import Message, PeerId


@dataclass(frozen=True, eq=False)
class Hearsay:
    """The loss that each peer last told, and in which round of its own it did (its stamp; 0: it is not known)."""

    losses_M: Tensor
    stamps_M: Tensor

    @staticmethod
    def none(peers: int) -> Hearsay:
        """Nothing is known of anybody."""
        return Hearsay(torch.zeros(peers, dtype=torch.float64), torch.zeros(peers, dtype=torch.int64))

    @property
    def tensors(self) -> dict[str, Tensor]:
        """As a message carries it."""
        return {"losses": self.losses_M, "stamps": self.stamps_M}

    def heard(self, own: int, messages: Iterable[Message]) -> Hearsay:
        """With what messages tell that is newer, but for the row `own`."""
        losses_M, stamps_M = self.losses_M, self.stamps_M
        for tensors in (message.tensors for message in messages):
            newer_M = tensors["stamps"] > stamps_M
            newer_M[own] = False
            losses_M = torch.where(newer_M, tensors["losses"], losses_M)
            stamps_M = torch.where(newer_M, tensors["stamps"], stamps_M)
        return Hearsay(losses_M, stamps_M)

    def told(self, own: int, loss: float, r: int) -> Hearsay:
        """With the loss of round `r` in the row `own`."""
        losses_M, stamps_M = self.losses_M.clone(), self.stamps_M.clone()
        losses_M[own], stamps_M[own] = loss, r
        return Hearsay(losses_M, stamps_M)

    def known(self, learners: Sequence[PeerId]) -> dict[PeerId, float]:
        """The losses that are known."""
        rows = zip(learners, self.losses_M.tolist(), self.stamps_M.tolist(), strict=True)
        return {i: loss for i, loss, stamp in rows if stamp > 0}


def table_of(peers: int) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
    """What `tensors` must look like in a message."""
    return {"losses": (torch.float64, (peers,)), "stamps": (torch.int64, (peers,))}


def leading(losses: Mapping[PeerId, float], followers: int, draw: numpy.random.Generator) -> dict[PeerId, bool]:
    """Whether each of them leads: all but so many followers of highest loss; ties fall at random."""
    peers = sorted(losses)
    order = sorted((peers[k] for k in draw.permutation(len(peers))), key=lambda i: losses[i])
    return {i: at < len(order) - followers for at, i in enumerate(order)}
