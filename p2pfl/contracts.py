"""What the parts of a peer promise each other: the protocols, and the plain values that they speak of.

Shapes: D parameters, S numbers on the wire, K messages received.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, Protocol, runtime_checkable

import pydantic
import torch
from torch import Tensor

from p2pfl import plugins
from p2pfl.messages import Figure, Mail, Message, PeerId
from p2pfl.seeds import Seeds


@dataclass(frozen=True)
class Slot:
    """One parameter tensor within the flat vector; `output` says that it belongs to the output layer."""

    name: str
    shape: tuple[int, ...]
    output: bool = False

    @cached_property
    def size(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)


Layout = tuple[Slot, ...]
"""How the flat parameter vector is laid out: the slots in order, without gaps."""


class Schedule(Protocol):
    """How the learning rate changes in the course of the training: what every plug-in of `schedules/` is."""

    def factor(self, done: float) -> float:
        """What `lr` is multiplied by, in [0, 1], at the step before which the share `done` in [0, 1) was done."""


SCHEDULE = plugins.Slot("training.schedule", "schedules", "constant")


@dataclass(frozen=True)
class Training:
    """How a peer's own steps are taken: SGD with momentum and weight decay, as in torch.optim.SGD.

    `lr` is the largest learning rate; the schedule says what part of it a step takes.
    """

    batch: Annotated[int, pydantic.Field(gt=0)] = 32
    lr: Annotated[float, pydantic.Field(gt=0)] = 0.1
    momentum: Annotated[float, pydantic.Field(ge=0, lt=1)] = 0.0
    weight_decay: Annotated[float, pydantic.Field(ge=0)] = 0.0
    local_steps: Annotated[int, pydantic.Field(gt=0)] | None = None
    local_epochs: Annotated[int, pydantic.Field(gt=0)] | None = None
    device: str = "auto"
    schedule: Annotated[plugins.Choice, SCHEDULE] = field(default_factory=lambda: SCHEDULE.choose(SCHEDULE.default))

    def __post_init__(self) -> None:
        if self.local_steps is not None and self.local_epochs is not None:
            raise ValueError("local_steps and local_epochs exclude each other: give one")

    def steps(self, examples: int) -> int:
        """Steps a round, of a peer that holds so many examples; 1 when neither option is given."""
        if self.local_epochs is None:
            return self.local_steps or 1
        return self.local_epochs * -(-examples // self.batch)

    def rate(self, at: int, run_steps: float) -> float:
        """The learning rate of the `at`-th of `run_steps` steps, counted from 0: `lr` as the schedule has it."""
        return self.lr * float(self.schedule.value.factor(min(at, run_steps - 1) / run_steps))

    def batch_size(self, examples: int, at: int) -> int:
        """How many examples the `at`-th batch has, of a peer that holds so many: the last of an epoch may be short."""
        batches = -(-examples // self.batch)
        return self.batch if (at + 1) % batches else examples - self.batch * (batches - 1)


class Pair(Protocol):
    """A pair of linear maps on the flat parameter vector, bound to one layout. Pure; any device."""

    @property
    def size(self) -> int:
        """S: how many numbers travel."""

    def down(self, x_D: Tensor, key: bytes) -> Tensor:
        """The sketch `x S` of a vector, of S numbers."""

    def up(self, z_S: Tensor, key: bytes) -> Tensor:
        """Its transpose `z S^T`, of D numbers: E[up(down(x))] = x."""

    def pull(self, z_S: Tensor, key: bytes) -> Tensor:
        """`up`, damped so that `x + pull(down(y) - down(x))` is no further from y than x is."""


class Map(Protocol):
    """S of one weight matrix, of d columns and s of its sketch, as what it does to rows."""

    def fold(self, x: Tensor, z: Tensor) -> None:
        """Fill `z` (rows x s) with `x S`, x being rows x d."""

    def unfold(self, z: Tensor, x: Tensor, damped: bool) -> None:
        """Fill `x` (rows x d) with `z S^T`; damped, so that what is folded and unfolded never overshoots."""

    def folded(self, x: Tensor) -> Tensor:
        """`fold` as a new tensor, through which gradients of any order flow."""

    def unfolded(self, z: Tensor, damped: bool) -> Tensor:
        """`unfold` as a new tensor, through which gradients of any order flow."""


@runtime_checkable
class Layerwise(Protocol):
    """What a Pair is besides whose maps are those of weight matrices, each by itself: layers can compute with them."""

    def maps(self, key: bytes, device: torch.device) -> Sequence[Map | None]:
        """S of each slot, None where it travels whole."""

    def sketches_of(self, z_S: Tensor) -> list[Tensor]:
        """The sketched matrices as views, rows x s, and what travels whole."""


class Sketch(Protocol):
    """How parameters travel.

    One that changes from round to round has `in_round(seeds, r)` too: the sketch of round r, from what all peers share.
    """

    @property
    def keyed(self) -> bool:
        """Whether its maps depend on a key; without one, `key` is empty everywhere."""

    @property
    def reach(self) -> float:
        """How many times as far as a projection its `pull` goes at most; 1 where it is one."""

    def bind(self, layout: Layout) -> Pair:
        """The maps for parameters of this layout."""


class Aggregator(Protocol):
    """How a peer merges what it is sent: always differences, seen from its own parameters."""

    def merge(self, rows_KD: Sequence[Tensor], weights_K: Sequence[float]) -> Tensor:
        """The step of D numbers that K >= 1 differences with these weights amount to; rows are not altered."""


@dataclass(frozen=True, eq=False)
class Trained:
    """What some steps of training came to. `x_D` is the new point of `steps`, the displacement of `step`.

    The loss is nan where no step was taken, or none that looked at an example.
    """

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

    def lr(self, at: int) -> float:
        """The learning rate of the `at`-th step of the run, counted from 0: `training.lr` as its schedule has it."""

    def steps(
        self, x: Tensor, m: Tensor | None, first: int, count: int, pair: Pair | None = None, key: bytes = b""
    ) -> Trained:
        """`count` steps of SGD from `x`, the `first`-th batch first (batches count from 0 over the whole run).

        With a `pair`, `x` are the S numbers of a sketch: the loss is taken at `up(x)`, by the chain rule its
        gradient in x is `down(gradient)`. Neither `x` nor `m` (momentum; None: start anew) is altered.
        The loss is the mean over the steps, nan when count is 0.
        """

    def step(self, x_D: Tensor, m_D: Tensor | None, at: int) -> Trained:
        """The displacement `-lr(at) * gradient` (or momentum) of the `at`-th batch, taken at `x_D`, not yet added.

        It is a new tensor, which the caller may alter.
        """

    def held(self, at: int) -> Sequence[int]:
        """Which rows of the data set's training part the `at`-th batch holds: for judging attacks after the run."""

    def told(self, loss: float, x_D: Tensor, at: int) -> float:
        """The training loss as it may be told to others: `loss` itself, or what a defence makes of it at `x_D`.

        nan where it may not be told. `at` is the step that it follows.
        """

    def spent(self) -> Mapping[str, Figure]:
        """What a defence has given away of this peer's examples so far; {} without one."""

    def evaluate(self, x_D: Tensor, split: str) -> Mapping[str, Figure]:
        """`accuracy` (share of right answers) and `loss` on the `validation` or `test` split.

        Of two classes also `auc`, the area under the ROC curve, and `roc`, the curve itself as two lists of rates.
        """


class Bus(Protocol):
    """Carries messages to neighbours; one contract, whatever carries them."""

    @property
    def sent_bytes(self) -> Mapping[PeerId, int]:
        """Bytes that went onto the wire, envelopes included, by neighbour."""

    @property
    def faults(self) -> Mapping[PeerId, int]:
        """Rules broken, by neighbour."""

    def at(self, round: int, learning: bool = True) -> None:
        """Say which round this peer works on: mail for earlier ones is no longer kept.

        With `learning` false it measures: nobody should blame it for being slow.
        """

    def post(self, to: PeerId, message: Message) -> None:
        """Send a message to a neighbour; returns at once, and drops it when the link is closed."""

    async def collect(self, kind: str, round: int, expect: tuple[PeerId, ...]) -> Mail:
        """Wait for the `kind` message of `round` from each of `expect`, as long as each may still send it."""

    def take(self, kind: str) -> Mail:
        """What has come of `kind` that belongs to no round (its round is 0), at once."""

    async def close(self) -> None:
        """Send what was posted, then leave nothing behind."""
