"""What one peer is given before it starts, and the protocols of what it is given.

Shapes: D parameters, S numbers on the wire, K messages received.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Protocol

import pydantic
import torch
from torch import Tensor

from p2pfl.errors import LocalError
from p2pfl.messages import HUB, Exchange, Form, Mail, Message, PeerId, Step
from p2pfl.seeds import Seeds

KEY_BYTES = 16


@dataclass(frozen=True)
class Slot:
    """One parameter tensor within the flat vector; `output` says that it belongs to the output layer."""

    name: str
    shape: tuple[int, ...]
    output: bool = False

    @property
    def size(self) -> int:
        """How many numbers it holds."""
        return int(torch.Size(self.shape).numel())


Layout = tuple[Slot, ...]
"""How the flat parameter vector is laid out: the slots in order, without gaps."""


@dataclass(frozen=True)
class Training:
    """How a peer's own steps are taken: SGD with momentum and weight decay, as in torch.optim.SGD."""

    batch: Annotated[int, pydantic.Field(gt=0)] = 32
    lr: Annotated[float, pydantic.Field(gt=0)] = 0.1
    momentum: Annotated[float, pydantic.Field(ge=0, lt=1)] = 0.0
    weight_decay: Annotated[float, pydantic.Field(ge=0)] = 0.0
    local_steps: Annotated[int, pydantic.Field(gt=0)] | None = None
    local_epochs: Annotated[int, pydantic.Field(gt=0)] | None = None
    device: str = "auto"

    def __post_init__(self) -> None:
        if self.local_steps is not None and self.local_epochs is not None:
            raise ValueError("local_steps and local_epochs exclude each other: give one")

    def steps(self, examples: int) -> int:
        """Steps a round, of a peer that holds so many examples; 1 when neither option is given."""
        if self.local_epochs is None:
            return self.local_steps or 1
        return self.local_epochs * -(-examples // self.batch)


class Pair(Protocol):
    """A pair of linear maps on the flat parameter vector, bound to one layout. Pure; any device."""

    size: int
    """S: how many numbers travel."""

    def down(self, x_D: Tensor, key: bytes) -> Tensor:
        """The sketch `x S` of a vector, of S numbers."""

    def up(self, z_S: Tensor, key: bytes) -> Tensor:
        """Its transpose `z S^T`, of D numbers: E[up(down(x))] = x."""

    def pull(self, z_S: Tensor, key: bytes) -> Tensor:
        """`up`, damped so that `x + pull(down(y) - down(x))` never overshoots y in norm."""


class Sketch(Protocol):
    """How parameters travel."""

    keyed: bool
    """Whether its maps depend on a key; without one, `key` is empty everywhere."""

    def bind(self, layout: Layout) -> Pair:
        """The maps for parameters of this layout."""


class Aggregator(Protocol):
    """How a peer merges what it is sent: always differences, seen from its own parameters."""

    def merge(self, rows_KD: Sequence[Tensor], weights_K: Sequence[float]) -> Tensor:
        """The step of D numbers that K >= 1 differences with these weights amount to; rows are not altered."""


@dataclass(frozen=True, eq=False)
class Trained:
    """What some steps of training came to. `x_D` is the new point of `steps`, the displacement of `step`."""

    x_D: Tensor
    m_D: Tensor | None
    loss: float


class Task(Protocol):
    """A model and one peer's data, as functions of the flat parameter vector."""

    layout: Layout
    device: torch.device
    examples: int

    def start(self, seeds: Seeds) -> Tensor:
        """Initial parameters, D numbers, on the task's device."""

    def steps(
        self, x: Tensor, m: Tensor | None, first: int, count: int, pair: Pair | None = None, key: bytes = b""
    ) -> Trained:
        """`count` steps of SGD from `x`, the `first`-th batch first (batches count from 0 over the whole run).

        With a `pair`, `x` are the S numbers of a sketch: the loss is taken at `up(x)`, by the chain rule its
        gradient in x is `down(gradient)`. Neither `x` nor `m` (momentum; None: start anew) is altered.
        The loss is the mean over the steps, nan when count is 0.
        """

    def step(self, x_D: Tensor, m_D: Tensor | None, at: int) -> Trained:
        """The displacement `-lr * gradient` (or momentum) of the `at`-th batch, taken at `x_D`, not yet added."""

    def evaluate(self, x_D: Tensor, split: str) -> dict[str, float]:
        """`accuracy` (share of right answers) and `loss` on the `validation` or `test` split."""


class Bus(Protocol):
    """Carries messages to neighbours; one contract, whatever carries them."""

    sent_bytes: Mapping[PeerId, int]
    """Bytes that went onto the wire, envelopes included, by neighbour."""
    faults: Mapping[PeerId, int]
    """Rules broken, by neighbour."""

    def at(self, round: int, learning: bool = True) -> None:
        """Say which round this peer works on: mail for earlier ones is no longer kept.

        With `learning` false it measures: nobody should blame it for being slow.
        """

    def post(self, to: PeerId, message: Message) -> None:
        """Send a message to a neighbour; returns at once, and drops it when the link is closed."""

    async def collect(self, kind: str, round: int, expect: tuple[PeerId, ...]) -> Mail:
        """Wait for the `kind` message of `round` from each of `expect`, as long as each may still send it."""

    async def close(self) -> None:
        """Send what was posted, then leave nothing behind."""


@dataclass(frozen=True)
class Roster:
    """What every peer knows of the run: who learns, on how many examples, along which links."""

    learners: tuple[PeerId, ...]
    examples: Mapping[PeerId, int]
    links: tuple[tuple[PeerId, PeerId], ...]
    diameter: int


@dataclass(frozen=True)
class Peer:
    """One peer before it starts, and the arithmetic that every algorithm shares.

    `weights` are the Metropolis weights w_ij of its neighbours; `shared` streams are the same for all
    peers, `private` ones are its own; `secrets` are the 128-bit secrets of its links, agreed upon when
    the peers meet.
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
    pair: Pair = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "pair", self.sketch.bind(self.task.layout))

    @property
    def local_steps(self) -> int:
        """Steps this peer takes a round."""
        return self.training.steps(self.task.examples)

    def first_point(self) -> Tensor:
        """The parameters this peer starts from: the same for all, or its own."""
        return self.task.start((self.shared if self.init == "shared" else self.private).child("init"))

    def steps(self, x_D: Tensor, m_D: Tensor | None, r: int, count: int) -> Trained:
        """The first `count` local steps of round `r`, as plain SGD. Raises LocalError when they diverge."""
        return self._finite(self.task.steps(x_D, m_D, (r - 1) * self.local_steps, count), r)

    def sketched_steps(self, z_S: Tensor, r: int, key: bytes) -> Trained:
        """All local steps of round `r` in the space of the sketch, from rest. Raises LocalError when they diverge."""
        pair = self.pair if self.sketch.keyed else None
        return self._finite(self.task.steps(z_S, None, (r - 1) * self.local_steps, self.local_steps, pair, key), r)

    def _finite(self, trained: Trained, r: int) -> Trained:
        if not math.isfinite(float(trained.x_D.sum())) and not bool(torch.isfinite(trained.x_D).all()):
            raise LocalError(f"parameters are not finite in round {r}: lower training.lr, which is {self.training.lr:g}")
        return trained

    def step(self, x_D: Tensor, m_D: Tensor | None, r: int) -> Trained:
        """The displacement of the last local step of round `r`, taken at `x_D`."""
        return self.task.step(x_D, m_D, r * self.local_steps - 1)

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

    def key(self, j: PeerId, r: int) -> bytes:
        """The key of the link to `j` in round `r`, the same at both ends; empty where sketches have none."""
        if not self.sketch.keyed:
            return b""
        return hashlib.sha256(self.secrets[j] + r.to_bytes(8, "little")).digest()[:KEY_BYTES]

    def fresh_key(self, r: int) -> bytes:
        """A key of this peer's own choice for round `r`."""
        return self.private.key(KEY_BYTES, "key", r) if self.sketch.keyed else b""

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

    topology: str
    """The family of peer graph when the scenario names none."""

    def roles(self, learners: int) -> Mapping[PeerId, Role]:
        """Who there is, and what each does."""

    def check(self, training: Training, links: Sequence[tuple[PeerId, PeerId]]) -> None:
        """Raise ValueError when these settings or this graph cannot carry it."""

    def vectors(self, links: Sequence[tuple[PeerId, PeerId]]) -> float:
        """Parameter vectors sent a round by all peers together, at most."""
