"""EASGD against its twin, equations 5 and 6 on centre and members at once in float64, and what its elastics keep to.

Of ours the twin takes the model, the batches, and the keys that the hub drew.
Shapes: N the centre and p members, D parameters, S numbers on the wire.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import networkx as nx
import pytest
import torch
from test_algorithms import (
    CLOSE,
    EVERY_SKETCH,
    HEAVY,
    PLAIN,
    SIZE,
    SKETCHES,
    Gradients,
    Play,
    Quadratic,
    consensus,
    damped,
    play,
    played,
    quadratic_peers,
    stacked,
    world,
)
from test_engines import figures, rows, run, summary
from torch import Tensor

from p2pfl.algorithms.easgd import EASGD, Member
from p2pfl.contracts import Sketch, Trained, Training
from p2pfl.errors import ScenarioError
from p2pfl.messages import HUB, Exchange, Message, PeerId, Report
from p2pfl.scenario import read
from p2pfl.sketches.countsketch import CountSketch
from p2pfl.sketches.dense import Dense

DIRICHLET = {"dirichlet": {"alpha": 0.5}}
NOBODY: dict[PeerId, int] = {}
WHOLE, HALF = Dense(), CountSketch(0.5)


def star(members: int) -> list[tuple[PeerId, PeerId]]:
    """The links of the hub."""
    return [(HUB, i) for i in range(members)]


def keys(ours: Play, r: int) -> dict[PeerId, bytes]:
    """The key that came with the centre, by member."""
    return {to: bytes(m.figures["key"]) for by, to, m, _ in ours.posts if (by, m.round) == (HUB, r)}  # type: ignore[arg-type]


def elastic_play(sketch: Sketch, members: int, beta: float, rounds: int, apart: bool = True, **more: Any) -> Play:
    """Flows on quadratic functions; all begin apart, or at the hub's point."""
    graph: nx.Graph[PeerId] = nx.Graph(star(members))
    peers = quadratic_peers(graph, sketch, **more)
    peers = {i: replace(me, roster=replace(me.roster, learners=tuple(range(members)))) for i, me in peers.items()}
    draw = torch.Generator().manual_seed(3)
    starts = {i: torch.randn(SIZE, generator=draw) for i in peers} if apart else {}
    return play({i: role.flow for i, role in EASGD(beta).roles(members).items()}, peers, rounds, starts=starts)


# The twin


@pytest.mark.parametrize("sketch", SKETCHES, ids=str)
@pytest.mark.parametrize("training", [PLAIN, HEAVY], ids=["plain", "heavy"])
@pytest.mark.parametrize("deaths", [NOBODY, {2: 3}, {HUB: 3}], ids=["all live", "a member dies", "the hub dies"])
def test_easgd_is_equations_5_and_6_at_one_point_and_time(training: Any, sketch: Any, deaths: Any) -> None:
    made = world(training, peers=4, algorithm={"easgd": {"beta": 0.8}}, sketch=sketch, partition=DIRICHLET)
    ours, twin = played(made, 5, deaths), Gradients(made)
    centre_D, x_ND = ours.model(HUB, 0), torch.stack([ours.model(i, 0) for i in range(4)])
    m_ND, tau, alpha, pair = torch.zeros_like(x_ND), twin.tau, 0.8 / 4, ours.mes[HUB].pair
    for r in range(1, 6):
        living = [i for i in range(4) if r < deaths.get(i, 9)]
        moves_ND, pulls_ND, losses = torch.zeros_like(x_ND), torch.zeros_like(x_ND), torch.zeros(4, tau)
        for i in living:
            for t in range(tau):
                move_D, m_ND[i], losses[i, t] = twin.displace(i, (r - 1) * tau + t, x_ND[i], m_ND[i])
                if t < tau - 1:
                    x_ND[i] += move_D
            moves_ND[i] = move_D
            if r < deaths.get(HUB, 9):
                pulls_ND[i] = alpha * damped(pair, keys(ours, r)[i]) @ (x_ND[i] - centre_D)
        x_ND, centre_D = x_ND + moves_ND - pulls_ND, centre_D + pulls_ND.sum(0)
        for i in living:
            torch.testing.assert_close(ours.model(i, r), x_ND[i], **CLOSE)
            assert ours.reports[i, r]["loss"] == pytest.approx(float(losses[i].mean()), rel=1e-4)
        if r < deaths.get(HUB, 9):
            torch.testing.assert_close(ours.model(HUB, r), centre_D, **CLOSE)
            assert ours.reports[HUB, r] == {"heard": len(living)}


def test_all_begin_at_one_point_whatever_init_says() -> None:
    for init in ("shared", "own"):
        ours = played(world(PLAIN, peers=3, algorithm="easgd", init=init), 1)
        assert all(torch.equal(ours.model(i, 0), ours.model(HUB, 0)) for i in range(3))
        assert len({tuple(ours.model(i, 1).tolist()) for i in (HUB, 0, 1, 2)}) == 4, "and all go their own ways"


