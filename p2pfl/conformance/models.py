"""What every model keeps to: all its numbers are parameters, drawn from the one generator that it is given.

One that cannot take inputs of some size says so by a ValueError or a ScenarioError.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from p2pfl.conformance import _randomness
from p2pfl.errors import ScenarioError
from p2pfl.learning.model import OUTPUT, Model, layout_of
from p2pfl.learning.sketched import Sketched
from p2pfl.sketches.countsketch import CountSketch

SHAPES = ((1, 8, 8), (1, 28, 28), (3, 32, 32))
"""Inputs of C x H x W: digits, MNIST, CIFAR-10."""
CLASSES = 7


def maps_images_to_one_number_a_class(plugin: Any) -> None:
    """Of each size that it takes; there must be one."""
    found = False
    for shape, module in _built(plugin):
        logits = module(_images(2, shape))
        found = True
        assert logits.shape == (2, CLASSES), f"of 2 inputs {shape} and {CLASSES} classes it makes {tuple(logits.shape)}"
        assert logits.isfinite().all(), f"for inputs {shape} its outputs are not finite"
    assert found, f"it takes none of the inputs {SHAPES}"


def has_its_last_layer_in_the_attribute_output(plugin: Any) -> None:
    """A sketch lets that layer travel whole."""
    _, module = next(_built(plugin))
    assert hasattr(module, OUTPUT), f"the module has no attribute {OUTPUT!r}: give its last layer that name"
    slots = layout_of(module)
    assert slots, "it has no parameters"
    assert slots[-1].output, f"its last parameter is {slots[-1].name}: that of the layer {OUTPUT!r} must be last"
    assert any(not slot.output or len(slots) <= 2 for slot in slots), "every layer stands in the attribute output"


def keeps_all_its_numbers_in_parameters(plugin: Any) -> None:
    """Peers exchange parameters: what a module keeps elsewhere, as running statistics, would never be merged."""
    for _, module in _built(plugin):
        buffers = [name for name, _ in module.named_buffers()]
        assert not buffers, f"it has the buffer {buffers[0]!r}: use layers without any, as GroupNorm for BatchNorm"
        frozen = [name for name, parameter in module.named_parameters() if not parameter.requires_grad]
        assert not frozen, f"{frozen[0]!r} does not require a gradient: every parameter is trained"


def treats_each_image_alone(plugin: Any) -> None:
    """What it says of one image does not depend on the others of its batch, nor on chance."""
    shape, module = next(_built(plugin))
    images = _images(3, shape)
    with torch.no_grad():
        together, alone = module(images), torch.cat([module(image[None]) for image in images])
    assert torch.allclose(together, alone, rtol=1e-3, atol=1e-5), "of an image it says something else in a batch"


def is_built_without_drawing_a_number(plugin: Any) -> None:
    """Layers of torch draw when they are made, from the state that all share."""
    with _randomness.left_alone("make layers within p2pfl.learning.model.unfilled, which draws nothing"):
        layout_of(next(_built(plugin))[1])


def fills_every_parameter_from_the_generator_alone(plugin: Any) -> None:
    """The same generator, the same parameters; another, others; every one of them filled."""
    drawn = []
    with _randomness.left_alone():
        for seed in (3, 3, 4):
            _, module = next(_built(plugin))
            for parameter in module.parameters():
                nn.init.constant_(parameter, math.nan)
            plugin.draw(module, _generator(seed))
            drawn.append(nn.utils.parameters_to_vector(module.parameters()).detach())
    unfilled = [slot.name for slot, x in zip(layout_of(module), module.parameters(), strict=True) if x.isnan().any()]
    assert not unfilled, f"draw leaves {unfilled[0]!r} unfilled"
    assert torch.equal(drawn[0], drawn[1]), "drawn twice from the same generator it has other parameters"
    assert not torch.equal(drawn[0], drawn[2]), "it takes no number from the generator"


def has_a_gradient_in_every_parameter(plugin: Any) -> None:
    """None is out of the way of the loss."""
    shape, module = next(_built(plugin))
    loss = nn.functional.cross_entropy(module(_images(4, shape)), torch.arange(4) % CLASSES)
    slots = layout_of(module)
    gradients = torch.autograd.grad(loss, list(module.parameters()), allow_unused=True)
    unused = [slot.name for slot, gradient in zip(slots, gradients, strict=True) if gradient is None]
    assert not unused, f"the output does not depend on {unused[0]!r}"


def computes_with_sketched_weights_what_it_would_with_those_they_stand_for(plugin: Any) -> None:
    """Its layers are handed sketched weights and inputs: loss and gradient are those at `up` of the sketch."""
    for shape, module in _built(plugin):
        pair, key, labels = CountSketch().bind(layout_of(module)), bytes(16), torch.arange(4) % CLASSES
        z_S = pair.down(nn.utils.parameters_to_vector(module.parameters()).detach(), key).requires_grad_()
        up_D = pair.up(z_S, key).split_with_sizes([slot.size for slot in layout_of(module)])
        there = {slot.name: part.view(slot.shape) for slot, part in zip(layout_of(module), up_D, strict=True)}
        whole = nn.functional.cross_entropy(torch.func.functional_call(module, there, (_images(4, shape),)), labels)
        (expected_S,) = torch.autograd.grad(whole, z_S)
        with Sketched(module, pair, key, z_S.detach()).standing() as sketched:
            sketched.refresh()
            loss = nn.functional.cross_entropy(module(_images(4, shape)), labels)
            found = sketched.folded(torch.autograd.grad(loss, list(module.parameters())))
        found_S = torch.cat([gradient.reshape(-1) for gradient in found])
        assert torch.allclose(loss, whole, rtol=1e-4), f"its loss is {float(loss):.6g}, and {float(whole):.6g} at up"
        off = float((found_S - expected_S).norm() / expected_S.norm())
        assert off <= 1e-3, f"its gradient is off by {off:.2g} of its norm: read weights by calling their layers"


def has_the_same_layout_each_time_it_is_built(plugin: Any) -> None:
    """Peers build it, each for itself, and exchange flat vectors."""
    (_, first), (_, again) = next(_built(plugin)), next(_built(plugin))
    assert layout_of(first) == layout_of(again), "built twice it has other parameters"
    plugin.draw(first, _generator(3))
    drawn_D = nn.utils.parameters_to_vector(first.parameters())
    assert len(drawn_D) == sum(slot.size for slot in layout_of(again)), "drawing its parameters changes how many it has"


def _built(plugin: Model) -> Iterator[tuple[tuple[int, int, int], nn.Module]]:
    """The drawn module of each shape that it takes."""
    for shape in SHAPES:
        try:
            module = plugin.build(shape, CLASSES)
        except (ValueError, ScenarioError):
            continue
        plugin.draw(module, _generator(3))
        yield shape, module


def _images(count: int, shape: tuple[int, int, int]) -> Tensor:
    return torch.randn(count, *shape, generator=_generator(5))


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
