"""Asynchronous LEASGD: each peer wakes by a clock of its own, nobody waits for anybody, and pairs pull all the same.

Source: Cheng et al., "LEASGD", section 2.2: wake-ups "according to a Poisson Stochastic Process with different arrival
rate based on local clock time of each worker". Equation 3 is that of `leasgd`.

A round of a peer is one waking. It sends its point to a neighbour; that one, on waking, moves by eta rho (theirs - its
own) and answers with where it stood; then the first, on waking, makes the opposite move. So each pull that comes to
its end leaves the mean of all where it was, if both train at one rate. An answer may be late, and tells of points that
both have left since: nothing caps how late. One answer is followed a waking; who has more of them asks nobody anew. A
link whose answer never comes stays busy, and nobody waits for it.

Nobody can gather all losses at one moment: they travel with the mail, see `_hearsay`. Who lies in it may lead, and may
keep the losses of others from being heard by stamps far ahead.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Container, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, ClassVar

import numpy
import pydantic
import torch
from torch import Tensor

from p2pfl.algorithms._hearsay import Hearsay, leading, table_of
from p2pfl.algorithms._pairing import followers_of
from p2pfl.algorithms._pulls import expected, fresh, moves, number, point
from p2pfl.contracts import Sketch, Training
from p2pfl.messages import Collect, Exchange, Form, Mail, Message, Pause, PeerId, Report, Step
from p2pfl.peer import Peer, Role
from p2pfl.seeds import Seeds


@dataclass(frozen=True, eq=False)
class State:
    """Parameters, momentum, what is known of losses; by neighbour the waking of its last pull that was answered, what
    it was asked with, and its answer as long as that is not followed. Until then it is busy.
    """

    x_D: Tensor
    m_D: Tensor | None
    hearsay: Hearsay
    answered: Mapping[PeerId, int] = field(default_factory=dict)
    asked: Mapping[PeerId, Message] = field(default_factory=dict)
    answers: Mapping[PeerId, Message] = field(default_factory=dict)


@dataclass(frozen=True)
class AsyncLEASGD:
    """Leader-follower without a barrier: who wakes moves by what has come since, and pulls at one neighbour by rho.

    A peer tells its loss anew every `k` wakings, and with the chance `shuffle` it takes the other role for one. It
    wakes `rates` times a second on average; of two numbers, at a rate between them that is drawn for it.
    """

    rho: Annotated[float, pydantic.Field(ge=0)] = 1.0
    k: Annotated[int, pydantic.Field(gt=0)] = 10
    shuffle: Annotated[float, pydantic.Field(ge=0, le=1)] = 0.1
    rates: float | tuple[float, float] = 1.0
    asynchronous: ClassVar[bool] = True
    topology = "complete"

    def __post_init__(self) -> None:
        low, high = self.rates if isinstance(self.rates, tuple) else (self.rates, self.rates)
        if not 0 < low <= high:
            raise ValueError("rates must be above 0, wakings a second: give one number, or two, the smaller first")

    def roles(self, learners: int) -> dict[PeerId, Role]:
        """Every learner does the same; who leads changes as they learn."""
        return {i: Role(self, (i,)) for i in range(learners)}

    def check(self, training: Training, sketch: Sketch, links: Sequence[tuple[PeerId, PeerId]]) -> None:
        """In one waking each neighbour may pull once, and one answer is followed: together they must not overshoot."""
        most = max(Counter(peer for link in links for peer in link).values(), default=0) + 1
        pull = training.lr * self.rho * max(1.0, sketch.reach)
        if most * pull >= 1:
            what = "rho times lr" if sketch.reach <= 1 else "rho times lr times the sketch's relaxation"
            problem = f"{what} must be below 1/{most} where a peer has {most - 1} neighbours, not {pull:g}"
            below = self.rho / (most * pull)
            raise ValueError(f"{problem}: lower rho below {below:.4g}, or give peers fewer neighbours")
        if hasattr(sketch, "in_round") and sketch.in_round(Seeds(bytes(32)), 1) is not sketch:
            raise ValueError("a sketch drawn anew every round needs rounds that peers have in common: give one ratio")

    def vectors(self, links: Sequence[tuple[PeerId, PeerId]]) -> float:
        """Parameter vectors sent a waking of all peers: each pulls once, and is answered."""
        return 2 * len({peer for link in links for peer in link})

    def losses_told(self, rounds: int) -> int:
        """How many losses a peer tells in so many wakings."""
        return -(-rounds // self.k)

    def start(self, me: Peer) -> State:
        """The first point, at rest, before anything was heard."""
        return State(me.first_point(), None, Hearsay.none(len(me.roster.learners)))

    def forms(self, me: Peer, r: int) -> Mapping[str, Form]:
        """A point and what is known of losses, with the number of the waking in which the pull began."""
        tensors = {"params": (torch.float32, (me.pair.size,)), **table_of(len(me.roster.learners))}
        return dict.fromkeys(("pull", "reply"), Form(tensors, {"at": int})) if r == 0 else {}

    def round(self, me: Peer, state: State, r: int) -> Generator[Step, Mail, State]:
        """Rest, plain steps, then equation 3 with what has come: gradient and pulls at the same point."""
        draw, own = me.private.numpy("waking", r), me.roster.learners.index(me.id)
        yield Pause(draw.exponential(1 / self.rate(me)))
        local = me.steps(state.x_D, state.m_D, r, me.local_steps - 1)
        pulls = fresh(me, state.answered, (yield Collect("pull")))
        answers = {**state.answers, **expected(state.asked, (yield Collect("reply")))}
        hearsay = state.hearsay.heard(own, (*pulls.values(), *answers.values()))
        post = {j: point(me, "reply", local.x_D, hearsay, j, number(pull)) for j, pull in pulls.items()}
        yield Exchange("reply", 0, post)  # on its way while the gradient is computed
        last = me.step(local.x_D, local.m_D, r)
        followed, left = dict(list(answers.items())[:1]), dict(list(answers.items())[1:])  # the oldest first
        x_D = local.x_D + last.x_D + moves(me, self.rho, pulls, post) + moves(me, self.rho, followed, state.asked)
        me.insist_finite(x_D, r)
        loss = me.mean_loss(local, last)
        if (r - 1) % self.k == 0 and math.isfinite(told := me.told(loss, x_D, r) + me.l2(x_D)):
            hearsay = hearsay.told(own, told, r)
        asked = {j: message for j, message in state.asked.items() if j not in followed}
        leader, partner = self.choose(me, hearsay, me.neighbours if left else asked, draw)
        if partner is not None:
            asked[partner] = point(me, "pull", x_D, hearsay, partner, r)
            yield Exchange("pull", 0, {partner: asked[partner]})
        yield Report(r, {"loss": loss, "leader": leader, "partner": partner, "pulls": len(pulls) + len(followed)})
        answered = {**state.answered, **{j: number(pull) for j, pull in pulls.items()}}
        return State(x_D, last.m_D, hearsay, answered, asked, left)

    def rate(self, me: Peer) -> float:
        """How many times a second this peer wakes on average."""
        low, high = self.rates if isinstance(self.rates, tuple) else (self.rates, self.rates)
        return float(low * (high / low) ** me.shared.numpy("rate", me.id).random())

    def choose(
        self, me: Peer, hearsay: Hearsay, busy: Container[PeerId], draw: numpy.random.Generator
    ) -> tuple[bool | None, PeerId | None]:
        """Whether to lead for now, and whom to pull at: a neighbour not busy, nor known to do the same."""
        losses = hearsay.known(me.roster.learners)
        leads = leading(losses, followers_of(len(losses)), draw)
        mine = leads.get(me.id)
        if mine is not None and draw.random() < self.shuffle:
            mine = not mine
        free = [j for j in me.reachable(me.neighbours) if j not in busy and (mine is None or leads.get(j) != mine)]
        return mine, free[int(draw.integers(len(free)))] if free else None

    def model(self, state: State) -> Tensor:
        """The peer's own parameters."""
        return state.x_D
