"""Private training: what a guarded step is made of, what leaves a peer, what it costs, and when it ends."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from torch import Tensor, nn

import p2pfl
from p2pfl import plugins, scenario
from p2pfl.contracts import Training
from p2pfl.defences._accountant import Accountant, Mechanism
from p2pfl.defences._audit import lower_bound
from p2pfl.defences._guard import GaussianGuard
from p2pfl.defences.batch_clip import BatchClip
from p2pfl.defences.dp import DP
from p2pfl.errors import ScenarioError
from p2pfl.learning.data import Data
from p2pfl.learning.models.mlp import Mlp
from p2pfl.learning.task import SGDTask
from p2pfl.messages import HUB
from p2pfl.protection import Stake
from p2pfl.runtime import launch
from p2pfl.runtime.launch import Record
from p2pfl.runtime.world import World
from p2pfl.seeds import Seeds
from p2pfl.sketches.countsketch import CountSketch

EXAMPLES, BATCH = 40, 8
SEEDS = Seeds.of(3)
STAKE = Stake(EXAMPLES, BATCH, steps=100, tellings=10, seeds=SEEDS)
TRAINING = Training(batch=BATCH, lr=0.1, momentum=0.5, weight_decay=0.01)
SMALL: dict[str, Any] = {
    "name": "private",
    "seed": 7,
    "peers": 3,
    "rounds": 3,
    "model": {"mlp": {"hidden": [8]}},
    "training": {"batch": 40, "lr": 0.1, "momentum": 0.5, "local_steps": 2, "device": "cpu"},
    "evaluate": {"every": 3},
    "engine": "simulate",
    "defences": [{"dp": {"noise": 1.5, "clip": 0.7}}],
}
MODES: dict[str, dict[str, Any]] = {name: {"algorithm": name} for name in plugins.names("algorithms")} | {
    "a sketched star": {"algorithm": "fedavg", "sketch": {"countsketch": {"ratio": 0.5}}},
    "leasgd": {"algorithm": {"leasgd": {"rho": 2.0, "k": 1}}},
    "pulls": {"algorithm": {"leasgd": {"rho": 2.0, "k": 1, "pairing": "pull"}}},
}


def data(examples: int = EXAMPLES) -> Data:
    draw = torch.Generator().manual_seed(1)
    x, y = torch.randn(examples, 1, 4, 4, generator=draw), torch.randint(3, (examples,), generator=draw)
    return Data(x, y, x[:0], y[:0], x, y, classes=3)


def task(guard: GaussianGuard | None, training: Training = TRAINING) -> SGDTask:
    rows = numpy.arange(EXAMPLES)[::-1].copy()
    return SGDTask(Mlp((6,)), data(), rows, training, torch.device("cpu"), Seeds.of(5), guard=guard)


def guard(clip: float = 0.3, noise: float = 0.8, **options: Any) -> GaussianGuard:
    return DP(noise=noise, clip=clip, **options).guard(STAKE)


def normal(count: int, *names: str | int) -> Tensor:
    """The noise as it is drawn from the peer's own seeds."""
    return torch.randn(count, generator=SEEDS.noise(*names))


def by_hand(x_D: Tensor, at: int, clip: float, noise: float) -> Tensor:
    """The gradient of a private step in the slow, obvious way: example by example."""
    module, held = Mlp((6,)).build((1, 4, 4), 3), data()
    nn.utils.vector_to_parameters(x_D.clone(), module.parameters())
    coins_N = torch.rand(EXAMPLES, generator=SEEDS.noise("sample", at), dtype=torch.float64) < BATCH / EXAMPLES
    sum_D = torch.zeros_like(x_D)
    for row in torch.nonzero(coins_N).flatten().tolist():
        mine = EXAMPLES - 1 - row  # this peer holds the examples in the other order
        loss = nn.functional.cross_entropy(module(held.train_x[mine][None]), held.train_y[mine][None])
        g_D = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(module.parameters()))])
        sum_D += g_D / max(1.0, float(g_D.norm()) / clip)
    return (sum_D + noise * clip * normal(len(x_D), "noise", at)) / BATCH


