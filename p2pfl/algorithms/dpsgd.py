"""D-PSGD: every peer takes a gradient step and a Metropolis-weighted average with its neighbours at once.

Source: Lian et al. 2017, "Can Decentralized Algorithms Outperform Centralized Algorithms?", Algorithm 1:
x_i <- sum_j W_ij x_j - lr * grad f_i(x_i). All but the last of a round's local steps are plain SGD.

Inertia (ours, after Polyak's heavy ball): what neighbours pull at a peer goes on at a part of its size in the next
round. All moves of a link are opposite, so the mean of all peers stays where it is.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import pydantic
import torch
from torch import Tensor

from p2pfl.algorithms._replay import Gossip
from p2pfl.contracts import Sketch, Training
from p2pfl.messages import Exchange, Form, Mail, PeerId, Report, Step
from p2pfl.peer import Peer, Role


@dataclass(frozen=True, eq=False)
class State:
    """A peer's parameters and momentum, and how far it was last pulled."""

    x_D: Tensor
    m_D: Tensor | None = None
    pulled_D: Tensor | float = 0.0


@dataclass(frozen=True)
class DPSGD:
    """Gossip: x_i <- sum_j W_ij x_j - lr * grad f_i(x_i), with every neighbour in every round.

    `inertia` is the part of a pull that goes on in the next round.
    """

    inertia: Annotated[float, pydantic.Field(ge=0, le=0.45)] = 0.0
    topology = "ring"

    def roles(self, learners: int) -> dict[PeerId, Role]:
        """Every learner does the same."""
        return {i: Role(self, (i,)) for i in range(learners)}

    def check(self, training: Training, sketch: Sketch, links: Sequence[tuple[PeerId, PeerId]]) -> None:
        """Any connected graph carries it; inertia and a relaxed pull together would drive peers apart."""
        if self.inertia and sketch.reach > 1:
            raise ValueError(
                f"inertia goes with no relaxed pull, and the sketch's is {sketch.reach:g}: set relaxation to 1"
            )

    def vectors(self, links: Sequence[tuple[PeerId, PeerId]]) -> float:
        """Parameter vectors sent a round: one each way on every link."""
        return 2 * len(links)

    def start(self, me: Peer) -> State:
        """The first point, at rest."""
        return State(me.first_point())

    def forms(self, me: Peer, r: int) -> Mapping[str, Form]:
        """One vector of parameters, sketched."""
        return {"params": Form({"params": (torch.float32, (me.pair.size,))})}

    def round(self, me: Peer, state: State, r: int) -> Generator[Step, Mail, State]:
        """Plain steps, then the paper's equation: gradient and mixing at the same point."""
        local = me.steps(state.x_D, state.m_D, r, me.local_steps - 1)
        post = {j: me.say("params", r, local.x_D, to=j) for j in me.reachable(me.neighbours)}
        yield Exchange("params", r, post)  # on its way while the gradient is computed
        last = me.step(local.x_D, local.m_D, r)
        mail = yield Exchange("params", r, expect=tuple(post))
        pulled_D = me.merge(me.differences(mail, post, r), me.weights)
        if self.inertia:
            pulled_D = pulled_D + self.inertia * state.pulled_D
        x_D = last.x_D.add_(pulled_D).add_(local.x_D)  # in place: it is ours
        yield Report(r, {"loss": me.mean_loss(local, last)})
        return State(x_D, last.m_D, pulled_D if self.inertia else 0.0)

    def model(self, state: State) -> Tensor:
        """The peer's own parameters."""
        return state.x_D

    def telltale(self) -> Gossip:
        """What its mail tells of others' steps."""
        return Gossip(lambda notes, r: notes.weights(r), self.inertia)
