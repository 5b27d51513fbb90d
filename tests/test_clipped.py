"""Clipped gradients of single examples, against the loop over examples with torch.autograd.grad.

Shapes: B examples, D parameters, S numbers of a sketch.
"""

from __future__ import annotations

import copy
import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from p2pfl import plugins
from p2pfl.contracts import Pair
from p2pfl.learning._layered import by_layers, is_chain, layers_of
from p2pfl.learning.clipped import clipped_sum, mixes_examples
from p2pfl.learning.descent import Fold
from p2pfl.learning.model import layout_of
from p2pfl.learning.sketched import Sketched

SHAPE, CLASSES, SIZES = (3, 8, 8), 4, (1, 2, 7, 64)
OPTIONS: dict[str, dict[str, Any]] = {"mlp": {"hidden": (9, 6)}, "resnet18": {"width": 4}}
DEVICES = ["cpu"] + ["cuda"] * torch.cuda.is_available()
KEY = b"a key of 16 byte"


pytestmark = pytest.mark.usefixtures("one_thread")


def a_model(name: str) -> nn.Module:
    model = plugins.build("models", name, OPTIONS.get(name, {}))
    module: nn.Module = model.build(SHAPE, CLASSES)
    model.draw(module, torch.Generator().manual_seed(1))
    return module.double()


def drawn(module: nn.Module, seed: int = 1) -> nn.Module:
    """With parameters from a stream of its own."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64) / 3
    return module.double()


def examples(count: int, shape: tuple[int, ...] = SHAPE) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    inputs = torch.randn(count, *shape, generator=generator, dtype=torch.float64)
    return inputs, torch.randint(CLASSES, (count,), generator=generator)


def as_it_is(gradients: Sequence[Tensor]) -> Sequence[Tensor]:
    return gradients


def one_by_one(
    module: nn.Module, inputs: Tensor, labels: Tensor, clip: float, folded: Fold = as_it_is
) -> list[tuple[Tensor, Tensor]]:
    """The losses of the first examples and the flat sum of their clipped gradients, after each of them."""
    found, losses, total = [], [], torch.zeros(())
    for x, y in zip(inputs, labels, strict=True):
        loss = nn.functional.cross_entropy(module(x[None]), y[None])
        g = torch.cat([part.flatten() for part in folded(torch.autograd.grad(loss, list(module.parameters())))])
        losses.append(loss.detach())
        if g.isfinite().all():
            total = total + g * min(1.0, clip / max(g.norm().item(), 1e-300))
        found.append((torch.stack(losses), total))
    return found


def summed(
    module: nn.Module, inputs: Tensor, labels: Tensor, clip: float, folded: Fold | None = None
) -> tuple[Tensor, Tensor]:
    losses, sums = clipped_sum(module, tuple(module.parameters()), inputs, labels, clip, folded)
    return losses, torch.cat([part.flatten() for part in sums])


def assert_close(found: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor], relative: float) -> None:
    """In norm."""
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.shape == theirs.shape
        assert (ours.cpu().double() - theirs).norm() <= relative * theirs.norm()
        assert not ours.requires_grad


def a_middling_norm(module: nn.Module, inputs: Tensor, labels: Tensor) -> float:
    """A clip that cuts some examples down and leaves others as they are."""
    norms = []
    for b in range(7):
        loss = nn.functional.cross_entropy(module(inputs[b : b + 1]), labels[b : b + 1])
        gradients = torch.autograd.grad(loss, list(module.parameters()))
        norms.append(torch.cat([g.flatten() for g in gradients]).norm().item())
    return sorted(norms)[3] * 1.0001


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", plugins.names("models"))
def test_the_sum_is_that_of_a_loop_over_examples_for_every_model(name: str, device: str) -> None:
    module, (inputs, labels) = a_model(name), examples(64)
    clip = a_middling_norm(module, inputs, labels)
    expected = one_by_one(module, inputs, labels, clip)
    for dtype, relative in ((torch.float64, 1e-10), (torch.float32, 1e-5)):
        module.to(device, dtype)
        for count in SIZES:
            found = summed(module, inputs[:count].to(device, dtype), labels[:count].to(device), clip)
            assert found[1].dtype == dtype
            assert found[1].device.type == device
            assert_close(found, expected[count - 1], relative)


@pytest.mark.parametrize("clip", [1e-9, 1e9])
@pytest.mark.parametrize("name", ["mlp", "lenet", "resnet18"])
def test_a_tiny_clip_leaves_directions_and_a_large_one_everything(name: str, clip: float) -> None:
    module, (inputs, labels) = a_model(name), examples(7)
    found = summed(module, inputs, labels, clip)
    assert_close(found, one_by_one(module, inputs, labels, clip)[-1], 1e-10)
    whole = torch.autograd.grad(
        nn.functional.cross_entropy(module(inputs), labels, reduction="sum"), list(module.parameters())
    )
    norm = torch.cat([g.flatten() for g in whole]).norm()
    assert found[1].norm() == pytest.approx(norm) if clip > 1 else found[1].norm() <= 7 * clip * (1 + 1e-9)


def test_no_examples_sum_to_zeros_and_have_no_losses() -> None:
    for name in ("mlp", "cnn", "resnet18"):
        module, (inputs, labels) = a_model(name), examples(0)
        losses, sums = clipped_sum(module, tuple(module.parameters()), inputs, labels, 1.0)
        assert losses.shape == (0,)
        assert all((s == 0).all() and s.shape == p.shape for s, p in zip(sums, module.parameters(), strict=True))
        _, (alone,) = clipped_sum(
            module, tuple(module.parameters()), inputs, labels, 1.0, lambda gs: [gs[0].flatten()[:3]]
        )
        assert torch.equal(alone, torch.zeros(3, dtype=torch.float64))


# Modules of every kind


class Tied(nn.Module):
    """Calls one layer twice, and reads its weight besides."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.output = nn.Linear(192, 6), nn.Linear(6, 6), nn.Linear(6, CLASSES)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        hidden = self.second(self.second(self.first(x_BCHW.flatten(1)).tanh()).tanh()) @ self.second.weight.T
        logits: Tensor = self.output(hidden / (1 + self.first.weight.norm()))
        return logits


