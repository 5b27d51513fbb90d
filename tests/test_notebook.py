"""In a notebook and at a prompt a run shows itself and leaves nothing running; scripts are silent."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
import textwrap
from html import unescape
from pathlib import Path

import nbclient
import nbformat
import psutil
import pytest

from p2pfl.runtime.launch import Record

SUMMARY = {
    "name": "small",
    "rounds": 2,
    "rounds_to_target": 1,
    "accuracy": {"mean": 0.9, "min": 0.85, "max": 0.95},
    "bytes": {"sent": 1_234_567, "sent_per_peer_round": 205_761.2},
    "round_s": {"median": 0.04},
    "wall_s": 4.2,
}
RUN = '{"name": "small", "seed": 1, "peers": 3, "rounds": 2, "data": "digits", "engine": "%s"}'
Executed = tuple[nbformat.NotebookNode, str, Path]
"""A notebook, the processes that its kernel still had at the end, and the folder where it ran."""


def outputs(cell: nbformat.NotebookNode, kind: str) -> str:
    return "".join(out.get("data", {}).get(kind, "") for out in cell.outputs)


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> Executed:
    """A notebook of a few cells, executed by a real kernel."""
    desk = tmp_path_factory.mktemp("desk")
    cells = [
        "import asyncio, os, p2pfl; asyncio.get_running_loop()",
        f"record = p2pfl.launch({RUN % 'local'}, out='first')",
        "p2pfl.load('first')[0]['rounds']",
        "record",
        "import psutil; print(*[(child.pid, child.cmdline()) for child in psutil.Process().children(recursive=True)])",
    ]
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    environment = {**os.environ, "IPYTHONDIR": str(desk / "ipython")}
    kernel = {"metadata": {"path": str(desk)}}
    nbclient.NotebookClient(book, timeout=120, kernel_name="python3", resources=kernel).execute(env=environment)
    left = "".join(out.get("text", "") for out in book.cells[-1].outputs)
    return book, left, desk


def test_a_launch_in_a_notebook_shows_every_peer_in_one_place_and_says_what_it_came_to(
    executed: Executed,
) -> None:
    cell = executed[0].cells[1]
    assert not [out for out in cell.outputs if out.output_type in ("error", "stream")], cell.outputs
    displayed = [out for out in cell.outputs if "round 2/2" in out.data.get("text/plain", "")]
    assert len(displayed) == 1
    table = displayed[0].data["text/plain"]
    assert re.search(r"^0 +2 +[\d.]+ ", table, re.MULTILINE)
    assert "round 2/2" in re.sub("<[^>]+>", "", displayed[0].data["text/html"])
    said = outputs(cell, "text/plain")
    assert "3 peers trained for 2 rounds" in said
    assert "first/report.html" in said


def test_the_record_is_there_for_the_next_cells_and_shows_itself_as_a_card(
    executed: Executed,
) -> None:
    book, _, desk = executed
    assert outputs(book.cells[2], "text/plain") == "2"
    card = outputs(book.cells[3], "text/html")
    assert 'href="first/report.html"' in card
    assert "test accuracy" in card
    assert (desk / "first" / "report.html").is_file()


def test_nothing_is_left_running_when_a_notebook_has_been_executed(
    executed: Executed,
) -> None:
    left = re.findall(r"\((\d+), \[(.*?)\]\)", executed[1])
    assert [command for _, command in left if "resource_tracker" not in command] == []
    there = [psutil.Process(int(pid)) for pid, _ in left if psutil.pid_exists(int(pid))]
    assert psutil.wait_procs(there, timeout=10)[1] == [], "Python's own tracker ends with the kernel"


def test_a_card_has_the_figures_and_a_link() -> None:
    text = unescape(re.sub(r"<[^>]+>", " ", Record(Path("runs/small"), SUMMARY, False, ())._repr_html_()))
    for said in (
        "small",
        "90.0 %",
        "85.0 % to 95.0 %",
        "target reached in round 1",
        "1.2 MB",
        "205.8 kB a peer",
        "4.2 s",
    ):
        assert said in text
    assert "stopped" not in text
    assert "crashed" not in text


def test_a_card_says_who_crashed_and_that_the_run_was_stopped() -> None:
    card = Record(Path("x"), {}, True, (-1, 3))._repr_html_()
    assert "stopped before the end" in card
    assert "crashed: peer hub, 3" in card


def test_whatever_was_recorded_is_escaped() -> None:
    hostile = "<script>alert(1)</script>\"'"
    card = Record(Path(f"runs/{hostile}"), {**SUMMARY, "name": hostile}, False, ())._repr_html_()
    assert "<script" not in card
    assert card.count("&lt;script&gt;") == 2
    (href,) = re.findall(r'href="([^"]*)"', card)
    assert not set("<>'\"") & set(href)


def typed(code: str, desk: Path, *words: str) -> str:
    """What a terminal shows when Python is started in it and this is typed."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100", "PYTHON_BASIC_REPL": "1"}
    python = subprocess.Popen(
        [sys.executable, *words], cwd=desk, env=environment, stdin=theirs, stdout=theirs, stderr=theirs,
        start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    os.write(ours, code.encode())
    said = b""
    try:
        while part := os.read(ours, 4096):
            said += part
    except OSError:  # how Linux says that the other end of a terminal is closed
        pass
    python.wait(timeout=10)
    os.close(ours)
    return re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", said.decode())


def test_at_a_prompt_a_launch_shows_itself(tmp_path: Path) -> None:
    run = RUN % "simulate"
    said = typed(f"import p2pfl\nrecord = p2pfl.launch({run}, out='first')\nexit()\n", tmp_path, "-q")
    assert "round 2/2" in said
    assert "3 peers trained for 2 rounds" in said
    assert "first/report.html" in said


def test_a_script_is_silent_even_in_a_terminal(tmp_path: Path) -> None:
    script = f"""
        import p2pfl
        record = p2pfl.launch({RUN % "simulate"}, out="first")
        print(record.summary["rounds"])
    """
    (tmp_path / "script.py").write_text(textwrap.dedent(script))
    assert typed("", tmp_path, "script.py").split() == ["2"]
