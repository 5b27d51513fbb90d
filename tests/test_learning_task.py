"""The task: plain SGD on the flat vector, against torch.optim.SGD on the same batches."""

from __future__ import annotations

import math

import numpy
import pytest
import torch
from torch import Tensor, nn

from p2pfl.contracts import Task, Training
from p2pfl.learning.data import Data
from p2pfl.learning.descent import flat
from p2pfl.learning.models.lenet import Lenet
from p2pfl.learning.models.mlp import Mlp
from p2pfl.learning.task import SGDTask
from p2pfl.seeds import Seeds

CPU = torch.device("cpu")
DEVICES = [CPU] + ([torch.device("cuda")] if torch.cuda.is_available() else [])
HEAVY = Training(batch=7, lr=0.05, momentum=0.9, weight_decay=0.01)
PLAIN = Training(batch=7, lr=0.05)


def some_data(examples: int = 60, tests: int = 1100) -> Data:
    def part(count: int, seed: int) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(count, 1, 4, 4, generator=generator), torch.randint(3, (count,), generator=generator)

    return Data(*part(examples, 1), *part(0, 2), *part(tests, 3), classes=3)


def some_task(
    training: Training = HEAVY,
    device: torch.device = CPU,
    seed: int = 5,
    examples: int = 30,
    module: nn.Module | None = None,
) -> SGDTask:
    indices = numpy.random.default_rng(0).permutation(60)[:examples]
    return SGDTask(Mlp((6, 5)), some_data(), indices, training, device, Seeds.of(seed), module=module)


def reference(task: SGDTask, x_D: Tensor, first: int, count: int) -> tuple[Tensor, float]:
    """The same batches through a module of its own and torch.optim.SGD."""
    module = Mlp((6, 5)).build((1, 4, 4), 3).to(task.device)
    nn.utils.vector_to_parameters(x_D.clone(), module.parameters())
    training = task.training
    optimiser = torch.optim.SGD(
        module.parameters(), training.lr, momentum=training.momentum, weight_decay=training.weight_decay
    )
    losses = []
    for b in range(first, first + count):
        inputs, labels = task.batch(b)
        optimiser.zero_grad()
        loss = nn.functional.cross_entropy(module(inputs), labels)
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return nn.utils.parameters_to_vector(module.parameters()).detach(), sum(losses) / count


@pytest.mark.parametrize("device", DEVICES, ids=str)
@pytest.mark.parametrize("training", [PLAIN, HEAVY, Training(7, 0.05, 0.9), Training(7, 0.05, 0.0, 0.01)])
def test_steps_are_those_of_torch_optim_sgd(training: Training, device: torch.device) -> None:
    task: Task = some_task(training, device)
    x_D = task.start(Seeds.of(1))
    trained = task.steps(x_D, None, first=2, count=9)
    expected_D, loss = reference(some_task(training, device), x_D, first=2, count=9)
    torch.testing.assert_close(trained.x_D, expected_D, rtol=1e-5, atol=1e-6)
    assert trained.loss == pytest.approx(loss, rel=1e-5)
    assert (trained.m_D is None) == (training.momentum == 0)


