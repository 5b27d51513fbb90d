"""Real processes when things go wrong: a peer that is gone before it met anybody, one that lies to the launcher."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

import p2pfl
from p2pfl import scenario
from p2pfl.errors import RemoteError
from p2pfl.messages import Message
from p2pfl.runtime import control
from p2pfl.runtime.engines import local
from p2pfl.runtime.launch import Screen, run

SMALL = {
    "name": "small",
    "seed": 3,
    "peers": 4,
    "rounds": 4,
    "topology": "ring",
    "model": "logistic",
    "training": {"local_steps": 2},
}


@pytest.mark.parametrize("wait", ["learned", "all"])
def test_a_peer_gone_before_it_met_anybody_is_absent_and_the_others_finish(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wait: str
) -> None:
    introduce_all = local._Launch.introduce_all

    def one_dies_first(launch: local._Launch) -> None:
        os.kill(launch.processes[2].pid or 0, signal.SIGKILL)
        introduce_all(launch)

    monkeypatch.setattr(local._Launch, "introduce_all", one_dies_first)
    notes: list[str] = []
    record = run(scenario.read({**SMALL, "wait": wait}), tmp_path / "run", Screen(note=notes.append))
    assert record.crashed == (2,)
    assert any("peer 2 crashed" in note for note in notes)
    rows = [json.loads(line) for line in (tmp_path / "run" / "records.jsonl").read_text().splitlines()]
    assert {row["peer"] for row in rows if row["round"] == 4 and "test_accuracy" in row} == {0, 1, 3}
    assert record.summary["absent"]["2"] > 0


def test_a_run_starts_from_within_a_running_loop_as_in_a_notebook(tmp_path: Path) -> None:
    async def cell() -> Any:
        return p2pfl.launch({**SMALL, "engine": "simulate"}, tmp_path / "run")

    assert asyncio.run(cell()).summary["rounds"] == 4


HONEST = {"time_s": 1.0, "sent_bytes": 10, "vectors": 1, "tensor_bytes": 4, "loss": 0.5}


def test_what_an_honest_peer_says_passes() -> None:
    control.check(Message("row", 1, {"model": torch.zeros(5)}, {**HONEST, "absent": [1], "partner": None}), 5)
    control.check(Message("left", 1, figures={"links": {"-1": 3}, "faults": {}, "pss_mb": 1.5}), 5)


@pytest.mark.parametrize(
    "lie",
    [
        Message("row", 1, figures={**HONEST, "peer": 3}),
        Message("row", 1, figures={**HONEST, "round": 9}),
        Message("row", 1, figures={**HONEST, "absent": b"\0"}),
        Message("row", 1, figures={**HONEST, "time_s": float("nan")}),
        Message("row", 1, figures={"time_s": 1.0}),
        Message("row", 1, {"model": torch.zeros(6)}, HONEST),
        Message("row", 1, {"other": torch.zeros(5)}, HONEST),
        Message("left", 1, figures={"links": 7, "faults": {}, "pss_mb": 1.0}),
        Message("left", 1, figures={"links": {"x": 7}, "faults": {}, "pss_mb": 1.0}),
        Message("ready", 0, figures={"endpoint": 5, "key": b""}),
        Message("crashed", 0),
        Message("stop", 0),
    ],
)
def test_what_no_honest_peer_says_is_refused(lie: Message) -> None:
    with pytest.raises(RemoteError):
        control.check(lie, 5)


def test_a_peer_that_is_stopped_holds_the_run_up_no_longer_than_others_need(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "SILENT_S", 1.5)
    stopped: list[int] = []

    def hear(row: dict[str, object]) -> None:
        if row["round"] == 4 and not stopped:
            servers = psutil.Process().children()
            (peer, *_) = [child for server in servers for child in server.children() if child.num_threads() > 1]
            stopped.append(peer.pid)
            peer.suspend()

    settings = scenario.read({**SMALL, "peers": 3, "rounds": 12, "topology": "complete"})
    record = run(settings, tmp_path / "out", Screen(hear))
    (lost,) = record.crashed
    assert "no sign of life" in (record.folder / "log.txt").read_text()
    assert record.summary["absent"].keys() == {str(lost)}
    assert record.summary["accuracy"]["mean"] > 0
    assert not psutil.pid_exists(stopped[0])
