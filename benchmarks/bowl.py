"""A quadratic bowl that the flows of the real algorithms descend, with many runs side by side in one vector.

The loss of every peer is f(w) = 1/2 (w - w*)^T H (w - w*), w* = 0, eigenvalues of H from mu to L. Gradients have noise
of variance sigma^2 in all, so sigma^2 / d in each of d coordinates. The runs are independent: the algorithms' equations
are the same for every number of the vector.

Shapes: R runs of d coordinates make D = R d parameters, N = p + 1 peers, T rounds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import networkx as nx
import numpy
import torch
from torch import Tensor

from p2pfl import mixing
from p2pfl.aggregators.mean import Mean
from p2pfl.algorithms.leasgd import LEASGD
from p2pfl.contracts import Layout, Pair, Slot, Trained, Training
from p2pfl.messages import Exchange, Figure, Message, PeerId
from p2pfl.peer import Flow, Peer, Roster
from p2pfl.seeds import Seeds
from p2pfl.sketches.dense import Dense

CPU = torch.device("cpu")
RUNS = 300
NEVER = 1 << 40


@dataclass(frozen=True)
class Setting:
    """A quadratic of `coordinates` dimensions, and how p leaders and one follower descend it.

    With `halved_after` rounds the step of a round t is eta / (1 + t / halved_after).
    """

    p: int
    eta: float
    rho: float
    sigma: float
    mu: float = 1.0
    largest: float = 10.0
    coordinates: int = 10
    halved_after: float = float("inf")

    @property
    def curvatures(self) -> Tensor:
        """The eigenvalues, evenly spread from mu to L."""
        return torch.linspace(self.mu, self.largest, self.coordinates, dtype=torch.float64)

    @property
    def gamma(self) -> float:
        """2 eta mu L / (mu + L)."""
        return 2 * self.eta * self.mu * self.largest / (self.mu + self.largest)

    @property
    def h(self) -> float:
        """p (1 - gamma) / (p + 1), of which the paper says that d_t shrinks by it in each round."""
        return self.p * (1 - self.gamma) / (self.p + 1)

    @property
    def fits(self) -> bool:
        """Whether the conditions of Proposition 1 hold."""
        alpha, beta = self.eta * self.rho, self.p * self.eta * self.rho
        return 0 <= alpha < 1 and 0 <= beta < 1 and self.eta <= 2 * (1 - beta) / (self.mu + self.largest)

    def printed(self, d0: float, c0: float, rounds: int) -> numpy.ndarray:
        """Equation 7 after 0 to so many rounds. `c0` is the largest squared distance at the start."""
        t, floor = numpy.arange(rounds + 1), (self.eta * self.sigma) ** 2 / self.gamma
        last = (1 - self.gamma) ** t * (1 - (self.p / (self.p + 1)) ** t)
        bound: numpy.ndarray = self.h**t * d0 + (c0 - floor) * last + floor * (1 - self.h**t)
        return bound

    def shorter(self, d0: float, rounds: int) -> numpy.ndarray:
        """(1 - gamma)^t d_0 + eta^2 sigma^2 / gamma (1 - (1 - gamma)^t), never above equation 7."""
        shrunk = (1 - self.gamma) ** numpy.arange(rounds + 1)
        bound: numpy.ndarray = shrunk * d0 + (self.eta * self.sigma) ** 2 / self.gamma * (1 - shrunk)
        return bound


@dataclass
class Bowl:
    """A `Task`: the quadratic around 0, many runs side by side, with noise of its own at every step."""

    setting: Setting
    runs: int
    noise: Seeds
    layout: Layout
    device: torch.device = CPU
    examples: int = 1

    def start(self, seeds: Seeds) -> Tensor:
        """Somewhere."""
        return torch.randn(self.layout[0].size, generator=seeds.torch("w"), dtype=torch.float64)

    def lr(self, at: int) -> float:
        """The step of round `at` + 1."""
        return self.setting.eta / (1 + at / self.setting.halved_after)

    def steps(
        self, x: Tensor, m: Tensor | None, first: int, count: int, pair: Pair | None = None, key: bytes = b""
    ) -> Trained:
        """One step after the other."""
        for at in range(first, first + count):
            x = x + self.step(x, m, at).x_D
        return Trained(x, m, 0.0)

    def step(self, x_D: Tensor, m_D: Tensor | None, at: int) -> Trained:
        """A step down the slope, but for noise."""
        x_Rd = x_D.view(self.runs, -1)
        noise_Rd = torch.randn(x_Rd.shape, generator=self.noise.torch(at), dtype=torch.float64)
        noise_Rd *= self.setting.sigma / x_Rd.shape[1] ** 0.5
        loss = float((self.setting.curvatures * x_Rd.square()).sum()) / 2
        return Trained(-self.lr(at) * (self.setting.curvatures * x_Rd + noise_Rd).flatten(), m_D, loss)

    def told(self, loss: float, x_D: Tensor, at: int) -> float:
        """Everything."""
        return loss

    def spent(self) -> Mapping[str, Figure]:
        """Nothing."""
        return {}

    def evaluate(self, x_D: Tensor, split: str) -> Mapping[str, Figure]:
        """Nothing."""
        return {}


def peers(setting: Setting, graph: nx.Graph[PeerId], runs: int, seed: int) -> dict[PeerId, Peer]:
    """Peers on a graph, each with noise of its own."""
    weights, root = mixing.metropolis(graph), Seeds.of(seed)
    links = tuple(sorted((min(link), max(link)) for link in graph.edges))
    roster = Roster(tuple(sorted(graph)), dict.fromkeys(graph, 1), links)
    layout = (Slot("w", (runs * setting.coordinates,)),)
    given = roster, Bowl(setting, runs, root, layout), Dense(), Mean(), Training(lr=setting.eta), "own"
    everybody = {i: Peer(i, tuple(weights[i]), weights[i], *given, root, root.child(i)) for i in graph}  # type: ignore[arg-type]
    return {i: replace(me, task=Bowl(setting, runs, root.child("noise", i), layout)) for i, me in everybody.items()}


def played(flow: Flow, mes: Mapping[PeerId, Peer], states: Mapping[PeerId, Any], r: int) -> dict[PeerId, Any]:
    """The states after one round of the same flow at all peers, of whom none is ever absent."""
    lives: dict[PeerId, Any] = {i: flow.round(me, states[i], r) for i, me in mes.items()}
    asked: dict[PeerId, Any] = dict.fromkeys(lives)
    post: dict[tuple[PeerId, str], dict[PeerId, Message]] = {}
    after: dict[PeerId, Any] = {}
    while lives:
        for i, life in list(lives.items()):
            expect = asked[i].expect if isinstance(asked[i], Exchange) else ()
            came = post.get((i, asked[i].kind), {}) if expect else {}
            if not came.keys() >= set(expect):
                continue
            try:
                asked[i] = life.send(None if asked[i] is None else {j: came[j] for j in expect})
            except StopIteration as end:
                after[i] = end.value
                del lives[i]
                continue
            for to, message in asked[i].post.items() if isinstance(asked[i], Exchange) else ():
                post.setdefault((to, message.kind), {})[i] = message
    return after


def gaps(
    flow: Flow, graph: nx.Graph[PeerId], setting: Setting, rounds: int, starts_Nd: Tensor, **more: Any
) -> numpy.ndarray:
    """|w_t - w*|^2, averaged over peers, of each run after 0 to `rounds` rounds, T + 1 x R.

    `leads` says who leads from the first round to the last, where that is not left to the algorithm.
    """
    runs, leads = more.get("runs", RUNS), more.get("leads")
    mes = peers(setting, graph, runs, more.get("seed", 1))
    states = {i: replace(flow.start(me), x_D=starts_Nd[i].repeat(runs)) for i, me in mes.items()}
    if leads is not None:
        states = {i: replace(state, leads=leads) for i, state in states.items()}
    squares = [_squares(flow, states, runs)]
    for r in range(1, rounds + 1):
        states = played(flow, mes, states, r + (leads is not None))  # no pools are due in the second round
        squares.append(_squares(flow, states, runs))
    return numpy.stack(squares)


def _squares(flow: Flow, states: Mapping[PeerId, Any], runs: int) -> numpy.ndarray:
    each = [flow.model(state).view(runs, -1).square().sum(1) for state in states.values()]
    mean: numpy.ndarray = torch.stack(each).mean(0).numpy()
    return mean


def leader_follower(setting: Setting, rounds: int, starts_Nd: Tensor, **more: Any) -> numpy.ndarray:
    """`gaps` of p leaders that all pull on one follower, peer 0: a star with the follower in its middle."""
    flow, leads = LEASGD(rho=setting.rho, k=NEVER, pairing="pull"), {i: i > 0 for i in range(setting.p + 1)}
    return gaps(flow, nx.star_graph(setting.p), setting, rounds, starts_Nd, leads=leads, **more)


def starts(setting: Setting, seed: int = 0) -> Tensor:
    """First points of the peers, at a distance of about 1 from the optimum: what slows one down most is common."""
    draw = torch.Generator().manual_seed(seed)
    apart_Nd = torch.randn(setting.p + 1, setting.coordinates, generator=draw, dtype=torch.float64)
    return 0.7 / setting.coordinates**0.5 * (1 + apart_Nd)