def test_a_private_step_is_clipped_example_by_example_noised_and_divided_by_the_expected_batch() -> None:
    private = task(guard())
    x_D = private.start(Seeds.of(1))
    step = private.step(x_D, None, at=4)
    expected_D = -0.1 * (by_hand(x_D, 4, 0.3, 0.8) + 0.01 * x_D)
    torch.testing.assert_close(step.x_D, expected_D, rtol=1e-4, atol=1e-6)


def test_private_steps_with_momentum_are_those_of_sgd_on_private_gradients() -> None:
    private = task(guard())
    x_D = private.start(Seeds.of(1))
    trained = private.steps(x_D, None, first=2, count=3)
    m_D = torch.zeros_like(x_D)
    for at in (2, 3, 4):
        m_D = 0.5 * m_D + by_hand(x_D, at, 0.3, 0.8) + 0.01 * x_D
        x_D = x_D - 0.1 * m_D
    torch.testing.assert_close(trained.x_D, x_D, rtol=1e-4, atol=1e-5)


def test_a_step_in_a_sketched_space_clips_and_adds_noise_there() -> None:
    pair, key = CountSketch(ratio=0.5).bind(task(None).layout), b"k" * 16
    private = task(guard(), dataclasses.replace(TRAINING, momentum=0.0, weight_decay=0.0))
    x_D = private.start(Seeds.of(1))
    z_S = pair.down(x_D, key)
    moved_S = private.steps(z_S, None, 4, 1, pair, key).x_D - z_S
    module, held = Mlp((6,)).build((1, 4, 4), 3), data()
    nn.utils.vector_to_parameters(pair.up(z_S, key), module.parameters())
    sum_S = torch.zeros_like(z_S)
    for row in torch.nonzero(
        torch.rand(EXAMPLES, generator=SEEDS.noise("sample", 4), dtype=torch.float64) < BATCH / EXAMPLES
    ).flatten():
        mine = EXAMPLES - 1 - int(row)
        loss = nn.functional.cross_entropy(module(held.train_x[mine][None]), held.train_y[mine][None])
        g_S = pair.down(torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(module.parameters()))]), key)
        sum_S += g_S / max(1.0, float(g_S.norm()) / 0.3)
    expected_S = -0.1 * (sum_S + 0.8 * 0.3 * normal(len(z_S), "noise", 4)) / BATCH
    torch.testing.assert_close(moved_S, expected_S, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("defence", [{"dp": {"noise": 1.0}}, {"batch_clip": {"noise": 1.0}}])
def test_a_module_that_bears_no_empty_batch_is_never_given_one(defence: dict[str, Any], tmp_path: Path) -> None:
    """As whoever flattens by `view(len(x), -1)`: at one example a step many a sample is empty."""
    rare = {"training": {"batch": 1, "lr": 0.1, "local_steps": 1}, "algorithm": {"leasgd": {"k": 1, "rho": 2.0}}}
    record = run(tmp_path / "run", **rare, model="gradient_mlp", rounds=12, defences=[defence])
    assert record.crashed == ()
    assert any(row.get("loss") is None for row in rows(record) if row["peer"] != "all")


def test_canaries_bear_a_sketch_that_is_of_another_width_each_round(tmp_path: Path) -> None:
    drawn = {"algorithm": "fedavg", "sketch": {"countsketch": {"ratio": [0.25, 0.75]}}}
    record = run(tmp_path / "run", **drawn, rounds=5, defences=[{"dp": {"noise": 1.0, "canaries": 20}}])
    assert record.crashed == ()
    assert record.summary["privacy"]["audit"]["canaries"] == 60


def test_a_private_run_does_not_go_on_from_a_former_one(tmp_path: Path) -> None:
    run(tmp_path / "one", save={"checkpoints": 1})
    with pytest.raises(ScenarioError, match=r"what the former run gave away.*: begin anew"):
        run(tmp_path / "two", init={"run": str(tmp_path / "one")})
    assert run(tmp_path / "open", init={"run": str(tmp_path / "one")}, defences=[]).crashed == ()


def test_each_example_is_sampled_by_a_coin_of_its_own() -> None:
    drawn = guard()
    counts_N = torch.zeros(EXAMPLES)
    for at in range(2000):
        counts_N[drawn.sample(at)] += 1
    rate = BATCH / EXAMPLES
    spread = math.sqrt(2000 * rate * (1 - rate))
    assert float((counts_N - 2000 * rate).abs().max()) < 4.5 * spread
    sizes = torch.tensor([float(len(drawn.sample(at))) for at in range(2000)])
    assert float(sizes.std()) == pytest.approx(math.sqrt(EXAMPLES * rate * (1 - rate)), rel=0.1)
    assert not torch.equal(drawn.sample(3), drawn.sample(3, telling=True))


def test_who_holds_no_more_than_a_batch_takes_all_of_it() -> None:
    few = DP(noise=1.0).guard(dataclasses.replace(STAKE, examples=5))
    assert few.sample(0).tolist() == [0, 1, 2, 3, 4]
    assert few.divisor == 5


def test_an_empty_batch_moves_a_peer_by_noise_alone() -> None:
    alone = DP(noise=0.8, clip=0.3).guard(dataclasses.replace(STAKE, batch=1))
    at = next(at for at in range(100) if not len(alone.sample(at)))
    private = task(alone, dataclasses.replace(TRAINING, weight_decay=0.0))
    x_D = private.start(Seeds.of(1))
    step = private.step(x_D, None, at)
    torch.testing.assert_close(step.x_D, -0.1 * 0.8 * 0.3 * normal(len(x_D), "noise", at), rtol=1e-4, atol=1e-7)
    assert math.isnan(step.loss)


def test_a_loss_is_told_clipped_noised_and_of_a_sample_of_its_own() -> None:
    private = task(guard(loss_clip=1.2, loss_noise=0.5))
    x_D = private.start(Seeds.of(1))
    told = private.told(9.9, x_D, at=3)
    module, held = Mlp((6,)).build((1, 4, 4), 3), data()
    nn.utils.vector_to_parameters(x_D.clone(), module.parameters())
    coins_N = torch.rand(EXAMPLES, generator=SEEDS.noise("told sample", 3), dtype=torch.float64) < BATCH / EXAMPLES
    rows = EXAMPLES - 1 - torch.nonzero(coins_N).flatten()
    losses_B = nn.functional.cross_entropy(module(held.train_x[rows]), held.train_y[rows], reduction="none").detach()
    total = float(losses_B.clamp(0, 1.2).sum()) + 0.5 * 1.2 * float(normal(1, "told", 3))
    assert told == pytest.approx(total / BATCH, rel=1e-4)


def test_what_is_told_costs_as_well_as_what_is_learned() -> None:
    spent = guard(loss_noise=2.0)
    private = task(spent)
    x_D = private.start(Seeds.of(1))
    private.steps(x_D, None, 0, 7)
    for at in range(3):
        private.told(1.0, x_D, at)
    mechanisms = Mechanism(BATCH / EXAMPLES, 0.8), Mechanism(BATCH / EXAMPLES, 2.0)
    both = Accountant(mechanisms, (100, 10), 1e-5, "prv")
    assert private.spent()["epsilon"] == both.epsilon((7, 3)) > both.epsilon((7, 0))


def test_no_more_losses_are_told_than_were_set_aside() -> None:
    private = task(guard())
    x_D = private.start(Seeds.of(1))
    told = [private.told(1.0, x_D, at) for at in range(12)]
    assert [math.isnan(one) for one in told] == [False] * 10 + [True] * 2


def test_without_a_defence_a_loss_is_told_as_it_is() -> None:
    open_task = task(None)
    assert open_task.told(1.25, open_task.start(Seeds.of(1)), 3) == 1.25
    assert open_task.spent() == {}


def test_a_budget_is_never_passed_and_who_has_spent_it_moves_no_more() -> None:
    frugal = DP(epsilon=3.0, noise=1.5, clip=0.3).guard(STAKE)
    private = task(frugal)
    x_D = private.start(Seeds.of(1))
    trained = private.steps(x_D, None, 0, 100)
    spent = private.spent()
    assert 0 < spent["private_steps"] < 100
    assert spent["epsilon"] <= 3.0
    assert spent["budget_spent"] is True
    mechanisms = Mechanism(BATCH / EXAMPLES, 1.5), Mechanism(BATCH / EXAMPLES, 10.0)
    one_more = Accountant(mechanisms, (100, 10), 1e-5, "prv").epsilon((int(spent["private_steps"]) + 1, 10))
    assert one_more > 3.0
    again = private.step(trained.x_D, trained.m_D, 100)
    assert not again.x_D.any()
    assert private.spent() == spent


def test_noise_is_calibrated_to_the_length_of_the_run() -> None:
    calibrated = DP(epsilon=2.0, clip=0.3).guard(STAKE)
    assert calibrated.ledger.accountant.epsilon((100, 10)) <= 2.0
    weaker = Mechanism(BATCH / EXAMPLES, 0.98 * calibrated.noise.sigma), Mechanism(BATCH / EXAMPLES, 10.0)
    assert Accountant(weaker, (100, 10), 1e-5, "prv").epsilon((100, 10)) > 2.0
    private = task(calibrated)
    private.steps(private.start(Seeds.of(1)), None, 0, 100)
    assert "budget_spent" not in private.spent()


def test_a_batch_is_clipped_as_one_and_the_papers_reading_stands_beside_the_honest_one() -> None:
    made = BatchClip(noise=4.0, clip=0.05).guard(STAKE)
    private = task(made, dataclasses.replace(TRAINING, weight_decay=0.0))
    x_D = private.start(Seeds.of(1))
    step = private.step(x_D, None, at=4)
    module, held = Mlp((6,)).build((1, 4, 4), 3), data()
    nn.utils.vector_to_parameters(x_D.clone(), module.parameters())
    rows = EXAMPLES - 1 - made.sample(4)
    loss = nn.functional.cross_entropy(module(held.train_x[rows]), held.train_y[rows])
    g_D = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(module.parameters()))])
    assert float(g_D.norm()) > 0.05
    expected_D = -0.1 * (0.05 * g_D / g_D.norm() + 4.0 * 0.05 * normal(len(x_D), "noise", 4))
    torch.testing.assert_close(step.x_D, expected_D, rtol=1e-4, atol=1e-6)
    spent = private.spent()
    for column, sigma in (("epsilon", 2.0), ("epsilon_claimed", 4.0)):
        mechanisms = Mechanism(BATCH / EXAMPLES, sigma), Mechanism(BATCH / EXAMPLES, 10.0)
        assert spent[column] == Accountant(mechanisms, (100, 10), 1e-5, "prv").epsilon((1, 0))


