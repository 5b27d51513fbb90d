"""The real command with real processes: it ends well, stops at once, survives its peers, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psutil
import pytest

from p2pfl import scenario
from p2pfl.runtime.launch import Screen, run

P2PFL = str(Path(sys.executable).with_name("p2pfl"))
LIMIT_S = 120
"""A run that takes longer hangs: it is killed, and its test fails."""
STOPPED_S = 6
"""Within how long a stopped run must be over: 3 s are promised, the rest is for a busy machine."""
FOREVER = ("--set", "rounds=1000000", "--set", "evaluate.every=5")
SHORT = ("--set", "peers=3", "--set", "rounds=4")


@dataclass
class Place:
    """A folder of its own to run in; its path is short, since sockets lie below it."""

    path: Path

    @property
    def sockets(self) -> Path:
        return self.path / "t"

    def start(self, *command: str) -> Running:
        """Start a command in a process group of its own, as a shell does."""
        environment = {**os.environ, "TMPDIR": str(self.sockets), "COLUMNS": "200"}
        pipe = subprocess.PIPE
        process = subprocess.Popen(
            command, cwd=self.path, env=environment, stdout=pipe, stderr=pipe, text=True, start_new_session=True
        )
        return Running(process)

    def launch(self, *arguments: str) -> Running:
        """Start the quickstart, with these arguments."""
        return self.start(P2PFL, "launch", "quickstart", *arguments)

    def processes(self) -> list[psutil.Process]:
        """Every living process that was started here, or by one that was."""
        found = []
        for process in psutil.process_iter():
            try:
                ours = process.environ().get("TMPDIR") == str(self.sockets)
                if ours and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def assert_left_alone(self) -> None:
        """No process and no socket is left, or will be in a moment."""
        _, living = psutil.wait_procs(self.processes(), timeout=STOPPED_S)
        assert living == []
        assert list(self.sockets.iterdir()) == []


@dataclass
class Running:
    """A command that was started. Whatever happens it does not outlive the time limit."""

    process: subprocess.Popen[str]

    def __post_init__(self) -> None:
        self._watchdog = threading.Timer(LIMIT_S, os.killpg, (self.process.pid, signal.SIGKILL))
        self._watchdog.start()
        self.said = ""

    def wait_for(self, pattern: str) -> None:
        """Read what it says until a line matches."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said += line
            if re.search(pattern, line):
                return
        raise AssertionError(f"never said {pattern!r} but {self.said!r}, {self.end()}")

    def end(self) -> Ended:
        """Wait until it is over."""
        out, err = self.process.communicate()
        self._watchdog.cancel()
        return Ended(self.process.returncode, self.said + out, err)


@dataclass(frozen=True)
class Ended:
    """A command that is over."""

    code: int
    out: str
    err: str

    @property
    def last_line(self) -> str:
        return self.out.splitlines()[-1]


@pytest.fixture
def place() -> Iterator[Place]:
    base = "/tmp" if Path("/tmp").is_dir() else None
    here = Place(Path(tempfile.mkdtemp(prefix="p", dir=base)).resolve())
    here.sockets.mkdir()
    yield here
    left = here.processes()
    for process in left:
        process.kill()
    shutil.rmtree(here.path, ignore_errors=True)
    assert left == []


def rows(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "records.jsonl").read_text().splitlines()]


