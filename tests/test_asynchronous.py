"""Peers without rounds in common: who rests and takes what has come, in virtual time and in real, and LEASGD that way.

The twin is in float64, of all peers at once, with points in full where ours are sketched; it takes from us the model,
the batches, and what was drawn. Shapes: N peers, D parameters.
"""

from __future__ import annotations

import asyncio
import heapq
import json
from collections.abc import Coroutine, Generator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import networkx as nx
import numpy
import pytest
import torch
from test_algorithms import CLOSE, HEAVY, Gradients, Quadratic, damped, quadratic_peers
from test_algorithms import played as met_by_hand
from test_bus import D, met, params
from torch import Tensor

from p2pfl import scenario
from p2pfl.algorithms.async_leasgd import AsyncLEASGD, State
from p2pfl.contracts import Bus, Sketch, Training
from p2pfl.errors import LocalError, RemoteError, ScenarioError
from p2pfl.messages import Collect, Exchange, Form, Mail, Message, Pause, PeerId, Report, Step
from p2pfl.peer import Peer
from p2pfl.plugins import Choice
from p2pfl.runtime import launch
from p2pfl.runtime.engines.inproc import Inproc
from p2pfl.runtime.engines.simulate import Simulate
from p2pfl.runtime.launch import Record
from p2pfl.runtime.plan import Plan, Watcher
from p2pfl.seeds import Seeds
from p2pfl.sketches.countsketch import CountSketch
from p2pfl.sketches.dense import Dense
from p2pfl.transport.mailbox import AHEAD_ROUNDS, Mailbox

A, B = 1, 2
FORM = Form({"w": (torch.float32, (4,))})
SMALL: dict[str, Any] = {
    "name": "apart",
    "seed": 11,
    "peers": 4,
    "rounds": 12,
    "model": {"mlp": {"hidden": [6]}},
    "training": {"batch": 8, "lr": 0.1, "local_steps": 2, "device": "cpu"},
    "algorithm": {"async_leasgd": {"rho": 2.0, "rates": 100.0}},
    "evaluate": {"every": 1},
    "engine": "simulate",
}
SLOW = {"slow": {"peers": [3], "speed": 0.1}}


def run(out: Path, **more: Any) -> Record:
    return launch.run(scenario.read({**SMALL, **more}), out)


def rows(record: Record) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in (record.folder / "records.jsonl").read_text().splitlines()]
    return [row for row in found if "to" not in row]


def of(record: Record, peer: object) -> list[dict[str, Any]]:
    return [row for row in rows(record) if row["peer"] == peer]


# The mailbox and the buses


def mailbox() -> Mailbox:
    return Mailbox((A, B), lambda r: {"pull": FORM, "reply": FORM} if r == 0 else {"m": FORM}, True, lambda: 0.0)


def comes(box: Mailbox, sender: PeerId, kind: str, value: float = 1.0) -> bool:
    """Whether such a message is wanted; then it has come."""
    if box.wanted(sender, kind, 0) is None:
        return False
    box.deliver(sender, Message(kind, 0, {"w": torch.full((4,), value)}))
    return True


def scene(play: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(play, 30))


def test_mail_of_no_round_is_kept_until_it_is_taken_however_far_rounds_drift_apart() -> None:
    async def play() -> None:
        box = mailbox()
        assert comes(box, A, "pull")
        for r in (1, 2, AHEAD_ROUNDS * 5, 10**12):
            box.at(r)
        assert comes(box, B, "pull", 2.0), "and comes, whatever round this peer is in"
        assert [float(m.tensors["w"][0]) for m in box.take("pull").values()] == [1.0, 2.0]
        assert box.take("pull") == {}
        assert box.faults == {}

    scene(play())


def test_of_mail_of_no_round_there_is_one_of_each_kind_until_it_was_taken() -> None:
    async def play() -> None:
        box = mailbox()
        assert comes(box, A, "pull")
        with pytest.raises(RemoteError, match="a second 'pull'"):
            box.wanted(A, "pull", 0)
        assert comes(box, A, "reply"), "another kind"
        assert comes(box, B, "pull"), "another sender"
        box.at(7)
        with pytest.raises(RemoteError, match="a second 'pull'"):
            box.wanted(A, "pull", 0)
        assert list(box.take("pull")) == [A, B]
        assert comes(box, A, "pull"), "once it was taken there may be the next"
        assert list(box.take("reply")) == [A]

    scene(play())


