"""Models: what every one of them keeps to, and what the single ones are."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy
import pytest
import torch
from torch import nn
from torch.nn import functional

from p2pfl import plugins
from p2pfl.contracts import Training
from p2pfl.errors import ScenarioError
from p2pfl.learning.model import Model, kaiming_uniform_like_torch, unfilled
from p2pfl.learning.models.lenet import Lenet
from p2pfl.learning.models.mlp import Mlp
from p2pfl.learning.task import SGDTask
from p2pfl.seeds import Seeds

SHAPES = [(1, 8, 8), (3, 32, 32), (1, 28, 28)]


def generator(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(params=plugins.names("models"))
def model(request: pytest.FixtureRequest) -> Model:
    return plugins.build("models", request.param, {})


@pytest.mark.parametrize(
    "make", [lambda: nn.Linear(30, 20), lambda: nn.Conv2d(3, 8, 5), lambda: nn.Conv2d(4, 8, 3, groups=2)]
)
def test_layers_are_drawn_as_torch_draws_them(make) -> None:  # type: ignore[no-untyped-def]
    with torch.random.fork_rng():
        torch.manual_seed(3)
        expected = make()
    module = unfilled(make)
    kaiming_uniform_like_torch(module, generator())
    for ours, theirs in zip(module.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-7)


def test_norms_begin_as_the_identity_and_unknown_layers_are_refused() -> None:
    module = unfilled(lambda: nn.Sequential(nn.GroupNorm(2, 4), nn.LayerNorm(3), nn.Linear(2, 2, bias=False)))
    kaiming_uniform_like_torch(module, generator())
    for norm in (module[0], module[1]):
        assert (norm.weight == 1).all()
        assert (norm.bias == 0).all()
    with pytest.raises(TypeError, match="PReLU"):
        kaiming_uniform_like_torch(nn.PReLU(), generator())


def test_an_mlp_has_the_hidden_layers_it_was_given() -> None:
    module = Mlp((200, 100), "tanh").build((1, 28, 28), 10)
    shapes = [tuple(p.shape) for p in module.parameters() if p.ndim == 2]
    assert shapes == [(200, 784), (100, 200), (10, 100)]
    assert [type(layer) for layer in module if isinstance(layer, nn.Tanh)] == [nn.Tanh] * 2


def test_options_of_an_mlp_are_checked_where_they_stand() -> None:
    for options, key in (({"hidden": (64, 0)}, "hidden"), ({"activation": "gelu"}, "activation")):
        with pytest.raises(ScenarioError) as error:
            plugins.build("models", "mlp", options)
        assert error.value.path[0] == key


def test_lenet_is_that_of_deep_leakage_from_gradients() -> None:
    """For 1 x 28 x 28 the code of DLG has a linear layer of 588 inputs, for 3 x 32 x 32 one of 768."""
    for shape, features in (((1, 28, 28), 588), ((3, 32, 32), 768)):
        module = Lenet().build(shape, 10)
        assert module.output.in_features == features
        convolutions = [layer for layer in module if isinstance(layer, nn.Conv2d)]
        assert [c.stride[0] for c in convolutions] == [2, 2, 1]
        assert all((c.out_channels, c.kernel_size, c.padding) == (12, (5, 5), (2, 2)) for c in convolutions)
        assert sum(isinstance(layer, nn.Sigmoid) for layer in module) == 3


def test_lenet_is_drawn_wide() -> None:
    module = Lenet().build((1, 28, 28), 10)
    Lenet().draw(module, generator())
    drawn = nn.utils.parameters_to_vector(module.parameters())
    assert drawn.abs().max() <= 0.5
    assert drawn.std().item() == pytest.approx(1 / math.sqrt(12), rel=0.05)


# Networks of convolutions


def weights_of(model: Model, shape: tuple[int, int, int], seed: int = 3) -> tuple[nn.Module, list[torch.Tensor]]:
    module = model.build(shape, 10)
    model.draw(module, generator(seed))
    return module, [parameter.detach() for parameter in module.parameters()]


def plain(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(*layers, nn.Flatten())


def halved(channels: int, wider: int, activation: nn.Module, kernel: int = 5) -> tuple[nn.Module, ...]:
    return nn.Conv2d(channels, wider, kernel, padding=kernel // 2), activation, nn.MaxPool2d(2)


PLAIN: dict[str, tuple[tuple[int, int, int], nn.Module, list[nn.Module]]] = {
    "cnn": (
        (1, 28, 28),
        plain(*halved(1, 32, nn.ReLU()), *halved(32, 64, nn.ReLU())),
        [nn.Linear(64 * 7 * 7, 512), nn.ReLU(), nn.Linear(512, 10)],
    ),
    "cifar_cnn": (
        (3, 32, 32),
        plain(nn.Conv2d(3, 32, 5, padding=2), nn.ReLU(), *halved(32, 64, nn.ReLU()), *halved(64, 128, nn.ReLU())),
        [nn.Linear(128 * 8 * 8, 200), nn.ReLU(), nn.Linear(200, 10)],
    ),
    "fmnist_cnn": (
        (1, 28, 28),
        plain(*halved(1, 16, nn.Sigmoid()), *halved(16, 32, nn.Sigmoid())),
        [nn.Linear(32 * 7 * 7, 10)],
    ),
    "lfw_cnn": (
        (3, 62, 47),
        plain(*halved(3, 64, nn.ReLU(), 3), *halved(64, 64, nn.ReLU(), 3), *halved(64, 128, nn.ReLU(), 3)),
        [nn.Linear(128 * 7 * 5, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 10)],
    ),
}
SMALLEST = {"lfw_cnn": 8}
"""Pixels a side that its pools leave one of; 4 of all others."""
PUBLISHED = {"cnn": 1_663_370, "resnet18": 11_173_962}
"""By McMahan et al. 2017 for MNIST; He et al.'s 18 layers for 32 x 32 pixels, batch norms being as many as ours."""