@pytest.mark.parametrize("device", DEVICES, ids=str)
@pytest.mark.parametrize("training", [PLAIN, HEAVY])
def test_steps_and_then_the_displacement_of_one_step_are_one_more_step(
    training: Training, device: torch.device
) -> None:
    task = some_task(training, device)
    x_D = task.start(Seeds.of(1))
    all_at_once = task.steps(x_D, None, first=0, count=6)
    before = task.steps(x_D, None, first=0, count=5)
    last = task.step(before.x_D, before.m_D, at=5)
    torch.testing.assert_close(before.x_D + last.x_D, all_at_once.x_D, rtol=1e-5, atol=1e-7)
    assert (5 * before.loss + last.loss) / 6 == pytest.approx(all_at_once.loss, rel=1e-5)
    if training.momentum:
        torch.testing.assert_close(last.m_D, all_at_once.m_D, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("training", [PLAIN, HEAVY])
def test_neither_parameters_nor_momentum_nor_data_are_altered(training: Training) -> None:
    task = some_task(training)
    x_D = task.start(Seeds.of(1))
    m_D = torch.ones_like(x_D)
    held = [x_D, m_D, task.data.train_x, task.data.train_y]
    copies = [tensor.clone() for tensor in held]
    trained = task.steps(x_D, m_D, 0, 3)
    after = trained.x_D.clone()
    task.step(x_D, m_D, 3)
    task.step(trained.x_D, trained.m_D, 3)
    task.steps(trained.x_D, trained.m_D, 3, 2)
    task.evaluate(x_D, "test")
    task.start(Seeds.of(2))
    assert all(torch.equal(tensor, copy) for tensor, copy in zip(held, copies, strict=True))
    assert torch.equal(trained.x_D, after)


def test_no_steps_lead_nowhere() -> None:
    task = some_task()
    x_D = task.start(Seeds.of(1))
    trained = task.steps(x_D, None, 3, 0)
    assert torch.equal(trained.x_D, x_D)
    assert math.isnan(trained.loss)


class Matrix:
    """The most general pair of linear maps: an explicit matrix of S x D, chosen by the key."""

    def __init__(self, size: int, parameters: int) -> None:
        self.size, self.parameters = size, parameters

    def matrix(self, key: bytes) -> Tensor:
        generator = torch.Generator().manual_seed(key[0])
        return torch.randn(self.size, self.parameters, generator=generator) / self.parameters**0.5

    def down(self, x_D: Tensor, key: bytes) -> Tensor:
        return self.matrix(key) @ x_D

    def up(self, z_S: Tensor, key: bytes) -> Tensor:
        return self.matrix(key).T @ z_S

    def pull(self, z_S: Tensor, key: bytes) -> Tensor:
        raise AssertionError("training never pulls")


@pytest.mark.parametrize("training", [PLAIN, HEAVY])
def test_under_a_pair_the_gradient_is_that_of_the_loss_at_up(training: Training) -> None:
    task = some_task(training)
    key, parameters = b"k", sum(slot.size for slot in task.layout)
    pair = Matrix(20, parameters)
    z_S = pair.down(task.start(Seeds.of(1)), key)
    trained = task.steps(z_S, None, 4, 3, pair, key)

    free_S = z_S.clone().requires_grad_()
    optimiser = torch.optim.SGD([free_S], training.lr, training.momentum, weight_decay=training.weight_decay)
    module = Mlp((6, 5)).build((1, 4, 4), 3)
    for b in range(4, 7):
        inputs, labels = task.batch(b)
        parts = torch.split(pair.up(free_S, key), [slot.size for slot in task.layout])
        named = {slot.name: part.view(slot.shape) for slot, part in zip(task.layout, parts, strict=True)}
        optimiser.zero_grad()
        nn.functional.cross_entropy(torch.func.functional_call(module, named, inputs), labels).backward()
        optimiser.step()
    torch.testing.assert_close(trained.x_D, free_S.detach(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("device", DEVICES, ids=str)
@pytest.mark.parametrize(("examples", "batches"), [(30, 5), (28, 4), (3, 1)])
def test_an_epoch_holds_every_example_of_the_peer_once_and_no_other(
    examples: int, batches: int, device: torch.device
) -> None:
    task = some_task(PLAIN, device, examples=examples)
    mine = task.data.train_x[numpy.random.default_rng(0).permutation(60)[:examples]].flatten(1)
    epochs = [torch.cat([task.batch(e * batches + b)[0] for b in range(batches)]).cpu().flatten(1) for e in (0, 1)]
    for epoch in epochs:
        assert sorted(epoch.tolist()) == sorted(mine.tolist())
    assert examples < 10 or not torch.equal(*epochs)


@pytest.mark.parametrize("device", DEVICES, ids=str)
@pytest.mark.parametrize("examples", [1, 2, 7])
def test_who_holds_no_more_than_a_batch_takes_all_its_examples_in_order(examples: int, device: torch.device) -> None:
    task = some_task(PLAIN, device, examples=examples)
    rows = numpy.random.default_rng(0).permutation(60)[:examples]
    for b in (0, 1, 5):
        inputs, labels = task.batch(b)
        assert torch.equal(inputs.cpu(), task.data.train_x[rows])
        assert torch.equal(labels.cpu(), task.data.train_y[rows])


def test_a_batch_depends_on_its_number_and_the_seeds_alone() -> None:
    onward, at_random, stranger = some_task(), some_task(), some_task(seed=6)
    numbers = [0, 1, 2, 7, 8, 9, 23]
    expected = {b: onward.batch(b) for b in numbers}
    for b in (9, 23, 0, 8, 2, 1, 7):
        for ours, theirs in zip(expected[b], at_random.batch(b), strict=True):
            assert torch.equal(ours, theirs)
    assert any(not torch.equal(expected[b][0], stranger.batch(b)[0]) for b in numbers)


def test_labels_stay_with_their_inputs() -> None:
    task = some_task()
    label_of = {tuple(x.flatten().tolist()): int(y) for x, y in zip(task.data.train_x, task.data.train_y, strict=True)}
    for inputs, labels in (task.batch(b) for b in range(6)):
        assert [label_of[tuple(x.flatten().tolist())] for x in inputs] == labels.tolist()


@pytest.mark.parametrize("device", DEVICES, ids=str)
def test_evaluation_in_chunks_is_that_of_all_at_once(device: torch.device) -> None:
    task = some_task(device=device)
    x_D = task.start(Seeds.of(1))
    module = Mlp((6, 5)).build((1, 4, 4), 3)
    nn.utils.vector_to_parameters(x_D.cpu(), module.parameters())
    logits = module(task.data.test_x)
    right = (logits.argmax(1) == task.data.test_y).double().mean().item()
    loss = nn.functional.cross_entropy(logits, task.data.test_y).item()
    assert task.evaluate(x_D, "test") == {"accuracy": right, "loss": pytest.approx(loss, rel=1e-5)}


def test_an_empty_split_has_no_figures_and_an_unknown_one_is_refused() -> None:
    task = some_task()
    x_D = task.start(Seeds.of(1))
    assert task.evaluate(x_D, "validation") == {}
    with pytest.raises(ValueError, match="not 'train'"):
        task.evaluate(x_D, "train")


def test_two_instances_agree_to_the_bit_and_leave_the_global_stream_alone() -> None:
    state = torch.get_rng_state()
    first, second = some_task(), some_task()
    a, b = (task.steps(task.start(Seeds.of(1)), None, 0, 12) for task in (first, second))
    assert torch.equal(a.x_D, b.x_D)
    assert a.loss == b.loss
    assert first.evaluate(a.x_D, "test") == second.evaluate(b.x_D, "test")
    assert torch.equal(torch.get_rng_state(), state)


def test_a_task_works_in_several_places_by_turns() -> None:
    task, other = some_task(), some_task()
    x_D, y_D = task.start(Seeds.of(1)), task.start(Seeds.of(2))
    task.evaluate(y_D, "test")
    task.step(y_D, None, 3)
    assert torch.equal(task.step(x_D, None, 3).x_D, other.step(x_D, None, 3).x_D)


@pytest.mark.parametrize("device", DEVICES, ids=str)
@pytest.mark.parametrize("training", [PLAIN, HEAVY])
def test_tasks_of_one_thread_can_share_a_module(training: Training, device: torch.device) -> None:
    module = Mlp((6, 5)).build((1, 4, 4), 3).to(device)
    alone, sharing = (
        [some_task(training, device, seed, examples, one) for seed, examples in ((5, 30), (6, 2), (7, 20))]
        for one in (None, module)
    )
    assert all(task.module is module for task in sharing)
    trails = []
    for tasks in (alone, sharing):
        x_ND = [task.start(Seeds.of(at)) for at, task in enumerate(tasks)]
        trail = [x_D.clone() for x_D in x_ND]
        for first in (0, 3, 6):
            local = [task.steps(x_D, None, first, 2) for task, x_D in zip(tasks, x_ND, strict=True)]
            last = [task.step(one.x_D, one.m_D, first + 2) for task, one in zip(tasks, local, strict=True)]
            x_ND = [one.x_D + more.x_D for one, more in zip(local, last, strict=True)]
            trail += x_ND
        trails.append(trail)
        figures = [task.evaluate(x_D, "test") for task, x_D in zip(tasks, x_ND, strict=True)]
        trails[-1] += [torch.tensor(list(each.values())) for each in figures]
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(*trails, strict=True))


def test_the_layout_names_the_flat_vector_and_marks_the_output_layer() -> None:
    task = some_task()
    names = [slot.name for slot in task.layout if not slot.output]
    assert names == ["hidden1.weight", "hidden1.bias", "hidden2.weight", "hidden2.bias"]
    assert [slot.name for slot in task.layout if slot.output] == ["output.weight", "output.bias"]
    assert task.start(Seeds.of(1)).shape == (sum(slot.size for slot in task.layout),)
    module = Mlp((6, 5)).build((1, 4, 4), 3)
    Mlp((6, 5)).draw(module, Seeds.of(1).torch("parameters"))
    assert torch.equal(task.start(Seeds.of(1)), nn.utils.parameters_to_vector(module.parameters()))


def test_a_peer_without_examples_can_evaluate_but_not_train() -> None:
    task = some_task(examples=0)
    assert task.examples == 0
    assert task.evaluate(task.start(Seeds.of(1)), "test")["loss"] > 0
    with pytest.raises(ValueError, match="no batches"):
        task.batch(0)


def test_convolutions_train_too() -> None:
    task = SGDTask(Lenet(), some_data(), numpy.arange(60), Training(batch=60, lr=0.05), CPU, Seeds.of(1))
    x_D = task.start(Seeds.of(1))
    assert task.steps(x_D, None, 29, 1).loss < 100
    assert task.step(task.steps(x_D, None, 0, 30).x_D, None, 30).loss < task.step(x_D, None, 30).loss


def test_flat_is_a_new_vector() -> None:
    part = torch.ones(2, 2)
    flat([part]).zero_()
    assert part.sum() == 4
