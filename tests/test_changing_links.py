"""Links that change from round to round: each round mixes on its own graph, in every engine and every mode."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy
import pytest
import safetensors.numpy

from p2pfl import mixing, scenario
from p2pfl.runtime import launch
from p2pfl.runtime.launch import Record
from p2pfl.runtime.world import World
from p2pfl.seeds import Seeds

SMALL: dict[str, Any] = {
    "name": "changing",
    "seed": 6,
    "peers": 6,
    "rounds": 5,
    "init": "own",
    "model": {"mlp": {"hidden": [8]}},
    "training": {"batch": 16, "lr": 0.1, "local_steps": 2, "device": "cpu"},
    "evaluate": {"every": 2},
}
SCHEDULE = "round,u,v\n1,0,1\n1,2,3\n1,4,5\n2,1,2\n2,3,4\n2,5,0\n"


@pytest.fixture(params=["random_matching", "one_peer_exponential", "schedule"])
def topology(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    if request.param != "schedule":
        return request.param
    (tmp_path / "edges.csv").write_text(SCHEDULE)
    return {"schedule": {"path": str(tmp_path / "edges.csv"), "allow_disconnected": True}}


def run(out: Path, **more: Any) -> Record:
    return launch.run(scenario.read({**SMALL, **more}), out)


def rows(record: Record) -> list[dict[str, Any]]:
    lines = (record.folder / "records.jsonl").read_text().splitlines()
    found = [row for row in map(json.loads, lines) if "to" not in row]
    kept = [{k: v for k, v in row.items() if not k.endswith(("_s", "_mb", "_bytes"))} for row in found]
    return sorted(kept, key=lambda row: (row["round"], str(row["peer"])))


@pytest.mark.parametrize("sketch", ["dense", {"countsketch": {"ratio": 0.5}}])
@pytest.mark.parametrize("algorithm", ["dpsgd", {"leasgd": {"k": 2, "rho": 2.0}}])
def test_every_engine_gives_the_same_figures(algorithm: Any, sketch: Any, topology: Any, tmp_path: Path) -> None:
    more = {"topology": topology, "algorithm": algorithm, "sketch": sketch}
    engines = ("simulate", "inproc", "local") if sketch != "dense" else ("simulate", "inproc")
    first, *others = (run(tmp_path / engine, engine=engine, **more) for engine in engines)
    assert (first.crashed, first.summary["absent"]) == ((), {})
    for other in others:
        assert rows(other) == rows(first)
        assert other.summary["absent"] == {}


def test_without_learning_gossip_is_the_product_of_the_mixing_matrices(topology: Any, tmp_path: Path) -> None:
    still = {"training": {**SMALL["training"], "lr": 1e-12}, "save": {"checkpoints": 9, "every": 1}}
    record = run(tmp_path / "run", topology=topology, engine="simulate", **still)
    world = World(scenario.read({**SMALL, "topology": topology}), Seeds.of(6))
    x_ND = numpy.stack([world.seat(i).me.first_point().numpy() for i in range(6)]).astype(float)
    for r in range(1, 6):
        x_ND = mixing.matrix(scenario.graph_in(world.settings, Seeds.of(6), r)) @ x_ND
        for i in range(6):
            path = record.folder / "checkpoints" / f"peer-{i}" / f"round-{r:06}.safetensors"
            tensors = safetensors.numpy.load_file(path)
            ours_D = numpy.concatenate([tensors[slot.name].reshape(-1) for slot in world.layout])
            numpy.testing.assert_allclose(ours_D, x_ND[i], atol=1e-5)


def test_the_one_peer_exponential_graph_agrees_exactly_after_log_n_rounds(tmp_path: Path) -> None:
    still = {"training": {**SMALL["training"], "lr": 1e-12}, "peers": 8, "rounds": 3, "evaluate": {"every": 1}}
    record = run(tmp_path / "run", topology="one_peer_exponential", engine="simulate", **still)
    found = [row["consensus_distance"] for row in rows(record) if "consensus_distance" in row]
    assert found[2] < 1e-5 < 0.1 < found[1] < found[0]
    assert record.summary["spectral_gap"] == pytest.approx(1.0)


def test_a_round_sends_along_its_own_links_only(topology: Any, tmp_path: Path) -> None:
    record = run(tmp_path / "run", topology=topology, engine="local", rounds=4)
    settings = scenario.read({**SMALL, "topology": topology})
    links = [scenario.graph_in(settings, Seeds.of(6), r).number_of_edges() for r in (1, 2, 3, 4)]
    assert record.summary["vectors_sent"] == 2 * sum(links)
    assert len(record.folder.joinpath("graph.json").read_text()) > 0
    union = {tuple(link) for link in json.loads((record.folder / "graph.json").read_text())["links"]}
    used = {tuple(sorted(link)) for r in (1, 2, 3, 4) for link in scenario.graph_in(settings, Seeds.of(6), r).edges}
    assert used <= union


def test_who_dies_is_absent_only_in_rounds_that_link_it(tmp_path: Path) -> None:
    record = run(
        tmp_path / "run", topology="random_matching", engine="local", rounds=8, churn=[{"round": 3, "kill": [1]}]
    )
    settings = scenario.read({**SMALL, "topology": "random_matching"})
    partner = {r: set(scenario.graph_in(settings, Seeds.of(6), r)[1]) for r in range(3, 9)}
    missed = {(row["round"], row["peer"]) for row in rows(record) if row.get("absent") == [1]}
    assert missed == {(r, i) for r, found in partner.items() for i in found}


def test_a_hub_speaks_only_to_the_members_that_the_round_links_to_it(tmp_path: Path) -> None:
    (tmp_path / "hub.csv").write_text("round,u,v\n1,hub,0\n2,hub,1\n2,hub,2\n")
    topology = {"schedule": {"path": str(tmp_path / "hub.csv"), "allow_disconnected": True}}
    more: dict[str, Any] = {"topology": topology, "algorithm": "fedavg", "peers": 3, "rounds": 4, "init": "shared"}
    for engine in ("simulate", "local"):
        record = run(tmp_path / engine, engine=engine, **more)
        assert (record.summary["vectors_sent"], record.summary["absent"]) == (2 * (1 + 2 + 1 + 2), {})
        heard = {row["round"]: row["heard"] for row in rows(record) if "heard" in row}
        assert heard == {1: 1, 2: 2, 3: 1, 4: 2}
