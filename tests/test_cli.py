"""The command line is one file per verb, quick to say what it can do, and says what a scenario comes to."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from p2pfl.cli import main

from p2pfl import plugins
from p2pfl.scenario import read


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(main, arguments, prog_name="p2pfl")
    assert result.exit_code == 0, result.output
    return result


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "some.yaml"
    path.write_text("name: some\nseed: 7\n")
    return str(path)


def figure(output: str, label: str) -> str:
    return next(line.removeprefix(label).strip() for line in output.splitlines() if line.startswith(f"{label}  "))


def test_help_lists_every_verb_with_its_short_help() -> None:
    said = run("--help").stdout
    verbs = [path.stem for path in (Path(__file__).parent.parent / "cli").glob("[!_]*.py")]
    assert {"check", "list"} <= set(verbs)
    for verb in verbs:
        line = next(line for line in said.splitlines() if line.split()[:1] == [verb])
        assert len(line.split()) > 2, f"{verb} has no short help"


HEAVY = ("torch", "numpy", "pydantic", "networkx", "yaml", "rich", "zmq", "msgpack", "sklearn", "matplotlib")


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help_and_version_import_nothing_heavy(option: str) -> None:
    script = f"import sys; from p2pfl.cli import main; main(['{option}'], standalone_mode=False); print(*sys.modules)"
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert not set(HEAVY) & set(ended.stdout.splitlines()[-1].split())


def test_check_prints_the_resolved_scenario_and_it_reads_back(file: str, tmp_path: Path) -> None:
    said = run("check", file, "--set", "peers=4").stdout
    resolved = tmp_path / "resolved.yaml"
    resolved.write_text(said.partition("\n\n")[0])
    assert read(resolved) == read(file, ["peers=4"])


def test_check_prints_the_figures_of_the_graph_and_of_the_messages(file: str) -> None:
    said = run("check", file, "--set", "model=logistic").stdout
    assert figure(said, "peers") == "8"
    assert figure(said, "links") == "8"
    assert figure(said, "degree") == "min 2, mean 2, max 2"
    assert figure(said, "diameter") == "4"
    assert figure(said, "spectral gap") == "0.1953"
    assert figure(said, "parameters") == "650"
    assert figure(said, "expected bytes a round") == f"{2 * 8 * 4 * 650:,}"
    assert figure(said, "expected bytes a round and peer") == f"{2 * 4 * 650:,}"


def test_check_counts_the_hub_and_the_sketch(file: str) -> None:
    said = run("check", file, "--set", "algorithm.fedavg.fraction=0.5", "--set", "sketch=countsketch").stdout
    assert figure(said, "peers") == "9 with the hub"
    dense, sent = (int(figure(said, label).replace(",", "")) for label in ("parameters", "numbers in a message"))
    assert sent < dense
    assert figure(said, "expected bytes a round") == f"{2 * 4 * 4 * sent:,}"


def test_list_shows_every_plugin_with_options_defaults_and_what_it_is() -> None:
    said = run("list").stdout
    for room in plugins.ROOMS:
        for name in plugins.names(room):
            first_line = str(plugins.find(room, name).__doc__).strip().partition("\n")[0]
            assert f"  {name}: {first_line}" in said
    assert "    ratio: float | tuple[float, float] > 0, <= 1 = 0.5" in said
    assert "also 136 more" in said or "more: p2pfl list topologies" in said


def test_list_shows_values_as_a_scenario_has_them() -> None:
    said = run("list").stdout
    assert "    of: topology = complete\n" in said
    assert "    hidden: list of int = [64]\n" in said
    assert " = {top_k: 0.0625}\n" in said
    for python in ("Choice(", "Compression(", "None", "True", "False", " = (", " = '"):
        assert not [line for line in said.splitlines() if line.startswith("    ") and python in line], python


def test_list_of_one_room_shows_that_room_and_all_it_offers() -> None:
    said = run("list", "topologies").stdout
    assert "watts_strogatz_graph" in said
    assert "countsketch" not in said


def test_a_reader_that_has_enough_is_no_error() -> None:
    command = f"{Path(sys.executable).with_name('p2pfl')} list | head -n 1"
    ended = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert (ended.stdout, ended.stderr) == ("topologies\n", "")