def test_mail_of_no_round_that_nobody_sends_is_refused_as_garbage() -> None:
    async def play() -> None:
        box = mailbox()
        box.at(3)
        with pytest.raises(RemoteError, match="nobody sends"):
            box.wanted(A, "rumour", 0)
        with pytest.raises(RemoteError, match="nobody sends"):
            box.wanted(A, "pull", 3)

    scene(play())


def test_a_broken_bus_is_told_to_who_takes_mail() -> None:
    async def play() -> None:
        box = mailbox()
        box.fail(ValueError("defect"))
        with pytest.raises(LocalError, match="defect"):
            box.take("pull")

    scene(play())


async def takes_what_came(a: Bus, b: Bus) -> None:
    assert b.take("params") == {}
    for r in (1, 2):
        b.at(r)
        a.at(5 * r)
        a.post(1, params(0, value=r))
        a.post(1, Message("word", r, figures={"text": "behind it"}))
        await b.collect("word", r, (0,))  # links keep their order
        mail = b.take("params")
        assert torch.equal(mail[0].tensors["x"], torch.full((D,), float(r)))
    a.post(1, params(0))
    a.post(1, params(0))
    a.post(1, Message("word", 3, figures={"text": "behind it"}))
    await b.collect("word", 3, (0,))
    assert b.faults == {0: 1}


@pytest.mark.parametrize("wire", ["inproc", "ipc", "tcp"])
def test_every_bus_hands_over_what_has_come(wire: str, tmp_path: Path) -> None:
    async def play() -> None:
        async with met(wire, tmp_path) as (a, b):
            await takes_what_came(a, b)

    scene(play())


# The twin


@dataclass
class Learner:
    """One peer of the twin: where it stands, what it knows, whom it asked with which point, and what has come."""

    x_D: Tensor
    m_D: Tensor
    clock_s: float = 0.0
    waking: int = 0
    table: dict[PeerId, tuple[int, float]] = field(default_factory=dict)
    asked: dict[PeerId, tuple[int, Tensor]] = field(default_factory=dict)
    answers: list[tuple[PeerId, Tensor]] = field(default_factory=list)
    inbox: list[tuple[float, str, PeerId, int, Tensor, dict[PeerId, tuple[int, float]]]] = field(default_factory=list)


