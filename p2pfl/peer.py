"""What one peer is given before it starts, and what an algorithm is: how such a peer goes on from there.

Shapes: D parameters, S numbers on the wire.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, Protocol

import networkx as nx
import torch
from torch import Tensor

from p2pfl.contracts import Aggregator, Pair, Sketch, Task, Trained, Training
from p2pfl.errors import LocalError
from p2pfl.messages import HUB, Exchange, Form, Mail, Message, PeerId, Step
from p2pfl.seeds import Seeds

KEY_BYTES = 16


@dataclass(frozen=True)
class Roster:
    """What every peer knows of the run: who learns, on how many examples, along which links."""

    learners: tuple[PeerId, ...]
    examples: Mapping[PeerId, int]
    links: tuple[tuple[PeerId, PeerId], ...]

    @cached_property
    def diameter(self) -> int:
        """How many hops along links anything takes to everybody it can reach."""
        graph = nx.Graph(self.links)
        return max((nx.diameter(graph.subgraph(part)) for part in nx.connected_components(graph)), default=0)


@dataclass(frozen=True)
class Peer:
    """One peer before it starts, and the arithmetic that every algorithm shares.

    `weights` are the Metropolis weights w_ij of its neighbours; `shared` streams are the same for all
    peers, `private` ones are its own; `secrets` are the 128-bit secrets of its links, agreed upon when
    the peers meet; `origin` are the parameters of a former run that it begins with, if it goes on from one.
    Where links change from round to round, neighbours, weights and roster are those of one round.
    """

    id: PeerId
    neighbours: tuple[PeerId, ...]
    weights: Mapping[PeerId, float]
    roster: Roster
    task: Task
    sketch: Sketch
    aggregator: Aggregator
    training: Training
    init: Literal["shared", "own"]
    shared: Seeds
    private: Seeds
    secrets: Mapping[PeerId, bytes] = field(default_factory=dict)
    origin: Tensor | None = None
    pair: Pair = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "pair", self.sketch.bind(self.task.layout))

    @property
    def local_steps(self) -> int:
        """Steps this peer takes a round."""
        return self.training.steps(self.task.examples)

    def lr(self, r: int) -> float:
        """The learning rate of the last local step of round `r`."""
        return self.task.lr(r * self.local_steps - 1)

    def first_point(self) -> Tensor:
        """The parameters this peer starts from: those it was given, the same for all, or its own."""
        if self.origin is not None:
            return self.origin
        return self.task.start((self.shared if self.init == "shared" else self.private).child("init"))

    def steps(self, x_D: Tensor, m_D: Tensor | None, r: int, count: int) -> Trained:
        """The first `count` local steps of round `r`, as plain SGD. Raises LocalError when they diverge."""
        trained = self.task.steps(x_D, m_D, (r - 1) * self.local_steps, count)
        self.insist_finite(trained.x_D, r)
        return trained

    def sketched_steps(self, z_S: Tensor, r: int, key: bytes) -> Trained:
        """All local steps of round `r` in the space of the sketch, from rest. Raises LocalError when they diverge."""
        whole = sum(slot.size for slot in self.task.layout)
        pair = self.pair if self.sketch.keyed or self.pair.size < whole else None
        trained = self.task.steps(z_S, None, (r - 1) * self.local_steps, self.local_steps, pair, key)
        self.insist_finite(trained.x_D, r)
        return trained

    def insist_finite(self, x_D: Tensor, r: int) -> None:
        """Raises LocalError where parameters are not finite: they must never be posted."""
        if math.isfinite(float(x_D.sum())) or bool(torch.isfinite(x_D).all()):
            return
        raise LocalError(f"parameters are not finite in round {r}: lower training.lr, which is {self.training.lr:g}")

    def step(self, x_D: Tensor, m_D: Tensor | None, r: int) -> Trained:
        """The displacement of the last local step of round `r`, taken at `x_D`. Raises LocalError when it diverges."""
        trained = self.task.step(x_D, m_D, r * self.local_steps - 1)
        self.insist_finite(trained.x_D, r)
        return trained

    def mean_loss(self, local: Trained, last: Trained) -> float:
        """The mean loss of a round's steps, from `steps` for all but the last and `step` for the last."""
        return last.loss if self.local_steps == 1 else local.loss + (last.loss - local.loss) / self.local_steps

    def meet(self) -> Generator[Step, Mail, Peer]:
        """Agree on a secret with each neighbour, each sending half of it; a sketch without a key needs none."""
        if not self.sketch.keyed or HUB in (self.id, *self.neighbours):
            return self
        halves = {j: self.private.key(KEY_BYTES, "secret", j) for j in self.neighbours}
        post = {j: Message("secret", 0, figures={"half": half}) for j, half in halves.items()}
        mail = yield Exchange("secret", 0, post, self.neighbours)
        secrets = {}
        for j, message in mail.items():
            ours, theirs = halves[j], bytes(message.figures["half"])  # type: ignore[arg-type]
            secrets[j] = hashlib.sha256(ours + theirs if self.id < j else theirs + ours).digest()[:KEY_BYTES]
        return dataclasses.replace(self, secrets=secrets)

    def told(self, loss: float, x_D: Tensor, r: int) -> float:
        """The training loss of round `r`, which ended at `x_D`, as it may be told to others; nan where it may not.

        Whatever leaves this peer and hangs on its examples but is no parameter goes through here.
        """
        return self.task.told(loss, x_D, r * self.local_steps - 1)

    def l2(self, x_D: Tensor) -> float:
        """The L2 term that weight decay adds to a loss at `x_D`; 0 without weight decay."""
        return self.training.weight_decay / 2 * float(x_D @ x_D) if self.training.weight_decay else 0.0

    def key(self, j: PeerId, r: int, *whose: PeerId) -> bytes:
        """The key of the link to `j` in round `r`, the same at both ends; empty where sketches have none.

        Where both ends may begin an exchange with the same `r`, `whose` it is tells them apart.
        """
        if not self.sketch.keyed:
            return b""
        parts = b"".join(part.to_bytes(8, "little", signed=True) for part in (r, *whose))
        return hashlib.sha256(self.secrets[j] + parts).digest()[:KEY_BYTES]

    def fresh_key(self, r: int, *whose: PeerId) -> bytes:
        """A key of this peer's own choice for round `r`, for all or for one peer; empty where sketches have none."""
        return self.private.key(KEY_BYTES, "key", r, *whose) if self.sketch.keyed else b""

    def reachable(self, peers: Sequence[PeerId]) -> tuple[PeerId, ...]:
        """Those of `peers` that this one shares a secret with, where secrets are needed."""
        needs_secret = self.sketch.keyed and HUB not in (self.id, *self.neighbours)
        return tuple(j for j in peers if j in self.secrets or not needs_secret)

    def say(self, kind: str, r: int, x_D: Tensor, to: PeerId) -> Message:
        """A message with the sketched parameters, under the key of the link."""
        return Message(kind, r, {"params": self.pair.down(x_D, self.key(to, r)).cpu()})

    def differences(self, mail: Mail, post: Mapping[PeerId, Message], r: int) -> dict[PeerId, Tensor]:
        """What each neighbour has that this peer has not: `pull(theirs - ours)`, of D numbers each.

        Both are the messages of one exchange, so each pair is sketched under one key; at consensus
        the difference vanishes, and with it the sketch's noise.
        """
        return {
            j: self.pair.pull((m.tensors["params"] - post[j].tensors["params"]).to(self.task.device), self.key(j, r))
            for j, m in mail.items()
        }

    def merge(self, differences: Mapping[PeerId, Tensor], weights: Mapping[PeerId, float]) -> Tensor | float:
        """The aggregator's step for these differences; 0 when nothing came, so a silent neighbour costs nothing."""
        if not differences:
            return 0.0
        return self.aggregator.merge(list(differences.values()), [weights[j] for j in differences])


