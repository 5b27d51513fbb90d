"""LEASGD against its twin, equation 3 on all peers at once in float64, and who leads, who pairs, who says what.

Of ours the twin takes the model, the batches, and who paired with whom, after looking that this is as it should be.
Shapes: N peers, D parameters.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import networkx as nx
import numpy
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some
from test_algorithms import (
    CLOSE,
    HEAVY,
    PLAIN,
    SIZE,
    SKETCHES,
    Gradients,
    Play,
    Quadratic,
    damped,
    play,
    played,
    quadratic_peers,
    quadratic_play,
    world,
)
from test_engines import figures
from test_engines import run as launched
from torch import Tensor

import p2pfl
from p2pfl import plugins, scenario
from p2pfl.algorithms._flood import distances, gather
from p2pfl.algorithms._pairing import PAIRINGS, followers_of, matching, pools, pull
from p2pfl.algorithms.leasgd import LEASGD, State
from p2pfl.contracts import Training
from p2pfl.errors import ScenarioError
from p2pfl.messages import Exchange, Mail, Message, PeerId, Step
from p2pfl.peer import Peer, Roster
from p2pfl.runtime.world import World
from p2pfl.seeds import Seeds
from p2pfl.sketches.countsketch import CountSketch
from p2pfl.sketches.dense import Dense

Partners = Mapping[PeerId, tuple[PeerId, ...]]
GRAPHS: dict[str, nx.Graph[int]] = {
    "complete": nx.complete_graph(7),
    "ring": nx.cycle_graph(9),
    "path": nx.path_graph(6),
    "tree": nx.balanced_tree(2, 3),
    "star": nx.star_graph(6),
    "random": nx.gnp_random_graph(12, 0.3, seed=4),
    "small world": nx.connected_watts_strogatz_graph(11, 4, 0.4, seed=2),
}


def partners_of(ours: Play, i: PeerId, r: int) -> tuple[PeerId, ...]:
    """With whom peer `i` says that it paired in round `r`."""
    said = ours.reports[i, r]
    if "partners" in said:
        return tuple(said["partners"])
    return () if said["partner"] is None else (said["partner"],)


def insist_paired(pairing: str, links: Any, leads: Mapping[PeerId, bool], paired: Partners) -> None:
    """Pairs are links between a leader and a follower, known to both; nobody is alone who need not be."""
    around: dict[PeerId, set[PeerId]] = {i: set() for i in leads}
    for i, j in links:
        around[i].add(j)
        around[j].add(i)
    for i, found in paired.items():
        assert len(set(found)) == len(found)
        assert all(j in around[i] and leads[j] != leads[i] and i in paired[j] for j in found)
        if pairing == "matching" or leads[i]:
            assert len(found) <= 1
    for i in leads:
        others = [j for j in around[i] if leads[j] != leads[i]]
        if pairing == "matching":
            assert paired.get(i) or all(paired.get(j) for j in others), "two neighbours that could have paired"
        elif leads[i]:
            assert bool(paired.get(i)) == bool(others), "every leader pulls that has a follower"


# Equation 3


@pytest.mark.parametrize("sketch", SKETCHES, ids=str)
@pytest.mark.parametrize("training", [PLAIN, HEAVY], ids=["plain", "heavy"])
@pytest.mark.parametrize("topology", ["complete", "ring"])
@pytest.mark.parametrize("pairing", PAIRINGS)
def test_it_is_equation_3_between_leaders_and_followers(
    pairing: str, topology: Any, training: Any, sketch: Any
) -> None:
    rho = {"matching": 4.0, "pull": 2.0}[pairing]
    options = {"rho": rho, "k": 2, "shuffle": 0.0, "pairing": pairing}
    more: dict[str, Any] = {"algorithm": {"leasgd": options}, "partition": {"dirichlet": {"alpha": 0.3}}}
    made = world(training, peers=5, topology=topology, sketch=sketch, init="own", **more)
    ours, twin = played(made, rounds=6), Gradients(made)
    tau, decay, pair = twin.tau, twin.training.weight_decay, ours.mes[0].pair
    x_ND = torch.stack([ours.model(i, 0) for i in range(5)])
    m_ND, f_N = torch.zeros_like(x_ND), torch.zeros(5, dtype=torch.float64)
    leads: dict[PeerId, bool] = {}
    for r in range(1, 7):
        if r == 1:
            leads = {i: ours.reports[i, 1]["leader"] for i in range(5)}  # nobody has a loss yet: drawn
        elif r % 2 == 1:
            lowest = f_N.argsort()[:3].tolist()
            leads = {i: i in lowest for i in range(5)}
            assert losses_told(ours, r) == pytest.approx({i: float(f_N[i]) for i in range(5)}, rel=1e-4)
        assert {i: ours.reports[i, r]["leader"] for i in range(5)} == leads
        assert sum(leads.values()) == 3
        paired = {i: partners_of(ours, i, r) for i in range(5)}
        insist_paired(pairing, made.links, leads, paired)
        moves_ND, mean_D = torch.zeros_like(x_ND), torch.zeros(x_ND.shape[1], dtype=torch.float64)
        for i in range(5):
            losses = []
            for t in range(tau):
                move_D, m_ND[i], loss = twin.displace(i, (r - 1) * tau + t, x_ND[i], m_ND[i])
                losses.append(loss)
                if t < tau - 1:
                    x_ND[i] += move_D
                else:
                    moves_ND[i] = move_D
            f_N[i] = sum(losses) / tau
            assert ours.reports[i, r]["loss"] == pytest.approx(float(f_N[i]), rel=1e-4)
        mean_D = (x_ND + moves_ND).mean(0)
        for i in range(5):
            for j in paired[i]:
                moves_ND[i] += 0.1 * rho * damped(pair, ours.mes[i].key(j, r)) @ (x_ND[j] - x_ND[i])
        x_ND = x_ND + moves_ND
        f_N += decay / 2 * (x_ND**2).sum(1)  # "we add the L2-normalization on the training loss function"
        torch.testing.assert_close(x_ND.mean(0), mean_D)
        for i in range(5):
            torch.testing.assert_close(ours.model(i, r), x_ND[i], **CLOSE)
    spoken = {(by, to) for by, to, m, _ in ours.posts if m.kind == "params" and m.round == 6}
    assert spoken == {(i, j) for i in paired for j in paired[i]}, "parameters travel between paired peers only"
    assert len(spoken) <= made.settings.algorithm.value.vectors(made.links)


def losses_told(ours: Play, r: int) -> dict[PeerId, float]:
    """What each peer told of itself when pools were made in round `r`."""
    told = {}
    for by, _, message, tensors in ours.posts:
        if (message.kind, message.round) == ("losses 1", r):
            assert tensors["known"].nonzero().flatten().tolist() == [by], "at first it knows of itself alone"
            if tensors["known"][by] == 1:
                told[by] = float(tensors["values"][by])
    return told


# Pools and pairs, on any graph


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("pairing", PAIRINGS)
def test_on_any_graph_all_hear_one_list_and_pairs_are_links(pairing: str, graph: str) -> None:
    drawn = GRAPHS[graph]
    ours = quadratic_play(LEASGD(rho=0.8, k=2, pairing=pairing), drawn, Dense(), 6)  # type: ignore[arg-type]
    for r in range(1, 7):
        lists = [ours.states[i, r].leads for i in drawn]
        assert all(leads == lists[0] for leads in lists)
        assert lists[0].keys() == set(drawn)
        assert sum(lists[0].values()) == len(drawn) - followers_of(len(drawn))
        paired = {i: partners_of(ours, i, r) for i in drawn}
        insist_paired(pairing, drawn.edges, lists[0], paired)
        for i in drawn:
            assert sorted(ours.sent(i, "params", r)) == sorted(paired[i])
            if not paired[i]:
                torch.testing.assert_close(ours.model(i, r), ours.model(i, r - 1), rtol=0, atol=0)
    asked = [sum(m.kind == f"losses {hop}" and m.round == 3 for _, _, m, _ in ours.posts) for hop in range(1, 20)]
    assert sum(count > 0 for count in asked) == nx.diameter(drawn), "where nobody is missing nobody asks for longer"


@given(
    graph=some.builds(
        nx.gnp_random_graph,
        some.integers(1, 14),
        some.sampled_from([0.1, 0.3, 0.8]),
        seed=some.integers(0, 99),
    ),
    seed=some.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
@pytest.mark.parametrize("pairing", PAIRINGS)
def test_pairs_are_right_on_any_links_at_all(pairing: str, graph: nx.Graph[int], seed: int) -> None:
    leaders = pools({i: float((7 * i + seed) % 5) for i in graph}, 0.3, Seeds.of(seed))
    leads, links = {i: i in leaders for i in graph}, tuple(graph.edges)
    paired = PAIRINGS[pairing].partners(links, leads, Seeds.of(seed))
    insist_paired(pairing, links, leads, {i: paired.get(i, ()) for i in graph})
    assert max((len(found) for found in paired.values()), default=0) <= max(PAIRINGS[pairing].pulls(links), 1)
    assert len([i for i in paired if leads[i]]) <= PAIRINGS[pairing].pairs(len(graph))
    assert sum(map(len, paired.values())) <= 2 * PAIRINGS[pairing].pairs(len(graph))


def test_every_follower_is_paired_on_a_complete_graph() -> None:
    for m in range(2, 12):
        for r in range(20):
            rng = Seeds.of(m).child(r)
            leaders = pools({i: float((7 * i + r) % m) for i in range(m)}, 0.3, rng)
            matched = matching(tuple(nx.complete_graph(m).edges), {i: i in leaders for i in range(m)}, rng)
            assert set(matched) >= set(range(m)) - leaders
            assert len(matched) == 2 * followers_of(m)


def test_leaders_are_always_more_than_followers() -> None:
    assert [followers_of(m) for m in range(1, 9)] == [0, 0, 1, 1, 2, 2, 3, 3]
    for m in range(1, 9):
        assert len(pools(dict.fromkeys(range(m), 1.0), 0.5, Seeds.of(m))) == m - followers_of(m)


def test_leaders_have_the_lower_losses_but_for_a_few_that_traded_places() -> None:
    losses = {i: float(i) for i in range(21)}
    assert pools(losses, 0.0, Seeds.of(1)) == frozenset(range(11))
    strays = [len(pools(losses, 0.1, Seeds.of(n)) - set(range(11))) for n in range(400)]
    assert 0.85 < numpy.mean(strays) < 1.15  # ten followers, a tenth of them trades: 1, but for who trades back
    assert max(strays) < 8
    everybody = Counter(i for n in range(300) for i in pools(losses, 1.0, Seeds.of(n)))
    assert min(everybody.values()) > 50, "whoever trades for certain may end anywhere"


def test_a_loss_that_is_no_number_or_not_told_is_the_highest() -> None:
    losses = {0: math.nan, 1: 9.0, 2: math.inf, 3: 8.0, 4: -math.inf, 5: 7.0, 6: 1e300}
    assert {pools(losses, 0.0, Seeds.of(n)) for n in range(50)} == {frozenset({1, 3, 5, 6})}
    unknown = {i: math.nan for i in range(5)}
    assert len({pools(unknown, 0.0, Seeds.of(n)) for n in range(200)}) == 10


def test_ties_and_pairs_are_broken_at_random() -> None:
    links = tuple(nx.complete_graph(5).edges)
    drawn = {pools(dict.fromkeys(range(5), 0.0), 0.0, Seeds.of(n)) for n in range(200)}
    assert len(drawn) == 10
    leads = {i: i < 3 for i in range(5)}
    matchings = [matching(links, leads, Seeds.of(n)) for n in range(600)]
    counts = [sum(matched.get(i) == (3,) for matched in matchings) for i in range(3)]
    assert all(150 < count < 250 for count in counts), counts
    pulls = [pull(links, leads, Seeds.of(n)) for n in range(600)]
    counts = [sum(pulled[i] == (3,) for pulled in pulls) for i in range(3)]
    assert all(250 < count < 350 for count in counts), counts
    together = sum(len(pulled.get(3, ())) == 3 for pulled in pulls)
    assert 45 < together < 105, "each draws for itself: an eighth of the time all draw the same"


@pytest.mark.parametrize("pairing", PAIRINGS)
def test_pools_change_every_k_rounds_and_pairs_every_round(pairing: str) -> None:
    options = {"k": 3, "rho": 1.0, "pairing": pairing}
    ours = played(world(HEAVY, peers=7, algorithm={"leasgd": options}, partition={"dirichlet": {}}), rounds=9)
    led = [tuple(ours.reports[i, r]["leader"] for i in range(7)) for r in range(1, 10)]
    assert led[0] == led[1] == led[2]
    assert led[3] == led[4] == led[5]
    assert len({led[0], led[3], led[6]}) > 1
    elected = {i for i in range(7) for r in (1, 4, 7) if len(ours.sent(i, "leaders", r)) == 6}
    assert len(elected) > 1, "who tells the others is elected anew each time"
    assert len({tuple(partners_of(ours, i, r) for i in range(7)) for r in range(1, 10)}) > 5


# The elastic factor


@pytest.mark.parametrize("pairing", PAIRINGS)
@pytest.mark.parametrize(("lr", "rho"), [(0.1, 10.0), (0.5, 2.0), (0.3, 5.0)])
def test_an_elastic_factor_of_one_or_more_is_refused(lr: float, rho: float, pairing: str) -> None:
    with pytest.raises(ScenarioError, match=r"rho times lr must be below 1, not .*: lower rho below"):
        world({"lr": lr}, algorithm={"leasgd": {"rho": rho, "pairing": pairing}})


TRAINING = Training(lr=0.1)
STRETCHED = (
    r"rho times lr times the 4 leaders that may pull on one follower times the sketch's relaxation must be at most 1, "
    r"not 1\.2: lower rho below 1\.667, or set pairing to matching, or lower the relaxation, which is 1\.5"
)


@pytest.mark.parametrize(
    ("graph", "p"),
    [("complete", 4), ("ring", 2), ("path", 2), ("tree", 3), ("star", 4), ("random", 6), ("small world", 6)],
)
def test_of_many_leaders_on_one_follower_the_sum_of_pulls_must_be_below_one(graph: str, p: int) -> None:
    drawn, algorithm = GRAPHS[graph], LEASGD(rho=10 / p, pairing="pull")
    leaders = len(drawn) - followers_of(len(drawn))
    assert p == min(leaders, max(degree for _, degree in drawn.degree))
    problem = rf"rho times lr times the {p} leaders that may pull on one follower must be below 1, not .* = 1: "
    with pytest.raises(ValueError, match=rf"{problem}lower rho below {10 / p:.4g}, or set pairing to matching"):
        algorithm.check(TRAINING, Dense(), tuple(drawn.edges))
    replace(algorithm, rho=9.9 / p).check(TRAINING, Dense(), tuple(drawn.edges))
    replace(algorithm, pairing="matching").check(TRAINING, Dense(), tuple(drawn.edges))


def test_a_relaxed_pull_stretches_the_elastic_factor() -> None:
    LEASGD(rho=6.6).check(TRAINING, CountSketch(), ())
    LEASGD(rho=9.0).check(TRAINING, CountSketch(relaxation=1.0), ())
    with pytest.raises(ValueError, match=r"relaxation must be at most 1, not 1\.35"):
        LEASGD(rho=9.0).check(TRAINING, CountSketch(), ())
    links = tuple(GRAPHS["complete"].edges)
    LEASGD(rho=1.6, pairing="pull").check(TRAINING, CountSketch(), links)
    with pytest.raises(ValueError, match=STRETCHED):
        LEASGD(rho=2.0, pairing="pull").check(TRAINING, CountSketch(), links)


def test_what_pulls_within_the_limit_do_not_overshoot_and_beyond_it_they_do() -> None:
    """On a star whose centre alone follows, all leaves pull on it at once: p of them move it by p times the mean."""
    star, leads = nx.star_graph(5), {i: i > 0 for i in range(6)}
    x_ND = torch.stack([torch.zeros(SIZE), *[torch.ones(SIZE)] * 5])
    for rho, least, most in ((1.9, 0.0, 1.0), (2.5, 1.0, 2.0)):  # p eta rho of 0.95, and of 1.25
        peers = quadratic_peers(star, Dense())
        flow = LEASGD(rho=rho, pairing="pull")
        ours = play(dict.fromkeys(star, Begun(flow, leads)), peers, 1, starts=dict(enumerate(x_ND)))
        moved = float(ours.model(0, 1)[0])
        assert least < moved < most


@dataclass(frozen=True)
class Begun:
    """LEASGD in whose first round the pools are known, and none are made."""

    leasgd: LEASGD
    leads: Mapping[PeerId, bool] = field(hash=False)

    def start(self, me: Peer) -> State:
        """With these pools."""
        return replace(self.leasgd.start(me), leads=self.leads)

    def round(self, me: Peer, state: State, r: int) -> Generator[Step, Mail, State]:
        """One round later, in which no pools are due."""
        return self.leasgd.round(me, state, r + 1)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.leasgd, name)


# What is told of the losses


@dataclass
class Guarded(Quadratic):
    """A task of a loss of its own that tells another, or none; it counts what it tells."""

    loss: float = 0.0
    tells: float = 0.0
    asked: list[tuple[float, int]] = field(default_factory=list)

    def step(self, x_D: Tensor, m_D: Tensor | None, at: int) -> Any:
        """As a quadratic one, with that loss."""
        return replace(super().step(x_D, m_D, at), loss=self.loss)

    def told(self, loss: float, x_D: Tensor, at: int) -> float:
        """Not the loss."""
        self.asked.append((loss, at))
        return self.tells


def guarded(graph: nx.Graph[int], tells: Mapping[PeerId, float]) -> dict[PeerId, Peer]:
    """Peers whose loss is their number, and who tell what is given."""
    peers = quadratic_peers(graph, Dense(), curvature=1.0)
    for i, me in peers.items():
        old: Any = me.task
        task = Guarded(old.target_D, old.curvature, old.rate, old.layout, loss=float(i), tells=tells[i])
        peers[i] = replace(me, task=task, training=Training(lr=0.1, local_steps=2))
    return peers


@pytest.mark.parametrize("k", [1, 3, 4])
def test_losses_are_told_once_for_each_making_of_pools_and_nothing_else_is(k: int) -> None:
    told = {i: 100.0 - i for i in range(5)}  # he who has the highest tells the lowest
    algorithm = LEASGD(rho=2.0, k=k, shuffle=0.0)
    for rounds in range(1, 10):
        peers = guarded(GRAPHS["path"].subgraph(range(5)), told)
        ours = play(dict.fromkeys(peers, algorithm), peers, rounds)
        made = [r for r in range(2, rounds + 1) if (r - 1) % k == 0]
        for i, me in peers.items():
            task: Any = me.task
            last = [2 * (r - 1) - 1 for r in made]
            assert task.asked == [(i / 2, at) for at in last], "the mean loss of both steps of the round before"
            assert len(task.asked) == algorithm.losses_told(rounds)
        assert all(losses_told(ours, r) == told for r in made)
        assert losses_told(ours, 1) == dict.fromkeys(range(5), 0.0), "before the first round nobody has a loss"
        if made:
            assert {i for i, leads in ours.states[0, rounds].leads.items() if leads} == {2, 3, 4}
    seen = [t["values"] for _, _, m, t in ours.posts if m.kind.startswith("losses")]
    assert all(value in (0.0, *told.values()) for values in seen for value in values.tolist())


def test_who_may_not_tell_its_loss_follows() -> None:
    peers = guarded(GRAPHS["ring"], {i: math.nan if i in (0, 3) else float(i) for i in range(9)})
    ours = play(dict.fromkeys(peers, LEASGD(rho=2.0, k=2, shuffle=0.0)), peers, 4)
    assert losses_told(ours, 3).keys() == set(range(9)) - {0, 3}
    assert all(bool(t["values"].isfinite().all()) for _, _, m, t in ours.posts if "values" in t)
    for i in range(9):
        assert ours.states[i, 3].leads == {j: j in (1, 2, 4, 5, 6) for j in range(9)}
    peers = guarded(GRAPHS["ring"], dict.fromkeys(range(9), math.nan))
    ours = play(dict.fromkeys(peers, LEASGD(rho=2.0, k=2)), peers, 4)
    assert sum(ours.states[0, 3].leads.values()) == 5, "of those nobody knows of, some must lead all the same"


@dataclass(frozen=True)
class Liar:
    """LEASGD by one that says of everybody, when asked for losses, what no loss can be."""

    leasgd: LEASGD

    def round(self, me: Peer, state: State, r: int) -> Generator[Step, Mail, State]:
        """Its tables hold no numbers."""
        flow, mail = self.leasgd.round(me, state, r), None
        while True:
            try:
                step = next(flow) if mail is None else flow.send(mail)
            except StopIteration as end:
                return end.value
            if isinstance(step, Exchange) and step.kind.startswith("losses"):
                known = torch.ones(len(me.roster.learners), dtype=torch.uint8)
                values = torch.tensor([math.nan, math.inf, -math.inf] * 9, dtype=torch.float64)[: len(known)]
                table = {"values": values, "known": known * (1 + r % 3)}  # a mark of 3 means nothing, 1 a number
                step = replace(step, post={j: replace(m, tensors=table) for j, m in step.post.items()})
            mail = yield step

    def __getattr__(self, name: str) -> Any:
        return getattr(self.leasgd, name)


@pytest.mark.parametrize("graph", ["complete", "ring"])
def test_a_liar_that_tells_no_numbers_does_not_stop_the_others(graph: str) -> None:
    algorithm, drawn = LEASGD(rho=2.0, k=1, shuffle=0.0), GRAPHS[graph]
    peers = guarded(drawn, {i: float(i) for i in drawn})
    flows = {i: Liar(algorithm) if i == 2 else algorithm for i in drawn}
    ours = play(flows, peers, 7)
    for r in range(1, 8):
        for i in set(drawn) - {2}:
            assert sum(ours.states[i, r].leads.values()) == len(drawn) - followers_of(len(drawn))
            assert bool(ours.model(i, r).isfinite().all())


# Who dies


@pytest.mark.parametrize("graph", ["complete", "ring", "path", "tree", "random"])
def test_whoever_dies_all_who_can_be_reached_hear_one_list_of_the_living(graph: str) -> None:
    drawn = GRAPHS[graph]
    for dead in [{i} for i in drawn] + [{i, (i + 3) % len(drawn)} for i in list(drawn)[::2]]:
        algorithm = LEASGD(rho=1.0, k=2)
        ours = quadratic_play(algorithm, drawn, Dense(), 5, deaths=dict.fromkeys(dead, 3))
        for part in nx.connected_components(drawn.subgraph(set(drawn) - dead)):
            for i in part:
                leads = ours.states[i, 5].leads
                assert leads.keys() == part
                assert leads == ours.states[min(part), 5].leads
                assert sum(leads.values()) == len(part) - followers_of(len(part))


def test_the_death_of_the_elected_leaves_the_others_learning() -> None:
    made = world(PLAIN, peers=5, algorithm={"leasgd": {"k": 2, "rho": 4.0}})
    for dead in range(5):
        ours = played(made, rounds=6, deaths={dead: 3})
        for i in set(range(5)) - {dead}:
            assert (i, 6) in ours.states
            assert ours.reports[i, 6]["leader"] is not None, "a living peer was elected"
            assert ours.reports[i, 6]["partner"] != dead
        assert sum(ours.reports[i, 6]["leader"] for i in set(range(5)) - {dead}) == 3


@dataclass(frozen=True)
class Fainting:
    """LEASGD whose elected peer dies in round `at`, when it has all losses and is about to say who leads."""

    leasgd: LEASGD
    at: int

    def round(self, me: Peer, state: State, r: int) -> Generator[Step, Mail, State]:
        """The elected speaks of leaders before it has heard of them."""
        flow, mail, heard = self.leasgd.round(me, state, r), None, False
        while True:
            try:
                step = next(flow) if mail is None else flow.send(mail)
            except StopIteration as end:
                return end.value
            if isinstance(step, Exchange) and step.kind == "leaders" and r == self.at:
                heard |= bool(step.expect)
                if not heard:
                    return replace(state, loss=math.nan)
            mail = yield step

    def __getattr__(self, name: str) -> Any:
        return getattr(self.leasgd, name)


@dataclass(frozen=True)
class Mortal:
    """A flow whose peer is through when its loss is no number."""

    flow: Any

    def round(self, me: Peer, state: State, r: int) -> Generator[Step, Mail, State]:
        """Nothing is said any more after that."""
        return state if math.isnan(state.loss) else (yield from self.flow.round(me, state, r))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.flow, name)


@pytest.mark.parametrize("graph", ["complete", "ring", "tree"])
def test_when_the_elected_dies_before_it_tells_the_former_pools_stay(graph: str) -> None:
    drawn, algorithm = GRAPHS[graph], LEASGD(rho=1.0, k=2)
    ours = play(dict.fromkeys(drawn, Mortal(Fainting(algorithm, 3))), quadratic_peers(drawn, Dense()), 6)
    dead = [i for i in drawn if math.isnan(ours.states[i, 3].loss)]
    assert len(dead) == 1
    others = set(drawn) - set(dead)
    for i in others:
        assert ours.states[i, 3].leads == ours.states[i, 4].leads == ours.states[i, 2].leads
        assert ours.reports[i, 3]["partner"] not in dead or not ours.sent(dead[0], "params", 3)
        assert dead[0] not in ours.states[i, 5].leads, "the next to be elected makes pools of the living"
    assert any(ours.reports[i, 3]["partner"] is not None for i in others), "they go on pulling on each other"


HEAD = "from __future__ import annotations\nfrom dataclasses import dataclass\n"
PLUGIN = """
from p2pfl.algorithms.leasgd import LEASGD
from p2pfl.messages import Exchange
from p2pfl.peer import Role

