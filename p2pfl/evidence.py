"""What a curious peer holds: what it said and heard (`Notes`), and what its algorithm says that this tells (`Clue`).

Shapes: D parameters, S numbers of the space that steps were taken in, O numbers that were seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from p2pfl.contracts import Layout, Training
from p2pfl.messages import Message, PeerId
from p2pfl.peer import Peer

Linear = Callable[[Tensor], Tensor]
"""A linear map of vectors, of any floating type, through which gradients flow."""

PLAIN, MEMORYLESS, SERVER, STATEFUL, MATCHED, HEAD = "plain", "memoryless", "server", "stateful", "matched", "head"
"""How an attacker reads what reached it.

`plain`: as it is, where nothing is sketched. Under a sketch: `memoryless`, each message by itself, as the client of
Wang & Zhang does; `server`, the true W and `Gamma S^T`, as their server; `stateful`, against an estimate of W kept
across rounds; `matched`, in the sketched space with the key; `head`, by what travels whole alone.
"""


def same(x: Tensor) -> Tensor:
    """The identity."""
    return x


@dataclass(frozen=True, eq=False)
class Part:
    """Some steps of one peer: where they began, by which rule they were taken, on how many examples each.

    `at` is a point in the space that they were taken in (S numbers; D without a sketch): `up(at)` are the parameters
    that the model had, `down` makes of a gradient in these one in that space. `momentum_S` is the momentum before the
    first step, None at rest; `shift_S` is what was added to the point after the first of several steps, as neighbours
    pulled, and no part of the displacement. `share` is what their displacement counts for in what was seen. `first` is
    the number of the first batch among the peer's batches of the run, and `batches` says how many examples each has.
    """

    peer: PeerId
    share: float
    at: Tensor
    first: int
    lrs: tuple[float, ...]
    batches: tuple[int, ...]
    momentum: float = 0.0
    weight_decay: float = 0.0
    momentum_S: Tensor | None = None
    shift_S: Tensor | None = None
    up: Linear = same
    down: Linear = same


@dataclass(frozen=True, eq=False)
class Sight:
    """One reading of what reached an attacker: `moved_O`, which is `seen` of the sum of the parts' displacements.

    A displacement is where a peer's steps ended less where they began; each part's counts by its share. A reading may
    be wrong (a memoryless one mostly is): that is what an attack is to show.
    """

    reading: str
    moved_O: Tensor
    parts: tuple[Part, ...]
    seen: Linear = same


@dataclass(frozen=True, eq=False)
class Clue:
    """What an attacker's place lets it know of the steps that `victim` took in round `round`.

    `threat` is that place: hub, star peer, neighbour, coalition. `holds` says in words what it has, `sights` are its
    readings; none where its mail determines nothing. The first part of every sight is the victim's, unless the victim
    is one of several whose sum is all that can be seen.
    """

    victim: PeerId
    round: int
    threat: str
    holds: str
    sights: tuple[Sight, ...] = ()


Weights = Mapping[PeerId, Mapping[PeerId, float]]
"""By which weight who pulls on whom in a round: by peer and partner."""


@dataclass(frozen=True, eq=False)
class Bare:
    """What is left of a peer's task in its notes: nothing to compute with, and no example."""

    layout: Layout
    device: torch.device
    examples: int


@dataclass(frozen=True, eq=False)
class Page:
    """What one round showed one peer: what it said to whom, whom it heard, and its own state afterwards.

    `me` is the peer as it was in that round, with the neighbours and the sketch of the round; its task is bare.
    """

    round: int
    me: Peer
    said: Mapping[PeerId, tuple[Message, ...]]
    heard: Mapping[PeerId, tuple[Message, ...]]
    state: Any

    def message(self, j: PeerId, kind: str) -> Message | None:
        """The message of this kind from `j`, if it came."""
        return next((message for message in self.heard.get(j, ()) if message.kind == kind), None)

    def posted(self, j: PeerId, kind: str) -> Message | None:
        """The message of this kind that was posted to `j`."""
        return next((message for message in self.said.get(j, ()) if message.kind == kind), None)


@dataclass
class Notes:
    """All that one curious peer, or several that share what they know, saw so far: their pages, by peer and round.

    What every peer knows besides: `origin_D`, the point that all began at (None where each had its own), how each
    trains on how many examples in how many `rounds`, and the graph, as Metropolis weights of each round that has its
    own, and of all others under 0. `starts` are the points where these peers themselves began. `solved` are
    displacements that earlier attacks found out, by peer and by the number of the first batch: altered in place.
    """

    pages: dict[PeerId, dict[int, Page]]
    origin_D: Tensor | None
    trainings: Mapping[PeerId, Training]
    examples: Mapping[PeerId, int]
    rounds: int
    graphs: dict[int, Weights]
    starts: dict[PeerId, Tensor] = field(default_factory=dict)
    solved: dict[tuple[PeerId, int], Tensor] = field(default_factory=dict)
    awaited: dict[object, int] = field(default_factory=dict)
    """The rounds of the attacks that are still to be worked out."""
    estimates: dict[tuple[str, PeerId, int], Tensor] = field(default_factory=dict)
    """What an algorithm keeps between its clues: under a sketch estimates of parameters, by kind, whose, and round."""

    @property
    def members(self) -> tuple[PeerId, ...]:
        """Whose notes these are."""
        return tuple(self.pages)

    @property
    def collude(self) -> bool:
        """Whether they are the notes of several."""
        return len(self.pages) > 1

    def weights(self, r: int) -> Weights:
        """The Metropolis weights of round `r`."""
        return self.graphs.get(r, self.graphs.get(0, {}))

    def page(self, r: int) -> Iterable[Page]:
        """What round `r` showed to each of them."""
        return (pages[r] for pages in self.pages.values() if r in pages)

    def steps(self, peer: PeerId) -> int:
        """Steps a round of that peer."""
        return self.trainings[peer].steps(self.examples[peer])

    def lr(self, peer: PeerId, at: int) -> float:
        """The learning rate of a peer's `at`-th step of the run."""
        return self.trainings[peer].rate(at, self.rounds * self.steps(peer))

    def part(self, peer: PeerId, share: float, at: Tensor, first: int, count: int, **more: Any) -> Part:
        """`count` steps of a peer from its `first`-th batch on, by its own rule; see Part for what `more` may say."""
        training, numbers = self.trainings[peer], range(first, first + count)
        lrs = tuple(self.lr(peer, number) for number in numbers)
        sizes = tuple(training.batch_size(self.examples[peer], number) for number in numbers)
        return Part(peer, share, at, first, lrs, sizes, training.momentum, training.weight_decay, **more)


class Telltale(Protocol):
    """How the mail of a flow can be read: what its method `telltale`, the optional part of a Flow, returns.

    `lag` is how many rounds later the mail comes in which the steps of a round show.
    """

    lag: int

    def suspects(self, me: Peer) -> tuple[PeerId, ...]:
        """Of whom a clue can be had from this place, where the scenario names no victim."""

    def clue(self, notes: Notes, victim: PeerId, r: int) -> Clue | None:
        """What the notes determine of the steps that `victim` took in round `r`; None where they say nothing of it."""

    def mixes(self, notes: Notes, r: int) -> Weights:
        """How peers pull on each other in round `r`; {} where they do not."""

    def heard(self, notes: Notes, r: int) -> Mapping[PeerId, Tensor]:
        """The parameters that are known of round `r`, by whose they are, of D numbers: as well as they are."""
