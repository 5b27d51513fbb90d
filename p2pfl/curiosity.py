"""What an attack of a curious peer is given, what it finds, and what every plug-in of `attacks/` is.

Shapes: D parameters, N examples of one's own, B of a batch, C x H x W an input, F frames.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from p2pfl.contracts import Layout
from p2pfl.evidence import Clue, Weights
from p2pfl.messages import Figure, PeerId, Watch
from p2pfl.seeds import Seeds


@dataclass(frozen=True, eq=False)
class Network:
    """The form of the model that all peers train, which is no secret. Inputs are C x H x W, of numbers within `box`."""

    make: Callable[[], nn.Module]
    layout: Layout
    shape: tuple[int, int, int]
    classes: int
    box: tuple[float, float] = (0.0, 1.0)


@dataclass(frozen=True, eq=False)
class Known:
    """Examples that an attacker holds itself: its own shard, with the columns that describe each of the N."""

    x_NCHW: Tensor
    y_N: Tensor
    columns: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Case:
    """What an attack is given: one victim in one round, as seen from one place.

    `clue_of` gives the clue of any round up to this one; `heard` all parameters that reached the attacker so far, by
    peer and round. `links`, and `weights` of a round, {} where peers do not mix, are what every peer knows.
    `masks` says that a defence of this scenario zeroes what it does not send. `watch(done, loss)` is to be called now
    and then: it shows progress, `done` of 1, and returns False when time is up, which begins anew with every finding.
    """

    attackers: tuple[PeerId, ...]
    victim: PeerId
    round: int
    clue: Clue | None
    clue_of: Callable[[PeerId, int], Clue | None]
    heard: Mapping[PeerId, Mapping[int, Tensor]]
    links: tuple[tuple[PeerId, PeerId], ...]
    weights: Callable[[int], Weights]
    network: Network
    own: Known
    masks: bool
    device: torch.device
    seeds: Seeds
    watch: Watch


@dataclass(frozen=True, eq=False)
class Finding:
    """What an attack makes of one reading.

    Of an inversion `inputs_BCHW` and `labels_B` are the examples of `batches` (whose, and the number of the batch), in
    their order; `frames_FCHW` shows how the first of them came about, at `frames_at` iterations. `counts` are numbers
    of examples by label, where no single ones are told. Of an inference `score` says how sure it is that the batch has
    the property. `suspect_D` and `reference_D` are parameters by whose losses membership is judged. `displacements`
    are what the parts of the sight come to according to the attack, by peer and first batch. `figures` may say more.
    """

    reading: str
    batches: tuple[tuple[PeerId, int], ...] = ()
    inputs_BCHW: Tensor | None = None
    labels_B: Tensor | None = None
    counts: Tensor | None = None
    score: float | None = None
    suspect_D: Tensor | None = None
    reference_D: Tensor | None = None
    frames_FCHW: Tensor | None = None
    frames_at: tuple[int, ...] = ()
    displacements: Mapping[tuple[PeerId, int], Tensor] = field(default_factory=dict)
    figures: Mapping[str, Figure] = field(default_factory=dict)


class Attack(Protocol):
    """How a curious peer spies on others: what such a plug-in of `attacks/` is.

    `scores` says by what it is judged after the run: images, labels, property or membership.
    """

    scores: str

    def spy(self, case: Case) -> Iterable[Finding]:
        """A finding for each reading of the clue, as they come; pure but for `case.watch`, and on any device."""