@dataclass(frozen=True)
class Fainting:
    '''LEASGD whose elected peer dies in round `at`, when it has all losses and is about to say who leads.'''

    at: int = 3
    topology = "complete"

    def roles(self, learners):
        return {i: Role(self, (i,)) for i in range(learners)}

    def round(self, me, state, r):
        flow, mail, heard = self.leasgd.round(me, state, r), None, False
        while True:
            try:
                step = next(flow) if mail is None else flow.send(mail)
            except StopIteration as end:
                return end.value
            if isinstance(step, Exchange) and step.kind == "leaders" and r == self.at:
                heard |= bool(step.expect)
                if not heard:
                    raise RuntimeError("the elected faints")
            mail = yield step

    @property
    def leasgd(self):
        return LEASGD(rho=2.0, k=2)

    def __getattr__(self, name):
        return getattr(LEASGD(rho=2.0, k=2), name)
"""


@pytest.fixture
def _no_plugins_after(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    yield
    plugins.adopt(None)


@pytest.mark.usefixtures("_no_plugins_after")
@pytest.mark.parametrize("engine", ["simulate", "local"])
def test_real_peers_go_on_with_the_former_pools_when_the_elected_dies_before_it_tells(
    engine: str, tmp_path: Path
) -> None:
    file = tmp_path / "plugins" / "algorithms" / "fainting.py"
    file.parent.mkdir(parents=True)
    file.write_text(HEAD + PLUGIN)
    mine: dict[str, Any] = {"name": "mine", "seed": 3, "peers": 5, "rounds": 6, "algorithm": "fainting"}
    mine |= {"model": {"mlp": {"hidden": [4]}}, "training": {"batch": 8, "device": "cpu"}, "engine": engine}
    (tmp_path / "mine.yaml").write_text(json.dumps(mine))
    record = p2pfl.launch("mine.yaml", tmp_path / "run", allow_code=True)
    (dead,) = record.crashed
    rows = [json.loads(line) for line in (tmp_path / "run" / "records.jsonl").read_text().splitlines()]
    led = {(row["peer"], row["round"]): row["leader"] for row in rows if "leader" in row}
    living = set(range(5)) - {dead}
    assert all(led[i, 3] == led[i, 2] for i in living)
    assert all((i, 6) in led for i in living)
    assert sum(led[i, 5] for i in living) == 3
    assert (dead, 3) not in led
    paired = [row["partner"] for row in rows if row.get("round") in (3, 4) and row.get("partner") is not None]
    assert paired, "some pair in the rounds that nobody made pools for"


@dataclass(frozen=True)
class Unheard:
    """LEASGD among peers none of which has heard who leads."""

    leasgd: LEASGD

    def round(self, me: Peer, state: State, r: int) -> Generator[Step, Mail, State]:
        """A round in which no pools are made."""
        return self.leasgd.round(me, state, r + 1)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.leasgd, name)


def test_who_lacks_the_pools_trains_alone() -> None:
    made = world(PLAIN, peers=3, algorithm="leasgd")
    seats = {i: made.seat(i) for i in range(3)}
    ours = play(dict.fromkeys(range(3), Unheard(LEASGD())), {i: seat.me for i, seat in seats.items()}, 2)
    twin = Gradients(made)
    for i in range(3):
        x_D = ours.model(i, 0)
        for at in (1, 2):
            x_D = x_D + twin.displace(i, at, x_D, torch.zeros_like(x_D))[0]
        torch.testing.assert_close(ours.model(i, 2), x_D, **CLOSE)
        assert not ours.sent(i, "params", 2)


# Links that change, and the record


def test_links_of_a_round_carry_its_losses_and_its_pairs(tmp_path: Path) -> None:
    lines = ["round,u,v", *(f"1,{i},{i + 1}" for i in range(6)), *(f"2,0,{i}" for i in range(1, 7)), "3,0,1", "3,2,3"]
    (tmp_path / "edges.csv").write_text("\n".join([*lines, *(f"3,{i},{i + 1}" for i in range(3, 6)), ""]))
    topology = {"schedule": {"path": str(tmp_path / "edges.csv"), "allow_disconnected": True}}
    more: dict[str, Any] = {"topology": topology, "peers": 7, "rounds": 6, "algorithm": {"leasgd": {"k": 1, "rho": 2}}}
    runs = [launched(tmp_path / engine, {}, engine=engine, **more) for engine in ("simulate", "inproc")]
    assert figures(runs[0]) == figures(runs[1])
    assert runs[0].summary["absent"] == runs[1].summary["absent"] == {}
    rows = {(row["peer"], row["round"]): row for row in figures(runs[0]) if "leader" in row}
    made = World(scenario.read({"name": "x", "seed": 11, "peers": 7, "topology": topology}), Seeds.of(11))
    for r in range(1, 7):
        links = made.around(r)[1].links
        for part in nx.connected_components(nx.Graph(links)):
            assert sum(rows[i, r]["leader"] for i in part) == len(part) - followers_of(len(part))
        pairs = {tuple(sorted((i, rows[i, r]["partner"]))) for i in range(7) if rows[i, r]["partner"] is not None}
        assert pairs
        assert pairs <= set(links)


@pytest.mark.parametrize("sketch", ["dense", {"countsketch": {"ratio": 0.5}}])
def test_pulls_are_the_same_in_threads(sketch: Any, tmp_path: Path) -> None:
    pulled = {"algorithm": {"leasgd": {"pairing": "pull", "rho": 1.0, "k": 2}}, "peers": 5, "sketch": sketch}
    runs = [launched(tmp_path / engine, pulled, engine=engine) for engine in ("simulate", "inproc")]
    assert figures(runs[0]) == figures(runs[1])
    rows = [row for row in figures(runs[0]) if "partners" in row]
    assert len(rows) == 4 * 5
    assert max(len(row["partners"]) for row in rows) > 1
    assert all(len(row["partners"]) <= 1 for row in rows if row["leader"])


# The floods by themselves


@given(some.integers(1, 9), some.integers(0, 999))
@settings(max_examples=40, deadline=None)
def test_distances_are_those_of_the_graph_among_the_living(m: int, seed: int) -> None:
    graph = nx.gnp_random_graph(m, 0.4, seed=seed)
    among = [i for i in graph if (seed >> i) % 3]
    roster = Roster(tuple(graph), {}, tuple(graph.edges))
    for source in among:
        expected = nx.single_source_shortest_path_length(graph.subgraph(among), source)
        assert distances(roster, source, among) == dict(expected)


def test_what_a_peer_knows_of_itself_nobody_can_tell_it_otherwise() -> None:
    me = quadratic_peers(nx.path_graph(2), Dense())[0]
    flow = gather(me, "losses", 1, 2.0)
    next(flow)
    table = {"values": torch.tensor([9.0, 3.0], dtype=torch.float64), "known": torch.ones(2, dtype=torch.uint8)}
    with pytest.raises(StopIteration) as end:
        flow.send({1: Message("losses 1", 1, table)})
    assert end.value.value == {0: 2.0, 1: 3.0}


def test_a_message_of_the_floods_is_small_and_of_the_form_that_is_declared() -> None:
    ours = quadratic_play(LEASGD(rho=1.0, k=2), GRAPHS["ring"], Dense(), 3, deaths={4: 3})
    for by, to, message, tensors in ours.posts:
        if isinstance(message, Message) and message.kind != "params":
            form = LEASGD(k=2).forms(ours.mes[to], message.round)[message.kind]
            assert {name: (t.dtype, tuple(t.shape)) for name, t in tensors.items()} == dict(form.tensors)
            assert {name: type(value) for name, value in message.figures.items()} == dict(form.figures)
            assert sum(t.nbytes for t in tensors.values()) == 9 * 9, (by, to)
    assert "losses 1" not in LEASGD(k=2).forms(ours.mes[0], 2)
