"""The keystone: one scenario and one seed give the same figures, bit for bit, whatever carries the messages.

Every comparison is of all rows of `records.jsonl`, but for times, memory and bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from p2pfl import scenario
from p2pfl.runtime import launch
from p2pfl.runtime.launch import Record

SMALL: dict[str, Any] = {
    "name": "keystone",
    "seed": 11,
    "peers": 3,
    "rounds": 4,
    "topology": {"complete_graph": {}},
    "model": {"mlp": {"hidden": [8]}},
    "partition": {"dirichlet": {"alpha": 0.5}},
    "training": {"batch": 16, "lr": 0.1, "momentum": 0.5, "weight_decay": 0.01, "local_steps": 3},
    "evaluate": {"every": 2},
}
MODES: dict[str, dict[str, Any]] = {
    "fedavg": {"algorithm": {"fedavg": {"fraction": 0.7, "step": 1.2}}, "topology": "star"},
    "dpsgd": {"algorithm": "dpsgd"},
    "leasgd": {"algorithm": {"leasgd": {"rho": 4.0, "k": 2}}},
}
ODD: dict[str, dict[str, Any]] = {
    "half of five members for an epoch": {
        "peers": 5,
        "algorithm": {"fedavg": {"fraction": 0.5}},
        "topology": "star",
        "training": {"batch": 64, "local_epochs": 1, "momentum": 0.9},
        "sketch": {"countsketch": {"ratio": 0.3, "balanced": False}},
    },
    "a small world from points of their own": {
        "peers": 5,
        "init": "own",
        "topology": {"watts_strogatz_graph": {"k": 2, "p": 0.5}},
        "algorithm": {"leasgd": {"k": 3, "rho": 2.0}},
        "model": "lenet",
        "sketch": {"countsketch": {"ratio": 0.3}},
    },
    "a line": {"peers": 4, "topology": {"path_graph": {}}, "training": {"batch": 16, "local_steps": 1}},
    "all alone": {"algorithm": "local_only"},
    "all in one place": {"algorithm": "central", "topology": "complete"},
    "one peer": {"peers": 1, "topology": "complete"},
}
SKETCHES = {"dense": "dense", "sketched": {"countsketch": {"ratio": 0.5}}}


def run(out: Path, settings: Mapping[str, Any], **more: Any) -> Record:
    merged = {**SMALL, **settings, **more}
    return launch.run(scenario.read(merged, ["training.device=cpu"]), out)


def rows(record: Record) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (record.folder / "records.jsonl").read_text().splitlines()]


def figures(record: Record) -> list[dict[str, Any]]:
    """Every row of the record in a fixed order, without what may differ between engines; links have rows of bytes."""
    kept = [row for row in rows(record) if "to" not in row]
    kept.sort(key=lambda row: (row["round"], str(row["peer"])))
    return [{key: value for key, value in row.items() if comparable(key)} for row in kept]


def comparable(key: str) -> bool:
    return key not in ("engine", "bytes", "seconds") and not key.endswith(("_s", "_mb", "_bytes"))


def summary(record: Record) -> dict[str, Any]:
    return {key: value for key, value in record.summary.items() if comparable(key)}


@pytest.mark.parametrize("sketch", SKETCHES)
@pytest.mark.parametrize("mode", MODES)
def test_threads_and_processes_give_the_figures_of_the_simulation(mode: str, sketch: str, tmp_path: Path) -> None:
    runs = {
        engine: run(tmp_path / engine, MODES[mode], sketch=SKETCHES[sketch], engine=engine)
        for engine in ("simulate", "inproc", "local")
    }
    expected = figures(runs["simulate"])
    assert len(expected) >= 4
    assert any("test_accuracy" in row for row in expected)
    for record in runs.values():
        assert figures(record) == expected
        assert summary(record) == summary(runs["simulate"])
        assert (record.crashed, record.stopped) == ((), False)
        assert record.summary["absent"] == {}


@pytest.mark.parametrize("mode", MODES)
def test_a_ratio_that_is_drawn_anew_every_round_is_the_same_at_all_peers(mode: str, tmp_path: Path) -> None:
    drawn = MODES[mode] | {"sketch": {"countsketch": {"ratio": [0.02, 1.0]}}, "rounds": 8}
    runs = {engine: run(tmp_path / engine, drawn, engine=engine) for engine in ("simulate", "inproc", "local")}
    for record in runs.values():
        assert figures(record) == figures(runs["simulate"])
        assert (record.crashed, record.summary["absent"], record.summary.get("faults", {})) == ((), {}, {})
    sent: dict[Any, list[int]] = {}
    for row in rows(runs["local"]):
        if "tensor_bytes" in row and row.get("vectors"):
            sent.setdefault(row["peer"], []).append(row["tensor_bytes"] // row["vectors"])
    assert any(len(set(means)) > 1 for means in sent.values())


def test_sockets_of_tcp_give_the_figures_of_the_simulation(tmp_path: Path) -> None:
    settings = MODES["dpsgd"] | {"sketch": SKETCHES["sketched"], "transport": "tcp"}
    runs = [run(tmp_path / engine, settings, engine=engine) for engine in ("simulate", "local")]
    assert figures(runs[0]) == figures(runs[1])
    assert runs[1].summary["bytes"]["sent"] > runs[0].summary["bytes"]["sent"] > 0


@pytest.mark.parametrize("case", ODD)
def test_odd_runs_are_the_same_in_threads(case: str, tmp_path: Path) -> None:
    runs = [run(tmp_path / engine, ODD[case], engine=engine) for engine in ("simulate", "inproc")]
    assert figures(runs[0]) == figures(runs[1])
    assert summary(runs[0]) == summary(runs[1])


@pytest.mark.parametrize("case", ["half of five members for an epoch", "a small world from points of their own"])
def test_odd_runs_are_the_same_in_processes(case: str, tmp_path: Path) -> None:
    runs = [run(tmp_path / engine, ODD[case], engine=engine) for engine in ("simulate", "local")]
    assert figures(runs[0]) == figures(runs[1])


def test_the_same_seed_gives_the_same_run_and_another_seed_another(tmp_path: Path) -> None:
    once, again, other = (
        figures(run(tmp_path / name, MODES["dpsgd"], engine="simulate", seed=seed))
        for name, seed in (("once", 11), ("again", 11), ("other", 12))
    )
    assert once == again
    assert once != other


@pytest.mark.parametrize("engine", ["simulate", "inproc", "local"])
def test_without_a_seed_no_run_is_like_another(engine: str, tmp_path: Path) -> None:
    sketched = MODES["dpsgd"] | {"sketch": SKETCHES["sketched"]}
    unseeded = [run(tmp_path / str(n), sketched, seed=None, engine=engine, rounds=1) for n in range(2)]
    losses = [{row["peer"]: row["loss"] for row in rows(record) if "loss" in row} for record in unseeded]
    assert losses[0].keys() == losses[1].keys()
    assert all(losses[0][peer] != losses[1][peer] for peer in losses[0])
    assert len(set(losses[0].values())) == 3


@pytest.mark.parametrize("engine", ["simulate", "inproc", "local"])
@pytest.mark.parametrize("mode", MODES)
def test_who_is_killed_costs_the_others_nothing_but_its_absence(mode: str, engine: str, tmp_path: Path) -> None:
    churn = [{"round": 3, "kill": [1]}]
    settings = MODES[mode] | {"peers": 4, "rounds": 5, "churn": churn, "sketch": SKETCHES["sketched"]}
    if mode == "fedavg":
        settings |= {"algorithm": "fedavg"}
    record = run(tmp_path / "run", settings, engine=engine)
    assert (record.crashed, record.stopped) == ((), False)
    last = {row["peer"]: row["round"] for row in rows(record) if "round_s" in row}
    expected = {0: 5, 1: 2, 2: 5, 3: 5} | ({"hub": 5} if mode == "fedavg" else {})
    assert last == expected
    assert "killed in round 3, as the scenario says" in (record.folder / "log.txt").read_text()
    missed = [row for row in rows(record) if 1 in row.get("absent", ())]
    assert missed
    assert all(row["round"] >= 3 for row in missed)
    assert record.summary["absent"].keys() == {"1"}
    assert record.summary["rounds"] == 5
    assert record.summary["accuracy"]["mean"] > 0
    ends = {row["peer"]: row["loss"] for row in rows(record) if row.get("loss") is not None and row["peer"] != 1}
    assert record.summary["loss"]["mean"] == pytest.approx(sum(ends.values()) / len(ends)), "the dead are left out"


def test_a_death_is_the_same_in_the_simulation_and_in_threads(tmp_path: Path) -> None:
    settings = MODES["dpsgd"] | {"peers": 4, "rounds": 5, "churn": [{"round": 3, "kill": [1]}]}
    runs = [run(tmp_path / engine, settings, engine=engine) for engine in ("simulate", "inproc", "local")]
    assert figures(runs[0]) == figures(runs[1]) == figures(runs[2])
