"""A sketched layer as its paper defines it, written down once with an explicit S, against the task that trains in z.

Source: Wang & Zhang, "Matrix Sketching for Secure Collaborative Machine Learning" (DBCL), section 4.2, appendix A:
Z = (X S)(W S)^T for a dense layer, the same of the patches for a convolution, trained in W~ = W S.
Shapes: B examples, D parameters, S numbers of a sketch; of one layer d columns, s of its sketch, G groups, P patches.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import numpy
import pytest
import torch
from torch import Tensor, nn

from p2pfl import plugins
from p2pfl.contracts import Layout, Pair, Slot, Training
from p2pfl.learning.data import Data
from p2pfl.learning.model import Model, kaiming_uniform_like_torch, unfilled
from p2pfl.learning.models.cnn import Cnn
from p2pfl.learning.models.lenet import Lenet
from p2pfl.learning.models.mlp import Mlp
from p2pfl.learning.sketched import Sketched
from p2pfl.learning.task import SGDTask
from p2pfl.seeds import Seeds
from p2pfl.sketches.countsketch import CountSketch

Options = dict[str, Any]
KEY = b"a key of 16 byte"
CLASSES = 3
PLAIN = Training(batch=8, lr=0.1)
HEAVY = Training(batch=8, lr=0.1, momentum=0.9, weight_decay=0.01)
SKETCHES = [
    (name, {**ratio, **options})
    for name in plugins.names("sketches")
    if plugins.build("sketches", name, {}).keyed
    for options in ([{}, {"balanced": False}] if name == "countsketch" else [{}])
    for ratio in ({}, {"ratio": 0.3})
]


@dataclass(frozen=True)
class Odd:
    """Convolutions of every kind: 25 columns, strides, padding, dilation, groups, no bias."""

    def build(self, shape: tuple[int, int, int], classes: int) -> nn.Module:
        """A stack for inputs of C x 12 x 12."""
        return unfilled(lambda: self._layers(shape[0], classes))

    def draw(self, module: nn.Module, generator: torch.Generator) -> None:
        """As torch does."""
        kaiming_uniform_like_torch(module, generator)

    def _layers(self, channels: int, classes: int) -> nn.Module:
        layers: OrderedDict[str, nn.Module] = OrderedDict(
            convolution1=nn.Conv2d(channels, 6, 5, stride=2, padding=2),
            relu1=nn.ReLU(),
            convolution2=nn.Conv2d(6, 8, 3, padding=2, dilation=2, groups=2),
            relu2=nn.ReLU(),
            pool=nn.MaxPool2d(2),
            convolution3=nn.Conv2d(8, 4, (1, 3), stride=(2, 1), padding=(0, 1), bias=False),
            flatten=nn.Flatten(),
            hidden=nn.Linear(4 * 2 * 3, 7),
            relu3=nn.ReLU(),
            output=nn.Linear(7, classes),
        )
        return nn.Sequential(layers)


MODELS: dict[str, tuple[Model, tuple[int, int, int]]] = {
    "mlp": (Mlp((7, 5)), (1, 5, 5)),
    "large mlp": (Mlp((101, 701)), (1, 5, 157)),
    "odd": (Odd(), (1, 12, 12)),
    "lenet": (Lenet(), (3, 8, 8)),
    "cnn": (Cnn(), (1, 4, 4)),
}


pytestmark = pytest.mark.usefixtures("one_thread")


# The oracle: the paper's layers


class Dense(nn.Module):
    """Z = (X S)(W S)^T + bias, the parameter being W S."""

    def __init__(self, sketched: Tensor, bias: Tensor | None, s_ds: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(sketched)
        self.bias = None if bias is None else nn.Parameter(bias)
        self.s_ds = s_ds

    def forward(self, x_Bd: Tensor) -> Tensor:
        z = (x_Bd @ self.s_ds) @ self.weight.T
        return z if self.bias is None else z + self.bias


class Convolution(Dense):
    """The same of every patch: X are the patches that `unfold` cuts out, of each group of channels its own."""

    def __init__(self, sketched: Tensor, bias: Tensor | None, s_ds: Tensor, of: nn.Conv2d) -> None:
        super().__init__(sketched, bias, s_ds)
        self.of = (of.kernel_size, of.stride, of.padding, of.dilation, of.groups)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        kernel, stride, padding, dilation, groups = self.of
        patches = nn.functional.unfold(x_BCHW, kernel, dilation, padding, stride)
        x_GBPd = patches.unflatten(1, (groups, -1)).permute(1, 0, 3, 2)
        z = torch.cat(
            [(x_BPd @ self.s_ds) @ w.T for x_BPd, w in zip(x_GBPd, self.weight.chunk(groups), strict=True)], 2
        )
        z = z if self.bias is None else z + self.bias
        sides = zip(x_BCHW.shape[2:], kernel, stride, padding, dilation, strict=True)
        return z.transpose(1, 2).unflatten(2, [(side + 2 * p - q * (k - 1) - 1) // t + 1 for side, k, t, p, q in sides])


def width(slot: Slot, options: Options) -> int:
    """s of a slot: of dense layers and convolutions, but not of the output layer nor of those that are to be plain."""
    sketched = (
        len(slot.shape) > 1 and not slot.output and slot.name.removesuffix(".weight") not in options.get("plain", ())
    )
    return max(1, round(options.get("ratio", 0.5) * (slot.size // slot.shape[0]))) if sketched else 0


def split(z_S: Tensor, layout: Layout, options: Options) -> list[Tensor]:
    """A sketch as its slots, those that travel whole in the shape of the parameter."""
    shapes = [(slot.shape[0], s) if (s := width(slot, options)) else slot.shape for slot in layout]
    parts = z_S.split_with_sizes([math.prod(shape) for shape in shapes])
    return [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]


def matrix_of(pair: Pair, layout: Layout, at: int, options: Options) -> Tensor:
    """S of one slot, d x s: what `down` makes of the rows of the identity, as many at once as the weight has."""
    sizes = [slot.size for slot in layout]
    rows, d = layout[at].shape[0], layout[at].size // layout[at].shape[0]
    found = []
    for first in range(0, d, rows):
        x_D = torch.zeros(sum(sizes), dtype=torch.float64)
        x_D.split_with_sizes(sizes)[at].copy_(torch.eye(rows, d).roll(first, 1).flatten())
        found.append(split(pair.down(x_D, KEY), layout, options)[at])
    return torch.cat(found)[:d]


def as_the_paper_has_it(task: SGDTask, pair: Pair, z_S: Tensor, options: Options) -> nn.Module:
    """The task's model with sketched layers, which stand at `z_S`."""
    module = task.model.build(task.data.shape, CLASSES).double()
    numbers = dict(zip((slot.name for slot in task.layout), split(z_S.clone(), task.layout, options), strict=True))
    for at, slot in enumerate(task.layout):
        if width(slot, options):
            layer_name = slot.name.removesuffix(".weight")
            layer, s_ds = module.get_submodule(layer_name), matrix_of(pair, task.layout, at, options)
            given = numbers[slot.name], numbers.get(f"{layer_name}.bias"), s_ds
            sketched = Convolution(*given, of=layer) if isinstance(layer, nn.Conv2d) else Dense(*given)
            module.set_submodule(layer_name, sketched)
    module.load_state_dict(numbers)
    return module


