"""CHOCO against its twin, the paper's Algorithm 2 on all peers at once in float64, and what its links keep to.

The twin has one replica a peer, as the paper has; ours have one at each end of a link. Of ours it takes the model, the
batches, and which numbers were sent (or to which level they were rounded), after looking that this is what Q says.
Shapes: N peers, D parameters, K numbers sent.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import networkx as nx
import numpy
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_algorithms import (
    CLOSE,
    GRAPHS,
    HEAVY,
    LAYOUT,
    PLAIN,
    SIZE,
    Gradients,
    Play,
    mixing_matrix,
    played,
    quadratic_peers,
    quadratic_play,
    stacked,
    world,
)
from torch import Tensor

from p2pfl import scenario
from p2pfl.algorithms._compression import Compression
from p2pfl.algorithms.choco import CHOCO, State
from p2pfl.algorithms.dpsgd import DPSGD
from p2pfl.contracts import Layout, Slot
from p2pfl.errors import ScenarioError
from p2pfl.messages import Exchange, Message, PeerId, Report
from p2pfl.peer import Peer
from p2pfl.runtime import launch
from p2pfl.sketches.dense import Dense

CPU = torch.device("cpu")
COMPRESSIONS = {"top_k": {"top_k": 0.125}, "bits": {"bits": 8}}
VALUES = [Compression(top_k=0.05), Compression(top_k=0.3), Compression(bits=8)]
Q = Callable[[Tensor, Mapping[str, Tensor], Layout], Tensor]


# The twin


def the_largest(d_D: Tensor, sent: Mapping[str, Tensor], layout: Layout) -> Tensor:
    """Q(d): the numbers at the positions that were sent, of which there are due many of each tensor, all largest."""
    q_D, begin = torch.zeros_like(d_D), 0
    for slot in layout:
        inside = [p for p in sent["positions"].tolist() if begin <= p < begin + slot.size]
        assert len(set(inside)) == len(inside) == max(1, round(0.125 * slot.size))
        others = sorted(set(range(begin, begin + slot.size)) - set(inside))
        assert d_D[inside].abs().min() >= (d_D[others].abs().max() if others else 0) - 1e-5
        q_D[inside] = d_D[inside]
        begin += slot.size
    assert len(sent["positions"]) == int((q_D != 0).sum()), "none was sent that is no parameter"
    return q_D


def the_nearest_level(d_D: Tensor, sent: Mapping[str, Tensor], layout: Layout) -> Tensor:
    """Q(d): of each tensor the levels that were sent, which are the nearest of 255 from -max to max."""
    q_D, begin = torch.zeros_like(d_D), 0
    for slot in layout:
        inside = slice(begin, begin + slot.size)
        levels = torch.linspace(-1, 1, 255, dtype=torch.float64) * d_D[inside].abs().max()
        q_D[inside] = levels[sent["codes"][inside].long() - 1]
        assert (q_D[inside] - d_D[inside]).abs().max() <= levels.abs().max() / 254 + 1e-5
        begin += slot.size
    return q_D


ORACLES: dict[str, Q] = {"top_k": the_largest, "bits": the_nearest_level}


def said(ours: Play, i: PeerId, r: int) -> Mapping[str, Tensor]:
    """What a peer sent in a round: the same to all its neighbours."""
    tensors = [tensors for by, _, message, tensors in ours.posts if (by, message.round) == (i, r)]
    for other in tensors[1:]:
        assert all(torch.equal(other[name], tensor) for name, tensor in tensors[0].items())
    return tensors[0]


@pytest.mark.parametrize("name", COMPRESSIONS)
@pytest.mark.parametrize("init", ["shared", "own"])
@pytest.mark.parametrize("training", [PLAIN, HEAVY], ids=["plain", "heavy"])
@pytest.mark.parametrize("topology", ["ring", {"watts_strogatz_graph": {"k": 4, "p": 0.3}}], ids=str)
def test_choco_is_algorithm_2_of_its_paper(topology: Any, training: Any, init: str, name: str) -> None:
    algorithm = {"choco": {"compression": COMPRESSIONS[name], "gamma": 0.4}}
    made = world(
        training, peers=5, topology=topology, init=init, algorithm=algorithm, partition={"dirichlet": {"alpha": 0.5}}
    )
    ours, twin, w_NN = played(made, rounds=5), Gradients(made), mixing_matrix(made)
    x_ND = torch.stack([ours.model(i, 0) for i in range(5)])
    hat_ND = x_ND.clone() if init == "shared" else torch.zeros_like(x_ND)
    m_ND = torch.zeros_like(x_ND)
    for r in range(1, 6):
        losses = torch.zeros(5, twin.tau)
        for i in range(5):
            for t in range(twin.tau):
                move_D, m_ND[i], losses[i, t] = twin.displace(i, (r - 1) * twin.tau + t, x_ND[i], m_ND[i])
                x_ND[i] += move_D
            hat_ND[i] += ORACLES[name](x_ND[i] - hat_ND[i], said(ours, i, r), made.layout)
        x_ND = x_ND + 0.4 * (w_NN @ hat_ND - hat_ND)
        for i in range(5):
            torch.testing.assert_close(ours.model(i, r), x_ND[i], **CLOSE)
            assert ours.reports[i, r] == {"loss": pytest.approx(float(losses[i].mean()), rel=1e-4)}


@pytest.mark.parametrize("compression", VALUES, ids=repr)
def test_both_ends_of_a_link_hold_the_same_replicas_and_a_peer_one_of_its_own(compression: Compression) -> None:
    ours = quadratic_play(CHOCO(compression), GRAPHS["odd"], Dense(), 5, curvature=1.0)
    for i, j in GRAPHS["odd"].edges:
        mine, its = ours.states[i, 5].links[j], ours.states[j, 5].links[i]
        assert torch.equal(mine.ours_D, its.theirs_D)
        assert torch.equal(mine.theirs_D, its.ours_D)
        assert mine.count == its.count == 5
    for i in ours.mes:
        assert len({link.ours_D.data_ptr() for link in ours.states[i, 5].links.values()}) == 1


# Gossip alone


@pytest.mark.parametrize("compression", VALUES, ids=repr)
@pytest.mark.parametrize("graph", GRAPHS)
def test_without_gradients_the_mean_stays_and_peers_come_together(graph: str, compression: Compression) -> None:
    ours = quadratic_play(CHOCO(compression), GRAPHS[graph], Dense(), 60)
    for r in range(1, 61):
        torch.testing.assert_close(stacked(ours, r).mean(0), stacked(ours, 0).mean(0), rtol=0, atol=1e-5)
    assert spread(stacked(ours, 60)) < 0.5 * spread(stacked(ours, 0))


def spread(x_ND: Tensor) -> float:
    return float((x_ND - x_ND.mean(0)).norm())


@pytest.mark.parametrize("compression", [Compression(top_k=1.0), *VALUES], ids=repr)
def test_at_consensus_and_known_to_all_an_exchange_changes_nothing(compression: Compression) -> None:
    peers = {i: replace(me, init="shared") for i, me in quadratic_peers(GRAPHS["ring"], Dense()).items()}
    states, _ = gossip(CHOCO(compression), peers, 3)
    assert all(torch.equal(states[i].x_D, peers[i].first_point()) for i in peers)


def test_with_all_numbers_and_gamma_1_it_averages_as_dpsgd_but_after_the_step() -> None:
    """x <- W (x - lr g(x)), where D-PSGD is W x - lr g(x): without gradients the same."""
    exact, graph = CHOCO(Compression(top_k=1.0), 1.0), GRAPHS["odd"]
    ours, twin = (quadratic_play(algorithm, graph, Dense(), 4) for algorithm in (exact, DPSGD()))
    torch.testing.assert_close(stacked(ours, 4), stacked(twin, 4), rtol=0, atol=1e-5)
    learning = quadratic_play(exact, graph, Dense(), 4, curvature=1.0, lr=0.1)
    target_ND = torch.stack([learning.mes[i].task.target_D for i in sorted(graph)]).double()  # type: ignore[attr-defined]
    x_ND, w_NN = stacked(learning, 0), torch.eye(len(graph), dtype=torch.float64)
    for i, me in learning.mes.items():
        for j, weight in me.weights.items():
            w_NN[i, j], w_NN[i, i] = weight, w_NN[i, i] - weight
    for r in range(1, 5):
        x_ND = w_NN @ (x_ND - 0.1 * (x_ND - target_ND))
        torch.testing.assert_close(stacked(learning, r), x_ND, rtol=0, atol=1e-5)


# Compressors

SEVERAL: Layout = (*LAYOUT, Slot("one", ()), Slot("long", (2500,)))
LONG = sum(slot.size for slot in SEVERAL)


def drawn(seed: int, tail: float) -> Tensor:
    """A vector of which some numbers are far larger than others, and one tensor is all zero."""
    x_D = torch.randn(LONG, generator=torch.Generator().manual_seed(seed)).double()
    x_D = x_D.sign() * x_D.abs() ** tail
    x_D[96:100] = 0
    return x_D.float()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([0.01, 1.0, 3.0, 12.0]), st.sampled_from(VALUES))
def test_both_contract_as_the_theory_of_choco_asks(seed: int, tail: float, compression: Compression) -> None:
    compressor, x_D = compression.bind(SEVERAL), drawn(seed, tail)
    q_D = compressor.unpack(compressor.pack(x_D), CPU)
    assert q_D is not None
    begin = 0
    for slot in SEVERAL:
        x, q = (each[begin : begin + slot.size].double() for each in (x_D, q_D))
        kept = (1 - 1e-6) * (compression.top_k or 4 * 127**2 / (4 * 127**2 + slot.size - 1))
        kept = kept if compression.top_k is None else max(1, round(kept * slot.size)) / slot.size - 1e-6
        assert float((x - q) @ (x - q)) <= (1 - kept) * float(x @ x)
        begin += slot.size


def test_a_tensor_of_zeros_is_sent_as_zeros() -> None:
    packed = Compression(bits=8).bind(SEVERAL).pack(drawn(1, 1.0))
    assert packed["codes"][96:100].tolist() == [128] * 4
    assert packed["scales"][1] == 0


def test_the_bound_of_eight_bits_is_reached() -> None:
    """One number of 127 and all others half a level: not one of these is told apart from zero."""
    x_D = torch.full((1001,), 0.499999)
    x_D[0] = 127
    compressor = Compression(bits=8).bind((Slot("w", (1001,)),))
    q_D = compressor.unpack(compressor.pack(x_D), CPU)
    assert q_D is not None
    lost = float((x_D - q_D) @ (x_D - q_D)) / float(x_D @ x_D)
    assert lost == pytest.approx(1000 / (4 * 127**2 + 1000), rel=1e-4)


@pytest.mark.parametrize("compression", VALUES, ids=repr)
def test_what_is_compressed_is_sent_exactly_in_later_rounds(compression: Compression) -> None:
    x_D, hat_D = drawn(3, 2.0), torch.zeros(LONG)
    compressor = compression.bind(SEVERAL)
    for _ in range(25):
        q_D = compressor.unpack(compressor.pack(x_D - hat_D), CPU)
        assert q_D is not None
        hat_D = hat_D + q_D
    torch.testing.assert_close(hat_D, x_D, rtol=0, atol=1e-5 if compression.top_k != 0.05 else 0.2)


@pytest.mark.parametrize("x_D", [torch.zeros(LONG), torch.full((LONG,), 1e-44), torch.full((LONG,), -3e38)], ids=str)
@pytest.mark.parametrize("compression", VALUES, ids=repr)
def test_extreme_numbers_come_out_finite_and_no_further_off(compression: Compression, x_D: Tensor) -> None:
    compressor = compression.bind(SEVERAL)
    q_D = compressor.unpack(compressor.pack(x_D), CPU)
    assert q_D is not None
    assert bool(q_D.isfinite().all())
    assert bool(((x_D - q_D).abs() <= x_D.abs() * (1 + 1e-5)).all())


@pytest.mark.parametrize(("compression", "wire_bytes"), [(VALUES[1], 8 * 810), (VALUES[2], LONG + 4 * 5)], ids=str)
def test_the_bytes_on_the_wire_are_what_the_form_says(compression: Compression, wire_bytes: int) -> None:
    compressor = compression.bind(SEVERAL)
    packed = compressor.pack(drawn(1, 1.0))
    assert {name: (t.dtype, tuple(t.shape)) for name, t in packed.items()} == dict(compressor.form)
    due = sum(max(1, round(0.3 * slot.size)) for slot in SEVERAL) * 8 if compression.top_k else wire_bytes
    assert sum(t.nbytes for t in packed.values()) == due
    assert due == pytest.approx(compression.share * 4 * LONG, rel=0.05)


# Links: what is hostile, lost, or there at times only


def gossip(
    algorithm: CHOCO,
    mes: Mapping[PeerId, Peer],
    rounds: int,
    lost: Callable[[int, PeerId, PeerId], bool] = lambda r, by, to: False,
    states: Mapping[PeerId, State] | None = None,
) -> tuple[dict[PeerId, State], dict[tuple[PeerId, int], Any]]:
    """Some rounds of all peers, some mail being lost: the states after them, and what was reported."""
    after = dict(states or {i: algorithm.start(me) for i, me in mes.items()})
    reports = {}
    for r in range(1, rounds + 1):
        flows = {i: algorithm.round(me, after[i], r) for i, me in mes.items()}
        steps = {i: next(flow) for i, flow in flows.items()}
        for i, flow in flows.items():
            mail = {j: steps[j].post[i] for j in steps[i].expect if not lost(r, j, i)}  # type: ignore[union-attr]
            after[i], reports[i, r] = ended(flow, mail)
    return after, reports


def ended(flow: Any, mail: Mapping[PeerId, Message]) -> tuple[State, Mapping[str, Any]]:
    report = flow.send(mail)
    assert isinstance(report, Report)
    with pytest.raises(StopIteration) as end:
        flow.send({})
    return end.value.value, report.figures


def insist_equal_counts_mean_equal_replicas(states: Mapping[PeerId, State], graph: nx.Graph[PeerId]) -> int:
    fits = 0
    for i, j in graph.edges:
        mine, its = (states[a].links.get(b, states[a].anew) for a, b in ((i, j), (j, i)))
        if mine.count == its.count:
            fits += 1
            assert torch.equal(mine.ours_D, its.theirs_D)
            assert torch.equal(mine.theirs_D, its.ours_D)
    return fits


def test_a_link_of_which_one_end_missed_the_other_begins_anew_as_both_can_see() -> None:
    mes, algorithm = quadratic_peers(nx.path_graph(3), Dense(), curvature=1.0), CHOCO(Compression(top_k=0.3))
    states, reports = gossip(algorithm, mes, 5, lambda r, by, to: (r, by, to) == (3, 0, 1))
    told = {key: figures["out_of_step"] for key, figures in reports.items() if "out_of_step" in figures}
    assert told == {(0, 4): [1], (1, 4): [0]}
    assert (states[0].links[1].count, states[1].links[0].count) == (1, 1)
    assert (states[1].links[2].count, states[2].links[1].count) == (5, 5)
    assert insist_equal_counts_mean_equal_replicas(states, nx.path_graph(3)) == 2


def test_a_link_that_is_cut_both_ways_for_a_while_goes_on_where_it_was() -> None:
    mes, algorithm = quadratic_peers(nx.path_graph(2), Dense(), curvature=1.0), CHOCO(Compression(bits=8))
    states, reports = gossip(algorithm, mes, 6, lambda r, by, to: r in (3, 4))
    assert not any("out_of_step" in figures for figures in reports.values())
    assert states[0].links[1].count == 4
    assert insist_equal_counts_mean_equal_replicas(states, nx.path_graph(2)) == 1


@pytest.mark.parametrize("compression", VALUES, ids=repr)
def test_equal_counts_mean_equal_replicas_whatever_is_lost(compression: Compression) -> None:
    graph, algorithm = GRAPHS["complete"], CHOCO(compression)
    mes, draw = quadratic_peers(graph, Dense()), numpy.random.default_rng(8)
    states, told = None, 0
    for _ in range(40):
        states, reports = gossip(algorithm, mes, 1, lambda r, by, to: draw.random() < 0.3, states)
        insist_equal_counts_mean_equal_replicas(states, graph)
        told += sum("out_of_step" in figures for figures in reports.values())
    assert told > 20
    states, _ = gossip(algorithm, mes, 2, states=states)
    assert insist_equal_counts_mean_equal_replicas(states, graph) == graph.number_of_edges()
    before, (states, reports) = states, gossip(algorithm, mes, 60, states=states)
    assert not any("out_of_step" in figures for figures in reports.values())
    x_ND, first_ND = (torch.stack([of[i].x_D for i in graph]).double() for of in (states, before))
    torch.testing.assert_close(x_ND.mean(0), first_ND.mean(0), rtol=0, atol=1e-5)
    assert spread(x_ND) < 0.5 * spread(first_ND)


SENT = {"values": torch.ones(3), "positions": torch.tensor([0, 5, SIZE - 1], dtype=torch.int32)}
THREE = Compression(top_k=0.01)
HOSTILE: dict[str, Any] = {
    "beyond the last parameter": (THREE, SENT | {"positions": torch.tensor([0, 5, SIZE], dtype=torch.int32)}),
    "before the first": (THREE, SENT | {"positions": torch.tensor([-1, 5, 6], dtype=torch.int32)}),
    "twice the same": (THREE, SENT | {"positions": torch.tensor([5, 5, 6], dtype=torch.int32)}),
    "not in order": (THREE, SENT | {"positions": torch.tensor([7, 5, 6], dtype=torch.int32)}),
    "at the ends of the world": (THREE, SENT | {"positions": torch.tensor([-(2**31), 5, 2**31 - 1]).int()}),
    "of a scale beyond all numbers": (
        Compression(bits=8),
        {"codes": torch.full((SIZE,), 255, dtype=torch.uint8), "scales": torch.full((3,), 3e38)},
    ),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_mail_that_nobody_can_have_packed_counts_as_none(case: str) -> None:
    compression, tensors = HOSTILE[case]
    algorithm, mes = CHOCO(compression), quadratic_peers(nx.path_graph(3), Dense(), curvature=1.0)
    states, _ = gossip(algorithm, mes, 2)
    hostile = Message("update", 3, tensors, {"sent": 2})
    form = algorithm.forms(mes[1], 3)["update"]
    assert {name: (t.dtype, tuple(t.shape)) for name, t in tensors.items()} == dict(form.tensors)
    outcomes = []
    for mail_of_0 in ({0: hostile}, {}):
        flows = {i: algorithm.round(mes[i], states[i], 3) for i in (1, 2)}
        steps = {i: next(flow) for i, flow in flows.items()}
        assert isinstance(steps[2], Exchange)
        outcomes.append(ended(flows[1], {**mail_of_0, 2: steps[2].post[1]}))
    (state, figures), (without, expected) = outcomes
    assert torch.equal(state.x_D, without.x_D)
    assert state.links[0].count == 2
    assert torch.equal(state.links[0].theirs_D, states[1].links[0].theirs_D)
    assert figures == expected


def test_a_neighbour_that_lies_about_its_count_hurts_its_own_link_only() -> None:
    mes, algorithm = quadratic_peers(nx.path_graph(3), Dense(), curvature=1.0), CHOCO(Compression(bits=8))
    states, _ = gossip(algorithm, mes, 2)
    flows = {i: algorithm.round(mes[i], states[i], 3) for i in mes}
    steps = {i: next(flow) for i, flow in flows.items()}
    lie = replace(steps[0].post[1], figures={"sent": 2**80})  # type: ignore[union-attr]
    state, figures = ended(flows[1], {0: lie, 2: steps[2].post[1]})  # type: ignore[union-attr]
    assert figures["out_of_step"] == [0]
    assert (state.links[0].count, state.links[2].count) == (0, 3)


# Whole runs

SMALL: dict[str, Any] = {
    "name": "choco",
    "seed": 3,
    "peers": 4,
    "rounds": 4,
    "model": {"mlp": {"hidden": [8]}},
    "training": {"batch": 16, "lr": 0.1, "momentum": 0.5, "local_steps": 2, "device": "cpu"},
    "evaluate": {"every": 2},
}


def run(out: Path, **more: Any) -> launch.Record:
    return launch.run(scenario.read({**SMALL, **more}), out)


def rows(record: launch.Record) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in (record.folder / "records.jsonl").read_text().splitlines()]
    kept = sorted((row for row in found if "to" not in row), key=lambda row: (row["round"], str(row["peer"])))
    return [{k: v for k, v in row.items() if not k.endswith(("_s", "_mb", "_bytes"))} for row in kept]


ODD: dict[str, dict[str, Any]] = {
    "ring": {},
    "changing links": {"init": "own", "topology": "random_matching"},
    "a death": {"churn": [{"round": 3, "kill": [1]}]},
}


@pytest.mark.parametrize("name", COMPRESSIONS)
@pytest.mark.parametrize("case", ODD)
def test_threads_give_the_figures_of_the_simulation(case: str, name: str, tmp_path: Path) -> None:
    insist_alike(("simulate", "inproc"), case, name, tmp_path)


@pytest.mark.parametrize(("case", "name"), [("changing links", "top_k"), ("a death", "bits")])
def test_processes_give_the_figures_of_the_simulation(case: str, name: str, tmp_path: Path) -> None:
    insist_alike(("simulate", "local"), case, name, tmp_path)


def insist_alike(engines: tuple[str, str], case: str, name: str, out: Path) -> None:
    algorithm = {"choco": {"compression": COMPRESSIONS[name]}}
    first, *others = (run(out / engine, algorithm=algorithm, engine=engine, **ODD[case]) for engine in engines)
    assert first.crashed == ()
    assert not any("out_of_step" in row for row in rows(first))
    assert any("test_accuracy" in row for row in rows(first))
    for other in others:
        assert rows(other) == rows(first)


@pytest.mark.parametrize("name", COMPRESSIONS)
def test_where_links_change_peers_come_together_none_the_less(name: str, tmp_path: Path) -> None:
    still = {"init": "own", "training": {**SMALL["training"], "lr": 1e-12}, "rounds": 60, "evaluate": {"every": 5}}
    algorithm = {"choco": {"compression": COMPRESSIONS[name]}}
    record = run(tmp_path / "run", algorithm=algorithm, topology="random_matching", engine="simulate", **still)
    apart = [row["consensus_distance"] for row in rows(record) if "consensus_distance" in row]
    assert apart[-1] <= 0.2 * apart[0]
    assert not any("out_of_step" in row for row in rows(record))


@pytest.mark.parametrize("name", COMPRESSIONS)
def test_the_traffic_that_is_reckoned_with_is_that_of_the_run(name: str, tmp_path: Path) -> None:
    algorithm = {"choco": {"compression": COMPRESSIONS[name]}}
    settings = scenario.read({**SMALL, "algorithm": algorithm, "engine": "simulate"})
    record = launch.run(settings, tmp_path / "run")
    reckoned = settings.algorithm.value.vectors(((0, 1), (1, 2), (2, 3), (0, 3))) * 4 * record.summary["parameters"]
    assert record.summary["bytes"]["minimum_per_peer_round"] == pytest.approx(reckoned / 4, rel=0.03)
    assert record.summary["vectors_sent"] == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"compression": {}}, "give exactly one of top_k and bits"),
        ({"compression": {"top_k": 0.1, "bits": 8}}, "give exactly one of top_k and bits"),
        ({"compression": {"bits": 4}}, "bits is 4 (algorithm.choco.compression.bits): must be 8"),
        ({"compression": {"top_k": 0}}, "compression.top_k is 0"),
        ({"compression": {"topk": 0.1}}, "did you mean 'top_k'"),
        ({"compression": 0.1}, "compression is 0.1 (algorithm.choco.compression): must be a mapping"),
        ({"gamma": 0.0}, "gamma is 0"),
        ({"gamma": 1.5}, "gamma is 1.5"),
    ],
    ids=str,
)
def test_options_that_make_no_sense_are_refused(options: Any, said: str) -> None:
    with pytest.raises(ScenarioError) as refused:
        scenario.read({**SMALL, "algorithm": {"choco": options}})
    assert said in str(refused.value)
