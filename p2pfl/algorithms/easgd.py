"""EASGD: members learn on models of their own, each tied by an elastic to a centre that the hub keeps.

Source: Zhang, Choromanska & LeCun 2015, "Deep learning with Elastic Averaging SGD", equations 3 to 6:
x_i <- x_i - eta g_i(x_i) - alpha (x_i - x~),   x~ <- (1 - beta) x~ + beta mean_i x_i = x~ + alpha sum_i (x_i - x~),
alpha = eta rho, beta = p alpha for p members, synchronous: all on the right is of one time. As in Algorithm 1 all begin
where the centre does, whatever `init` says. tau is `local_steps`: all but a round's last step are plain SGD.

Sketched (ours): with its centre the hub sends each member a fresh key to answer under. Both ends know one difference
alike and move by opposite parts of it, so no exchange moves the sum of centre and members.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import pydantic
import torch
from torch import Tensor

from p2pfl.algorithms._replay import Gossip
from p2pfl.algorithms._star import keys_of, models, refuse_other_graphs
from p2pfl.contracts import Sketch, Training
from p2pfl.evidence import Notes
from p2pfl.messages import HUB, Exchange, Form, Mail, Message, PeerId, Report, Step
from p2pfl.peer import Peer, Role


@dataclass(frozen=True, eq=False)
class State:
    """The centre, without momentum; or a member's parameters and momentum."""

    x_D: Tensor
    m_D: Tensor | None = None


@dataclass(frozen=True)
class EASGD:
    """Star: members keep their own models and each round pull on the hub's, as it pulls on theirs, by beta / peers.

    `beta` is how far the hub goes towards the mean of all members in a round; the paper's rho is beta / (peers * lr).
    """

    beta: Annotated[float, pydantic.Field(gt=0, le=1)] = 0.9
    topology = "star"

    def roles(self, learners: int) -> dict[PeerId, Role]:
        """A hub without data, which is the centre and is evaluated, and the members."""
        member = Member(self)
        return {HUB: Role(Hub(self), ())} | {i: Role(member, (i,), evaluated=False) for i in range(learners)}

    def check(self, training: Training, sketch: Sketch, links: Sequence[tuple[PeerId, PeerId]]) -> None:
        """Every link must have the hub at one end; alpha must be below 1, and a relaxed pull stretches the elastics.

        A round without gradients is I - alpha L, L the Laplacian of the star, whose largest eigenvalue is p + 1: what
        a sketch relaxes at most `reach` times must leave it within [-1, 1], or centre and members drift apart.
        """
        refuse_other_graphs("easgd", links)
        if len(links) == 1 and self.beta == 1:
            raise ValueError("beta is 1 with 1 peer, so that alpha = beta / peers is not below 1: lower beta")
        limit = 2 * len(links) / (len(links) + 1)
        if links and (stretched := self.beta * sketch.reach) > limit:
            problem = f"beta times the sketch's relaxation must be at most {limit:.3g} here, not {stretched:g}"
            raise ValueError(f"{problem}: lower beta, or the relaxation, which is {sketch.reach:g}")

    def vectors(self, links: Sequence[tuple[PeerId, PeerId]]) -> float:
        """Parameter vectors sent a round: to and from every member."""
        return 2 * len(links)

    def pull(self, me: Peer, keys: Mapping[PeerId, bytes], post: Mail, mail: Mail) -> Tensor | float:
        """alpha times what those who came have that this peer has not, of D numbers; 0 when nobody came."""
        rows_KS = {j: m.tensors["params"] - post[j].tensors["params"] for j, m in mail.items() if j in keys}
        differences = {j: me.pair.pull(row_S.to(me.task.device), keys[j]) for j, row_S in rows_KS.items()}
        return me.merge(differences, dict.fromkeys(differences, self.beta / len(me.roster.learners)))


@dataclass(frozen=True)
class Hub:
    """The hub's side: it keeps the centre."""

    rule: EASGD

    def start(self, me: Peer) -> State:
        """The point where all begin."""
        return State(common_point(me))

    def forms(self, me: Peer, r: int) -> Mapping[str, Form]:
        """What a member answers: its parameters, under the key that came with the centre."""
        return {"params": Form({"params": (torch.float32, (me.pair.size,))})}

    def round(self, me: Peer, state: State, r: int) -> Generator[Step, Mail, State]:
        """Send the centre to every member, and give way to the pulls of those that answer."""
        me.insist_finite(state.x_D, r)
        post = models(me, state.x_D, me.neighbours, r, own_keys=True)
        mail = yield Exchange("params", r, post, expect=tuple(post))
        x_D = state.x_D + self.rule.pull(me, keys_of(me, post), post, mail)
        yield Report(r, {"heard": len(mail)})
        return State(x_D)

    def model(self, state: State) -> Tensor:
        """The centre."""
        return state.x_D

    def telltale(self) -> Gossip:
        """What its mail tells of members' steps: of each, all that pulls at it comes from here."""
        return Gossip(self._elastics, key=lambda page, j: keys_of(page.me, {j: page.said[j][0]}).get(j, b""))

    def _elastics(self, notes: Notes, r: int) -> Mapping[PeerId, Mapping[PeerId, float]]:
        return {i: {HUB: self.rule.beta / len(notes.trainings)} for i in notes.trainings}


@dataclass(frozen=True)
class Member:
    """A member's side: who hears no hub goes on alone."""

    rule: EASGD

    def start(self, me: Peer) -> State:
        """The point where all begin, at rest."""
        return State(common_point(me))

    def forms(self, me: Peer, r: int) -> Mapping[str, Form]:
        """What the hub sends: a key, and its centre under it."""
        return {"model": Form({"params": (torch.float32, (me.pair.size,))}, {"key": bytes})}

    def round(self, me: Peer, state: State, r: int) -> Generator[Step, Mail, State]:
        """Plain steps, then the paper's equation: gradient and pull at the same point."""
        local = me.steps(state.x_D, state.m_D, r, me.local_steps - 1)
        mail = yield Exchange("model", r, expect=me.neighbours)  # the hub alone, or nobody where links change
        keys = keys_of(me, mail)
        post = {j: Message("params", r, {"params": me.pair.down(local.x_D, key).cpu()}) for j, key in keys.items()}
        yield Exchange("params", r, post)  # on its way while the gradient is computed
        last = me.step(local.x_D, local.m_D, r)
        pulled_D = self.rule.pull(me, keys, post, mail)
        x_D = last.x_D.add_(pulled_D).add_(local.x_D)  # in place: it is ours
        yield Report(r, {"loss": me.mean_loss(local, last)})
        return State(x_D, last.m_D)

    def model(self, state: State) -> Tensor:
        """The member's own parameters; members are not evaluated."""
        return state.x_D


def common_point(me: Peer) -> Tensor:
    """Where the hub and all members begin."""
    return dataclasses.replace(me, init="shared").first_point()
