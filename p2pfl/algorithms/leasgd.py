"""LEASGD: peers with lower loss lead, those with higher loss follow, and each pair pulls on each other.

Source: Cheng et al., "LEASGD: an Efficient and Privacy-Preserving Decentralized Algorithm", section 2.2, eq. 3:
w_i <- w_i - eta g_i + eta rho (w_f - w_i),   w_f <- w_f - eta g_f + eta rho (w_i - w_f),   0 <= eta rho < 1.
tau is `local_steps`. Every k rounds (k tau steps) an elected peer gathers the losses and recategorises: the leader
pool is the larger, and a few leaders and followers trade places at random. After each update leaders and followers
are paired anew at random along the links of the peer graph; who has no partner trains alone. Where p leaders pull on
one follower, as in the paper's Proposition 1, it moves by the sum of their pulls, and p eta rho < 1.

Losses and the list of leaders travel from link to link. Who is elected and who pairs with whom are drawn from the
shared stream, so they cost no message. Where links change, all that is said of one round goes along its own links;
where these fall into parts, each part has pools of its own.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, ClassVar, Literal

import pydantic
import torch
from torch import Tensor

from p2pfl.algorithms import _flood
from p2pfl.algorithms._pairing import PAIRINGS, Links, drawn, imagined, pools, refuse_overshoot
from p2pfl.algorithms._replay import Gossip
from p2pfl.contracts import Sketch, Training
from p2pfl.evidence import Weights
from p2pfl.messages import Exchange, Figure, Form, Mail, PeerId, Report, Step
from p2pfl.peer import Peer, Role
from p2pfl.seeds import Seeds


@dataclass(frozen=True, eq=False)
class State:
    """Parameters, momentum, the last training loss, and who leads and who follows, as last announced."""

    x_D: Tensor
    m_D: Tensor | None
    loss: float
    leads: Mapping[PeerId, bool]


@dataclass(frozen=True)
class LEASGD:
    """Leader-follower: pairs pull on each other by eta * rho; pools anew every `k` rounds.

    `shuffle` is the chance of each follower to trade places with a random leader when the pools are made. `pairing`
    is a random `matching` of leaders and followers, or `pull`: every leader draws a follower.
    """

    rho: Annotated[float, pydantic.Field(ge=0)] = 5.0
    k: Annotated[int, pydantic.Field(gt=0)] = 10
    shuffle: Annotated[float, pydantic.Field(ge=0, le=1)] = 0.1
    pairing: Literal["matching", "pull"] = "matching"
    topology = "complete"
    EXAMPLES: ClassVar = ({"pairing": "pull", "rho": 2.0, "k": 1},)

    def roles(self, learners: int) -> dict[PeerId, Role]:
        """Every learner does the same; who leads changes as they learn."""
        return {i: Role(self, (i,)) for i in range(learners)}

    def check(self, training: Training, sketch: Sketch, links: Links) -> None:
        """0 <= eta rho < 1 and p eta rho < 1 at `lr`, the largest learning rate; a relaxed pull stretches it."""
        refuse_overshoot(PAIRINGS[self.pairing].pulls(links), self.rho, training.lr, sketch.reach)

    def vectors(self, links: Links) -> float:
        """Parameter vectors sent a round when everybody who draws finds a partner: two a pair."""
        return 2 * PAIRINGS[self.pairing].pairs(len({peer for link in links for peer in link}))

    def weights_in(self, links: Links, training: Training, shared: Seeds, r: int) -> Weights:
        """By which weight who will pull on whom in round `r`, as far as that can be told before the run."""
        paired = imagined(PAIRINGS[self.pairing], links, self.shuffle, self.k, shared, r)
        return {i: dict.fromkeys(partners, training.lr * self.rho) for i, partners in paired.items()}

    def losses_told(self, rounds: int) -> int:
        """How many losses a peer tells in a run of so many rounds: one whenever pools are made, but for the first."""
        return (rounds - 1) // self.k

    def start(self, me: Peer) -> State:
        """The first point, at rest, before any pool."""
        return State(me.first_point(), None, 0.0, {})

    def forms(self, me: Peer, r: int) -> Mapping[str, Form]:
        """Parameters, and in rounds that recategorise a table a hop of losses, and one of leaders."""
        forms = {"params": Form({"params": (torch.float32, (me.pair.size,))})}
        return forms | _flood.forms(me, "losses", "leaders") if self._recategorises(r) else forms

    def round(self, me: Peer, state: State, r: int) -> Generator[Step, Mail, State]:
        """Plain steps, then equation 3: gradient and pulls at the same point."""
        leads = (yield from self.recategorise(me, state, r)) if self._recategorises(r) else state.leads
        local = me.steps(state.x_D, state.m_D, r, me.local_steps - 1)
        paired = PAIRINGS[self.pairing].partners(me.roster.links, leads, me.shared.child("pairs", r))
        partners = paired.get(me.id, ())
        talk = me.reachable(partners)
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
        yield Report(r, {"loss": loss, "leader": leads.get(me.id)} | self._shown(partners))
        return State(x_D, last.m_D, loss, leads)

    def recategorise(self, me: Peer, state: State, r: int) -> Generator[Step, Mail, Mapping[PeerId, bool]]:
        """The elected peer gathers the losses, makes the pools and tells; who hears nothing keeps the former ones."""
        losses = yield from _flood.gather(me, "losses", r, self._loss(me, state, r))
        rng = me.shared.child("pools", r)
        draw = rng.numpy("elected").permutation(me.roster.learners)
        elected = next(i for i in draw.tolist() if i in losses)  # one who is alive: all have heard of the same
        leaders = pools(losses, self.shuffle, rng) if me.id == elected else ()
        announced = {i: float(i in leaders) for i in losses} if me.id == elected else {}
        announced = yield from _flood.spread(me, "leaders", r, elected, losses, announced)
        return {i: leads == 1 for i, leads in announced.items()} or state.leads

    def _loss(self, me: Peer, state: State, r: int) -> float:
        """What this peer tells of the loss by which it is ranked; nothing of its data before it has trained."""
        if r == 1:
            return 0.0
        # "we add the L2-normalization on the training loss": it hangs on nothing but what is sent anyway
        return me.told(state.loss, state.x_D, r - 1) + me.l2(state.x_D)

    def _recategorises(self, r: int) -> bool:
        return (r - 1) % self.k == 0

    def _shown(self, partners: Sequence[PeerId]) -> dict[str, Figure]:
        """The columns that tell with whom: one peer or nobody in a matching, else all."""
        if self.pairing == "matching":
            return {"partner": partners[0] if partners else None}
        return {"partners": list(partners)}

    def model(self, state: State) -> Tensor:
        """The peer's own parameters."""
        return state.x_D

    def telltale(self) -> Gossip:
        """What its mail tells of others' steps: of those who are one's partners in two rounds running."""
        return Gossip(partial(drawn, PAIRINGS[self.pairing], self.rho))
