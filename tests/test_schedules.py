"""Learning-rate schedules: torch's own are the oracle; a task follows them through the whole run."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

from p2pfl import plugins, scenario
from p2pfl.algorithms.leasgd import LEASGD, State
from p2pfl.contracts import Schedule, Training
from p2pfl.errors import ScenarioError
from p2pfl.learning.models.mlp import Mlp
from p2pfl.learning.task import SGDTask
from p2pfl.messages import Exchange, Message
from p2pfl.plugins import Choice
from p2pfl.runtime.plan import Plan
from p2pfl.runtime.world import World
from p2pfl.seeds import Seeds

STEPS = 40
Torchs = Callable[[torch.optim.Optimizer], lr_scheduler.LRScheduler]
CASES: list[tuple[str, Mapping[str, Any], Torchs]] = [
    ("constant", {}, lambda o: lr_scheduler.ConstantLR(o, factor=1.0)),
    ("cosine", {}, lambda o: lr_scheduler.CosineAnnealingLR(o, STEPS)),
    ("cosine", {"floor": 0.2}, lambda o: lr_scheduler.CosineAnnealingLR(o, STEPS, eta_min=0.2 * 0.4)),
    (
        "cosine",
        {"floor": 0.1, "warmup": 0.25},
        lambda o: lr_scheduler.SequentialLR(
            o,
            [
                lr_scheduler.LinearLR(o, start_factor=0.1, end_factor=1.0, total_iters=STEPS // 4),
                lr_scheduler.CosineAnnealingLR(o, STEPS - STEPS // 4, eta_min=0.1 * 0.4),
            ],
            [STEPS // 4],
        ),
    ),
    ("linear", {}, lambda o: lr_scheduler.LinearLR(o, start_factor=1.0, end_factor=0.0, total_iters=STEPS)),
    ("linear", {"floor": 0.3}, lambda o: lr_scheduler.LinearLR(o, 1.0, 0.3, total_iters=STEPS)),
    ("milestones", {}, lambda o: lr_scheduler.MultiStepLR(o, [STEPS // 2, 3 * STEPS // 4])),
    ("milestones", {"at": (0.1, 0.35, 0.7), "by": 0.5}, lambda o: lr_scheduler.MultiStepLR(o, [4, 14, 28], 0.5)),
]


def schedule(name: str, options: Mapping[str, Any]) -> Choice:
    return Choice(name, plugins.build("schedules", name, options))


def optimiser(lr: float = 0.4) -> torch.optim.Optimizer:
    return torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr)


@pytest.mark.parametrize(("name", "options", "theirs"), CASES)
def test_a_schedule_is_the_one_that_torch_has(name: str, options: Mapping[str, Any], theirs: Torchs) -> None:
    ours: Schedule = schedule(name, options).value
    sgd = optimiser()
    scheduler = theirs(sgd)
    for at in range(STEPS):
        assert 0.4 * ours.factor(at / STEPS) == pytest.approx(sgd.param_groups[0]["lr"], rel=1e-9, abs=1e-12)
        sgd.step()
        scheduler.step()


@pytest.mark.parametrize("name", plugins.names("schedules"))
def test_no_schedule_ever_exceeds_the_rate_it_was_given(name: str) -> None:
    plain: Schedule = plugins.build("schedules", name, {})
    factors = [plain.factor(at / 997) for at in range(997)]
    assert all(0 <= factor <= 1 for factor in factors)
    assert max(factors) == 1


def test_a_rise_begins_at_the_floor_and_ends_at_the_whole_rate() -> None:
    rising = plugins.build("schedules", "cosine", {"floor": 0.2, "warmup": 0.5})
    assert [rising.factor(done) for done in (0.0, 0.25, 0.5)] == pytest.approx([0.2, 0.6, 1.0])


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("cosine", {"warmup": 1.0}, "warmup is 1.0: must be less than 1"),
        ("cosine", {"floor": -0.1}, "floor is -0.1: must be greater than or equal to 0"),
        ("milestones", {"at": [0.5, 1.0]}, "at must hold shares of the training in"),
        ("milestones", {"at": [0.0]}, "at must hold shares of the training in"),
        ("milestones", {"by": 0}, "by is 0: must be greater than 0"),
    ],
)
def test_options_are_checked(name: str, options: Mapping[str, Any], said: str) -> None:
    with pytest.raises(ScenarioError) as raised:
        plugins.build("schedules", name, options)
    assert str(raised.value).startswith(said)
    assert raised.value.path == (next(iter(options)),)


# The task


@dataclasses.dataclass(frozen=True)
class Inputs:
    """What a task wants of data."""

    train_x: torch.Tensor
    train_y: torch.Tensor
    classes: int = 3
    shape: tuple[int, int, int] = (1, 4, 4)


def some_task(training: Training, run_steps: float = STEPS) -> SGDTask:
    generator = torch.Generator().manual_seed(1)
    data: Any = Inputs(torch.randn(60, 1, 4, 4, generator=generator), torch.randint(3, (60,), generator=generator))
    return SGDTask(Mlp((6,)), data, numpy.arange(60), training, torch.device("cpu"), Seeds.of(5), run_steps)


@pytest.mark.parametrize(("momentum", "decay"), [(0.0, 0.0), (0.9, 0.01)])
@pytest.mark.parametrize(("name", "options", "theirs"), CASES)
def test_a_run_is_that_of_torch_optim_sgd_under_lambda_lr(
    name: str, options: Mapping[str, Any], theirs: Torchs, momentum: float, decay: float
) -> None:
    training = Training(7, 0.05, momentum, decay, local_steps=4, schedule=schedule(name, options))
    task = some_task(training)
    x_D, m_D = start_D, _ = task.start(Seeds.of(1)), None
    for first in range(0, STEPS, 4):  # rounds as D-PSGD has them: three steps, then the last one's displacement
        local = task.steps(x_D, m_D, first, 3)
        last = task.step(local.x_D, local.m_D, first + 3)
        x_D, m_D = local.x_D + last.x_D, last.m_D

    module = Mlp((6,)).build((1, 4, 4), 3)
    nn.utils.vector_to_parameters(start_D.clone(), module.parameters())
    sgd = torch.optim.SGD(module.parameters(), 0.05, momentum=momentum, weight_decay=decay)
    lambdas = lr_scheduler.LambdaLR(sgd, lambda at: training.schedule.value.factor(at / STEPS))
    for b in range(STEPS):
        inputs, labels = task.batch(b)
        sgd.zero_grad()
        nn.functional.cross_entropy(module(inputs), labels).backward()
        sgd.step()
        lambdas.step()
    expected_D = nn.utils.parameters_to_vector(module.parameters()).detach()
    torch.testing.assert_close(x_D, expected_D, rtol=1e-5, atol=1e-6)


def test_a_rate_that_stays_is_the_one_given_to_the_last_bit() -> None:
    task = some_task(Training(lr=0.1 + 0.2))
    assert {task.lr(at) for at in range(STEPS)} == {0.1 + 0.2}


def test_a_task_without_an_end_stays_at_the_beginning_and_beyond_the_end_at_its_last_rate() -> None:
    training = Training(lr=0.4, schedule=schedule("linear", {}))
    assert some_task(training, float("inf")).lr(10**9) == 0.4
    assert some_task(training).lr(STEPS) == some_task(training).lr(STEPS - 1) == pytest.approx(0.4 / STEPS)


# The run


def world(**more: Any) -> World:
    chosen = {"name": "x", "seed": 3, "peers": 3, "rounds": 6, "engine": "simulate"} | more
    read = scenario.read(chosen, ["training.device=cpu"])
    return Plan(read, Seeds.of(3).root, bytes(8)).world


def test_each_peer_goes_through_the_schedule_in_its_own_steps() -> None:
    halving = {"milestones": {"at": [0.5], "by": 0.5}}
    made = world(partition={"dirichlet": {"alpha": 0.3}}, training={"lr": 0.2, "local_epochs": 2, "schedule": halving})
    peers = [made.seat(i).me for i in range(3)]
    assert len({me.local_steps for me in peers}) > 1
    for me in peers:
        half = 3 * me.local_steps
        assert [me.task.lr(at) for at in (0, half - 1, half, 2 * half - 1)] == [0.2, 0.2, 0.1, 0.1]
        assert [me.lr(r) for r in (1, 3, 4, 6)] == [0.2, 0.2, 0.1, 0.1]


def test_the_pull_of_leasgd_shrinks_with_the_learning_rate() -> None:
    made = world(peers=2, algorithm={"leasgd": {"rho": 2.0}}, training={"lr": 0.2, "schedule": "linear"})
    me = made.seat(0).me
    x_D = me.first_point()
    theirs_D = x_D + torch.arange(len(x_D)) / 1000
    moved = {}
    for r, apart in ((2, 1.0), (2, 0.0), (5, 1.0), (5, 0.0)):
        flow = LEASGD(rho=2.0).round(me, State(x_D, None, 0.0, {0: True, 1: False}), r)
        sent = next(flow)
        assert isinstance(sent, Exchange)
        mine_D = sent.post[1].tensors["params"]
        mail = {1: Message("params", r, {"params": mine_D + apart * (theirs_D - x_D)})}
        assert isinstance(flow.send({}), Exchange)
        flow.send(mail)
        with pytest.raises(StopIteration) as end:
            flow.send({})
        moved[r, apart] = end.value.value.x_D
    for r, done in ((2, 9 / 30), (5, 24 / 30)):
        pulled_D = moved[r, 1.0] - moved[r, 0.0]
        torch.testing.assert_close(pulled_D, 0.2 * (1 - done) * 2.0 * (theirs_D - x_D), rtol=1e-4, atol=1e-5)


# The door


def written(folder: Path, text: str) -> Path:
    path = folder / "some.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("said", "factor"),
    [
        ("", 1.0),
        ("schedule: cosine", 0.5),
        ("schedule: {cosine: 0.5}", 0.75),
        ("schedule: {linear: {floor: 0.2}}", 0.6),
        ("schedule: {milestones: {at: [0.4], by: 0.25}}", 0.25),
    ],
)
def test_a_schedule_is_chosen_within_training(tmp_path: Path, said: str, factor: float) -> None:
    read = scenario.read(written(tmp_path, f"name: x\ntraining: {{lr: 0.3, {said}}}\n"))
    assert read.training.schedule.value.factor(0.5) == pytest.approx(factor)
    assert scenario.parse(scenario.dump(read)) == read


@pytest.mark.parametrize("before", ["", "schedule: cosine", "schedule: {linear: {floor: 0.5}}"])
def test_a_setting_promotes_a_bare_name_within_training_too(tmp_path: Path, before: str) -> None:
    path = written(tmp_path, f"name: x\ntraining: {{lr: 0.3, {before}}}\n")
    training = scenario.read(path, ["training.schedule.cosine.floor=0.1", "training.lr=0.2"]).training
    assert (training.lr, training.schedule) == (0.2, schedule("cosine", {"floor": 0.1}))
    kept = scenario.read(path, ["training.schedule.cosine.warmup=0.1", "training.schedule.cosine.floor=0.1"]).training
    assert kept.schedule == schedule("cosine", {"floor": 0.1, "warmup": 0.1})


@pytest.mark.parametrize(
    ("said", "sets", "complaint"),
    [
        ("linear", ["training.schedule=cosin"], "no schedule 'cosin' (--set training.schedule=cosin): did you mean"),
        ("linear", ["training.schedule.cosine.flor=0"], "unknown key 'flor' (--set training.schedule.cosine.flor=0)"),
        ("linaer", [], "no schedule 'linaer' (some.yaml:4): did you mean 'linear'?"),
        ("{linear: {floor: 3}}", [], "floor is 3 (some.yaml:4): must be less than or equal to 1"),
        ("7", [], "training.schedule is 7 (some.yaml:4): name one schedule"),
    ],
)
def test_complaints_say_where(tmp_path: Path, said: str, sets: list[str], complaint: str) -> None:
    path = written(tmp_path, f"name: x\ntraining:\n  lr: 0.1\n  schedule: {said}\n")
    with pytest.raises(ScenarioError) as raised:
        scenario.read(path, sets)
    assert complaint in str(raised.value).replace(f"{tmp_path}/", "")