def test_canaries_tell_apart_who_took_part_the_better_the_less_noise() -> None:
    bounds = {}
    for noise in (0.6, 30.0):
        stake = dataclasses.replace(STAKE, examples=400, batch=200)
        audited = DP(noise=noise, clip=1.0, canaries=800).guard(stake)
        for at in range(60):
            audited.gradient(torch.zeros(2000), at)
        spent = audited.spent()
        guessed, right = int(spent["canaries_guessed"]), int(spent["canaries_right"])
        bounds[noise] = lower_bound(800, guessed, right, 1e-5)
        assert guessed == 160
        assert bounds[noise] <= spent["epsilon"]
    assert bounds[0.6] > 1.0 > bounds[30.0]


def test_canaries_join_the_sum_as_examples_of_the_clipping_norm_do() -> None:
    audited = DP(noise=1e-9, clip=0.5, canaries=10).guard(dataclasses.replace(STAKE, batch=EXAMPLES))
    sum_S = audited.gradient(torch.zeros(100), 0) * audited.divisor
    inside = int(audited.canaries.inside.sum())
    assert 0 < inside < 10
    assert sorted(sum_S.tolist())[-inside:] == pytest.approx([0.5] * inside, abs=1e-6)
    assert float(sum_S.abs().sum()) == pytest.approx(0.5 * inside, abs=1e-5)


