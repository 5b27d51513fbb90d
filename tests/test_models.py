"""Models: what every one of them keeps to, and what the single ones are."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch import nn

from p2pfl import plugins
from p2pfl.errors import ScenarioError
from p2pfl.learning.model import Model, kaiming_uniform_like_torch, unfilled
from p2pfl.learning.models.lenet import Lenet
from p2pfl.learning.models.mlp import Mlp

SHAPES = [(1, 8, 8), (3, 32, 32), (1, 28, 28)]


def generator(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(params=plugins.names("models"))
def model(request: pytest.FixtureRequest) -> Model:
    return plugins.build("models", request.param, {})


@pytest.mark.parametrize("shape", SHAPES)
def test_every_model_maps_images_to_one_number_a_class(model: Model, shape: tuple[int, int, int]) -> None:
    module = model.build(shape, 7)
    model.draw(module, generator())
    assert module(torch.zeros(2, *shape)).shape == (2, 7)


def test_every_model_has_an_output_layer_and_no_buffers(model: Model) -> None:
    module = model.build((1, 8, 8), 7)
    assert isinstance(module.output, nn.Linear)
    assert module.output.out_features == 7
    assert list(module.parameters())[-1] is module.output.bias
    assert not list(module.buffers())


def test_every_model_fills_every_parameter_from_the_generator_alone(model: Model) -> None:
    state = torch.get_rng_state()
    drawn = []
    for seed in (3, 3, 4):
        module = model.build((1, 8, 8), 7)
        for parameter in module.parameters():
            nn.init.constant_(parameter, math.nan)
        model.draw(module, generator(seed))
        drawn.append(nn.utils.parameters_to_vector(module.parameters()))
    assert drawn[0].isfinite().all()
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert torch.equal(torch.get_rng_state(), state)


def test_every_model_is_a_frozen_value(model: Model) -> None:
    assert type(model).__dataclass_params__.frozen  # type: ignore[attr-defined]
    assert dataclasses.replace(model) == model  # type: ignore[type-var]


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
