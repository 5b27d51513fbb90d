"""What a run keeps of its models, and runs that begin with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import nn

from p2pfl import scenario
from p2pfl.errors import ScenarioError
from p2pfl.learning.models.mlp import Mlp
from p2pfl.runtime import launch
from p2pfl.runtime.launch import Record
from p2pfl.runtime.world import World
from p2pfl.seeds import Seeds

SMALL: dict[str, Any] = {
    "name": "keeping",
    "seed": 4,
    "peers": 3,
    "rounds": 7,
    "engine": "simulate",
    "model": {"mlp": {"hidden": [8]}},
    "training": {"batch": 16, "lr": 0.1, "local_steps": 2, "device": "cpu"},
    "evaluate": {"every": 2},
}


def run(out: Path, **more: Any) -> Record:
    return launch.run(scenario.read({**SMALL, **more}), out)


def kept(record: Record) -> list[str]:
    folder = record.folder / "checkpoints"
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def first_points(**more: Any) -> dict[int, torch.Tensor]:
    settings = scenario.read({**SMALL, **more})
    world = World(settings, Seeds.of(settings.seed))
    return {i: world.seat(i).me.first_point() for i in world.roles}


def last_models(record: Record) -> dict[int, torch.Tensor]:
    folder = record.folder / "checkpoints"
    loaded = {i: safetensors.torch.load_file(folder / f"peer-{i}" / "round-000007.safetensors") for i in range(3)}
    return {i: torch.cat([tensor.reshape(-1) for tensor in named(tensors)]) for i, tensors in loaded.items()}


def named(tensors: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    module = Mlp((8,)).build((1, 8, 8), 10)
    return [tensors[name] for name, _ in module.named_parameters()]


@pytest.fixture(scope="module")
def former(tmp_path_factory: pytest.TempPathFactory) -> Record:
    return run(tmp_path_factory.mktemp("runs") / "former", save={"checkpoints": 2})


def test_nothing_is_kept_unless_it_is_asked_for(tmp_path: Path) -> None:
    assert not (run(tmp_path / "r").folder / "checkpoints").exists()


def test_the_last_checkpoints_of_each_peer_are_kept_as_often_as_models_are_evaluated(former: Record) -> None:
    assert kept(former) == [f"peer-{i}/round-{r:06}.safetensors" for i in range(3) for r in (6, 7)]


@pytest.mark.parametrize("engine", ["inproc", "local"])
def test_every_engine_keeps_the_same_models(engine: str, former: Record, tmp_path: Path) -> None:
    record = run(tmp_path / "r", engine=engine, save={"checkpoints": 2})
    assert kept(record) == kept(former)
    for i, x_D in last_models(record).items():
        assert torch.equal(x_D, last_models(former)[i])


def test_of_a_star_the_hub_keeps_its_model(tmp_path: Path) -> None:
    record = run(tmp_path / "r", algorithm="fedavg", save={"checkpoints": 1, "every": 3})
    assert kept(record) == ["peer-hub/round-000007.safetensors"]


def test_a_run_that_stops_early_keeps_its_last_model(tmp_path: Path) -> None:
    record = run(tmp_path / "r", save={"checkpoints": 1, "every": 50}, stop=[{"bytes": 1}])
    assert kept(record) == [f"peer-{i}/round-000002.safetensors" for i in range(3)]


def test_a_checkpoint_is_a_state_dict_that_pytorch_takes_by_name(former: Record) -> None:
    path = former.folder / "checkpoints" / "peer-1" / "round-000007.safetensors"
    module: nn.Module = Mlp((8,)).build((1, 8, 8), 10)
    module.load_state_dict(safetensors.torch.load_file(path))
    rows = [json.loads(line) for line in (former.folder / "records.jsonl").read_text().splitlines()]
    (said,) = [row["test_accuracy"] for row in rows if row["peer"] == 1 and "test_accuracy" in row]
    world = World(scenario.read(SMALL), Seeds.of(4))
    with torch.no_grad():
        right = (module(world.data.test_x).argmax(1) == world.data.test_y).double().mean().item()
    assert right == pytest.approx(said)


def test_each_peer_begins_where_it_ended(former: Record) -> None:
    begun = first_points(init={"run": str(former.folder)})
    for i, x_D in last_models(former).items():
        assert torch.equal(begun[i], x_D)


def test_a_round_may_be_named(former: Record) -> None:
    at_6, at_7 = (first_points(init={"run": str(former.folder), "round": r})[0] for r in (6, 7))
    assert torch.equal(at_7, last_models(former)[0])
    assert not torch.equal(at_6, at_7)


def test_who_was_not_there_begins_with_the_mean_of_those_who_were(former: Record) -> None:
    begun = first_points(init={"run": str(former.folder)}, peers=4, algorithm="fedavg")
    mean_D = torch.stack(list(last_models(former).values())).double().mean(0).float()
    assert torch.equal(begun[3], mean_D)
    assert torch.equal(begun[-1], mean_D)


def test_peers_begin_with_the_model_of_a_former_hub(tmp_path: Path) -> None:
    star = run(tmp_path / "star", algorithm="fedavg", save={"checkpoints": 1})
    begun = first_points(init={"run": str(star.folder)})
    assert torch.equal(begun[0], begun[2])
    path = star.folder / "checkpoints" / "peer-hub" / "round-000007.safetensors"
    assert torch.equal(begun[0], torch.cat([t.reshape(-1) for t in named(safetensors.torch.load_file(path))]))


def test_a_run_that_goes_on_is_better_at_once_on_every_engine(former: Record, tmp_path: Path) -> None:
    for engine in ("simulate", "local"):
        record = run(tmp_path / engine, engine=engine, init={"run": str(former.folder)}, rounds=1)
        assert record.summary["loss"]["mean"] < former.summary["loss"]["mean"] + 0.3


def test_what_cannot_be_begun_with_is_refused_before_anything_is_written(former: Record, tmp_path: Path) -> None:
    def refused(**more: Any) -> str:
        with scenario.located({**SMALL, **more}), pytest.raises(ScenarioError) as raised:
            run(tmp_path / "out", **more)
        assert not (tmp_path / "out").exists()
        return str(raised.value)

    where = str(former.folder)
    assert "has no checkpoint of round 5" in (said := refused(init={"run": where, "round": 5}))
    assert "there are those of 6, 7" in said
    assert "has no checkpoints" in refused(init={"run": str(tmp_path)})
    assert "holds another model" in refused(init={"run": where}, model="logistic")
    broken = tmp_path / "broken" / "checkpoints" / "peer-0"
    broken.mkdir(parents=True)
    (broken / "round-000001.safetensors").write_bytes(b"no tensors")
    assert "cannot read" in refused(init={"run": str(tmp_path / "broken")})


def test_relative_folders_go_from_the_scenarios_file_and_those_of_settings_from_here(
    former: Record, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    beside = former.folder.parent / "again.yaml"
    beside.write_text("name: again\npeers: 3\nmodel: {mlp: {hidden: [8]}}\ninit: {run: former}\n")
    monkeypatch.chdir(tmp_path)
    assert scenario.read(beside).init == scenario.Start(former.folder)
    (tmp_path / "here").symlink_to(former.folder)
    assert scenario.read(beside, ["init.run=here"]).init == scenario.Start(tmp_path / "here")