class Own(nn.Module):
    """As people write them, with something odd about it."""

    def __init__(self, odd: str = "") -> None:
        super().__init__()
        self.odd = odd
        self.convolution = nn.Conv2d(3, 4, 3, padding=1)
        self.output, self.first = nn.Linear(6, CLASSES), nn.Linear(256, 6)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        turned = self.odd == "rows turned"
        x = self.convolution(x_BCHW.flip(0) if turned else x_BCHW).relu().flatten(1)
        x = self.first(input=x.flip(0)) if self.odd == "named" else self.first(x.flip(0) if turned else x)
        if self.odd == "read besides":
            x = x / (1 + self.first.weight.norm())
        logits: Tensor = self.output(x.tanh() if self.odd != "cut off" else x.detach())
        return logits


class Patches(nn.Module):
    """Each example is several rows to its layers."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.output = nn.Linear(48, 6), nn.Linear(6, CLASSES)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        rows = self.inner(x_BCHW.reshape(-1, 48)).tanh()
        logits: Tensor = self.output(rows.unflatten(0, (-1, 4)).mean(1))
        return logits


class Recurrent(nn.Module):
    """Which torch.func cannot."""

    def __init__(self) -> None:
        super().__init__()
        self.rows, self.output = nn.GRU(24, 5, batch_first=True), nn.Linear(5, CLASSES)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        logits: Tensor = self.output(self.rows(x_BCHW.flatten(1).unflatten(1, (8, 24)))[0][:, -1])
        return logits


class Branching(nn.Module):
    """Looks at the numbers before it goes on, and does not use all it has."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.unused = (nn.Linear(192, CLASSES) for _ in range(3))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x = x_BCHW.flatten(1)
        logits: Tensor = self.left(x) if float(x.sum()) > 0 else self.right(x)
        return logits


def with_a_hook() -> nn.Module:
    module = nn.Sequential(nn.Flatten(), nn.Linear(192, 5), nn.Tanh(), nn.Linear(5, CLASSES))
    module[1].register_forward_hook(lambda layer, inputs, output: 2 * output)
    return module


def with_a_hook_on_the_chain() -> nn.Module:
    inner = nn.Sequential(nn.Flatten(), nn.Linear(192, 5))
    inner.register_forward_pre_hook(lambda chain, inputs: inputs[0].flip(2))
    return nn.Sequential(inner, nn.Tanh(), nn.Linear(5, CLASSES))


def called_twice() -> nn.Module:
    layer = nn.Linear(6, 6)
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 6), layer, nn.Tanh(), layer, nn.Linear(6, CLASSES))


