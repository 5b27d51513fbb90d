"""What every sketch keeps to: its pair of maps is linear, adjoint, unbiased over keys, and never pulls too far.

Source: Wang & Zhang, "Matrix Sketching for Secure Collaborative Machine Learning" (DBCL), section 2: E[S S^T] = I.
Shapes: D parameters, S numbers on the wire.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from p2pfl.conformance import _randomness
from p2pfl.contracts import Layout, Pair, Slot

KEYS = [bytes([number]) * 16 for number in range(4)]
DRAWS = 600
ERRORS = 6.0
"""A mean over keys may be so many of its standard errors away from what it estimates."""
MLP: Layout = (
    Slot("hidden.weight", (6, 20)),
    Slot("hidden.bias", (6,)),
    Slot("output.weight", (3, 6), output=True),
    Slot("output.bias", (3,), output=True),
)
ODD: Layout = (Slot("conv.weight", (4, 3, 3, 3)), Slot("conv.bias", (4,)), Slot("thin.weight", (5, 1)))
TALL: Layout = (Slot("tall.weight", (300, 131)), Slot("output.weight", (2, 2), output=True))


def sends_at_least_one_number_and_no_more_than_there_are(plugin: Any) -> None:
    """S, and the lengths of what its maps give."""
    assert isinstance(plugin.keyed, bool), f"keyed is {plugin.keyed!r}: it must be true or false"
    assert 0 < plugin.reach < 2, f"reach is {plugin.reach!r}: it must be 1, or how far beyond a projection a pull goes"
    for layout in (MLP, ODD, TALL):
        pair, size = plugin.bind(layout), _size(layout)
        assert 0 < pair.size <= size, f"of {size} parameters it sends {pair.size} numbers"
        for key in _keys(plugin):
            down, up = pair.down(_numbers(size), key), pair.up(_numbers(pair.size), key)
            assert down.shape == (pair.size,), f"size is {pair.size}, but down gives {tuple(down.shape)}"
            assert up.shape == (size,), f"of {size} parameters up gives {tuple(up.shape)}"


def has_an_up_that_is_the_transpose_of_its_down(plugin: Any) -> None:
    """<down(x), z> = <x, up(z)>: else the gradient in the sketched space is not that of the loss."""
    for pair, size, key in _bound(plugin):
        x_D, z_S = _numbers(size), _numbers(pair.size, 1)
        left, right = float(pair.down(x_D, key) @ z_S), float(x_D @ pair.up(z_S, key))
        assert abs(left - right) <= 1e-6 * (1 + abs(left)), f"<down(x), z> is {left:.6g}, <x, up(z)> is {right:.6g}"


def has_linear_maps(plugin: Any) -> None:
    """Of sums the sums: peers sketch apart what is subtracted and averaged later."""
    for pair, size, key in _bound(plugin):
        for name, count in (("down", size), ("up", pair.size), ("pull", pair.size)):
            go, a, b = getattr(pair, name), _numbers(count), _numbers(count, 1)
            same = torch.allclose(go(2.5 * a - 0.5 * b, key), 2.5 * go(a, key) - 0.5 * go(b, key), atol=1e-9)
            assert same, f"{name}(2.5 a - 0.5 b) is not 2.5 {name}(a) - 0.5 {name}(b)"


def is_unbiased_over_its_keys(plugin: Any) -> None:
    """The mean of up(down(x)) over many keys is x; without keys each is."""
    for layout in (MLP, ODD):
        pair, x_D = plugin.bind(layout), _numbers(_size(layout))
        keys = [number.to_bytes(16, "little") for number in range(DRAWS)] if plugin.keyed else [b""]
        found_ND = torch.stack([pair.up(pair.down(x_D, key), key) for key in keys])
        error_D = found_ND.std(0, correction=0) / len(keys) ** 0.5
        off = float(((found_ND.mean(0) - x_D).abs() - ERRORS * error_D).max())
        assert off <= 1e-6, f"the mean of up(down(x)) over {len(keys)} keys is {off:.3g} further from x than chance"


def never_pulls_beyond_where_it_is_pulled_to(plugin: Any) -> None:
    """x + pull(down(y) - down(x)) is no further from y than x was: peers come together."""
    for pair, size, key in _bound(plugin):
        x_D, y_D = _numbers(size), _numbers(size, 1)
        moved_D = x_D + pair.pull(pair.down(y_D, key) - pair.down(x_D, key), key)
        apart, left = float((y_D - x_D).norm()), float((y_D - moved_D).norm())
        assert left <= apart * (1 + 1e-9), f"a pull from {apart:.4g} away ends {left:.4g} away: it drives peers apart"


def is_a_function_of_its_key(plugin: Any) -> None:
    """Both ends of a link draw the maps, each for itself; and another key gives other maps."""
    x_D = _numbers(_size(MLP)).float()
    with _randomness.left_alone():
        once, again = ([plugin.bind(MLP).down(x_D, key) for key in _keys(plugin)] for _ in range(2))
    assert all(map(torch.equal, once, again)), "the same key gives another sketch the second time"
    assert not any(torch.equal(once[0], other) for other in once[1:]), "two keys give one sketch: use the key"


def alters_nothing_it_is_given_and_keeps_its_dtype(plugin: Any) -> None:
    """Vectors belong to others."""
    for pair, size, key in _bound(plugin):
        for name, count in (("down", size), ("up", pair.size), ("pull", pair.size)):
            for dtype in (torch.float32, torch.float64):
                given = _numbers(count).to(dtype)
                before = given.clone()
                made = getattr(pair, name)(given, key)
                assert made.dtype == dtype, f"of {dtype} {name} makes {made.dtype}"
                assert torch.equal(given, before), f"{name} alters the vector that it is given"


def _bound(plugin: Any) -> Iterator[tuple[Pair, int, bytes]]:
    """Its pair on each layout, D, and a key."""
    for layout in (MLP, ODD, TALL):
        pair: Pair = plugin.bind(layout)
        for key in _keys(plugin)[: 2 if layout is TALL else None]:
            yield pair, _size(layout), key


def _keys(plugin: Any) -> list[bytes]:
    return KEYS if plugin.keyed else [b""]


def _size(layout: Layout) -> int:
    return sum(slot.size for slot in layout)


def _numbers(count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