def train(module: nn.Module, task: SGDTask, first: int, count: int) -> tuple[Tensor, float]:
    """The sketch after torch's own SGD on these batches, and the mean loss."""
    training = task.training
    sgd = torch.optim.SGD(module.parameters(), training.lr, training.momentum, weight_decay=training.weight_decay)
    losses = []
    for b in range(first, first + count):
        inputs, labels = task.batch(b)
        sgd.zero_grad()
        loss = nn.functional.cross_entropy(module(inputs), labels)
        loss.backward()
        sgd.step()
        losses.append(loss.item())
    return nn.utils.parameters_to_vector(module.parameters()).detach(), sum(losses) / count


# The task


def some_task(name: str, training: Training) -> SGDTask:
    model, shape = MODELS[name]

    def part(count: int, seed: int) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(seed)
        inputs = torch.randn(count, *shape, generator=generator, dtype=torch.float64)
        return inputs, torch.randint(CLASSES, (count,), generator=generator)

    data = Data(*part(20, 1), *part(0, 2), *part(0, 3), classes=CLASSES)
    module = model.build(shape, CLASSES).double()
    return SGDTask(model, data, numpy.arange(20), training, torch.device("cpu"), Seeds.of(5), module=module)


def sketched_task(model: str, sketch: str, options: Options, training: Training) -> tuple[SGDTask, Pair, Tensor]:
    """A task, its pair, and a point in the sketched space."""
    task = some_task(model, training)
    pair: Pair = plugins.build("sketches", sketch, options).bind(task.layout)
    return task, pair, pair.down(some_task(model, training).start(Seeds.of(1)).double(), KEY)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(("sketch", "options"), SKETCHES, ids=str)
