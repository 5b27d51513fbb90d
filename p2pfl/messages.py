"""The values a flow says and hears: nothing here moves, waits or computes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

PeerId = int
Figure = int | float | bool | str | bytes | None | Sequence["Figure"] | Mapping[str, "Figure"]

HUB: PeerId = -1
"""The peer that a star adds to those that learn, which are numbered from 0."""


def peer_name(peer: PeerId) -> str:
    """How a peer is called in records, on the screen and in scenarios."""
    return "hub" if peer == HUB else str(peer)


@dataclass(frozen=True, eq=False)
class Message:
    """What one peer tells another in one round: named tensors, and a few small figures beside them.

    Round 0 is no round: when peers meet, and all mail of those that have no rounds in common. A tensor that was posted
    is never altered in place by who posted it: it may still be on its way.
    """

    kind: str
    round: int
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    figures: Mapping[str, Figure] = field(default_factory=dict)


Mail = Mapping[PeerId, Message]
"""What arrived for one exchange, in the order of peer ids; who is absent is absent."""


@dataclass(frozen=True)
class Form:
    """What a message of one kind must look like; bytes are checked against it before memory is taken.

    `tensors` maps each name to its dtype and shape, exactly; `figures` maps each name to its type.
    """

    tensors: Mapping[str, tuple[torch.dtype, tuple[int, ...]]] = field(default_factory=dict)
    figures: Mapping[str, type] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Exchange:
    """Post these messages, then hand me the `kind` message of `round` from each of `expect`.

    An empty `expect` posts and goes on. Each posted message has its own kind and round.
    """

    kind: str
    round: int
    post: Mapping[PeerId, Message] = field(default_factory=dict)
    expect: tuple[PeerId, ...] = ()


@dataclass(frozen=True, eq=False)
class Report:
    """A row of the record: figures of one round, and tensors (pictures, vectors) beside it."""

    round: int
    figures: Mapping[str, Figure] = field(default_factory=dict)
    tensors: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Pause:
    """Let so many seconds go by, and others work: finite, and not negative."""

    seconds: float


@dataclass(frozen=True)
class Collect:
    """Hand me the mail of this kind that belongs to no round and has come since I last asked: at once, perhaps {}.

    One message a sender at most: who posts a second before the first was collected breaks a rule.
    """

    kind: str


Watch = Callable[[float, float], bool]
"""Hears how much of a long computation is done, of 1, and how good it is (less is better); False: time is up."""


@dataclass(frozen=True, eq=False)
class Aside:
    """A pure, long computation beside the flow, which goes on at once; what it yields are rows of the record.

    Asides of a peer are computed one after the other. Its watch tells each when `seconds` are over, which it has anew
    for every row. A run ends only when all are through. `about` is what is shown of it meanwhile.
    """

    round: int
    about: str
    seconds: float
    call: Callable[[Watch], Iterable[Report]]


Step = Exchange | Report | Pause | Collect | Aside
"""What a flow may yield."""