def one_weight_twice() -> nn.Module:
    module = nn.Sequential(nn.Flatten(), nn.Linear(192, 6), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6))
    module[4].weight = module[2].weight
    return module


def normed() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.ReLU(), nn.Flatten(), nn.LayerNorm(144), nn.Linear(144, CLASSES)
    )


def on_rows() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 3), nn.Tanh(), nn.Flatten(), nn.Linear(72, CLASSES))


def in_place() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 5)),
        *(nn.Dropout(0.5, inplace=True).eval(), nn.ELU(inplace=True), nn.Linear(5, CLASSES)),
    )


def convolutions() -> nn.Module:
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 6, 5, stride=2, padding=2), nn.SiLU()),
        *(nn.Conv2d(6, 8, 3, padding=2, dilation=2, groups=2), nn.GELU(), nn.AvgPool2d(2)),
        *(nn.Conv2d(8, 4, (1, 2), stride=(2, 1), padding=(0, 1), bias=False), nn.Identity()),
        *(nn.Flatten(), nn.Linear(12, 7, bias=False), nn.Softplus(), nn.Linear(7, CLASSES)),
    )


def padded(**options: Any) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 4, **options), nn.Tanh(), nn.Flatten(), nn.LazyLinear(CLASSES))


MODULES: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "in place": (in_place, "chain"),
    "convolutions": (convolutions, "chain"),
    "same padding": (lambda: padded(padding="same"), "general"),
    "circular padding": (lambda: padded(padding=2, padding_mode="circular"), "general"),
    "own": (Own, "layers"),
    **{f"own, {odd}": (partial(Own, odd), "general") for odd in ("rows turned", "named", "read besides", "cut off")},
    "patches": (Patches, "general"),
    "tied": (Tied, "general"),
    "recurrent": (Recurrent, "general"),
    "branching": (Branching, "general"),
    "hook": (with_a_hook, "general"),
    "hook on the chain": (with_a_hook_on_the_chain, "layers"),
    "called twice": (called_twice, "general"),
    "one weight twice": (one_weight_twice, "general"),
    "normed": (normed, "general"),
    "on rows": (on_rows, "general"),
    "wrapped": (lambda: nn.Sequential(OrderedDict(inner=Own(), activation=nn.Softplus())), "layers"),
}
"""How to make it, and how it is to be done: `chain` and `layers` are the fast ways, which must not be taken wrongly."""


def way(module: nn.Module, inputs: Tensor, labels: Tensor) -> str:
    layers = layers_of(module, tuple(module.parameters()))
    if layers is None or by_layers(module, layers, is_chain(module), inputs, labels) is None:
        return "general"
    return "chain" if is_chain(module) else "layers"


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", MODULES)
def test_the_sum_is_that_of_a_loop_for_modules_of_every_kind(name: str, device: str) -> None:
    make, expected_way = MODULES[name]
    module, (inputs, labels) = make(), examples(7)
    module(inputs[:1].float())  # lazy layers learn their shape
    module = drawn(module)

    def loop() -> tuple[Tensor, Tensor]:
        losses, total = torch.zeros(0), torch.zeros(())
        for b in range(7):
            loss = nn.functional.cross_entropy(module(inputs[b : b + 1]), labels[b : b + 1])
            gradients = torch.autograd.grad(loss, list(module.parameters()), allow_unused=True, materialize_grads=True)
            g = torch.cat([part.flatten() for part in gradients])
            losses, total = torch.cat([losses.double(), loss.detach()[None]]), total + g * min(1.0, 2 / g.norm().item())
        return losses, total

    expected = loop()
    module.to(device)
    assert way(module, inputs.to(device), labels.to(device)) == expected_way
    assert_close(summed(module, inputs.to(device), labels.to(device), 2.0), expected, 1e-10)


def test_every_model_without_norms_is_done_as_a_chain() -> None:
    ways = {name: way(a_model(name), *examples(3)) for name in plugins.names("models")}
    assert ways == dict.fromkeys(ways, "chain") | {"resnet18": "general", "gradient_mlp": "layers"}