def summary(folder: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads((folder / "summary.json").read_text())
    return found


FILES = {
    *("scenario.yaml", "graph.json", "environment.json", "records.jsonl"),
    *("summary.json", "report.html", "log.txt"),
}


def test_a_run_leaves_its_whole_folder_and_says_where(place: Place) -> None:
    ended = place.launch("--out", "out", *SHORT).end()
    assert ended.code == 0, ended
    assert ended.err == ""
    out = place.path / "out"
    assert {path.name for path in out.iterdir()} == FILES
    assert ended.last_line == "out: open out/report.html, or run 'p2pfl report out' again"
    assert {(row["peer"], row["round"]) for row in rows(out) if "loss" in row} == {
        (peer, round_) for peer in range(3) for round_ in range(1, 5)
    }
    figures = summary(out)
    assert (figures["engine"], figures["peers"], figures["rounds"]) == ("local", 3, 4)
    assert {"accuracy", "loss", "bytes", "startup_s", "round_s", "wall_s", "peer_memory_mb"} <= figures.keys()
    assert (figures["faults"], figures["absent"]) == ({}, {})
    assert set(os.listdir(place.path)) == {"t", "out"}
    place.assert_left_alone()


def test_plain_lines_are_said_where_there_is_no_terminal(place: Place) -> None:
    ended = place.launch(*SHORT).end()
    assert "\x1b" not in ended.out + ended.err
    assert ended.out.startswith("quickstart: 3 peers, 4 rounds, target accuracy")
    assert re.search(r"^round 4/4 .*accuracy 0\.\d+", ended.out, re.MULTILINE)


def test_the_default_folder_is_named_by_the_scenario_and_numbered_when_it_exists(place: Place) -> None:
    names = [place.launch(*SHORT, "--engine", "simulate").end().last_line.partition(":")[0] for _ in range(2)]
    assert re.fullmatch(r"runs/quickstart-[0-9a-f]{8}", names[0])
    assert names[1] == f"{names[0]}-2"
    assert (place.path / names[1] / "report.html").is_file()


def test_settings_and_the_engine_of_the_command_line_win(place: Place) -> None:
    ended = place.launch(*SHORT, "--set", "algorithm.leasgd.rho=0.5", "--engine", "inproc", "--out", "out").end()
    assert ended.code == 0, ended
    said = (place.path / "out" / "scenario.yaml").read_text()
    assert re.search(r"leasgd: \{rho: 0\.5,", said)
    assert "engine: inproc" in said
    assert summary(place.path / "out")["engine"] == "inproc"


def test_a_scenario_file_runs_from_any_directory(place: Place) -> None:
    inner = place.path / "mine"
    inner.mkdir()
    (inner / "tiny.yaml").write_text("name: tiny\npeers: 2\nrounds: 2\ntransport: tcp\n")
    ended = place.start(P2PFL, "launch", "mine/tiny.yaml", "--out", str(place.path / "far" / "out")).end()
    assert ended.code == 0, ended
    assert (place.path / "far" / "out" / "report.html").is_file()
    place.assert_left_alone()


def test_a_folder_of_the_same_name_where_the_user_stands_is_not_taken_for_ours(place: Place) -> None:
    (place.path / "p2pfl").mkdir()
    (place.path / "p2pfl" / "__init__.py").write_text("raise ImportError('this is another p2pfl')\n")
    ended = place.launch("--out", "out", *SHORT).end()
    assert ended.code == 0, ended
    place.assert_left_alone()


def test_a_folder_that_is_not_empty_is_refused_and_not_touched(place: Place) -> None:
    out = place.path / "out"
    out.mkdir()
    (out / "precious").write_text("mine")
    ended = place.launch("--out", "out").end()
    assert ended.code == 2
    assert len(ended.err.splitlines()) == 1
    assert "'out' is not empty (--out)" in ended.err
    assert ended.out == "", "nothing is announced that cannot begin"
    assert [path.name for path in out.iterdir()] == ["precious"]
    place.assert_left_alone()


def test_the_report_can_be_written_again(place: Place) -> None:
    place.launch(*SHORT, "--engine", "simulate", "--out", "out").end()
    page = place.path / "out" / "report.html"
    first = page.read_text()
    page.unlink()
    ended = place.start(P2PFL, "report", "out").end()
    assert (ended.code, ended.last_line) == (0, "out/report.html")
    assert len(page.read_text()) == len(first)
    missing = place.start(P2PFL, "report", "nowhere").end()
    assert missing.code == 2
    assert len(missing.err.splitlines()) == 1


@pytest.mark.parametrize("whom", ["launcher", "group"])
def test_ctrl_c_stops_every_peer_keeps_the_rows_and_says_so(place: Place, whom: str) -> None:
    running = place.launch("--out", "out", *FOREVER)
    running.wait_for(r"^round 5/")
    asked_s = time.monotonic()
    (os.kill if whom == "launcher" else os.killpg)(running.process.pid, signal.SIGINT)
    ended = running.end()
    took_s = time.monotonic() - asked_s
    assert ended.code == 130, ended
    assert took_s < STOPPED_S
    assert "Traceback" not in ended.out + ended.err
    assert "stopped before the end; what was recorded is kept in out" in ended.out
    assert {row["peer"] for row in rows(place.path / "out") if "loss" in row} == set(range(8))
    assert summary(place.path / "out")["rounds"] >= 5  # type: ignore[operator]
    assert (place.path / "out" / "report.html").is_file()
    assert "stopped by the user" in (place.path / "out" / "log.txt").read_text()
    place.assert_left_alone()


@pytest.mark.parametrize("engine", ["local", "inproc", "simulate"])
def test_ctrl_c_while_peers_still_start_leaves_nothing_behind(place: Place, engine: str) -> None:
    running = place.launch("--out", "out", "--engine", engine, *FOREVER)
    running.wait_for("^quickstart: 8 peers")
    asked_s = time.monotonic()
    os.killpg(running.process.pid, signal.SIGINT)
    ended = running.end()
    assert ended.code == 130, ended
    assert time.monotonic() - asked_s < STOPPED_S
    assert "Traceback" not in ended.out + ended.err
    place.assert_left_alone()


@pytest.mark.parametrize("engine", ["local", "inproc", "simulate"])
def test_a_signal_at_the_first_line_on_the_screen_stops_the_run(place: Place, engine: str) -> None:
    settings = scenario.read("quickstart", [f"engine={engine}", "rounds=100000"])
    rung = Screen(begin=partial(os.kill, os.getpid(), signal.SIGINT))
    record = run(settings, place.path / "out", rung)
    assert record.stopped
    assert record.summary["stopped"] is True
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_launcher_that_is_killed_takes_every_peer_and_socket_along(place: Place) -> None:
    running = place.launch("--out", "out", *FOREVER)
    running.wait_for(r"^round 5/")
    running.process.kill()
    running.end()
    place.assert_left_alone()
    assert rows(place.path / "out")
    assert place.start(P2PFL, "report", "out").end().code == 0


def test_a_peer_that_is_killed_from_outside_is_named_and_the_others_finish(place: Place) -> None:
    running = place.launch("--out", "out", "--set", "rounds=100", "--set", "evaluate.every=5")
    running.wait_for(r"^round 5/")
    server = next(child for child in psutil.Process(running.process.pid).children() if len(child.children()) >= 8)
    server.children()[4].kill()
    ended = running.end()
    assert ended.code == 3, ended
    named = re.findall(r"^peer (\d) crashed: the process ended with exit code -9$", ended.out, re.MULTILINE)
    assert len(named) == 1
    assert f"crashed: peer {named[0]}; the traceback is in out/log.txt" in ended.out
    assert f"peer {named[0]}: the process ended with exit code -9" in (place.path / "out" / "log.txt").read_text()
    through = {row["peer"] for row in rows(place.path / "out") if row["round"] == 100 and "test_accuracy" in row}
    assert through == set(range(8)) - {int(named[0])}
    place.assert_left_alone()


def test_peers_that_diverge_name_the_learning_rate(place: Place) -> None:
    ended = place.launch("--out", "out", *SHORT, "--set", "training.lr=1e30").end()
    assert ended.code == 3, ended
    for peer in range(3):
        assert f"peer {peer} crashed: " in ended.out
    assert "lower training.lr, which is 1e+30" in ended.out
    log = (place.path / "out" / "log.txt").read_text()
    assert "Traceback (most recent call last)" in log
    assert "LocalError: parameters are not finite" in log
    assert (place.path / "out" / "report.html").is_file()
    place.assert_left_alone()


def test_a_scripted_death_is_no_failure_and_is_seen_by_the_others(place: Place) -> None:
    ended = place.launch("--out", "out", "--set", "rounds=8", "--set", "churn=[{round: 5, kill: [3]}]").end()
    assert ended.code == 0, ended
    assert "peer 3 killed in round 5, as the scenario says" in ended.out
    figures = summary(place.path / "out")
    assert figures["rounds"] == 8
    assert figures["absent"] == {"3": 8}  # both neighbours miss it, in each of the rounds 5 to 8
    through = {row["peer"] for row in rows(place.path / "out") if row["round"] == 8 and "test_accuracy" in row}
    assert through == set(range(8)) - {3}
    place.assert_left_alone()


def test_a_script_without_a_main_guard_can_launch_twice(place: Place) -> None:
    script = """
        import p2pfl
        tiny = {"name": "tiny", "seed": 1, "peers": 2, "rounds": 2, "training": {"local_steps": 2}}
        records = [p2pfl.launch(tiny, f"out{k}", [f"rounds={k}"]) for k in (2, 3)]
        print(*(record.summary["rounds"] for record in records), len(p2pfl.load("out*")))
    """
    (place.path / "script.py").write_text(textwrap.dedent(script))
    ended = place.start(sys.executable, "script.py").end()
    assert (ended.code, ended.out, ended.err) == (0, "2 3 2\n", "")
    assert (place.path / "out3" / "report.html").is_file()
    place.assert_left_alone()


def test_a_long_folder_for_temporary_files_is_no_obstacle(place: Place) -> None:
    deep = place.sockets / ("a" * 100)
    deep.mkdir()
    ended = place.start("env", f"TMPDIR={deep}", P2PFL, "launch", "quickstart", *SHORT, "--out", "out").end()
    assert ended.code == 0, ended
    assert list(deep.iterdir()) == []