def test_the_loss_and_its_gradient_in_z_are_those_of_the_layers_in_the_paper(
    model: str, sketch: str, options: Options
) -> None:
    task, pair, z_S = sketched_task(model, sketch, options, PLAIN)
    module = as_the_paper_has_it(task, pair, z_S, options)
    for b in (0, 2):  # a full batch, and the four examples that are left
        inputs, labels = task.batch(b)
        loss = nn.functional.cross_entropy(module(inputs), labels)
        expected_S = torch.cat([g.flatten() for g in torch.autograd.grad(loss, tuple(module.parameters()))])
        trained = task.steps(z_S, None, b, 1, pair, KEY)
        assert trained.loss == pytest.approx(loss.item(), rel=1e-9)
        torch.testing.assert_close((z_S - trained.x_D) / PLAIN.lr, expected_S, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(("sketch", "options"), SKETCHES, ids=str)
def test_steps_with_momentum_go_where_torch_takes_the_layers_of_the_paper(
    model: str, sketch: str, options: Options
) -> None:
    task, pair, z_S = sketched_task(model, sketch, options, HEAVY)
    expected_S, loss = train(as_the_paper_has_it(task, pair, z_S, options), task, 1, 4)
    before_S = z_S.clone()
    trained = task.steps(z_S, None, 1, 4, pair, KEY)
    torch.testing.assert_close(trained.x_D, expected_S, rtol=1e-5, atol=1e-8)
    assert not torch.allclose(trained.x_D, before_S, rtol=1e-3)
    assert trained.loss == pytest.approx(loss, rel=1e-8)
    assert torch.equal(z_S, before_S)
    halfway = task.steps(z_S, None, 1, 2, pair, KEY)
    again = task.steps(halfway.x_D, halfway.m_D, 3, 2, pair, KEY)
    torch.testing.assert_close(again.x_D, expected_S, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("sketch", sorted({name for name, _ in SKETCHES}))
def test_the_outputs_of_sketched_layers_are_those_of_the_model_at_the_unfolded_point(sketch: str) -> None:
    task, pair, z_S = sketched_task("odd", sketch, {}, PLAIN)
    inputs, _ = task.batch(0)
    at_up = dict(zip((slot.name for slot in task.layout), shaped(pair.up(z_S, KEY), task.layout), strict=True))
    expected = torch.func.functional_call(task.module, at_up, inputs)
    torch.testing.assert_close(as_the_paper_has_it(task, pair, z_S, {})(inputs), expected)


def shaped(x_D: Tensor, layout: Layout) -> list[Tensor]:
    """A parameter vector as its tensors."""
    parts = x_D.split_with_sizes([slot.size for slot in layout])
    return [part.view(slot.shape) for part, slot in zip(parts, layout, strict=True)]


@pytest.mark.parametrize("sketch", sorted({name for name, _ in SKETCHES}))
@pytest.mark.parametrize(("model", "plain"), [("odd", ("convolution2", "hidden")), ("large mlp", ("hidden1",))])
def test_layers_that_are_to_be_plain_stay_as_they_are(sketch: str, model: str, plain: tuple[str, ...]) -> None:
    options: Options = {"plain": plain}
    task, pair, z_S = sketched_task(model, sketch, options, HEAVY)
    expected_S, _ = train(as_the_paper_has_it(task, pair, z_S, options), task, 0, 2)
    torch.testing.assert_close(task.steps(z_S, None, 0, 2, pair, KEY).x_D, expected_S, rtol=1e-5, atol=1e-8)


def test_the_models_here_have_widths_that_no_ratio_divides_and_layers_of_every_kind() -> None:
    widths = {
        slot.size // slot.shape[0] for name in MODELS for slot in some_task(name, PLAIN).layout if len(slot.shape) > 1
    }
    assert {25, 7} <= widths
    assert any(d % 2 for d in widths)


class Direct(nn.Module):
    """Reads the weight of a dense layer without calling it, ties it, and calls another twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.output = nn.Linear(16, 9), nn.Linear(9, 9), nn.Linear(9, 3)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        hidden = nn.functional.linear(x_NCHW.flatten(1), self.first.weight, self.first.bias).tanh()
        hidden = self.second(self.second(hidden).relu()) @ self.second.weight.T
        logits: Tensor = self.output(hidden / (1 + self.second.weight.norm()))
        return logits


@pytest.mark.parametrize("wrapped", [False, True])
def test_weights_that_are_read_otherwise_than_by_their_layer_are_whole(wrapped: bool) -> None:
    module = unfilled(lambda: nn.Sequential(Direct()) if wrapped else Direct())
    nn.utils.vector_to_parameters(torch.zeros(sum(p.numel() for p in module.parameters())), module.parameters())
    layout = tuple(Slot(name, tuple(p.shape), "output" in name) for name, p in module.named_parameters())
    pair, key = CountSketch().bind(layout), bytes(16)
    generator = torch.Generator().manual_seed(1)
    x_NCHW, labels = torch.randn(5, 1, 4, 4, generator=generator), torch.arange(5) % 3
    x_D = torch.randn(sum(slot.size for slot in layout), generator=generator) / 3
    z_S = pair.down(x_D, key).requires_grad_()
    parts = pair.up(z_S, key).split([slot.size for slot in layout])
    there = {slot.name: part.view(slot.shape) for slot, part in zip(layout, parts, strict=True)}
    expected = nn.functional.cross_entropy(torch.func.functional_call(module, there, (x_NCHW,)), labels)
    (expected_S,) = torch.autograd.grad(expected, z_S)
    before = [parameter.data_ptr() for parameter in module.parameters()]
    with Sketched(module, pair, key, z_S.detach()).standing() as sketched:
        sketched.refresh()
        loss = nn.functional.cross_entropy(module(x_NCHW), labels)
        found = sketched.folded(torch.autograd.grad(loss, list(module.parameters())))
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(torch.cat([gradient.reshape(-1) for gradient in found]), expected_S)
    assert [parameter.data_ptr() for parameter in module.parameters()] == before