@pytest.mark.parametrize("name", ["convolutions", "large", "large and normed"])
def test_examples_that_have_no_room_beside_each_other_are_done_in_turns(name: str) -> None:
    if name == "convolutions":
        shape, layers = (1, 4, 4), (nn.Conv2d(1, 32, 5, padding=2), nn.Conv2d(32, 700, 5, padding=2), nn.Flatten())
        module: nn.Module = nn.Sequential(*layers, nn.Linear(700 * 16, CLASSES))
    else:
        norm = nn.LayerNorm(500) if "normed" in name else nn.Identity()
        shape, module = (1, 5, 100), nn.Sequential(nn.Flatten(), nn.Linear(500, 3000), nn.Linear(3000, 500), norm)
    module, (inputs, labels) = drawn(module), examples(23, shape)
    expected = one_by_one(module, inputs, labels, 5.0)[-1]
    assert_close(summed(module, inputs, labels, 5.0), expected, 1e-10)


# In the space of a sketch

SKETCHES = [name for name in plugins.names("sketches") if plugins.build("sketches", name, {}).keyed]


class Wrapped(nn.Module):
    """A chain in a module that does more than call it: what torch.func has to do at a sketched point."""

    def __init__(self) -> None:
        super().__init__()
        self.chain = nn.Sequential(nn.Linear(192, 8), nn.Tanh(), nn.Linear(8, 6))
        self.convolution, self.output = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(6, CLASSES)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        logits: Tensor = self.output(self.chain((x_BCHW + self.convolution(x_BCHW).mean(1, True)).flatten(1)).tanh())
        return logits


@pytest.mark.parametrize("sketch", SKETCHES)
@pytest.mark.parametrize("name", ["mlp", "lenet", "cnn", "resnet18", "wrapped", "wrapped, dense first"])
def test_at_a_sketched_point_the_sum_is_that_of_a_loop_over_examples(name: str, sketch: str) -> None:
    if name == "wrapped, dense first":
        module = drawn(nn.Sequential(nn.Flatten(), nn.Linear(192, 6), nn.LayerNorm(6), nn.Linear(6, CLASSES)))
    else:
        module = drawn(Wrapped()) if name == "wrapped" else a_model(name)
    pair: Pair = plugins.build("sketches", sketch, {}).bind(layout_of(module))
    x_D = torch.cat([parameter.detach().flatten() for parameter in module.parameters()])
    inputs, labels = examples(7)
    with Sketched(module, pair, KEY, pair.down(x_D, KEY)).standing() as sketched:
        sketched.refresh()
        clip = a_middling_norm(module, inputs, labels)
        expected = one_by_one(module, inputs, labels, clip, sketched.folded)
        for count in (1, 7):
            found = summed(module, inputs[:count], labels[:count], clip, sketched.folded)
            assert len(found[1]) == pair.size
            assert_close(found, expected[count - 1], 1e-10)
        _, none = summed(module, inputs[:0], labels[:0], clip, sketched.folded)
        assert torch.equal(none, torch.zeros(pair.size, dtype=torch.float64))


def test_dense_layers_need_no_gradient_of_one_example_at_a_sketched_point() -> None:
    module = a_model("mlp")
    pair: Pair = plugins.build("sketches", "countsketch", {}).bind(layout_of(module))
    x_D = torch.cat([parameter.detach().flatten() for parameter in module.parameters()])
    inputs, labels = examples(7)
    asked = []
    with Sketched(module, pair, KEY, pair.down(x_D, KEY)).standing() as sketched:

        def counted(gradients: Sequence[Tensor]) -> Sequence[Tensor]:
            asked.append(gradients)
            return sketched.folded(gradients)

        summed(module, inputs, labels, 1.0, counted)
    assert len(asked) == 1  # what it would do, and nothing of the seven


@pytest.mark.parametrize("name", ["mlp", "lenet", "resnet18"])
def test_any_linear_map_of_the_whole_gradient_is_clipped_in_its_own_space(name: str) -> None:
    module, (inputs, labels) = a_model(name), examples(7)
    parameters = sum(p.numel() for p in module.parameters())
    matrix = torch.randn(11, parameters, generator=torch.Generator().manual_seed(3), dtype=torch.float64)

    def folded(gradients: Sequence[Tensor]) -> Sequence[Tensor]:
        return [matrix @ torch.cat([g.flatten() for g in gradients])]

    def first_as_it_is(gradients: Sequence[Tensor]) -> Sequence[Tensor]:
        return [gradients[0], torch.cat([g.flatten() for g in gradients[1:]]).unflatten(0, (1, -1))]

    for fold in (folded, first_as_it_is):
        expected = one_by_one(module, inputs, labels, 1.5, fold)[-1]
        assert_close(summed(module, inputs, labels, 1.5, fold), expected, 1e-10)


