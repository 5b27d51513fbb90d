"""`p2pfl topology` shows the figures of a peer graph and draws it; what it cannot draw is one line and exit code 2."""

from __future__ import annotations

import re
from pathlib import Path

import networkx as nx
import numpy
import pytest
from click.testing import CliRunner, Result
from matplotlib import image
from p2pfl.cli import main

from p2pfl import scenario
from p2pfl.mixing import contraction, spectral_gap
from p2pfl.seeds import Seeds


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def topology(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["topology", *arguments], prog_name="p2pfl")


def said(*arguments: str) -> dict[str, str]:
    result = topology(*arguments)
    assert result.exit_code == 0, result.output
    rows = [re.fullmatch(r"(\S.*?)  +(\S.*)", line) for line in result.stdout.splitlines()]
    assert len({row.start(2) for row in rows if row}) == 1
    return {row[1]: row[2] for row in rows if row}


def refused(*arguments: str) -> str:
    result = topology(*arguments)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1
    return result.stderr


def test_the_figures_of_a_torus_are_those_of_the_torus() -> None:
    assert said("torus", "--peers", "16", "--parameters", "1000") == {
        "peers": "16",
        "links": "32",
        "degree": "min 4, mean 4, max 4",
        "diameter": "4",
        "spectral gap": f"{spectral_gap(nx.grid_2d_graph(4, 4, periodic=True)):.4g}",
        "updates seen if static": "4, 9, 9 of 15 others, after 1, 4 and 12 rounds, by the mean peer",
        "updates seen if fresh": "26.7, 6.67, 2.22 %",
        "vectors a round": "64",
        "bytes a round": "256,000 (256 kB), of 1,000 parameters, dense",
    }


def test_a_family_takes_options_and_draws_what_a_scenario_of_the_same_seed_draws() -> None:
    chosen = {"small_world": {"k": 4, "p": 0.5}}
    drawn = scenario.graph(scenario.read({"name": "x", "peers": 20, "seed": 3, "topology": chosen}))
    figures = said("{small_world: {k: 4, p: 0.5}}", "--peers", "20", "--seed", "3")
    assert figures["spectral gap"] == f"{spectral_gap(drawn):.4g}"
    assert figures != said("{small_world: {k: 4, p: 0.5}}", "--peers", "20", "--seed", "4")


def test_a_family_whose_links_change_is_judged_by_its_rounds() -> None:
    figures = said("one_peer_exponential", "--rounds", "3")
    assert figures["links"] == "12 in all rounds together"
    assert figures["links a round"] == "min 4, mean 4, max 4"
    assert figures["connected rounds"] == "0 of the first 3"
    assert figures["contraction"] == "1 a round, over the first 3"
    assert figures["vectors a round"] == "8"
    matchings = said("random_matching", "--peers", "9", "--rounds", "5", "--seed", "2")
    plugin = scenario.SLOTS["topology"].choose("random_matching").value
    rounds = [plugin.graph_in(range(9), Seeds.of(2).child("topology"), r) for r in range(1, 6)]
    assert matchings["contraction"] == f"{contraction(rounds):.4g} a round, over the first 5"


def test_check_judges_a_graph_whose_links_change_by_its_rounds() -> None:
    Path("x.yaml").write_text("name: x\nseed: 1\nrounds: 3\ntopology: one_peer_exponential\n")
    result = CliRunner().invoke(main, ["check", "x.yaml"])
    assert result.exit_code == 0, result.output
    figures = dict(line.split("  ", 1) for line in result.stdout.splitlines() if "  " in line.strip())
    assert figures["contraction"].strip() == "1 a round, over the first 3"
    assert figures["links"].strip() == "12 in all rounds together"


def test_a_graph_in_parts_is_shown_as_such() -> None:
    figures = said("{circulant_graph: {offsets: [2]}}")
    assert figures["diameter"] == "none, it falls into 2 parts"
    assert float(figures["spectral gap"]) == pytest.approx(0, abs=1e-9)


