"""D-PSGD: every peer takes a gradient step and a Metropolis-weighted average with its neighbours at once.

Source: Lian et al. 2017, "Can Decentralized Algorithms Outperform Centralized Algorithms?", Algorithm 1:
x_i <- sum_j W_ij x_j - lr * grad f_i(x_i). All but the last of a round's local steps are plain SGD.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from p2pfl.contracts import Training
from p2pfl.messages import Exchange, Form, Mail, PeerId, Report, Step
from p2pfl.peer import Peer, Role


@dataclass(frozen=True, eq=False)
class State:
    """A peer's parameters and momentum."""

    x_D: Tensor
    m_D: Tensor | None = None


@dataclass(frozen=True)
class DPSGD:
    """Gossip: x_i <- sum_j W_ij x_j - lr * grad f_i(x_i), with every neighbour in every round."""

    topology = "ring"

    def roles(self, learners: int) -> dict[PeerId, Role]:
        """Every learner does the same."""
        return {i: Role(self, (i,)) for i in range(learners)}

    def check(self, training: Training, links: Sequence[tuple[PeerId, PeerId]]) -> None:
        """Any connected graph carries it."""

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
        mixed_D = last.x_D.add_(me.merge(me.differences(mail, post, r), me.weights))  # in place: it is ours
        x_D = mixed_D.add_(local.x_D)
        yield Report(r, {"loss": me.mean_loss(local, last)})
        return State(x_D, last.m_D)

    def model(self, state: State) -> Tensor:
        """The peer's own parameters."""
        return state.x_D
