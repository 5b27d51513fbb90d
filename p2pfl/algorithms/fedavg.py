"""FedAvg: each round a hub sends its model to some members, who train it and send it back to be averaged.

Source: McMahan et al. 2017, "Communication-Efficient Learning of Deep Networks from Decentralized Data",
Algorithm 1, in the form theta += step * sum_i p_i (theta_i - theta) / sum_i p_i over the chosen i, p_i = n_i / N.
Sketched as in DBCL (Wang & Zhang, section 4): the hub draws a key and sends `key, down(theta)`, members train in
the sketched space, the hub applies `up` to the mean of their updates. Hub and member are two flows.
Ours: with `keys: own` each member has another key, and the hub takes the mean of `up` of each update, in which the
noise of their sketches averages out as well. What the hub evaluates is the running mean of its models, the old mean
weighing min(averaging, r / (r + 9)) in round r: it takes most of the sketch's noise away.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import pydantic
import torch
from torch import Tensor

from p2pfl.algorithms._star import keys_of, models, refuse_other_graphs, update
from p2pfl.algorithms._star_clues import OfHub, OfMember
from p2pfl.contracts import Sketch, Training
from p2pfl.messages import HUB, Exchange, Form, Mail, Message, PeerId, Report, Step
from p2pfl.peer import Peer, Role


@dataclass(frozen=True)
class FedAvg:
    """Star: the hub averages what a `fraction` of the members trained, and takes `step` of the way there.

    `averaging`: the hub's running mean, 0 for none; by default 0.9 under a sketch and 0 without.
    `keys`: of a sketch, one for all members of a round, or to each its own.
    """

    fraction: Annotated[float, pydantic.Field(gt=0, le=1)] = 1.0
    step: Annotated[float, pydantic.Field(gt=0)] = 1.0
    averaging: Annotated[float, pydantic.Field(ge=0, lt=1)] | None = None
    keys: Literal["shared", "own"] = "shared"
    topology = "star"

    def roles(self, learners: int) -> dict[PeerId, Role]:
        """A hub without data, and the members."""
        member = Member(self)
        return {HUB: Role(Hub(self), ())} | {i: Role(member, (i,), evaluated=False) for i in range(learners)}

    def check(self, training: Training, sketch: Sketch, links: Sequence[tuple[PeerId, PeerId]]) -> None:
        """Every link must have the hub at one end, every member a link to it; own keys need a sketch that has some."""
        if self.keys == "own" and not sketch.keyed:
            raise ValueError("keys is 'own', and the sketch has none: leave keys out, or say 'sketch: countsketch'")
        refuse_other_graphs("fedavg", links)

    def vectors(self, links: Sequence[tuple[PeerId, PeerId]]) -> float:
        """Parameter vectors sent a round: to and from every chosen member."""
        return 2 * self.count(len(links))

    def count(self, learners: int) -> int:
        """How many members take part in a round."""
        return max(1, round(self.fraction * learners))

    def chosen(self, me: Peer, r: int) -> tuple[PeerId, ...]:
        """Who takes part in round `r`: drawn from the shared stream, so it costs no message."""
        learners = me.roster.learners
        drawn = me.shared.numpy("chosen", r).choice(len(learners), self.count(len(learners)), replace=False)
        return tuple(sorted(learners[k] for k in drawn))

    def mean_weight(self, me: Peer, r: int) -> float:
        """The weight of the old running mean in round `r`."""
        limit = self.averaging if self.averaging is not None else (0.9 if me.sketch.keyed else 0.0)
        return min(limit, r / (r + 9))


@dataclass(frozen=True, eq=False)
class HubState:
    """The hub's model, and the running mean that is evaluated."""

    x_D: Tensor
    mean_D: Tensor


@dataclass(frozen=True)
class Hub:
    """The hub's side: it alone holds the parameters."""

    rule: FedAvg

    def start(self, me: Peer) -> HubState:
        """The first point."""
        x_D = me.first_point()
        return HubState(x_D, x_D)

    def forms(self, me: Peer, r: int) -> Mapping[str, Form]:
        """What a member sends back."""
        return {"update": Form({"params": (torch.float32, (me.pair.size,))})}

    def round(self, me: Peer, state: HubState, r: int) -> Generator[Step, Mail, HubState]:
        """Send `key, down(x)` to the chosen, and take the step their weighted mean amounts to."""
        me.insist_finite(state.x_D, r)
        linked = set(me.neighbours)  # perhaps not everybody, where links change
        chosen = tuple(i for i in self.rule.chosen(me, r) if i in linked)
        post = models(me, state.x_D, chosen, r, own_keys=self.rule.keys == "own")
        mail = yield Exchange("update", r, post, chosen)
        x_D = state.x_D + self.rule.step * update(me, mail, post) if mail else state.x_D
        weight = self.rule.mean_weight(me, r)
        yield Report(r, {"heard": len(mail)})
        return HubState(x_D, x_D if weight == 0 else weight * state.mean_D + (1 - weight) * x_D)

    def model(self, state: HubState) -> Tensor:
        """The running mean; the model itself without averaging."""
        return state.mean_D

    def telltale(self) -> OfHub:
        """What its mail tells of a member's steps."""
        return OfHub()


@dataclass(frozen=True)
class Member:
    """A member's side: it keeps nothing from one round to the next, momentum included."""

    rule: FedAvg

    def start(self, me: Peer) -> Tensor:
        """Nothing but a place for the model."""
        return me.first_point()

    def forms(self, me: Peer, r: int) -> Mapping[str, Form]:
        """What the hub sends: the key, and its model under it."""
        return {"model": Form({"params": (torch.float32, (me.pair.size,))}, {"key": bytes})}

    def round(self, me: Peer, state: Tensor, r: int) -> Generator[Step, Mail, Tensor]:
        """Train what the hub sent, in the sketched space, and send it back; who is not chosen or linked skips it."""
        if HUB not in me.neighbours or me.id not in self.rule.chosen(me, r):
            return state
        mail = yield Exchange("model", r, expect=(HUB,))
        if (key := keys_of(me, mail).get(HUB)) is None:
            return state
        z_S = mail[HUB].tensors["params"].to(me.task.device)
        trained = me.sketched_steps(z_S, r, key)
        yield Exchange("update", r, {HUB: Message("update", r, {"params": trained.x_D.cpu()})})
        yield Report(r, {"loss": trained.loss})
        return state

    def model(self, state: Tensor) -> Tensor:
        """Members are not evaluated."""
        return state

    def telltale(self) -> OfMember:
        """What its mail tells of the others' steps."""
        return OfMember(self.rule.chosen, self.rule.step, self.rule.keys == "own")