@pytest.mark.parametrize("name", PLAIN)
def test_a_network_is_its_plain_definition(name: str) -> None:
    shape, convolutions, dense = PLAIN[name]
    module, weights = weights_of(plugins.build("models", name, {}), shape)
    reference = nn.Sequential(convolutions, *dense)
    assert [p.shape for p in reference.parameters()] == [w.shape for w in weights]
    nn.utils.vector_to_parameters(nn.utils.parameters_to_vector(weights), reference.parameters())
    image_BCHW = torch.rand(2, *shape, generator=generator())
    torch.testing.assert_close(module(image_BCHW), reference(image_BCHW))


@pytest.mark.parametrize(("name", "shape"), [("cnn", (1, 28, 28)), ("resnet18", (3, 32, 32))])
def test_there_are_as_many_parameters_as_published(name: str, shape: tuple[int, int, int]) -> None:
    module = plugins.build("models", name, {}).build(shape, 10)
    assert sum(parameter.numel() for parameter in module.parameters()) == PUBLISHED[name]


@pytest.mark.parametrize("name", PLAIN)
def test_an_image_that_is_too_small_is_refused_and_the_smallest_is_not(name: str) -> None:
    model: Model = plugins.build("models", name, {})
    side = SMALLEST.get(name, 4)
    assert model.build((1, side, side), 3)(torch.zeros(1, 1, side, side)).shape == (1, 3)
    with pytest.raises(ValueError, match=f"images of {side - 1} x 9 pixels are smaller than {side} x {side}"):
        model.build((1, side - 1, 9), 3)


