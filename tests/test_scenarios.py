"""Every scenario that ships is valid, is named in the ledger, runs where its data are, and keeps its promise."""

from __future__ import annotations

from pathlib import Path

import pytest

import p2pfl
from p2pfl import scenario
from p2pfl.errors import ScenarioError
from p2pfl.runtime.sweeps import matrix
from p2pfl.runtime.sweeps.sweep import SweepRecord
from p2pfl.scenario import Scenario, read, shipped

LEDGER = Path(__file__).parent.parent / "scenarios" / "README.md"
MODES = {"quickstart": "dpsgd", "mnist_gossip": "dpsgd", "mnist_star": "fedavg", "mnist_leader_follower": "leasgd"}
BRIEF = ["attacks.0.rounds=[1]", "attacks.0.seconds=1"]
FEW = [f"attacks.0.attack.property_inference.{key}=20" for key in ("batches", "examples")]
SHORTER = {
    "dbcl/mnist_cnn": (["training.local_epochs=1"], 0.2),
    "leasgd/table_1_as_printed": ([], 0.0),  # two steps of so much noise teach nothing
    "leasgd/table_1_cifar": ([], 0.05),
    "dbcl/cifar_cnn": (["training.local_epochs=1", "algorithm.fedavg.fraction=0.01"], 0.05),
    "leakage/dlg_mnist": (["peers=2", *BRIEF], 0.05),  # nothing is learned in one round that is attacked
    "leakage/dlg_fashion_mnist": (["peers=2", *BRIEF], 0.05),
    "leakage/dlg_cifar10": (["peers=2", *BRIEF], 0.05),
    "leakage/resnet18": (["model.resnet18.width=1", *BRIEF], 0.05),
    "leakage/batches": (["attacks.0.victims=[0]", *BRIEF], 0.05),
    "leakage/trained_or_not": (["attacks.1.rounds=[1]", "attacks.1.seconds=1", *BRIEF], 0.05),
    "leakage/masks": (["peers=5", *BRIEF], 0.05),
    "leakage/neighbours": (["peers=4", *BRIEF], 0.05),
    "leakage/figure_4": (BRIEF, 0.05),
    "leakage/defences": (["attacks.0.victims=[0]", *BRIEF], 0.05),
    "leakage/property": (["attacks.0.victims=[1]", *FEW, *BRIEF], 0.2),
    "leakage/property_natural": ([*FEW, *BRIEF], 0.2),
    "curious": (["attacks.0.rounds=[1]"], 0.0),  # two images teach nothing
}
"""What makes a scenario with a large network quick, and what it is to reach all the same."""


def opened(name: str) -> Scenario:
    """The scenario of that name, or the first case of its sweep, if its data are on this machine."""
    try:
        sweep = matrix.cases(name)
        return read(name) if sweep is None else sweep.cases[0].scenario
    except ScenarioError as error:
        if "P2PFL_DATA" in str(error):
            pytest.skip(f"needs data: {error}")
        raise


def test_there_is_a_quickstart_and_one_for_each_mode() -> None:
    assert MODES.keys() <= shipped().keys()


def test_scenarios_in_folders_are_known_by_folder_and_name_like_all_others() -> None:
    files = {path.relative_to(LEDGER.parent).with_suffix("").as_posix() for path in LEDGER.parent.rglob("*.yaml")}
    assert files == set(shipped())
    assert "dbcl/lfw_gender" in files
    with pytest.raises(ScenarioError, match=r"'dbcl/lfw_gendre'.*did you mean 'dbcl/lfw_gender'"):
        matrix.cases("dbcl/lfw_gendre")


@pytest.mark.parametrize("name", shipped())
def test_a_shipped_scenario_is_valid_and_named_like_its_file(name: str) -> None:
    settings = opened(name)
    assert settings.name == name.rpartition("/")[2]
    assert settings.seed is not None
    assert settings.algorithm.name == MODES.get(name, settings.algorithm.name)
    assert scenario.graph(settings)
    first_line = shipped()[name].read_text().splitlines()[0]
    assert first_line.startswith("# "), "a scenario says first what it is"


@pytest.mark.parametrize("name", shipped())
def test_a_shipped_scenario_runs(name: str, tmp_path: Path) -> None:
    opened(name)
    chosen = {"case": 1} if matrix.is_sweep(name) else {}
    shorter, floor = SHORTER.get(name, ([], 0.2))  # guessing is 0.1
    record = p2pfl.launch(name, tmp_path / "out", ["rounds=2", "engine=simulate", *shorter], **chosen)
    if isinstance(record, SweepRecord):
        (record,) = record.cases
    assert record.crashed == ()
    assert record.summary["rounds"] == 2
    accuracy = record.summary.get("accuracy") or record.summary["validation_accuracy"]  # of who reads no test set
    assert accuracy["mean"] > floor
    assert (record.folder / "report.html").is_file()


@pytest.mark.parametrize("name", shipped())
def test_the_ledger_names_every_scenario_and_how_to_run_it(name: str) -> None:
    ledger = LEDGER.read_text()
    assert f"`{name}`" in ledger
    assert f"p2pfl launch {name}" in ledger


@pytest.mark.parametrize("seed", [7, 1, 2])
def test_the_quickstart_keeps_its_promise(seed: int, tmp_path: Path) -> None:
    settings = read("quickstart")
    assert (settings.peers, settings.topology.name, settings.algorithm.name) == (8, "ring", "dpsgd")
    assert (settings.data.name, settings.sketch.value.ratio) == ("digits", 0.5)
    record = p2pfl.launch("quickstart", tmp_path / "out", [f"seed={seed}", "engine=simulate"])
    assert record.summary["accuracy"]["mean"] >= 0.92
    assert record.summary["bytes"]["minimum_per_peer_round"] < 0.6 * 2 * 4 * record.summary["parameters"]


def test_modes_on_mnist_differ_in_nothing_but_the_mode() -> None:
    gossip, star, pairs = (opened(name) for name in ("mnist_gossip", "mnist_star", "mnist_leader_follower"))
    for same in ("seed", "peers", "rounds", "init", "data", "partition", "model", "sketch", "evaluate"):
        assert getattr(gossip, same) == getattr(star, same) == getattr(pairs, same), same