def test_a_member_is_not_what_is_evaluated_and_the_hub_holds_no_examples() -> None:
    roles = EASGD().roles(3)
    assert {i: (role.shards, role.evaluated) for i, role in roles.items()} == {
        HUB: ((), True),
        **{i: ((i,), False) for i in range(3)},
    }


def test_each_member_has_a_key_of_its_own_every_round() -> None:
    sketched, dense = (played(world(PLAIN, peers=3, algorithm="easgd", sketch=sketch), 3) for sketch in SKETCHES[1::-1])
    drawn = [key for r in (1, 2, 3) for key in keys(sketched, r).values()]
    assert len(set(drawn)) == 9
    assert all(len(key) == 16 for key in drawn)
    assert all(keys(dense, r) == dict.fromkeys(range(3), b"") for r in (1, 2, 3))


# Without gradients


@pytest.mark.parametrize("sketch", EVERY_SKETCH, ids=repr)
@pytest.mark.parametrize("members", [1, 2, 5])
def test_an_exchange_keeps_the_sum_of_centre_and_members_and_brings_them_together(sketch: Sketch, members: int) -> None:
    beta = min(1 - 1 / 64, 2 * members / (members + 1) / sketch.reach)  # the largest there is
    EASGD(beta).check(Training(), sketch, star(members))
    ours = elastic_play(sketch, members, beta, 12)
    for r in range(1, 13):
        torch.testing.assert_close(stacked(ours, r).sum(0), stacked(ours, 0).sum(0), rtol=0, atol=1e-5)
        assert consensus(ours, r) <= consensus(ours, r - 1) * (1 + 1e-6)
    assert consensus(ours, 12) < consensus(ours, 0)


def test_what_is_refused_for_its_relaxation_would_drive_centre_and_member_apart() -> None:
    with pytest.raises(ValueError, match=r"^beta times the sketch's relaxation must be at most 1 here, not 1\.35: "):
        EASGD(0.9).check(Training(), CountSketch(), star(1))
    ours = elastic_play(CountSketch(), 1, 0.9, 30)
    assert consensus(ours, 30) > 10 * consensus(ours, 0)
    EASGD(0.9).check(Training(), CountSketch(relaxation=1.0), star(1))
    EASGD(0.9).check(Training(), CountSketch(), star(3))


@pytest.mark.parametrize("sketch", EVERY_SKETCH, ids=repr)
def test_where_all_agree_an_exchange_changes_nothing(sketch: Sketch) -> None:
    ours = elastic_play(sketch, 3, 0.9, 1, apart=False)
    start_D = ours.states[HUB, 0].x_D
    agreed = {i: replace(state, x_D=start_D) for (i, _), state in ours.states.items()}
    starts = {i: state.x_D for i, state in agreed.items()}
    again = play(ours.flows, ours.mes, 3, starts=starts)
    assert all(torch.equal(again.model(i, 3), start_D.double()) for i in again.flows)


# What it converges to


@pytest.mark.parametrize("sketch", [WHOLE, HALF], ids=repr)
def test_the_centre_finds_the_mean_of_all_optima_while_members_stay_apart(sketch: Sketch) -> None:
    ours = elastic_play(sketch, 3, 0.6, 400, curvature=1.0, lr=0.05)
    targets_ND = torch.stack([ours.mes[i].task.target_D for i in range(3)]).double()  # type: ignore[attr-defined]
    late_RND = torch.stack([stacked(ours, r) for r in range(301, 401)])
    (centre_D, *members_ND), mean_D = late_RND.mean(0), targets_ND.mean(0)
    torch.testing.assert_close(torch.stack(members_ND).mean(0), mean_D, rtol=0, atol=0.01)
    torch.testing.assert_close(centre_D, mean_D, rtol=0, atol=0.1)
    assert float(late_RND[-1].std(0).norm()) > 0.1 * float(targets_ND.std(0).norm())
    if sketch is WHOLE:  # where gradient and elastic are in balance: 0.05 (x - target) = 0.2 (centre - x)
        torch.testing.assert_close(late_RND[-1, 0], mean_D, rtol=0, atol=1e-4)
        torch.testing.assert_close(late_RND[-1, 1:], 0.2 * targets_ND + 0.8 * mean_D, rtol=0, atol=1e-4)


# One round by hand


@dataclass
class Noting(Quadratic):
    """A task that notes when the last step's gradient is asked for."""

    asked: bool = False

    def step(self, x_D: Tensor, m_D: Tensor | None, at: int) -> Trained:
        self.asked = True
        return super().step(x_D, m_D, at)


@pytest.mark.parametrize("sketch", [WHOLE, HALF], ids=repr)
def test_a_member_answers_before_it_computes_its_last_gradient(sketch: Sketch) -> None:
    graph: nx.Graph[PeerId] = nx.Graph(star(1))
    me = quadratic_peers(graph, sketch, curvature=1.0)[0]
    task = Noting(**vars(me.task))
    me, flow = replace(me, task=task), Member(EASGD())
    state = flow.start(me)
    key = b"k" * (16 if sketch.keyed else 0)
    round_ = flow.round(me, state, 1)
    assert next(round_).expect == (HUB,)  # type: ignore[union-attr]
    answer = round_.send({HUB: Message("model", 1, {"params": torch.zeros(me.pair.size)}, {"key": key})})
    assert isinstance(answer, Exchange)
    assert not task.asked
    assert torch.equal(answer.post[HUB].tensors["params"], me.pair.down(state.x_D, key)), "the point before that step"
    assert isinstance(round_.send({}), Report)
    assert task.asked