def resnet18(
    weights: list[torch.Tensor], x: torch.Tensor, width: int, sigma: Callable[[torch.Tensor], torch.Tensor], halve: bool
) -> torch.Tensor:
    """He et al.'s network as a list of equations, with groups of 16 channels."""
    left = iter(weights)

    def normed(x: torch.Tensor, stride: int) -> torch.Tensor:
        kernel, scale, shift = next(left), next(left), next(left)
        x = functional.conv2d(x, kernel, None, stride, kernel.shape[-1] // 2)
        return functional.group_norm(x, max(1, len(scale) // 16), scale, shift)

    x = sigma(normed(x, 1))
    for stage in range(4):
        for block in range(2):
            stride = 2 if halve and stage and not block else 1
            inner = normed(sigma(normed(x, stride)), 1)
            x = sigma(inner + (normed(x, stride) if stage and not block else x))
    assert x.shape[1] == 8 * width
    return functional.linear(x.mean((2, 3)), next(left), next(left))


@pytest.mark.parametrize(
    ("options", "sigma", "halve"),
    [
        ({"width": 8}, torch.relu, True),
        ({"width": 64}, torch.relu, True),
        ({"width": 8, "activation": "sigmoid"}, torch.sigmoid, True),
        ({"width": 8, "activation": "sigmoid", "strides": False}, torch.sigmoid, False),
    ],
)
def test_resnet18_is_that_of_he_et_al_with_group_norms(
    options: dict[str, object], sigma: Callable[[torch.Tensor], torch.Tensor], halve: bool
) -> None:
    model = plugins.build("models", "resnet18", options)
    module, weights = weights_of(model, (3, 16, 16))
    weights = [w + 0.1 * torch.randn(w.shape, generator=generator(at)) for at, w in enumerate(weights)]  # norms too
    nn.utils.vector_to_parameters(nn.utils.parameters_to_vector(weights), module.parameters())
    image_BCHW = torch.rand(2, 3, 16, 16, generator=generator())
    expected = resnet18(weights, image_BCHW, model.width, sigma, halve)
    torch.testing.assert_close(module(image_BCHW), expected, rtol=1e-4, atol=1e-5)


def test_the_stages_of_resnet18_halve_the_image_unless_it_is_to_be_inverted() -> None:
    for strides, pixels in ((True, 4), (False, 32)):
        module = plugins.build("models", "resnet18", {"width": 2, "strides": strides}).build((3, 32, 32), 10)
        before_pool = nn.Sequential(*list(module)[:-3])
        assert before_pool(torch.zeros(1, 3, 32, 32)).shape[-2:] == (pixels, pixels)


def test_resnet18_with_sigmoids_is_twice_differentiable() -> None:
    options = {"width": 4, "activation": "sigmoid", "strides": False}
    module, _ = weights_of(plugins.build("models", "resnet18", options), (1, 8, 8))
    image_BCHW = torch.rand(1, 1, 8, 8, generator=generator()).requires_grad_()
    loss = functional.cross_entropy(module(image_BCHW), torch.tensor([3]))
    gradients = torch.autograd.grad(loss, list(module.parameters()), create_graph=True)
    matched = sum((gradient**2).sum() for gradient in gradients)
    (slope,) = torch.autograd.grad(matched, image_BCHW)
    assert slope.isfinite().all()
    assert slope.abs().max() > 0


@pytest.mark.parametrize("width", [1, 3, 6, 40])
def test_resnet18_is_of_any_width(width: int) -> None:
    module, _ = weights_of(plugins.build("models", "resnet18", {"width": width}), (1, 16, 16))
    image_BCHW = torch.rand(3, 1, 16, 16, generator=generator())
    assert module(image_BCHW).shape == (3, 10)
    norms = [layer for layer in module.modules() if isinstance(layer, nn.GroupNorm)]
    assert all(norm.num_channels / norm.num_groups >= min(16, norm.num_channels) for norm in norms)


def test_two_logits_and_cross_entropy_are_one_sigmoid_and_its_loss() -> None:
    """The paper's last layer: of two classes only the difference of the logits counts."""
    logits_N2 = torch.randn(50, 2, generator=generator(), dtype=torch.float64)
    labels_N = torch.arange(50) % 2
    lead_N = logits_N2[:, 1] - logits_N2[:, 0]
    torch.testing.assert_close(logits_N2.softmax(1)[:, 1], lead_N.sigmoid())
    ours = functional.cross_entropy(logits_N2, labels_N)
    torch.testing.assert_close(ours, functional.binary_cross_entropy_with_logits(lead_N, labels_N.double()))


SLIM = {"resnet18": {"width": 8}}
RATES = {"resnet18": 0.01, "cnn": 0.02, "cifar_cnn": 0.02, "lenet": 0.02, "fmnist_cnn": 0.1}
LONG = {"fmnist_cnn": 160}
"""Sigmoids on a plateau take their time."""


@pytest.mark.parametrize("name", plugins.names("models"))
def test_every_model_learns_a_few_real_images(name: str) -> None:
    data = plugins.build("datasets", "digits", {}).load()
    training = Training(batch=16, lr=RATES.get(name, 0.05), momentum=0.9)
    model: Model = plugins.build("models", name, SLIM.get(name, {}))
    task = SGDTask(model, data, numpy.arange(64), training, torch.device("cpu"), Seeds.of(1))
    x_D = task.start(Seeds.of(2))
    begun = task.steps(x_D, None, 0, 4)
    learned = task.steps(begun.x_D, begun.m_D, 4, LONG.get(name, 32))
    assert task.steps(learned.x_D, learned.m_D, 36, 4).loss < 0.9 * begun.loss
