"""A sweep runs every case once, whatever happens to it meanwhile, and chooses without a look at the test set."""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import re
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import test_launch
from click.testing import CliRunner
from p2pfl.cli import main
from rich.console import Console
from test_launch import P2PFL, STOPPED_S, Place, rows, summary

import p2pfl
from p2pfl import scenario
from p2pfl.errors import ScenarioError
from p2pfl.report.live_sweep import LiveSweep
from p2pfl.runtime import launch
from p2pfl.runtime.sweeps.crew import Job, News
from p2pfl.runtime.sweeps.ledger import claim
from p2pfl.runtime.sweeps.matrix import cases
from p2pfl.runtime.sweeps.sweep import Audience

place = test_launch.place

TINY: dict[str, Any] = {
    "name": "tiny",
    "seed": 1,
    "peers": 2,
    "rounds": 2,
    "engine": "simulate",
    "model": {"mlp": {"hidden": [8]}},
    "training": {"local_steps": 2, "device": "cpu"},
}


def figures(folder: Path) -> list[dict[str, Any]]:
    """All rows of a run, in a fixed order, without times, bytes and links."""
    kept = [row for row in rows(folder) if "to" not in row]
    kept.sort(key=lambda row: (row["round"], str(row["peer"])))
    return [{k: v for k, v in row.items() if not k.endswith(("_s", "_mb", "_bytes"))} for row in kept]