class Flow(Protocol):
    """How one peer learns: a generator a round, without socket, clock or `await`."""

    def start(self, me: Peer) -> Any:
        """The state before round 1."""

    def forms(self, me: Peer, r: int) -> Mapping[str, Form]:
        """What each kind of message of round `r` must look like."""

    def round(self, me: Peer, state: Any, r: int) -> Generator[Step, Mail, Any]:
        """Round `r`, counted from 1: yields steps, is sent mail, returns the next state."""

    def model(self, state: Any) -> Tensor:
        """The parameters that are evaluated, of D numbers."""


@dataclass(frozen=True)
class Role:
    """What one peer does in an algorithm: its flow, whose shards of the data it holds, whether it is evaluated."""

    flow: Flow
    shards: tuple[PeerId, ...]
    evaluated: bool = True


class Algorithm(Protocol):
    """How peers learn together."""

    @property
    def topology(self) -> str:
        """The family of peer graph when the scenario names none."""

    def roles(self, learners: int) -> Mapping[PeerId, Role]:
        """Who there is, and what each does."""

    def check(self, training: Training, sketch: Sketch, links: Sequence[tuple[PeerId, PeerId]]) -> None:
        """Raise ValueError when these settings, this sketch or this graph cannot carry it."""

    def vectors(self, links: Sequence[tuple[PeerId, PeerId]]) -> float:
        """Parameter vectors sent a round by all peers together, at most."""