# What is promised whatever the data

KINDS = {
    "dense": drawn(nn.Sequential(nn.Flatten(), nn.Linear(16, 5), nn.ReLU(), nn.Linear(5, CLASSES))),
    "convolution": drawn(nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(12, CLASSES))),
    "normed": drawn(nn.Sequential(nn.Conv2d(1, 2, 3), nn.GroupNorm(1, 2), nn.Flatten(), nn.Linear(8, CLASSES))),
    "branching": nn.Sequential(nn.ZeroPad2d((0, 44, 0, 0)), drawn(Branching())),
}
SCALES = st.sampled_from([0.0, 1e-30, 1.0, 1e10, 1e19, 1e30, 3e38, math.inf, -math.inf, math.nan])


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(sorted(KINDS)),
    st.integers(0, 2**32),
    st.integers(1, 5),
    SCALES,
    SCALES,
    st.sampled_from([1e-6, 1.0, 1e4]),
)
def test_nobody_moves_the_sum_by_more_than_the_clip(
    kind: str, seed: int, count: int, before: float, after: float, clip: float
) -> None:
    module, generator = KINDS[kind].float(), torch.Generator().manual_seed(seed)
    inputs = torch.randn(count, 1, 4, 4, generator=generator)
    labels = torch.randint(CLASSES, (count,), generator=generator)
    at = int(torch.randint(count, (1,), generator=generator))
    other, _ = inputs.clone(), inputs[at].mul_(before)
    other[at].mul_(after)
    rest = [b for b in range(count) if b != at]
    with_it, replaced, without = (
        summed(module, x, y, clip)[1] for x, y in ((inputs, labels), (other, labels), (inputs[rest], labels[rest]))
    )
    slack = clip * 1e-5 * count
    assert with_it.isfinite().all()
    assert (with_it - without).norm() <= clip + slack
    assert (with_it - replaced).norm() <= 2 * clip + slack


@pytest.mark.parametrize("kind", ["dense", "convolution", "normed"])
@pytest.mark.parametrize("poison", [math.nan, math.inf])
def test_an_example_without_a_finite_gradient_counts_as_zero_and_spoils_no_other(kind: str, poison: float) -> None:
    module, (inputs, labels) = KINDS[kind].double(), examples(5, (1, 4, 4))
    _, expected = summed(module, inputs[:4], labels[:4], 1.0)
    inputs[4, 0, 1, 1] = poison
    losses, found = summed(module, inputs, labels, 1.0)
    torch.testing.assert_close(found, expected)
    assert losses[:4].isfinite().all()
    _, alone = summed(module, inputs[4:], labels[4:], 1.0)
    assert torch.equal(alone, torch.zeros_like(expected))


@pytest.mark.parametrize("kind", ["dense", "convolution"])
def test_a_huge_example_is_cut_down_and_not_left_out(kind: str) -> None:
    """Its squared norm is no float32 any more, nor need it be one."""
    module, (inputs, _) = copy.deepcopy(KINDS[kind]).float(), examples(1, (1, 4, 4))
    module[-1].weight.data.mul_(1e3)
    inputs = inputs.float() * (1e17 if kind == "dense" else 1e14)
    _, found = summed(module, inputs, module(inputs).argmin(1), 1.0)
    assert found.norm() == pytest.approx(1.0, rel=1e-5)


def test_nothing_else_is_altered() -> None:
    for module in (a_model("lenet"), a_model("resnet18"), drawn(Recurrent())):
        inputs, labels = examples(3)
        for parameter in module.parameters():
            parameter.grad = torch.ones_like(parameter)
        held = [inputs, labels, *module.parameters()]
        before, state = [tensor.detach().clone() for tensor in held], torch.get_rng_state()
        summed(module, inputs, labels, 1.0)
        assert all(torch.equal(now, then) for now, then in zip(held, before, strict=True))
        assert all((parameter.grad == 1).all() for parameter in module.parameters())
        assert torch.equal(torch.get_rng_state(), state)
        assert not any(layer._forward_hooks for layer in module.modules())


# Whether there is a gradient of one example


