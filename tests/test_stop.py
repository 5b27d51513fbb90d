"""Runs that stop before their last round: everybody after the same one, on every engine alike."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from p2pfl import scenario
from p2pfl.errors import ScenarioError
from p2pfl.messages import Message
from p2pfl.runtime import launch
from p2pfl.runtime import referee as referees
from p2pfl.runtime.launch import Record
from p2pfl.runtime.record import Recorder
from p2pfl.runtime.referee import Overseer, Referee
from p2pfl.runtime.world import World
from p2pfl.seeds import Seeds

SMALL: dict[str, Any] = {
    "name": "stopping",
    "seed": 2,
    "peers": 3,
    "rounds": 60,
    "topology": "complete",
    "model": {"mlp": {"hidden": [16]}},
    "training": {"batch": 32, "lr": 0.3, "local_steps": 5, "device": "cpu"},
    "evaluate": {"every": 2, "target": 0.8},
}


def run(out: Path, **more: Any) -> Record:
    return launch.run(scenario.read({**SMALL, **more}), out)


def rows(record: Record) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (record.folder / "records.jsonl").read_text().splitlines()]


def means(record: Record) -> dict[int, float]:
    found: dict[int, list[float]] = {}
    for row in rows(record):
        if "validation_accuracy" in row:
            found.setdefault(row["round"], []).append(row["validation_accuracy"])
    return {r: sum(found[r]) / len(found[r]) for r in sorted(found)}


def ends(record: Record) -> set[int]:
    last: dict[Any, int] = {}
    for row in rows(record):
        if "round_s" in row:
            last[row["peer"]] = max(row["round"], last.get(row["peer"], 0))
    return set(last.values())


@pytest.mark.parametrize("engine", ["simulate", "inproc", "local"])
@pytest.mark.parametrize("algorithm", ["dpsgd", "fedavg"])
def test_a_run_stops_in_the_round_that_reached_the_target(algorithm: str, engine: str, tmp_path: Path) -> None:
    topology = "star" if algorithm == "fedavg" else "complete"
    record = run(tmp_path / "r", algorithm=algorithm, topology=topology, engine=engine, stop=[{"target": True}])
    reached = next(r for r, mean in means(record).items() if mean >= 0.8)
    assert ends(record) == {reached}
    assert reached == max(means(record)) < 60
    summary = record.summary
    assert (summary["ended_by"], summary["rounds"], summary["rounds_to_target"]) == ("target", reached, reached)
    assert (record.stopped, record.crashed, summary["absent"]) == (False, (), {})
    assert summary["accuracy"]["mean"] > 0.6
    assert "consensus_model" in summary["accuracy"]


def test_the_test_set_is_read_once_after_the_round_that_was_the_last(tmp_path: Path) -> None:
    record = run(tmp_path / "r", engine="simulate", stop=[{"target": True}])
    tested = [row for row in rows(record) if "test_accuracy" in row]
    assert sorted(row["peer"] for row in tested) == [0, 1, 2]
    assert {row["round"] for row in tested} == ends(record)


def test_it_goes_as_the_same_run_without_a_reason_to_stop_went_so_far(tmp_path: Path) -> None:
    stopped = run(tmp_path / "stopped", engine="simulate", stop=[{"target": True}])
    free = run(tmp_path / "free", engine="simulate", rounds=stopped.summary["rounds"])
    assert stopped.summary["accuracy"] == free.summary["accuracy"]
    assert stopped.summary["bytes"] == free.summary["bytes"]


def test_a_plateau_is_a_best_that_is_so_many_rounds_old(tmp_path: Path) -> None:
    record = run(tmp_path / "r", engine="simulate", stop=[{"plateau": 6}], training={**SMALL["training"], "lr": 0.5})
    found = means(record)
    best = max(found, key=lambda r: (found[r], -r))
    assert (record.summary["ended_by"], max(found)) == ("plateau", best + 6)


def test_bytes_are_those_of_all_peers(tmp_path: Path) -> None:
    free = run(tmp_path / "free", engine="simulate", rounds=4)
    most = free.summary["bytes"]["sent"] * 1.5  # six rounds' worth
    record = run(tmp_path / "r", engine="simulate", stop=[{"bytes": most}])
    assert (record.summary["ended_by"], record.summary["rounds"]) == ("bytes", 6)


def test_seconds_are_those_of_the_simulation(tmp_path: Path) -> None:
    """A round takes 5 steps of 32 examples, at 10,000 a second 16 ms."""
    record = run(tmp_path / "r", engine="simulate", stop=[{"seconds": 0.1}])
    assert (record.summary["ended_by"], record.summary["rounds"]) == ("seconds", 8)


def test_the_first_reason_that_holds_is_named_and_none_is_no_stop(tmp_path: Path) -> None:
    record = run(tmp_path / "r", engine="simulate", rounds=4, stop=[{"seconds": 1e6}, {"bytes": 1e15}])
    assert "ended_by" not in record.summary
    assert record.summary["rounds"] == 4


@pytest.mark.parametrize("engine", ["simulate", "inproc", "local"])
def test_who_died_is_not_waited_for_at_the_gate(engine: str, tmp_path: Path) -> None:
    record = run(tmp_path / "r", engine=engine, churn=[{"round": 3, "kill": [1]}], stop=[{"target": True}])
    assert record.summary["ended_by"] == "target"
    assert ends(record) == {2, record.summary["rounds"]}


@pytest.mark.parametrize("stop", [{"target": True}, {"plateau": 3}])
def test_a_stop_that_could_never_come_is_refused(stop: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match="validation split, which is empty") as caught:
        run(tmp_path / "r", engine="simulate", data={"digits": {"validation": 0}}, stop=[stop])
    assert caught.value.path == ("stop", 0)
    assert not (tmp_path / "r").exists()


def told(kind: str, round: int, **figures: Any) -> Message:
    return Message(kind, round, figures={"sent_bytes": 0, "time_s": 0.0, **figures})


def test_the_verdict_waits_for_all_who_live_and_nobody_is_told_twice() -> None:
    settings = scenario.read({**SMALL, "stop": [{"target": True}]})
    referee = Referee(settings, {0, 1, 2})
    assert referee.hear(0, told("row", 2, validation_accuracy=0.9)) is None
    assert referee.hear(0, told("gate", 2)) is None
    assert referee.hear(1, told("gate", 2)) is None
    verdict = referee.hear(2, told("crashed", 2))
    assert verdict is not None
    assert (verdict.round, verdict.figures["last"], referee.reason) == (2, True, "target")


def test_who_comes_too_late_to_a_gate_does_not_count_at_the_next() -> None:
    settings = scenario.read({**SMALL, "stop": [{"target": True}]})
    referee = Referee(settings, {0, 1})
    referee.hear(0, told("gate", 2))
    assert referee.decide().round == 2  # nobody waits for 1 any longer
    assert referee.hear(1, told("gate", 2)) is None
    assert referee.hear(0, told("gate", 4)) is None
    verdict = referee.hear(1, told("gate", 4))
    assert verdict is not None
    assert (verdict.round, verdict.figures["last"]) == (4, False)


def test_who_was_given_up_on_is_waited_for_again_only_when_it_has_spoken() -> None:
    settings = scenario.read({**SMALL, "stop": [{"target": True}]})
    referee = Referee(settings, {0, 1})
    referee.hear(0, told("gate", 2))
    assert referee.give_up().round == 2
    verdict = referee.hear(0, told("gate", 4))
    assert verdict is not None
    assert verdict.round == 4
    assert referee.hear(1, told("row", 1)) is None
    assert referee.hear(0, told("gate", 6)) is None
    assert referee.hear(1, told("gate", 2)) is None
    verdict = referee.hear(1, told("gate", 6))
    assert verdict is not None
    assert verdict.round == 6


async def verdicts(folder: Path, gates: int, wait: str) -> list[int]:
    """The rounds on which there were verdicts, when of three peers the last is silent for ever."""
    settings = scenario.read({**SMALL, "stop": [{"target": True}], "wait": wait})
    found, heard = [], asyncio.Event()
    with Recorder(folder, World(settings, Seeds.of(2)), lambda row: None, lambda text: None) as recorder:
        overseer = Overseer(recorder)
        overseer.watcher.tell = lambda verdict: (found.append(verdict.round), heard.set())  # type: ignore[func-returns-value]
        for gate in range(1, gates + 1):
            heard.clear()
            overseer.hear(0, told("gate", gate))
            overseer.hear(1, told("gate", gate))
            try:
                await asyncio.wait_for(heard.wait(), 0.5)
            except TimeoutError:
                break
        overseer.end()
    return found


def test_a_peer_that_is_silent_for_ever_costs_one_wait_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(referees, "START_S", 0.2)
    assert asyncio.run(verdicts(tmp_path, 6, "learned")) == [1, 2, 3, 4, 5, 6]


def test_nobody_is_given_up_on_at_a_gate_where_all_are_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(referees, "START_S", 0.05)
    assert asyncio.run(verdicts(tmp_path, 1, "all")) == []
