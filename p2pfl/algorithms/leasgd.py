"""LEASGD: peers with lower loss lead, those with higher loss follow, and each pair pulls on each other.

Source: Cheng et al., "LEASGD: an Efficient and Privacy-Preserving Decentralized Algorithm", section 2.2, eq. 3:
w_i <- w_i - eta g_i + eta rho (w_f - w_i),   w_f <- w_f - eta g_f + eta rho (w_i - w_f),   0 <= eta rho < 1.
tau is `local_steps`. Every k rounds (k tau steps) an elected peer gathers the losses and recategorises: the leader
pool is the larger, and a few leaders and followers trade places at random. After each update leaders and followers
are paired anew by a random matching along the links of the peer graph; who has no partner trains alone.

Losses and the list of leaders flood along the links, in `diameter` exchanges each. Who is elected and who pairs
with whom are drawn from the shared stream, so they cost no message.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import pydantic
import torch
from torch import Tensor

from p2pfl.algorithms._flood import flood, flood_forms
from p2pfl.contracts import Sketch, Training
from p2pfl.messages import Exchange, Form, Mail, PeerId, Report, Step
from p2pfl.peer import Peer, Role, Roster
from p2pfl.seeds import Seeds


@dataclass(frozen=True, eq=False)
class State:
    """Parameters, momentum, the last training loss with L2, and who leads and who follows, as last announced."""

    x_D: Tensor
    m_D: Tensor | None
    loss: float
    leads: Mapping[PeerId, bool]


@dataclass(frozen=True)
class LEASGD:
    """Leader-follower: pairs pull on each other by eta * rho; pools anew every `k` rounds.

    `shuffle` is the chance of each follower to trade places with a random leader when the pools are made.
    """

    rho: Annotated[float, pydantic.Field(ge=0)] = 5.0
    k: Annotated[int, pydantic.Field(gt=0)] = 10
    shuffle: Annotated[float, pydantic.Field(ge=0, le=1)] = 0.1
    topology = "complete"

    def roles(self, learners: int) -> dict[PeerId, Role]:
        """Every learner does the same; who leads changes as they learn."""
        return {i: Role(self, (i,)) for i in range(learners)}

    def check(self, training: Training, sketch: Sketch, links: Sequence[tuple[PeerId, PeerId]]) -> None:
        """The elastic factor must be in [0, 1) at `lr`, the largest learning rate; a relaxed pull stretches it."""
        if (pull := training.lr * self.rho) >= 1:
            raise ValueError(f"rho times lr must be below 1, not {self.rho:g} x {training.lr:g} = {pull:g}: lower rho")
        if pull * sketch.reach > 1:
            problem = f"rho times lr times the sketch's relaxation must be at most 1, not {pull * sketch.reach:g}"
            raise ValueError(f"{problem}: lower rho, or the relaxation, which is {sketch.reach:g}")

    def vectors(self, links: Sequence[tuple[PeerId, PeerId]]) -> float:
        """Parameter vectors sent a round when every follower finds a leader: two a pair."""
        return 2 * followers_of(len({peer for link in links for peer in link}))

    def start(self, me: Peer) -> State:
        """The first point, at rest, before any pool."""
        return State(me.first_point(), None, 0.0, {})

    def forms(self, me: Peer, r: int) -> Mapping[str, Form]:
        """Parameters, and in rounds that recategorise a table a hop for losses and for leaders."""
        forms = {"params": Form({"params": (torch.float32, (me.pair.size,))})}
        if (r - 1) % self.k == 0:
            forms |= flood_forms(me, "losses") | flood_forms(me, "leaders")
        return forms

    def round(self, me: Peer, state: State, r: int) -> Generator[Step, Mail, State]:
        """Plain steps, then equation 3: gradient and pull at the same point."""
        leads = state.leads
        if (r - 1) % self.k == 0:
            leads = yield from self.recategorise(me, r, state.loss)
        local = me.steps(state.x_D, state.m_D, r, me.local_steps - 1)
        partner = partners(me.roster, leads, me.shared.child("pairs", r)).get(me.id)
        talk = me.reachable(() if partner is None else (partner,))
        post = {j: me.say("params", r, local.x_D, to=j) for j in talk}
        if post:
            yield Exchange("params", r, post)  # on its way while the gradient is computed
        last = me.step(local.x_D, local.m_D, r)
        mail: Mail = {}
        if post:
            mail = yield Exchange("params", r, expect=talk)
        pull = me.lr(r) * self.rho
        x_D = local.x_D + last.x_D + me.merge(me.differences(mail, post, r), dict.fromkeys(mail, pull))
        loss = me.mean_loss(local, last)
        yield Report(r, {"loss": loss, "leader": leads.get(me.id), "partner": partner})
        if me.training.weight_decay:  # "we add the L2-normalization on the training loss"
            loss += me.training.weight_decay / 2 * float(x_D @ x_D)
        return State(x_D, last.m_D, loss, leads)

    def recategorise(self, me: Peer, r: int, loss: float) -> Generator[Step, Mail, dict[PeerId, bool]]:
        """Flood the losses; the elected peer makes the pools; flood them. Empty for who did not hear of them."""
        losses = yield from flood(me, "losses", r, {me.id: loss})
        rng = me.shared.child("pools", r)
        draw = rng.numpy("elected").permutation(me.roster.learners)
        elected = next(i for i in draw.tolist() if i in losses)  # one who is alive: all have heard the same
        announced: dict[PeerId, float] = {}
        if me.id == elected:
            leaders = pools(losses, self.shuffle, rng)
            announced = {i: float(i in leaders) for i in losses}
        announced = yield from flood(me, "leaders", r, announced)
        return {i: bool(leads) for i, leads in announced.items()}

    def model(self, state: State) -> Tensor:
        """The peer's own parameters."""
        return state.x_D


def followers_of(peers: int) -> int:
    """How many follow: the leader pool is always the larger."""
    return max(0, (peers - 1) // 2)


def pools(losses: Mapping[PeerId, float], shuffle: float, rng: Seeds) -> frozenset[PeerId]:
    """The leaders: those of lowest loss (ties at random), after each follower had its chance to trade places."""
    draw = rng.numpy("pools")
    peers = sorted(losses)
    order = [peers[k] for k in draw.permutation(len(peers))]
    order.sort(key=lambda i: losses[i])
    split = len(order) - followers_of(len(order))
    leaders, followers = order[:split], order[split:]
    for f in range(len(followers)):
        if draw.random() < shuffle:
            at = int(draw.integers(len(leaders)))
            leaders[at], followers[f] = followers[f], leaders[at]
    return frozenset(leaders)


def partners(roster: Roster, leads: Mapping[PeerId, bool], rng: Seeds) -> dict[PeerId, PeerId]:
    """A random maximal matching of leaders to followers along the links, as the partner of each who has one."""
    matched: dict[PeerId, PeerId] = {}
    for at in rng.numpy("matching").permutation(len(roster.links)):
        i, j = roster.links[at]
        pairable = i in leads and j in leads and leads[i] != leads[j]
        if pairable and i not in matched and j not in matched:
            matched |= {i: j, j: i}
    return matched