@dataclass
class Twin:
    """All peers in one heap of events, by (time, peer): those that rested, and those that look what came."""

    made: Any
    rule: AsyncLEASGD
    rows: dict[tuple[PeerId, int], tuple[float, Tensor, dict[str, Any]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.mes, self.steps = met_by_hand(self.made, rounds=0).mes, Gradients(self.made)
        first = {i: self.rule.start(self.mes[i]).x_D.double() for i in self.mes}
        self.all = {i: Learner(first[i], torch.zeros_like(first[i])) for i in self.mes}
        self.events: list[tuple[float, PeerId, str]] = []

    def play(self, wakings: int) -> None:
        for i in self.all:
            self.rest(i, wakings)
        while self.events:
            _, i, what = heapq.heappop(self.events)
            if what == "rested":
                self.walk(i)
            else:
                self.look(i)
                self.rest(i, wakings)

    def rest(self, i: PeerId, wakings: int) -> None:
        one = self.all[i]
        if one.waking == wakings:
            return
        one.waking += 1
        self.draw = getattr(self, "draw", {})
        self.draw[i] = self.mes[i].private.numpy("waking", one.waking)
        one.clock_s += self.draw[i].exponential(1 / self.rule.rate(self.mes[i]))
        heapq.heappush(self.events, (one.clock_s, i, "rested"))

    def displace(self, i: PeerId, t: int) -> tuple[Tensor, float]:
        one, b = self.all[i], (self.all[i].waking - 1) * self.steps.tau + t
        moved_D, one.m_D, loss = self.steps.displace(i, b, one.x_D, one.m_D)
        one.clock_s += len(self.steps.tasks[i].batch(b)[1]) / 10_000
        return moved_D, loss

    def walk(self, i: PeerId) -> None:
        one, self.losses = self.all[i], getattr(self, "losses", {})
        self.losses[i] = []
        for t in range(self.steps.tau - 1):
            moved_D, loss = self.displace(i, t)
            one.x_D = one.x_D + moved_D
            self.losses[i].append(loss)
        heapq.heappush(self.events, (one.clock_s, i, "looks"))

    def look(self, i: PeerId) -> None:
        """w_i <- w_i - eta g_i + eta rho (w_j - w_i) for whom pulled, and for one who answers, as they stood then."""
        one, me, moved_D = self.all[i], self.mes[i], torch.zeros_like(self.all[i].x_D)
        came = sorted((m for m in one.inbox if m[0] <= one.clock_s), key=lambda m: m[2])
        one.inbox = [m for m in one.inbox if m[0] > one.clock_s]
        pulls = [m for m in came if m[1] == "pull"]
        one.answers += [(m[2], m[4]) for m in came if m[1] == "reply"]
        for _, _, _, _, _, table in came:
            for j, entry in table.items():
                if j != i and entry[0] > one.table.get(j, (0, 0.0))[0]:
                    one.table[j] = entry
        for _, _, j, at, y_D, _ in pulls:
            moved_D += self.elastic(me, j, at, j, y_D - one.x_D)
            self.all[j].inbox.append((one.clock_s, "reply", i, at, one.x_D, dict(one.table)))
        followed = one.answers.pop(0) if one.answers else None
        if followed is not None:
            j, y_D = followed
            at, asked_D = one.asked.pop(j)
            moved_D += self.elastic(me, j, at, i, y_D - asked_D)
        step_D, loss = self.displace(i, self.steps.tau - 1)
        one.x_D = one.x_D + step_D + moved_D
        mean_loss = float(numpy.mean([*self.losses[i], loss]))
        if one.waking % self.rule.k == 1 or self.rule.k == 1:
            decay = self.steps.training.weight_decay
            one.table[i] = (one.waking, mean_loss + decay / 2 * float(one.x_D @ one.x_D))
        leader, partner = self.choose(i)
        if partner is not None:
            one.asked[partner] = (one.waking, one.x_D)
            self.all[partner].inbox.append((one.clock_s, "pull", i, one.waking, one.x_D, dict(one.table)))
        said = {"leader": leader, "partner": partner, "pulls": len(pulls) + (followed is not None), "loss": mean_loss}
        self.rows[i, one.waking] = one.clock_s, one.x_D, said

    def elastic(self, me: Peer, j: PeerId, at: int, began: PeerId, away_D: Tensor) -> Tensor:
        return self.steps.training.lr * self.rule.rho * damped(me.pair, me.key(j, at, began)) @ away_D

    def choose(self, i: PeerId) -> tuple[bool | None, PeerId | None]:
        table, draw = self.all[i].table, self.draw[i]
        known = sorted(table)
        shuffled = [known[n] for n in draw.permutation(len(known))]
        by_loss = sorted(shuffled, key=lambda j: table[j][1])
        followers = by_loss[len(known) - (len(known) - 1) // 2 :] if len(known) > 2 else []
        leads = {j: j not in followers for j in known}
        if i in leads and draw.random() < self.rule.shuffle:
            leads[i] = not leads[i]
        free = [j for j in sorted(self.made.graph[i]) if j not in self.all[i].asked]
        if self.all[i].answers:
            free = []
        if i in leads:
            free = [j for j in free if j not in leads or leads[j] != leads[i]]
        return leads.get(i), free[int(draw.integers(len(free)))] if free else None


@pytest.mark.parametrize("sketch", ["dense", {"countsketch": {"ratio": 0.5}}], ids=str)
@pytest.mark.parametrize("topology", ["complete", "ring"])
def test_it_is_its_twin_in_virtual_time(topology: str, sketch: Any) -> None:
    rule = {"rho": 1.2, "k": 3, "shuffle": 0.3, "rates": [20.0, 400.0]}
    training = {**HEAVY, "device": "cpu"}
    more: dict[str, Any] = {"peers": 5, "rounds": 10, "init": "own", "topology": topology, "sketch": sketch}
    more |= {"algorithm": {"async_leasgd": rule}, "training": training, "partition": {"dirichlet": {"alpha": 0.5}}}
    heard, plan = simulated(more)
    twin = Twin(plan.world, plan.settings.algorithm.value)
    twin.play(10)
    assert heard.keys() == twin.rows.keys()
    for at, message in heard.items():
        time_s, x_D, said = twin.rows[at]
        ours = {key: message.figures[key] for key in said}
        assert ours.pop("loss") == pytest.approx(said.pop("loss"), rel=1e-3)
        assert ours == said, f"peer and waking {at}"
        assert message.figures["time_s"] == pytest.approx(time_s, rel=1e-9)
        torch.testing.assert_close(message.tensors["model"].double(), x_D, **CLOSE)
    assert sum(int(str(message.figures["pulls"])) for message in heard.values()) > 20
    assert {message.figures["leader"] for message in heard.values()} == {True, False}


def simulated(more: Mapping[str, Any], rule: Any = None) -> tuple[dict[tuple[PeerId, int], Message], Plan]:
    """What each peer says of each waking, in virtual time."""
    read = scenario.read({**SMALL, **more})
    if rule is not None:
        object.__setattr__(read, "algorithm", Choice("ours", rule))
    plan, heard = Plan(read, Seeds.of(read.seed).root, bytes(8)), {}

    def hear(peer: PeerId, message: Message) -> None:
        assert message.kind != "crashed", message.figures["traceback"]
        if message.kind == "row":
            heard[peer, message.round] = message

    torch.set_num_threads(1)
    scene(Simulate().run(plan, Watcher(hear), asyncio.Event()))
    return heard, plan


# Pairs


@dataclass
class Frank(Quadratic):
    """A task without gradients, that has nothing to hide."""

    tellings: int = 0

    def told(self, loss: float, x_D: Tensor, at: int) -> float:
        """See Task."""
        self.tellings += 1
        return loss

    def spent(self) -> dict[str, Any]:
        """See Task."""
        return {}


def still(graph: nx.Graph[PeerId], sketch: Sketch) -> dict[PeerId, Peer]:
    """Peers that begin apart and do not move by themselves."""
    peers = quadratic_peers(graph, sketch)
    return {i: replace(me, task=Frank(**vars(me.task))) for i, me in peers.items()}


@dataclass
class Yard:
    """Peers without gradients that wake in any order, each waking at once; what was posted and not yet taken."""

    mes: dict[PeerId, Peer]
    rule: AsyncLEASGD
    states: dict[PeerId, State] = field(default_factory=dict)
    posted: dict[tuple[PeerId, str], dict[PeerId, Message]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        meetings = {i: me.meet() for i, me in self.mes.items()}
        halves: dict[PeerId, Step | None] = {}
        for i, meeting in meetings.items():
            try:
                halves[i] = next(meeting)
            except StopIteration as end:
                self.mes[i], halves[i] = end.value, None
        for i, meeting in meetings.items():
            if halves[i] is not None:
                mail = {j: halves[j].post[i] for j in self.mes[i].neighbours}  # type: ignore[union-attr]
                with pytest.raises(StopIteration) as end:
                    meeting.send(mail)
                self.mes[i] = end.value.value
        self.states = {i: self.rule.start(me) for i, me in self.mes.items()}

    def wake(self, i: PeerId, r: int, asks: bool = True) -> dict[str, Any]:
        """One waking; who does not ask sees no neighbour to ask, and still answers."""
        me = self.mes[i] if asks else replace(self.mes[i], neighbours=())
        flow, said = self.rule.round(me, self.states[i], r), {}
        step: Any = next(flow)
        try:
            while True:
                mail: Mail = {}
                if isinstance(step, Exchange):
                    for to, message in step.post.items():
                        box = self.posted.setdefault((to, message.kind), {})
                        assert i not in box, "a second message before the first was taken"
                        box[i] = message
                elif isinstance(step, Collect):
                    mail = dict(sorted(self.posted.pop((i, step.kind), {}).items()))
                elif isinstance(step, Report):
                    said = dict(step.figures)
                step = flow.send(mail)
        except StopIteration as end:
            self.states[i] = end.value
        return said

    @property
    def settled(self) -> bool:
        """Whether every pull was answered, and every answer followed."""
        return not any(self.posted.values()) and not any(state.answers for state in self.states.values())

    @property
    def points(self) -> Tensor:
        return torch.stack([self.states[i].x_D for i in sorted(self.states)])


@pytest.mark.parametrize("sketch", [Dense(), CountSketch(), CountSketch(0.2, balanced=False)], ids=repr)
@pytest.mark.parametrize("graph", [nx.complete_graph(4), nx.cycle_graph(5), nx.star_graph(3)], ids=["K4", "C5", "S3"])
def test_once_all_pulls_are_answered_and_followed_the_mean_is_where_it_was(graph: Any, sketch: Any) -> None:
    yard = Yard(still(graph, sketch), AsyncLEASGD(rho=1.3))
    start_ND, draw, r = yard.points, numpy.random.default_rng(3), 0
    for _ in range(8):
        for i in draw.choice(sorted(yard.mes), 60).tolist():
            yard.wake(i, r := r + 1)
        assert not yard.settled
        while not yard.settled:
            for i in yard.mes:
                yard.wake(i, r := r + 1, asks=False)
        torch.testing.assert_close(yard.points.mean(0), start_ND.mean(0), rtol=0, atol=3e-6)
    apart, before = (float((x_ND - x_ND.mean(0)).norm()) for x_ND in (yard.points, start_ND))
    assert apart < 0.2 * before, "and peers have come together"


def test_a_pull_and_its_answer_move_both_ends_oppositely_whatever_lies_between() -> None:
    yard = Yard(still(nx.path_graph(2), CountSketch()), AsyncLEASGD(rho=4.0, shuffle=0.0))
    before_ND = yard.points
    yard.wake(0, 1)  # knows of nobody's loss but its own: asks its neighbour
    yard.wake(1, 1)  # moves, and answers
    yard.wake(0, 2)
    moved_ND = yard.points - before_ND
    assert float(moved_ND[1].norm()) > 0
    torch.testing.assert_close(moved_ND[0], -moved_ND[1])


def test_whoever_has_no_partner_trains_alone_and_a_dead_neighbour_stays_busy_for_ever() -> None:
    yard = Yard(still(nx.star_graph(2), Dense()), AsyncLEASGD(rho=1.0))
    partners = [yard.wake(0, r)["partner"] for r in range(1, 30)]  # the others never wake
    assert sorted(j for j in partners if j is not None) == [1, 2]
    assert [len(box) for (_, kind), box in sorted(yard.posted.items()) if kind == "pull"] == [1, 1]


def test_no_key_is_used_twice_whatever_a_liar_asks_for() -> None:
    yard = Yard(still(nx.path_graph(2), CountSketch()), AsyncLEASGD(rho=1.0))
    yard.wake(0, 1)
    (pull,), answered = yard.posted[1, "pull"].values(), []
    for r, at in enumerate((-5, 0, 3, 3, 2, 1 << 62, 1 << 64, 4), start=1):
        yard.posted[1, "pull"] = {0: Message("pull", 0, pull.tensors, {"at": at})}
        yard.wake(1, r)
        answered += [answer.figures["at"] for answer in yard.posted.pop((0, "reply"), {}).values()]
    assert answered == [3, 4]


def test_an_answer_that_was_not_asked_for_moves_nobody() -> None:
    yard = Yard(still(nx.path_graph(2), Dense()), AsyncLEASGD(rho=1.0))
    yard.wake(0, 1)
    before_D = yard.states[0].x_D
    asked = yard.posted[1, "pull"][0]
    elsewhere = {**asked.tensors, "params": asked.tensors["params"] + 1}
    for at in (0, 2, 77):
        yard.posted[0, "reply"] = {1: Message("reply", 0, elsewhere, {"at": at})}
        assert yard.wake(0, 2)["pulls"] == 0
        assert torch.equal(yard.states[0].x_D, before_D)


def test_losses_go_from_mouth_to_mouth_and_the_newer_is_believed() -> None:
    yard = Yard(still(nx.path_graph(4), Dense()), AsyncLEASGD(rho=1.0, k=1))
    for r in range(1, 12):
        for i in (0, 1, 2, 3):
            yard.wake(i, r)
    for i, state in yard.states.items():
        assert set(state.hearsay.known((0, 1, 2, 3))) == {0, 1, 2, 3}, f"peer {i} has not heard of all"
        assert int(state.hearsay.stamps_M[i]) == 11
    lie = yard.states[0].hearsay
    told = Message("pull", 0, {"losses": lie.losses_M - 9, "stamps": lie.stamps_M + 99})
    heard = yard.states[2].hearsay.heard(2, [told])
    assert torch.equal(heard.losses_M[[0, 1, 3]], told.tensors["losses"][[0, 1, 3]])
    assert heard.losses_M[2] == yard.states[2].hearsay.losses_M[2], "of its own loss it believes nobody"


@pytest.mark.parametrize("k", [1, 3, 10])
def test_a_loss_is_told_as_often_as_it_says_beforehand(k: int) -> None:
    yard = Yard(still(nx.path_graph(2), Dense()), AsyncLEASGD(rho=1.0, k=k))
    task: Any = yard.mes[0].task
    for r in range(1, 25):
        yard.wake(0, r)
        assert task.tellings == yard.rule.losses_told(r)


# Options


def test_what_may_move_a_peer_in_one_waking_must_not_overshoot() -> None:
    links = tuple(nx.star_graph(4).edges)
    AsyncLEASGD(rho=1.9).check(Training(lr=0.1), Dense(), links)
    with pytest.raises(ValueError, match=r"^rho times lr .*below 1/5 .* 4 neighbours, not 0\.2: lower rho below 2,"):
        AsyncLEASGD(rho=2.0).check(Training(lr=0.1), Dense(), links)
    with pytest.raises(ValueError, match="relaxation"):
        AsyncLEASGD(rho=1.9).check(Training(lr=0.1), CountSketch(), links)
    with pytest.raises(ValueError, match="drawn anew every round"):
        AsyncLEASGD(rho=0.1).check(Training(lr=0.1), CountSketch((0.2, 0.5)), links)


def test_rates_are_one_or_drawn_evenly_on_a_logarithmic_scale() -> None:
    me = still(nx.path_graph(2), Dense())[0]
    assert AsyncLEASGD(rates=3.0).rate(me) == 3.0
    drawn = [AsyncLEASGD(rates=(0.1, 10.0)).rate(replace(me, id=i)) for i in range(300)]
    assert all(0.1 <= rate <= 10 for rate in drawn)
    assert 0.4 < sum(rate < 1 for rate in drawn) / 300 < 0.6


@pytest.mark.parametrize("rates", [0, -1.0, [2.0, 1.0], [0.0, 1.0], [1.0, 2.0, 3.0], "often"])
def test_rates_that_are_none_are_refused(rates: Any) -> None:
    with pytest.raises(ScenarioError, match="rates"):
        scenario.read({**SMALL, "algorithm": {"async_leasgd": {"rates": rates}}})


@pytest.mark.parametrize("stop", [{"target": True}, {"bytes": 1e6}, {"plateau": 3}], ids=lambda stop: next(iter(stop)))
def test_a_stop_that_needs_rounds_in_common_is_refused(stop: dict[str, Any]) -> None:
    name = next(iter(stop))
    with pytest.raises(ScenarioError, match=rf"stop\.0\.{name} .*async_leasgd.*stop after so many seconds"):
        scenario.read({**SMALL, "evaluate": {"target": 0.5}, "stop": [stop]})


def test_links_that_change_from_round_to_round_are_refused() -> None:
    with pytest.raises(ScenarioError, match=r"one_peer_exponential.*rounds"):
        scenario.read({**SMALL, "topology": "one_peer_exponential"})


# Runs


@pytest.mark.parametrize(
    ("engine", "sketch"),
    [
        ("simulate", "dense"),
        ("inproc", "dense"),
        ("simulate", {"countsketch": {"ratio": 0.5}}),
        ("local", {"countsketch": {"ratio": 0.5}}),
    ],
    ids=str,
)
def test_every_engine_runs_it(engine: str, sketch: Any, tmp_path: Path) -> None:
    rule = {"async_leasgd": {"rho": 1.2, "rates": 100.0}}
    record = run(tmp_path / "r", rounds=25, evaluate={"every": 5}, engine=engine, sketch=sketch, algorithm=rule)
    assert [row["round"] for row in of(record, 2) if "pulls" in row] == list(range(1, 26))
    assert sum(row["pulls"] for peer in range(4) for row in of(record, peer)) > 25
    assert (record.crashed, record.summary.get("faults", {}), record.summary["absent"]) == ((), {}, {})
    assert record.summary["accuracy"]["mean"] > 0.4
    assert record.summary["accuracy"]["consensus_model"] > 0.4
    assert record.summary["rounds"] == 25
    assert of(record, "all"), "peers are compared"


def test_in_virtual_time_the_same_seed_gives_the_same_record(tmp_path: Path) -> None:
    records = [run(tmp_path / name, groups=SLOW) for name in ("a", "b")]
    assert rows(records[0]) == rows(records[1])


def test_a_straggler_slows_nobody_but_itself(tmp_path: Path) -> None:
    with_it, without = run(tmp_path / "with", groups=SLOW), run(tmp_path / "without")
    for peer in (0, 1, 2):
        assert [row["round_s"] for row in of(with_it, peer)] == [row["round_s"] for row in of(without, peer)]
        assert [row["time_s"] for row in of(with_it, peer)] == [row["time_s"] for row in of(without, peer)]
    assert of(with_it, 3)[-1]["time_s"] > of(without, 3)[-1]["time_s"]
    lockstep = {"algorithm": "leasgd"}
    waits, free = run(tmp_path / "waits", groups=SLOW, **lockstep), run(tmp_path / "free", **lockstep)
    assert of(waits, 0)[-1]["time_s"] > 3 * of(free, 0)[-1]["time_s"], "as in lockstep it does"


def test_on_processes_too_a_straggler_and_one_that_is_killed_hold_nobody_up(tmp_path: Path) -> None:
    algorithm = {"async_leasgd": {"rho": 1.2, "rates": 200.0}}
    more: dict[str, Any] = {"rounds": 100_000, "evaluate": {"every": 100_000}, "stop": [{"seconds": 2.0}]}
    more |= {"groups": {"slow": {"peers": [3], "speed": 0.02}}, "churn": [{"round": 6, "kill": [0]}]}
    record = run(tmp_path / "r", engine="local", algorithm=algorithm, **more)
    wakings = {peer: max(row["round"] for row in of(record, peer)) for peer in range(4)}
    assert wakings[0] == 5
    assert min(wakings[1], wakings[2]) > 1.5 * wakings[3] > 0
    assert (record.summary["ended_by"], record.crashed) == ("seconds", ())


def test_each_stops_by_its_own_clock_and_is_tested_then(tmp_path: Path) -> None:
    record = run(tmp_path / "r", groups=SLOW, rounds=5000, stop=[{"seconds": 0.5}], evaluate={"every": 7})
    ends = {}
    for peer in range(4):
        said = of(record, peer)
        ends[peer] = said[-1]["round"]
        assert said[-2]["time_s"] < 0.5 <= said[-1]["time_s"]
        assert ["test_accuracy" in row for row in said] == [False] * (len(said) - 1) + [True]
    assert len(set(ends.values())) > 1
    assert record.summary["ended_by"] == "seconds"
    assert record.summary["rounds"] == max(ends.values())


@pytest.mark.parametrize("engine", ["simulate", "inproc"])
def test_a_peer_that_is_killed_holds_nobody_up(engine: str, tmp_path: Path) -> None:
    record = run(tmp_path / "r", engine=engine, rounds=15, churn=[{"round": 6, "kill": [0]}])
    assert [max(row["round"] for row in of(record, peer)) for peer in range(4)] == [5, 15, 15, 15]
    assert record.crashed == ()
    assert max(row["round"] for row in of(record, "all")) == 15, "the next one's word counts when peers are compared"
    if engine == "simulate":
        whole = run(tmp_path / "whole", rounds=15)
        assert [row["time_s"] for row in of(record, 2)] == [row["time_s"] for row in of(whole, 2)]


@dataclass(frozen=True)
class Sleeper(AsyncLEASGD):
    """One peer sleeps as good as for ever."""

    def rate(self, me: Peer) -> float:
        """As seldom as can be."""
        return 1e-12 if me.id == 1 else super().rate(me)


def test_while_one_sleeps_for_ever_the_others_come_to_their_end() -> None:
    rule = Sleeper(rho=2.0, rates=100.0)
    heard, plan = simulated({}, rule)
    usual, _ = simulated({})
    for peer, r in usual:
        if peer != 1:
            assert heard[peer, r].figures["time_s"] == usual[peer, r].figures["time_s"]
    stop, left = asyncio.Event(), set()

    def hear(peer: PeerId, message: Message) -> None:
        if message.kind == "left":
            left.add(peer)
            if left == {0, 2, 3}:
                stop.set()

    scene(Inproc().run(plan, Watcher(hear), stop))
    assert left == {0, 2, 3}


def test_peers_are_compared_as_they_last_were_and_at_last_once_more(tmp_path: Path) -> None:
    record = run(tmp_path / "r", groups=SLOW, rounds=8, evaluate={"every": 2})
    compared = of(record, "all")
    own = {row["round"]: row["time_s"] for row in of(record, 0)}
    assert all(row["time_s"] == own[row["round"]] for row in compared[:-1])
    assert compared[-1]["time_s"] == max(row["time_s"] for row in rows(record))
    assert record.summary["consensus_distance"] == compared[-1]["consensus_distance"]
    for row in compared:
        told = [[said for said in of(record, i) if said["time_s"] <= row["time_s"]] for i in range(4)]
        last = [[said["validation_accuracy"] for said in each if "validation_accuracy" in said][-1] for each in told]
        assert row["mean_accuracy"] == pytest.approx(sum(last) / 4)


# In virtual time


@dataclass(frozen=True)
class Clocks:
    """Peers that do nothing but rest, post and look: 0 posts at 1 s and at 3 s, 1 looks at 0.5, 1, 2 and 4 s."""

    asynchronous = True
    topology = "complete"

    def roles(self, learners: int) -> dict[PeerId, Any]:
        """See Algorithm."""
        return AsyncLEASGD.roles(self, learners)  # type: ignore[arg-type]

    def start(self, me: Peer) -> Tensor:
        """See Flow."""
        return me.first_point()

    def model(self, state: Tensor) -> Tensor:
        """See Flow."""
        return state

    def round(self, me: Peer, state: Tensor, r: int) -> Generator[Step, Mail, Tensor]:
        """See Flow."""
        saw: list[list[float]] = []
        if me.id == 0:
            for rest_s in (1.0, 2.0):
                yield Pause(rest_s)
                yield Exchange("tick", 0, {1: Message("tick", 0, {"w": torch.tensor([rest_s])})})
        else:
            for rest_s in (0.5, 0.5, 1.0, 2.0):
                yield Pause(rest_s)
                mail = yield Collect("tick")
                saw.append([float(message.tensors["w"]) for message in mail.values()])
        yield Report(r, {"saw": json.dumps(saw)})
        return state


def test_who_looks_sees_what_was_posted_by_then_and_no_more() -> None:
    heard, _ = simulated({"peers": 2, "rounds": 1}, Clocks())
    assert json.loads(str(heard[1, 1].figures["saw"])) == [[], [1.0], [], [2.0]]
    assert heard[1, 1].figures["time_s"] == 4.0
    assert heard[1, 1].figures["round_s"] == 4.0