def stamps(folder: Path) -> dict[str, tuple[int, int]]:
    """By which every file of a folder is known again: its inode and when it was written."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path.relative_to(folder)): (path.stat().st_ino, path.stat().st_mtime_ns) for path in files}


def index(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "sweep.json").read_text())
    return found


def states(folder: Path) -> list[str]:
    return [case["state"] for case in index(folder)["cases"]]


def write(place: Place, **settings: Any) -> None:
    (place.path / "sweep.yaml").write_text(json.dumps({**TINY, **settings}))


def start(place: Place, *arguments: str) -> test_launch.Running:
    return place.start(P2PFL, "launch", "sweep.yaml", "--out", "out", *arguments)


def test_only_what_is_not_finished_runs_and_alone_or_at_once_gives_the_figures_of_a_plain_run(tmp_path: Path) -> None:
    out, swept = tmp_path / "out", {**TINY, "matrix": {"seed": [1, 2, 3]}}
    first = p2pfl.launch(swept, out)
    assert (first.failed, first.stopped, len(first.cases)) == ({}, False, 3)
    plain = [
        figures(launch.run(scenario.read({**TINY, "seed": seed}), tmp_path / f"{seed}").folder) for seed in (1, 2, 3)
    ]
    folders = [record.folder for record in first.cases]
    assert [figures(folder) for folder in folders] == plain
    assert (folders[0] / "scenario.yaml").read_text() == (tmp_path / "1" / "scenario.yaml").read_text()
    finished = stamps(folders[0])
    (folders[1] / "summary.json").write_text('{"name": "tiny", "rou')
    (folders[1] / "left.over").write_text("from a run that was killed")
    (folders[2] / "summary.json").write_text(json.dumps({**summary(folders[2]), "stopped": True}))
    swept["matrix"] |= {"engine": ["simulate", "local"], "exclude": [{"engine": "local", "seed": k} for k in (2, 3)]}
    again = p2pfl.launch(swept, out, jobs=2)
    assert stamps(folders[0]) == finished
    assert [record.folder for record in again.cases[:3]] == folders
    assert [figures(record.folder) for record in again.cases] == [*plain, plain[0]]
    assert again.cases[3].summary["engine"] == "local"
    assert not (folders[1] / "left.over").exists()
    assert "stopped" not in summary(folders[2])
    everything = stamps(out / "cases")
    assert len(p2pfl.launch(swept, out).cases) == 4
    assert stamps(out / "cases") == everything
    assert {path.name for path in out.iterdir()} == {"cases", "sweep.json", "sweep.yaml", "report.html", "runs.csv"}
    assert all((record.folder / "report.html").is_file() for record in again.cases)
    assert len((out / "runs.csv").read_text().splitlines()) == 5
    expected = [{"engine": "simulate", "seed": seed} for seed in (1, 2, 3)] + [{"engine": "local", "seed": 1}]
    assert [(case["number"], case["settings"]) for case in index(out)["cases"]] == list(enumerate(expected, 1))
    assert [out / "cases" / case["folder"] for case in index(out)["cases"]] == [one.folder for one in again.cases]


def test_a_sweep_that_was_killed_leaves_no_process_and_is_finished_by_the_same_command(place: Place) -> None:
    quick, long = {"engine": "simulate", "rounds": 1500}, {"engine": "local", "rounds": 4}
    write(place, matrix={"engine": ["simulate", "local"], "rounds": [4, 1500], "seed": [1], "exclude": [quick, long]})
    sweep = cases(place.path / "sweep.yaml")
    assert sweep is not None
    running = start(place)
    running.wait_for("^case 2 .*starts$")
    out = place.path / "out" / "cases"
    with subprocess.Popen(["tail", "-F", out / sweep.cases[1].folder / "records.jsonl"], stdout=-1, stderr=-3) as tail:
        assert tail.stdout is not None
        assert tail.stdout.readline()  # its peers learn
        tail.kill()
    assert len(place.processes()) >= 5
    running.process.kill()
    running.end()
    place.assert_left_alone()
    finished = {case.folder: stamps(out / case.folder) for case in sweep.cases[:1]}
    assert all("summary.json" in files for files in finished.values())
    interrupted = out / sweep.cases[1].folder
    assert not (interrupted / "summary.json").exists() or summary(interrupted)["stopped"] is True
    ended = start(place).end()
    assert (ended.code, ended.err) == (0, "")
    assert states(place.path / "out") == ["done"] * 2
    assert {name: stamps(out / name) for name in finished} == finished
    assert {path.name for path in out.iterdir()} == {case.folder for case in sweep.cases}
    assert ended.last_line == "out: 2 of 2 cases are finished, open out/report.html"
    place.assert_left_alone()


def test_processes_of_different_cases_share_a_folder(place: Place) -> None:
    write(place, matrix={"seed": [1, 2, 3, 4]})
    several = [start(place, "--case", str(number)) for number in (2, 4)]
    for running in several:
        assert running.end().code == 0
    out = place.path / "out"
    assert states(out) == ["waiting", "done", "waiting", "done"]
    assert {path.name for path in (out / "cases").iterdir()} == {index(out)["cases"][k]["folder"] for k in (1, 3)}
    assert len((out / "runs.csv").read_text().splitlines()) == 3
    place.assert_left_alone()


def test_a_folder_that_another_process_works_in_is_not_taken(tmp_path: Path) -> None:
    ours = claim(tmp_path / "case", wait=False)
    assert ours is not None
    assert claim(tmp_path / "case", wait=False) is None
    os.close(ours)
    assert claim(tmp_path / "case", wait=False) is not None


def test_a_case_that_another_process_runs_is_waited_for_and_one_whose_process_is_killed_has_failed(
    tmp_path: Path,
) -> None:
    swept = {**TINY, "matrix": {"seed": [1, 2]}}
    found = cases(swept)
    assert found is not None
    theirs, heard = claim(tmp_path / "out" / "cases" / found.cases[0].folder, wait=False), []
    assert theirs is not None
    (tmp_path / "out" / "sweep.yaml").touch()

    def hear(news: News) -> None:
        heard.append((news.job.case.number, news.state))
        if heard.count((1, "running")) == 2 and (1, "released") not in heard:
            heard.append((1, "released"))
            threading.Timer(0.5, os.close, (theirs,)).start()
        if heard[-1] == (2, "running"):
            for process in multiprocessing.active_children():
                process.kill()

    record = p2pfl.launch(swept, tmp_path / "out", audience=Audience(hear=hear))
    assert heard.count((1, "busy")) == 1
    assert [one.folder.name for one in record.cases] == [found.cases[0].folder]
    assert record.failed == {2: "the process of the case ended with exit code -9"}


def test_a_case_that_fails_is_named_and_tried_again(place: Place) -> None:
    write(place, matrix={"training.lr": [0.1, 1e30], "seed": [7]})
    ended = start(place).end()
    assert (ended.code, ended.err) == (3, "")
    assert re.search(r"^case 2 failed: peer 0 crashed: .* lower training.lr, which is 1e\+30$", ended.out, re.MULTILINE)
    out = place.path / "out"
    assert states(out) == ["done", "failed"]
    good, bad = (out / "cases" / case["folder"] for case in index(out)["cases"])
    assert summary(bad)["crashed"] == [0, 1]
    assert "crashed" not in summary(good)
    before, left = stamps(good), stamps(bad)
    swept = {**TINY, "matrix": {"training.lr": [0.1, 1e30, 0.2], "seed": [7]}}
    unchanged = p2pfl.launch(swept, out, retry=False)
    assert (list(unchanged.failed), len(unchanged.cases), stamps(bad)) == ([2], 2, left)
    again = p2pfl.launch(swept, out)
    assert states(out) == ["done", "failed", "done"]
    assert list(again.failed) == [2]
    assert stamps(good) == before
    assert stamps(bad)["summary.json"] != left["summary.json"]
    place.assert_left_alone()


def test_one_case_of_a_sweep_says_what_became_of_it_and_how_many_of_all_are_finished(tmp_path: Path) -> None:
    file, out = tmp_path / "sweep.yaml", tmp_path / "out"
    file.write_text(json.dumps({**TINY, "matrix": {"training.lr": [0.1, 1e30, 0.2], "seed": [7]}}))

    def said(case: int, *arguments: str) -> list[str]:
        words = ["launch", str(file), "--out", str(out), "--case", str(case), *arguments]
        return CliRunner().invoke(main, words).stdout.splitlines()[-2:]

    sweep = cases(file)
    assert sweep is not None
    first, all_of_it = said(1)
    assert first == f"case 1 is finished, in {out / 'cases' / sweep.cases[0].folder}"
    assert all_of_it == f"{out}: 1 of 3 cases are finished, open {out / 'report.html'}"
    assert said(2)[0].startswith("case 2 failed: peer 0 crashed: ")
    said(3)
    again, all_of_it = said(1)
    assert again == f"case 1 was finished before, in {out / 'cases' / sweep.cases[0].folder}"
    assert all_of_it == f"{out}: 2 of 3 cases are finished, open {out / 'report.html'}"


def test_a_choice_at_the_edge_of_its_grid_is_told_at_the_end_and_on_the_page(tmp_path: Path) -> None:
    file, out = tmp_path / "sweep.yaml", tmp_path / "out"
    tune = {"training.lr": [1e-9, 0.1], "model": [{"mlp": {"hidden": [8]}}]}
    file.write_text(json.dumps({**TINY, "tune": tune}))
    said = CliRunner().invoke(main, ["launch", str(file), "--out", str(out)]).stdout
    edge = "At the edge of what was tried: training.lr=0.1 (the largest). Try further values."
    assert edge in said.splitlines()
    assert f"<p>{edge}</p>" in (out / "report.html").read_text()


def test_ctrl_c_stops_the_cases_that_run_and_keeps_those_that_are_finished(place: Place) -> None:
    write(place, matrix={"engine": ["simulate", "local"], "rounds": [2, 1_000_000], "seed": [1]})
    running = start(place, "--jobs", "3")
    running.wait_for("^case 1 .*done")
    asked_s = time.monotonic()
    os.killpg(running.process.pid, signal.SIGINT)
    ended = running.end()
    assert time.monotonic() - asked_s < STOPPED_S
    assert ended.code == 130
    assert "Traceback" not in ended.out + ended.err
    assert re.search(r"^stopped: [12] of 4 cases are finished; the same command goes on$", ended.out, re.MULTILINE)
    first, second, _, fourth = states(place.path / "out")
    assert (first, second) == ("done", "unfinished")
    assert fourth in ("waiting", "unfinished")
    assert (place.path / "out" / "report.html").is_file()
    place.assert_left_alone()


def test_what_is_chosen_is_what_one_would_choose_by_hand_and_unseen_by_the_test_set(tmp_path: Path) -> None:
    tune = {"training.lr": [0.001, 0.1, 1e30], "evaluate.every": [1, 2]}  # how often one looks makes no difference
    decays = [0.0, 1e30]  # with the second every candidate diverges
    record = p2pfl.launch(
        {**TINY, "matrix": {"training.weight_decay": decays, "seed": [3, 4]}, "tune": tune}, tmp_path / "out", jobs=2
    )
    found = index(tmp_path / "out")
    assert found["tune"] == {"candidates": 6, "runs_each": 1, "seed": 3}
    assert len(found["tuning"]) == 12
    for entry in found["tuning"]:
        folder = tmp_path / "out" / "tuning" / entry["folder"]
        assert not any(key.startswith("test") for row in rows(folder) for key in row)
        assert "accuracy" not in summary(folder)
        sets = [f"{key}={json.dumps(value)}" for key, value in (entry["setting"] | entry["candidate"]).items()]
        by_hand = launch.run(scenario.read({**TINY, "seed": 3}, sets), tmp_path / "by hand" / entry["folder"])
        last = [row["validation_accuracy"] for row in rows(by_hand.folder) if row["round"] == 2 and "test_loss" in row]
        assert entry["validation_accuracy"] == (sum(last) / len(last) if last else None)
        hopeless = entry["candidate"]["training.lr"] == 1e30 or entry["setting"]["training.weight_decay"] == 1e30
        assert entry["state"] == ("failed" if hopeless else "done")
    accuracies = [entry["validation_accuracy"] or 0.0 for entry in found["tuning"]]
    best = accuracies.index(max(accuracies))
    assert [at for at, entry in enumerate(found["tuning"]) if entry["chosen"]] == [best]
    assert found["tuning"][best]["candidate"] == {"training.lr": 0.1, "evaluate.every": 1}
    for seed, case in zip((3, 4), record.cases, strict=True):
        chosen = {"training.weight_decay": 0.0, "training.lr": 0.1, "evaluate.every": 1, "seed": seed}
        assert found["cases"][seed - 3]["settings"] == chosen
        assert case.summary["accuracy"]["mean"] > 0
        assert "training: {batch: 32, lr: 0.1," in (case.folder / "scenario.yaml").read_text()
    assert list(record.failed) == [3, 4]
    reason = record.failed[3]
    assert reason.startswith("nothing could be chosen, since in its tuning peer 0 crashed")
    settings = {"training.weight_decay": 1e30, "seed": 3}
    assert found["cases"][2] == {
        **{"number": 3, "folder": None, "settings": settings, "state": "failed", "reason": reason}
    }


REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "a case that is not there": ({"matrix": {"seed": [1, 2]}}, {"case": 3}, r"no case 3 \(--case\): there are 1 to 2"),
    "a case of what is no sweep": ({}, {"case": 1}, r"without a matrix has no cases \(--case\)"),
    "no job": ({"matrix": {"seed": [1, 2]}}, {"jobs": 0}, r"\(--jobs\)"),
    "a model that cannot be made": (
        {"matrix": {"model": ["mlp", {"mlp": {"hidden": [10**12]}}]}},
        {},
        r"^in case 2 \(model=mlp-hidden=1000000000000\) .*model.mlp cannot be made.*\(matrix.model.1.mlp\)",
    ),
    "more peers than examples": ({"matrix": {"peers": [2, 2000]}}, {}, "too few for 2000 peers"),
    "nothing to choose on": (
        {"tune": {"training.lr": [0.1]}, "data": {"digits": {"validation": 0.0}}},
        {},
        r"^tune chooses on the validation split, which is empty \(data.digits\): .*validation=0.1",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_refused_before_anything_is_written(case: str, tmp_path: Path) -> None:
    more, arguments, expected = REFUSED[case]
    with pytest.raises(ScenarioError, match=expected):
        p2pfl.launch({**TINY, **more}, tmp_path / "out", **arguments)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_holds_something_else_is_refused_and_not_touched(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("mine")
    with pytest.raises(ScenarioError, match=r"is not empty, and holds no sweep \(--out\)"):
        p2pfl.launch({**TINY, "matrix": {"seed": [1]}}, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]


def test_check_looks_at_every_case(tmp_path: Path) -> None:
    file = tmp_path / "sweep.yaml"
    file.write_text(json.dumps({**TINY, "matrix": {"training.lr": [0.1, 0.2], "seed": [1, 2]}}))
    said = CliRunner().invoke(main, ["check", str(file)])
    assert said.exit_code == 0
    assert said.stdout.splitlines()[2:] == [
        "cases     4",
        *(
            f"{number:>8}  lr={lr},seed={seed}"
            for number, (lr, seed) in enumerate([(0.1, 1), (0.1, 2), (0.2, 1), (0.2, 2)], 1)
        ),
    ]
    refused = CliRunner().invoke(main, ["check", str(file), "--set", "matrix={peers: [2, 2000]}"])
    assert refused.exit_code == 2
    assert "too few for 2000 peers" in refused.stderr


def told(terminal: bool) -> str:
    found = cases({**TINY, "matrix": {"training.lr": [0.1, 1e30], "seed": [1, 2]}})
    assert found is not None
    first, second, third, _ = (Job(case, trial=False) for case in found.cases)
    paper = io.StringIO()
    with LiveSweep(Console(file=paper, force_terminal=terminal, width=120, color_system=None)) as live:
        live.begin("tiny", Path("out"), 5, 1)
        for news in (
            *(News(first, "running"), News(first, "running", 1.0, 1, 0.5), News(first, "done", 2.0, 2, 0.75)),
            *(News(second, "running"), News(third, "running"), News(third, "running", 0.5, 1)),
            News(second, "failed", 0.5, reason="peer 0 crashed: \x1b[31mred"),
        ):
            live.hear(news)
    return paper.getvalue()


def test_plain_lines_tell_when_a_case_starts_and_ends() -> None:
    assert told(terminal=False).splitlines() == [
        "tiny: 5 runs, 1 finished before, in out",
        "case 1 (lr=0.1,seed=1) starts",
        "case 1 (lr=0.1,seed=1) done: accuracy 0.750, 2.0 s",
        "case 2 (lr=0.1,seed=2) starts",
        "case 3 (lr=1e30,seed=1) starts",
        "case 2 (lr=0.1,seed=2) failed: peer 0 crashed: \N{REPLACEMENT CHARACTER}[31mred",
    ]


def test_a_terminal_shows_what_runs_what_is_over_and_how_much_is_left() -> None:
    last = told(terminal=True).rpartition("tiny")[2]
    assert "2 done, 1 failed, 1 running, 1 waiting" in last
    assert re.search(r"1 +lr=0.1,seed=1 +done +0.750 +2.0 s", last)
    assert re.search(r"2 +lr=0.1,seed=2 +failed: peer 0 crashed: \N{REPLACEMENT CHARACTER}\[31mred", last)
    assert re.search(r"3 +lr=1e30,seed=1 +round 1/2 ", last)


def test_the_folder_of_another_sweep_is_refused_and_not_touched(tmp_path: Path) -> None:
    p2pfl.launch({**TINY, "matrix": {"seed": [1]}}, tmp_path / "out")
    before = stamps(tmp_path / "out")
    with pytest.raises(ScenarioError, match="holds the sweep 'tiny' and not 'other'"):
        p2pfl.launch({**TINY, "name": "other", "matrix": {"seed": [1]}}, tmp_path / "out")
    assert stamps(tmp_path / "out") == before