def test_a_graph_file_says_how_many_peers_there_are() -> None:
    Path("lab.csv").write_text("u,v\n0,1\n1,2\nhub,0\n")
    assert said("lab.csv")["peers"] == "4 with the hub"
    Path("round.csv").write_text("# of the satellites\nround,u,v\n1,0,1\n1,1,2\n2,0,2\n2,1,2\n")
    assert said("round.csv", "--rounds", "2")["connected rounds"] == "2 of the first 2"
    nx.write_graphml_xml(nx.path_graph(5), Path("lab.graphml"))
    assert said("lab.graphml")["links"] == "4"
    assert said("{file: lab.graphml}")["links"] == "4"
    assert refused("lab.csv", "--peers", "2").startswith("lab.csv has peer 2, not among the 3 peers there are")


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("torsu", "no topology 'torsu': did you mean 'torus'?"),
        ("lab.gml", "no topology 'lab.gml'"),
        ("none.csv", "no file none.csv: give the path of a graph file"),
        ("{small_world: {kk: 4}}", "unknown key 'kk': did you mean 'k'?"),
        ("{small_world: {k: 4}", "this is not YAML"),
        ("{small_world: {k: 40}}", "k is 40, which 8 peers cannot have"),
        ("{ring: {}, star: {}}", "name one topology"),
        ("", "topology is None"),
    ],
)
def test_what_is_no_topology_is_one_line(spec: str, expected: str) -> None:
    assert expected in refused(spec)


MAGIC = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}


@pytest.mark.parametrize("ending", MAGIC)
def test_a_picture_has_the_format_of_its_name_and_the_same_bytes_each_time(ending: str) -> None:
    for name in ("one", "two"):
        result = topology("small_world", "--peers", "12", "--out", f"{name}.{ending}")
        assert result.exit_code == 0, result.output
        assert result.stdout.splitlines()[-1] == f"drawn into {name}.{ending}"
    one, two = (Path(f"{name}.{ending}").read_bytes() for name in ("one", "two"))
    assert one.startswith(MAGIC[ending])
    assert one == two


SPECS = ["ring", "star", "barbell", "tree", "complete", "random_matching", "one_peer_exponential", "hypercube"]


@pytest.mark.parametrize("peers", ["1", "2", "8", "64"])
@pytest.mark.parametrize("spec", SPECS)
def test_every_number_of_peers_is_drawn(spec: str, peers: str) -> None:
    result = topology(spec, "--peers", peers, "--rounds", "4", "--out", "x.svg")
    assert result.exit_code == 0, result.output
    svg = Path("x.svg").read_text()
    assert f">{spec}</text>" in svg or spec in svg
    assert ("round 4" in svg) == (spec in ("random_matching", "one_peer_exponential"))


def test_a_picture_of_changing_links_says_what_its_parts_show_and_one_of_a_file_which_file() -> None:
    Path("meetings.csv").write_text("round,u,v\n1,0,1\n1,1,2\n2,0,2\n2,1,2\n")
    assert topology("meetings.csv", "--rounds", "2", "--out", "x.svg").exit_code == 0
    svg = Path("x.svg").read_text()
    assert all(f">{text}</text>" in svg for text in ("meetings.csv", "all rounds together", "round 1", "round 2"))
    assert ">schedule<" not in svg
    assert "The large graph has the links of all rounds" in svg
    Path("lab.csv").write_text("u,v\n0,1\n1,2\n")
    assert topology("{file: lab.csv}", "--out", "x.svg").exit_code == 0
    assert ">lab.csv</text>" in Path("x.svg").read_text()
    assert "all rounds" not in Path("x.svg").read_text()


def test_a_picture_is_not_empty_and_names_every_peer() -> None:
    assert topology("ring", "--peers", "9", "--out", "x.png").exit_code == 0
    pixels = image.imread("x.png")
    assert pixels.shape[0] > 500
    assert pixels.shape[1] > 500
    assert 0.02 < numpy.mean(pixels[..., :3].min(axis=2) < 0.8) < 0.5
    assert topology("ring", "--peers", "9", "--out", "x.svg").exit_code == 0
    svg = Path("x.svg").read_text()
    assert all(f">{peer}</text>" in svg for peer in range(9))
    assert "spectral gap" in svg


@pytest.mark.parametrize("out", ["x.gif", "x", "none/x.png", "folder.png"])
def test_a_picture_that_cannot_be_written_is_one_line(out: str) -> None:
    Path("folder.png").mkdir()
    line = refused("ring", "--out", out)
    assert f"cannot draw {out}: let its name end in .png, .svg, .pdf" in line or f"cannot write {out}, " in line
    assert [path.name for path in Path().iterdir()] == ["folder.png"]