class HomeMade(nn.Module):
    """A batch norm of somebody's own, with or without a memory, or one that looks at the batch behind autograd."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.inner, self.output = nn.Linear(48, 5), nn.Linear(5, CLASSES)
        self.mean = torch.zeros(5)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        hidden = self.inner(x_BCHW.flatten(1))
        if self.kind == "mean":
            hidden = hidden - hidden.mean(0)
        elif self.kind == "detached":
            hidden = hidden / (1 + hidden.detach().abs().amax())
        else:
            hidden, self.mean = hidden - self.mean, 0.9 * self.mean + 0.1 * hidden.detach().mean(0)
        logits: Tensor = self.output(torch.relu(hidden))
        return logits


class Counting(nn.Module):
    """What it computes changes from batch to batch, but not with what is in them."""

    def __init__(self) -> None:
        super().__init__()
        self.output, self.calls = nn.Linear(48, CLASSES), 0

    def forward(self, x_BCHW: Tensor) -> Tensor:
        self.calls += 1
        logits: Tensor = self.output(x_BCHW.flatten(1)) / self.calls
        return logits


def small(*middle: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), *middle, nn.Flatten(), nn.Linear(64, CLASSES))


MIXING: dict[str, Callable[[], nn.Module]] = {
    "batch norm of images": lambda: small(nn.BatchNorm2d(4), nn.ReLU()),
    "batch norm far from the output": lambda: small(
        nn.BatchNorm2d(4), *(layer for _ in range(8) for layer in (nn.Conv2d(4, 4, 3, padding=1), nn.Sigmoid()))
    ),
    "batch norm of rows": lambda: nn.Sequential(
        nn.Flatten(), nn.Linear(48, 6), nn.BatchNorm1d(6), nn.Linear(6, CLASSES)
    ),
    "softmax over the batch": lambda: nn.Sequential(nn.Flatten(), nn.Linear(48, CLASSES), nn.Softmax(dim=0)),
    **{f"home-made: {kind}": lambda kind=kind: HomeMade(kind) for kind in ("mean", "detached", "memory")},
}
APART: dict[str, Callable[[], nn.Module]] = {
    "plain": lambda: small(nn.ReLU(), nn.Sequential()),
    "dropout": lambda: small(nn.Dropout(0.5), nn.ReLU(), nn.Dropout2d(0.3)),
    "group norm": lambda: small(nn.GroupNorm(2, 4), nn.ReLU()),
    "instance norm": lambda: small(nn.InstanceNorm2d(4), nn.ReLU()),
    "layer norm": lambda: nn.Sequential(nn.Flatten(), nn.LayerNorm(48), nn.Linear(48, CLASSES)),
    "recurrent": lambda: nn.Sequential(nn.ZeroPad2d((0, 4, 0, 4)), Recurrent()),
    "counting": Counting,
}


@pytest.mark.parametrize("name", MIXING)
def test_a_module_that_mixes_examples_is_found_by_what_it_does(name: str) -> None:
    assert mixes_examples(MIXING[name](), (3, 4, 4), CLASSES)
    assert mixes_examples(MIXING[name]().eval().double(), (3, 4, 4), CLASSES)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", APART)
def test_a_module_that_keeps_examples_apart_passes(name: str, device: str) -> None:
    assert not mixes_examples(APART[name]().to(device), (3, 4, 4), CLASSES)


@pytest.mark.parametrize("name", plugins.names("models"))
def test_no_model_here_mixes_examples_even_before_it_is_drawn(name: str) -> None:
    module = plugins.build("models", name, OPTIONS.get(name, {})).build(SHAPE, CLASSES)
    for parameter in module.parameters():
        parameter.data.fill_(math.nan)
    assert not mixes_examples(module, SHAPE, CLASSES)


def test_a_norm_whose_parameters_are_not_drawn_is_found_nevertheless() -> None:
    module = MIXING["batch norm of images"]()
    for parameter in module.parameters():
        parameter.data.zero_()
    assert mixes_examples(module, (3, 4, 4), CLASSES)


def test_looking_whether_it_mixes_alters_neither_the_module_nor_the_random_state() -> None:
    for make in (*MIXING.values(), *APART.values()):
        module = make().eval()
        held = [*module.parameters(), *module.buffers(), *([module.mean] if isinstance(module, HomeMade) else [])]
        before, state = [tensor.detach().clone() for tensor in held], torch.get_rng_state()
        mixes_examples(module, (3, 4, 4), CLASSES)
        assert all(torch.equal(now, then) for now, then in zip(held, before, strict=True))
        assert not any(layer.training for layer in module.modules())
        assert torch.equal(torch.get_rng_state(), state)