def run(out: Path, **more: Any) -> Record:
    return launch.run(scenario.read({**SMALL, **more}), out)


def rows(record: Record) -> list[dict[str, Any]]:
    lines = (record.folder / "records.jsonl").read_text().splitlines()
    kept = [row for row in map(json.loads, lines) if "to" not in row]
    timeless = [{k: v for k, v in row.items() if not k.endswith(("_s", "_bytes", "_mb"))} for row in kept]
    return sorted(timeless, key=lambda row: (row["round"], str(row["peer"])))


@pytest.mark.parametrize("mode", MODES)
def test_every_algorithm_trains_privately_and_each_row_says_what_it_has_cost(mode: str, tmp_path: Path) -> None:
    record = run(tmp_path / "run", **MODES[mode])
    learners = {row["peer"]: row for row in rows(record) if row["peer"] != "all" and row["round"] == 3}
    world = World(scenario.read({**SMALL, **MODES[mode]}), Seeds.of(7))
    for peer, examples in world.roster.examples.items():
        row = learners["hub" if peer == HUB else peer]
        algorithm = world.settings.algorithm.value
        told = algorithm.losses_told(3) if hasattr(algorithm, "losses_told") else 0
        mechanisms = Mechanism(min(1, 40 / examples), 1.5), Mechanism(min(1, 40 / examples), 10.0)
        most = Accountant(mechanisms, (6, told), 1e-5, "prv")
        assert row["private_steps"] == 6
        assert row["epsilon"] == most.epsilon((6, told))
    assert record.summary["privacy"]["epsilon"]["max"] == max(
        row["epsilon"] for row in learners.values() if "epsilon" in row
    )
    assert record.summary["privacy"]["delta"] == 1e-5