@pytest.mark.parametrize("sketch", SKETCHES[:2], ids=str)
def test_a_member_that_hears_no_hub_or_a_key_of_another_length_goes_on_alone(sketch: Any) -> None:
    made = world(HEAVY, peers=3, algorithm="easgd", sketch=sketch)
    alone = played(world(HEAVY, peers=3, algorithm="local_only"), 1)
    seat = made.seat(0)
    state = seat.flow.start(seat.me)
    for mail in ({}, {HUB: Message("model", 1, {"params": torch.zeros(seat.me.pair.size)}, {"key": b"short"})}):
        flow = seat.flow.round(seat.me, state, 1)
        next(flow)
        answer = flow.send(mail)
        assert isinstance(answer, Exchange)
        assert not answer.post
        report = flow.send({})
        assert isinstance(report, Report)
        assert report.figures["loss"] == pytest.approx(alone.reports[0, 1]["loss"])
        with pytest.raises(StopIteration) as end:
            flow.send({})
        torch.testing.assert_close(end.value.value.x_D.double(), alone.model(0, 1))


# What is refused


@pytest.mark.parametrize(
    ("settings", "culprit"),
    [
        ({"algorithm": {"easgd": {"beta": 0.0}}}, "beta"),
        ({"algorithm": {"easgd": {"beta": 1.1}}}, "beta"),
        ({"algorithm": {"easgd": {"beta": 1.0}}, "peers": 1}, "beta is 1 with 1 peer, so that alpha"),
        ({"algorithm": "easgd", "peers": 1, "sketch": "countsketch"}, "beta times the sketch's relaxation"),
        ({"algorithm": "easgd", "topology": "ring"}, "easgd runs on a star around the hub only"),
    ],
)
def test_elastics_that_overshoot_and_graphs_without_a_centre_are_refused(settings: Any, culprit: str) -> None:
    with pytest.raises(ScenarioError, match=culprit) as refused:
        world(PLAIN, **settings)
    assert len(str(refused.value).splitlines()) == 1


# On every engine

ELASTIC: dict[str, Any] = {"algorithm": {"easgd": {"beta": 0.7}}, "topology": "star"}


def test_threads_and_processes_give_the_figures_of_the_simulation(tmp_path: Path) -> None:
    engines = ("simulate", "inproc", "local")
    runs = [run(tmp_path / engine, ELASTIC, sketch=SKETCHES[1], engine=engine) for engine in engines]
    assert [row["peer"] for row in figures(runs[0]) if "test_accuracy" in row] == ["hub"]
    for record in runs:
        assert figures(record) == figures(runs[0])
        assert summary(record) == summary(runs[0])
        assert (record.crashed, record.stopped, record.summary["absent"]) == ((), False, {})
        assert record.summary["vectors_sent"] == 4 * 2 * 3


def test_a_death_costs_the_others_only_its_elastic_on_every_engine(tmp_path: Path) -> None:
    settings = ELASTIC | {"peers": 4, "rounds": 5, "churn": [{"round": 3, "kill": [1]}]}
    runs = [run(tmp_path / engine, settings, engine=engine) for engine in ("simulate", "inproc", "local")]
    for record in runs:
        assert figures(record) == figures(runs[0])
        assert {row["round"]: row["heard"] for row in rows(record) if "heard" in row} == {1: 4, 2: 4, 3: 3, 4: 3, 5: 3}
        assert record.summary["absent"] == {"1": 3}


def test_who_is_not_linked_in_a_round_keeps_learning_alone(tmp_path: Path) -> None:
    (tmp_path / "hub.csv").write_text("round,u,v\n1,hub,0\n2,hub,1\n2,hub,2\n")
    topology = {"schedule": {"path": str(tmp_path / "hub.csv"), "allow_disconnected": True}}
    runs = [run(tmp_path / engine, ELASTIC, topology=topology, engine=engine) for engine in ("simulate", "inproc")]
    assert figures(runs[0]) == figures(runs[1])
    for record in runs:
        assert (record.summary["vectors_sent"], record.summary["absent"]) == (2 * (1 + 2 + 1 + 2), {})
        assert all(sum("loss" in row for row in rows(record) if row["peer"] == i) == 4 for i in range(3))


def test_the_scenario_is_the_star_of_mnist_but_for_the_algorithm_and_its_learning_rate() -> None:
    try:
        ours, fedavg = read("mnist_easgd"), read("mnist_star")
    except ScenarioError as error:
        if "P2PFL_DATA" in str(error):
            pytest.skip(f"needs data: {error}")
        raise
    alike = replace(fedavg, name=ours.name, algorithm=ours.algorithm)
    assert replace(ours, training=replace(ours.training, lr=fedavg.training.lr)) == alike
    assert ours.algorithm.name == "easgd"