def test_who_is_not_chosen_spends_nothing(tmp_path: Path) -> None:
    record = run(tmp_path / "run", peers=4, algorithm={"fedavg": {"fraction": 0.5}})
    last = [row for row in rows(record) if row["round"] == 3 and row["peer"] not in ("all", "hub")]
    assert sum(row["private_steps"] for row in last) == 3 * 2 * 2
    assert all((row["epsilon"] == 0) == (row["private_steps"] == 0) for row in last)


def test_a_peer_whose_budget_is_spent_stops_training_says_so_and_goes_on_mixing(tmp_path: Path) -> None:
    said: list[str] = []
    frugal = {"slow": {"peers": [1], "share": 0.2}}  # fewer examples: each is sampled more often
    settings = scenario.read(
        {**SMALL, "rounds": 6, "groups": frugal, "defences": [{"dp": {"noise": 1.5, "epsilon": 3.5}}]}
    )
    record = launch.run(settings, tmp_path / "run", launch.Screen(note=said.append))
    spent = {row["round"]: row for row in rows(record) if row["peer"] == 1}
    stopped = [r for r, row in spent.items() if row.get("budget_spent")]
    assert stopped
    assert stopped[-1] == 6
    assert all(row["epsilon"] <= 3.5 for row in spent.values())
    assert spent[6]["private_steps"] == spent[stopped[0]]["private_steps"]
    assert spent[6]["vectors"] == 6 * 2
    assert sum("peer 1" in line and "budget" in line for line in said) == 1
    assert record.summary["privacy"]["spent_out"] == [1]
    assert not any(row.get("budget_spent") for row in rows(record) if row["peer"] == 0)


@pytest.mark.parametrize("mode", ["leasgd", "a sketched star"])
def test_private_figures_are_the_same_bit_for_bit_on_processes(mode: str, tmp_path: Path) -> None:
    engines = ("simulate", "local")
    found = [rows(run(tmp_path / engine, **{**MODES[mode], "engine": engine})) for engine in engines]
    assert found[0] == found[1]


def test_with_no_seed_nobody_can_draw_the_noise_again(tmp_path: Path) -> None:
    unseeded = {"seed": None, "rounds": 1, "partition": {"shards": {}}, "training": {"batch": 2000, "local_steps": 1}}
    unseeded["init"] = "shared"
    worlds = [World(scenario.read({**SMALL, **unseeded}), Seeds.of(1)) for _ in range(2)]
    steps = []
    for world in worlds:
        seat = world.seat(0)
        steps.append(seat.me.task.step(seat.me.first_point(), None, 0).x_D)
    assert not torch.equal(*steps)
    record = run(tmp_path / "run", **unseeded)
    assert record.summary["privacy"]["replayable"] is False


MISTAKES: dict[str, tuple[dict[str, Any], str, str]] = {
    "no list": (
        {"defences": {"dp": {"noise": 1.0}}},
        "defences is {'dp': {'noise': 1.0}}",
        "must be a list, as in '[{dp: {noise: 1.0}}]'",
    ),
    "unknown": ({"defences": [{"pd": {}}]}, "no defence 'pd' (defences.0.pd)", "did you mean 'dp'?"),
    "unknown option": ({"defences": [{"dp": {"epsilom": 1}}]}, "unknown key 'epsilom'", "did you mean 'epsilon'?"),
    "two": ({"defences": [{"dp": 8.0}, {"dp": 8.0}]}, "dp must come first", "two of its kind do not go together"),
    "late": ({"defences": ["half_precision", {"dp": 8.0}]}, "dp must come first", "put it first in the list"),
    "no privacy at all": (
        {"defences": [{"dp": {"epsilon": 1.0, "delta": 0.01}}]},
        "delta must be below 1 /",
        "lower it",
    ),
    "losses that cost more than all": (
        {"defences": [{"dp": {"epsilon": 0.5, "loss_noise": 0.1}}], "algorithm": {"leasgd": {"k": 1, "rho": 2.0}}},
        "peer 0",
        "loss",
    ),
    "a budget for nothing": (
        {"defences": [{"dp": {"epsilon": 0.1, "noise": 0.5}}]},
        "epsilon of 0.1 does not pay for one step",
        "raise it",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_defence_that_cannot_be_is_refused_before_anything_starts(mistake: str, tmp_path: Path) -> None:
    settings, problem, remedy = MISTAKES[mistake]
    with pytest.raises(ScenarioError) as caught:
        run(tmp_path / "run", **settings)
    assert problem in str(caught.value)
    assert remedy in str(caught.value).partition(problem)[2]
    assert caught.value.path[:1] == ("defences",) or caught.value.where
    assert not (tmp_path / "run").exists()


NORMED = '''
"""A model whose every layer hangs on the whole batch."""

from dataclasses import dataclass

import torch
from torch import nn

from p2pfl.learning.model import OUTPUT


@dataclass(frozen=True)
class Normed:
    """Batch norm, without numbers of its own."""

    def build(self, shape, classes):
        """Flatten, norm, output."""
        module = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(shape[1] * shape[2], affine=False))
        module.add_module(OUTPUT, nn.Linear(shape[1] * shape[2], classes))
        return module

    def draw(self, module, generator):
        """Anyhow."""
        for parameter in module.parameters():
            parameter.data.normal_(0, 0.1, generator=generator)
'''


def test_a_model_that_mixes_the_examples_of_a_batch_is_refused_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("plugins/models").mkdir(parents=True)
    Path("plugins/models/normed.py").write_text(NORMED)
    settings = {**SMALL, "model": "normed"}
    with pytest.raises(ScenarioError, match=r"hangs on the others of its batch.*\(model\)"):
        p2pfl.launch(settings, tmp_path / "run", allow_code=True)
    assert not (tmp_path / "run").exists()
    assert p2pfl.launch({**settings, "defences": []}, tmp_path / "open", allow_code=True).crashed == ()
    plugins.adopt(None)
