"""Sketches: what every pair of maps keeps to, and that each is the matrix that the papers define.

Shapes: D parameters, S numbers on the wire, d columns, s buckets.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import struct
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from p2pfl import plugins
from p2pfl.contracts import Layout, Pair, Sketch, Slot
from p2pfl.seeds import Seeds
from p2pfl.sketches import _hashing, gaussian, hadamard, sampling
from p2pfl.sketches._hashing import Hash, draw
from p2pfl.sketches.countsketch import CountSketch
from p2pfl.sketches.sampling import Sample, Sampling

CPU = torch.device("cpu")
BUCKETS = [0, 1, 2, 3, 4, 3, 4, 0, 1, 2, 2, 3]
SIGNS = [1.0, 1.0, -1.0, 1.0, 1.0, -1.0, -1.0, -1.0, 1.0, -1.0, -1.0, -1.0]
WIDE = "c7f0101203056eb8"
"""What key and width give, written down once and for all."""
KEYS = [bytes([number]) * 16 for number in range(4)]
MLP: Layout = (
    Slot("hidden.weight", (6, 20)),
    Slot("hidden.bias", (6,)),
    Slot("output.weight", (3, 6), output=True),
    Slot("output.bias", (3,), output=True),
)
ODD: Layout = (Slot("conv.weight", (4, 3, 3, 3)), Slot("conv.bias", (4,)), Slot("thin.weight", (5, 1)))
TALL: Layout = (Slot("tall.weight", (2300, 131)), Slot("output.weight", (2, 2), output=True))
SMALL: Layout = (Slot("w", (2, 7)), Slot("b", (2,)), Slot("output.weight", (2, 2), output=True))
LAYOUTS = {"mlp": MLP, "odd": ODD, "tall": TALL}
OPTIONS = {
    "countsketch": [
        {},
        {"ratio": 0.3},
        {"ratio": 1.0},
        {"ratio": 1e-6},
        {"ratio": 0.02},
        {"balanced": False},
        {"ratio": 0.3, "balanced": False},
        {"ratio": 1e-6, "balanced": False},
    ],
    "sampling": [{}, {"ratio": 0.3}, {"ratio": 1.0}, {"ratio": 0.02}],
    "hadamard": [{}, {"ratio": 0.3}, {"ratio": 1.0}, {"ratio": 0.02}, {"ratio": [0.1, 0.7], "relaxation": 0.5}],
    "gaussian": [{}, {"ratio": 0.3}, {"ratio": 0.02}, {"ratio": [0.1, 0.7], "relaxation": 0.5}],
}
PROJECTING = ("countsketch", "dense", "sampling")
"""Sketches whose pull after down is a projection; that of others is damped otherwise."""
CASES = [
    pytest.param((name, options), id=f"{name} {options}")
    for name in plugins.names("sketches")
    for options in OPTIONS.get(name, [{}])
]


@pytest.fixture(params=CASES)
def sketch(request: pytest.FixtureRequest) -> Sketch:
    name, options = request.param
    built: Sketch = plugins.build("sketches", name, options)
    return built


@pytest.fixture(params=LAYOUTS)
def layout(request: pytest.FixtureRequest) -> Layout:
    return LAYOUTS[request.param]


def numbers(count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def size_of(layout: Layout) -> int:
    return sum(slot.size for slot in layout)


def keys_for(sketch: Sketch) -> list[bytes]:
    return KEYS if sketch.keyed else [b""]


def unrelaxed(sketch: Sketch) -> Sketch:
    return dataclasses.replace(sketch, relaxation=1.0) if sketch.keyed else sketch  # type: ignore[type-var]


# What every sketch keeps to


@pytest.mark.parametrize("sketch", [case for case in CASES if case.values[0][0] != "dense"], indirect=True)
def test_a_relaxed_pull_goes_as_far_as_the_sketch_says_in_what_is_sketched(sketch: Sketch, layout: Layout) -> None:
    pair, plain = sketch.bind(layout), unrelaxed(sketch).bind(layout)
    whole_D = torch.cat([torch.full((slot.size,), slot.output or len(slot.shape) < 2) for slot in layout])
    z_S = numbers(pair.size)
    for key in keys_for(sketch):
        far_D, near_D = pair.pull(z_S, key), plain.pull(z_S, key)
        reach_D = torch.cat([torch.full((slot.size,), bearable(slot, sketch, pair)) for slot in layout])
        torch.testing.assert_close(far_D, torch.where(whole_D, near_D, reach_D * near_D))


def bearable(slot: Slot, sketch: Sketch, pair: Pair) -> float:
    """How far a matrix of this sketch is pulled: less where rounding sends more of it than the ratio says."""
    d, s = slot.size // slot.shape[0], pair.widths[pair.layout.index(slot)]  # type: ignore[attr-defined]
    return float(min(sketch.reach, max(1.0, 0.99 * d / s))) if s else 1.0


@pytest.mark.parametrize(("ratio", "reach"), [(0.5, 1.5), (0.1, 1.5), (0.75, 7 / 6), (1.0, 1.0), ((0.4, 0.8), 1.5)])
def test_a_pull_is_relaxed_by_default_but_less_where_most_columns_travel(ratio: Any, reach: float) -> None:
    assert CountSketch(ratio).reach == pytest.approx(reach)


@pytest.mark.parametrize(("ratio", "relaxation"), [(0.5, 2.0), (0.25, 4.0), (0.25, 2.0), (0.8, 1.25), (1.0, 1.1)])
def test_an_undamped_pull_is_refused(ratio: float, relaxation: float) -> None:
    with pytest.raises(ValueError, match=r"relaxation must be below .* drift apart"):
        CountSketch(ratio, relaxation=relaxation)
    CountSketch(ratio, relaxation=0.99 * min(2, 1 / ratio))


def test_a_pull_never_drives_apart_and_takes_no_side(sketch: Sketch, layout: Layout) -> None:
    pair = sketch.bind(layout)
    x_D, y_D = numbers(size_of(layout)), numbers(size_of(layout), seed=1)
    for key in keys_for(sketch):
        moved_D = x_D + pair.pull(pair.down(y_D, key) - pair.down(x_D, key), key)
        assert (moved_D - y_D).norm() <= (x_D - y_D).norm() * (1 + 1e-12)
        px_D, py_D = (pair.pull(pair.down(each_D, key), key) for each_D in (x_D, y_D))
        torch.testing.assert_close(px_D @ y_D, x_D @ py_D)


@pytest.mark.parametrize("sketch", [case for case in CASES if case.values[0][0] in PROJECTING], indirect=True)
def test_an_unrelaxed_pull_after_down_is_an_orthogonal_projection(sketch: Sketch, layout: Layout) -> None:
    pair = unrelaxed(sketch).bind(layout)
    a_D, b_D = numbers(size_of(layout)), numbers(size_of(layout), seed=1)
    for key in keys_for(sketch):
        pa_D, pb_D = (pair.pull(pair.down(x_D, key), key) for x_D in (a_D, b_D))
        torch.testing.assert_close(pair.pull(pair.down(pa_D, key), key), pa_D)
        torch.testing.assert_close(pa_D @ b_D, a_D @ pb_D)
        assert pa_D.norm() <= a_D.norm() * (1 + 1e-12)


def test_a_sketch_is_a_function_of_its_key(sketch: Sketch, layout: Layout) -> None:
    x_D = numbers(size_of(layout)).float()
    for key in keys_for(sketch):
        once = sketch.bind(layout).down(x_D, key)
        draw.cache_clear()
        for forget in (sampling.draw, hadamard.draw, gaussian.block):
            forget.cache_clear()
        again = sketch.bind(layout).down(x_D.clone(), key)
        assert torch.equal(once, again)
    sketched = [sketch.bind(layout).down(x_D, key) for key in keys_for(sketch)]
    assert not any(torch.equal(sketched[0], other) for other in sketched[1:])


def test_biases_and_the_output_layer_travel_whole(sketch: Sketch, layout: Layout) -> None:
    pair = sketch.bind(layout)
    key = keys_for(sketch)[0]
    whole_D = torch.cat(
        [torch.full((slot.size,), float(slot.output or len(slot.shape) < 2), dtype=torch.float64) for slot in layout]
    )
    x_D = numbers(size_of(layout))
    for go in (pair.up, pair.pull):
        torch.testing.assert_close(go(pair.down(x_D, key), key) * whole_D, x_D * whole_D, rtol=0, atol=0)


def test_a_row_of_a_matrix_is_sketched_alike_in_every_matrix_height(sketch: Sketch) -> None:
    rows_RD = numbers(3000 * 90).view(3000, 90)  # more numbers than are worked on at once
    tall, flat = (sketch.bind((Slot("w", (rows, 90)),)) for rows in (3000, 1))
    key = keys_for(sketch)[0]
    sketched = tall.down(rows_RD.flatten(), key).view(3000, -1)
    for row in (0, 1, 1456, 2912, 2999):
        torch.testing.assert_close(sketched[row], flat.down(rows_RD[row], key), rtol=1e-12, atol=1e-12)
        spread_RD = tall.up(sketched.flatten(), key).view(3000, 90)
        torch.testing.assert_close(spread_RD[row], flat.up(sketched[row], key), rtol=1e-12, atol=1e-12)


def test_maps_can_be_differentiated_as_often_as_one_likes(sketch: Sketch) -> None:
    pair = sketch.bind(SMALL)
    key = keys_for(sketch)[0]
    for go, size in ((pair.down, size_of(SMALL)), (pair.up, pair.size), (pair.pull, pair.size)):
        given = numbers(size)
        wanting = given.clone().requires_grad_()
        torch.testing.assert_close(go(wanting, key).detach(), go(given, key), rtol=1e-12, atol=1e-12)
        assert torch.autograd.gradcheck(lambda x, go=go: go(x, key), wanting)
        assert torch.autograd.gradgradcheck(lambda x, go=go: go(x, key) ** 2, wanting)
        with torch.no_grad():
            assert torch.equal(go(wanting, key), go(given, key))


def test_gradients_of_functions_flow_through_up_and_come_out_as_down(sketch: Sketch) -> None:
    pair = sketch.bind(SMALL)
    key = keys_for(sketch)[0]
    z_S, targets_BD = numbers(pair.size), numbers(3 * size_of(SMALL), seed=2).view(3, -1)

    def loss(z_S: Tensor, target_D: Tensor) -> Tensor:
        return ((pair.up(z_S, key) - target_D) ** 2).sum() / 2

    each_BS = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(z_S, targets_BD)
    for row_S, target_D in zip(each_BS, targets_BD, strict=True):
        torch.testing.assert_close(row_S, pair.down(pair.up(z_S, key) - target_D, key))


@pytest.mark.parametrize("name", [name for name in plugins.names("sketches") if name != "dense"])
def test_of_two_ratios_every_round_draws_its_own_between_them_the_same_at_all_peers(name: str) -> None:
    sketch = plugins.build("sketches", name, {"ratio": [0.2, 0.6]})
    ratios = [sketch.in_round(Seeds.of(7), r).ratio for r in range(1, 200)]
    assert ratios == [sketch.in_round(Seeds.of(7), r).ratio for r in range(1, 200)]
    assert 0.2 <= min(ratios) < 0.22 < 0.58 < max(ratios) <= 0.6
    assert len(set(ratios)) == len(ratios)
    fixed = plugins.build("sketches", name, {"ratio": 0.3})
    assert fixed.in_round(Seeds.of(7), 1) == fixed


# CountSketch


def dense(pair: Pair, go: Callable[[Tensor, bytes], Tensor], count: int, key: bytes) -> Tensor:
    """The matrix of a linear map, from what it does to every unit vector: one row each."""
    return torch.stack([go(unit, key) for unit in torch.eye(count, dtype=torch.float64)])


def matrix_of(hashed: Hash, s: int) -> Tensor:
    """S as the paper writes it, d x s: row i is zero but for a sign at one bucket."""
    s_ds = torch.zeros(len(hashed.sign_d), s, dtype=torch.float64)
    for i, (bucket, sign) in enumerate(zip(hashed.bucket_d.tolist(), hashed.sign_d.tolist(), strict=True)):
        s_ds[i, bucket] = sign
    return s_ds


def by_hand(key: bytes, slot: int, d: int, s: int) -> Tensor:
    """The balanced S in plain Python, from the first principles that its docstrings state."""
    text = hashlib.shake_256(key + struct.pack("<I", slot)).digest(8 * d)
    words = struct.unpack(f"<{d}Q", text)
    s_ds = torch.zeros(d, s, dtype=torch.float64)
    for i in range(d):
        block = i - i % s
        offset = (words[block] >> 1) % s if block else 0
        s_ds[i, (i - block + offset) % s] = -1.0 if words[i] & 1 else 1.0
    return s_ds


@pytest.mark.parametrize("balanced", [True, False])
@pytest.mark.parametrize(("d", "s"), [(20, 10), (25, 12), (7, 3), (9, 1), (40, 1), (100, 3), (6, 6), (1, 1)])
def test_down_up_and_pull_are_products_with_the_explicit_matrix(d: int, s: int, balanced: bool) -> None:
    pair = CountSketch(ratio=s / d, balanced=balanced, relaxation=1.0).bind((Slot("w", (3, d)),))
    assert pair.size == 3 * s
    w, z = numbers(3 * d).view(3, d), numbers(3 * s, seed=1).view(3, s)
    for key in KEYS:
        s_ds = matrix_of(draw(key + bytes(4), d, s, balanced, CPU), s)
        load_s = s_ds.abs().sum(0).clamp(min=1)
        torch.testing.assert_close(pair.down(w.flatten(), key).view(3, s), w @ s_ds)
        torch.testing.assert_close(pair.up(z.flatten(), key).view(3, d), z @ s_ds.T)
        torch.testing.assert_close(pair.pull(z.flatten(), key).view(3, d), (z / load_s) @ s_ds.T)


def test_a_balanced_matrix_is_the_one_that_plain_python_draws() -> None:
    pair = CountSketch(ratio=0.4).bind((Slot("a", (1, 50)), Slot("b", (1, 31))))
    s_A, s_B = torch.split(dense(pair, pair.up, pair.size, KEYS[1]).T, [50, 31])
    assert torch.equal(s_A[:, :20], by_hand(KEYS[1], 0, 50, 20))
    assert torch.equal(s_B[:, 20:], by_hand(KEYS[1], 1, 31, 12))


def test_the_matrix_of_a_key_is_the_same_on_every_machine_and_library_version() -> None:
    drawn = draw(b"p2pfl", 12, 5, True, CPU)
    assert drawn.bucket_d.tolist() == BUCKETS
    assert drawn.sign_d.tolist() == SIGNS
    wide = draw(bytes(20), 25088, 12544, True, CPU)
    text = wide.bucket_d.numpy().astype("<i4").tobytes() + wide.sign_d.numpy().astype("<i4").tobytes()
    assert hashlib.sha256(text).hexdigest()[:16] == WIDE


@pytest.mark.parametrize(("d", "s"), [(20, 10), (25, 12), (7, 3), (9, 1), (784, 392), (33, 33)])
def test_balanced_loads_differ_by_at_most_one(d: int, s: int) -> None:
    for key in KEYS:
        load_s = matrix_of(draw(key, d, s, True, CPU), s).abs().sum(0)
        assert load_s.max() - load_s.min() <= 1
        assert load_s.sum() == d


def test_where_s_divides_d_a_pull_is_s_over_d_times_up() -> None:
    pair = CountSketch(ratio=0.25, relaxation=1.0).bind((Slot("w", (2, 20)),))
    z_S = numbers(pair.size)
    torch.testing.assert_close(pair.pull(z_S, KEYS[0]), 0.25 * pair.up(z_S, KEYS[0]))


def test_at_ratio_one_nothing_is_lost() -> None:
    pair = CountSketch(ratio=1.0).bind(ODD)
    x_D = numbers(size_of(ODD)).float()
    assert torch.equal(pair.up(pair.down(x_D, KEYS[0]), KEYS[0]), x_D)


def test_convolutions_are_sketched_along_channel_and_kernel_together() -> None:
    as_kernel = CountSketch().bind((Slot("conv.weight", (4, 3, 3, 3)),))
    as_matrix = CountSketch().bind((Slot("conv.weight", (4, 27)),))
    x_D = numbers(108)
    assert as_kernel.size == 4 * 14
    assert torch.equal(as_kernel.down(x_D, KEYS[0]), as_matrix.down(x_D, KEYS[0]))


def test_two_matrices_of_one_width_are_hashed_apart() -> None:
    pair = CountSketch().bind((Slot("a", (1, 40)), Slot("b", (1, 40))))
    a_S, b_S = pair.down(numbers(40).repeat(2), KEYS[0]).chunk(2)
    assert not torch.equal(a_S, b_S)


def test_few_wide_buckets_give_what_many_stretches_would(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = CountSketch(ratio=0.1).bind((Slot("w", (5, 300)),))
    x_D = numbers(1500)
    z_S = numbers(pair.size)
    down, up, pull = pair.down(x_D, KEYS[0]), pair.up(z_S, KEYS[0]), pair.pull(z_S, KEYS[0])
    draw.cache_clear()
    monkeypatch.setattr(_hashing, "MOST_RUNS", 0)
    torch.testing.assert_close(pair.down(x_D, KEYS[0]), down)
    torch.testing.assert_close(pair.up(z_S, KEYS[0]), up)
    torch.testing.assert_close(pair.pull(z_S, KEYS[0]), pull)
    draw.cache_clear()


# What the papers prove, over many keys: means within six of their standard errors


def products(d: int, s: int, balanced: bool, draws: int) -> Tensor:
    """S S^T of many keys: draws x d x d."""
    matrices = [matrix_of(draw(struct.pack("<Q", n), d, s, balanced, CPU), s) for n in range(draws)]
    s_Nds = torch.stack(matrices)
    return s_Nds @ s_Nds.transpose(1, 2)


def chances(d: int, s: int, balanced: bool) -> Tensor:
    """How likely it is that columns k and l share a bucket, d x d; never with itself."""
    block_d = torch.arange(d) // s if balanced else torch.arange(d)
    return (block_d[:, None] != block_d) / torch.tensor(s, dtype=torch.float64)


@pytest.mark.parametrize("balanced", [True, False])
@pytest.mark.parametrize(("d", "s"), [(8, 4), (7, 3)])
def test_the_expectation_of_s_s_transposed_is_the_identity(d: int, s: int, balanced: bool) -> None:
    draws = 3000
    made_Ndd = products(d, s, balanced, draws)
    assert torch.equal(made_Ndd.mean(0).diagonal(), torch.ones(d, dtype=torch.float64))
    chance_dd = chances(d, s, balanced)
    assert ((made_Ndd.mean(0) - torch.eye(d)).abs() <= 6 * (chance_dd / draws) ** 0.5).all()
    met_dd = made_Ndd.abs().mean(0) - torch.eye(d)
    assert ((met_dd - chance_dd).abs() <= 6 * (chance_dd * (1 - chance_dd) / draws) ** 0.5).all()


def lemma_5(a_d: Tensor, b_d: Tensor, chance_dd: Tensor) -> float:
    """sum over k != l of a_k^2 b_l^2 + a_k b_k a_l b_l, times the chance that k and l share a bucket."""
    d = len(a_d)
    pairs = [(k, m) for k in range(d) for m in range(d) if k != m]
    terms = (chance_dd[k, m] * (a_d[k] ** 2 * b_d[m] ** 2 + a_d[k] * b_d[k] * a_d[m] * b_d[m]) for k, m in pairs)
    return sum(map(float, terms))


@pytest.mark.parametrize(("d", "s"), [(12, 6), (11, 4)])
def test_the_variance_is_that_of_lemma_5_and_balanced_about_half(d: int, s: int) -> None:
    draws, found = 4000, {}
    a_d, b_d = numbers(d), numbers(d, seed=1)
    for balanced in (False, True):
        errors_N = (products(d, s, balanced, draws) @ b_d @ a_d - a_d @ b_d) ** 2
        standard_error = float(errors_N.std()) / draws**0.5
        assert abs(float(errors_N.mean()) - lemma_5(a_d, b_d, chances(d, s, balanced))) < 6 * standard_error
        found[balanced] = float(errors_N.mean())
    assert found[True] < 0.85 * found[False]


# Sampling

CHOSEN = [0, 11, 9, 7, 2]
FAR = "5bd90119266db34a"
"""What key and width give, written down once and for all."""


def sampling_matrix(sample: Sample) -> Tensor:
    """S as the paper writes it, d x s: column k is sqrt(d/s) times a unit vector."""
    d, s = len(sample.place_d), len(sample.chosen_s)
    s_ds = torch.zeros(d, s, dtype=torch.float64)
    for k, i in enumerate(sample.chosen_s.tolist()):
        s_ds[i, k] = (d / s) ** 0.5
    return s_ds


def sampled_by_hand(key: bytes, slot: int, d: int, s: int) -> list[int]:
    """The columns that travel, in plain Python, from the first principles that the docstrings state."""
    words = struct.unpack(f"<{d}Q", hashlib.shake_256(key + struct.pack("<I", slot)).digest(8 * d))
    return sorted(range(d), key=lambda i: (words[i] >> d.bit_length(), i))[:s]


@pytest.mark.parametrize(("d", "s"), [(20, 10), (25, 12), (7, 3), (9, 1), (40, 1), (100, 3), (6, 6), (1, 1)])
def test_sampling_is_a_product_with_scaled_unit_vectors_all_of_them_distinct(d: int, s: int) -> None:
    pair = Sampling(ratio=s / d, relaxation=1.0).bind((Slot("v", (2, 5)), Slot("w", (3, d))))
    ahead = 2 * pair.widths[0]
    assert pair.size == ahead + 3 * s
    w, z = numbers(3 * d).view(3, d), numbers(3 * s, seed=1).view(3, s)
    for key in KEYS:
        sample = sampling.draw(key + struct.pack("<I", 1), d, s, device=CPU)
        assert sample.chosen_s.tolist() == sampled_by_hand(key, 1, d, s)
        assert len(set(sample.chosen_s.tolist())) == s
        s_ds = sampling_matrix(sample)
        x_D, z_S = torch.cat([torch.zeros(10), w.flatten()]), torch.cat([torch.zeros(ahead), z.flatten()])
        torch.testing.assert_close(pair.down(x_D, key)[ahead:].view(3, s), w @ s_ds)
        torch.testing.assert_close(pair.up(z_S, key)[10:].view(3, d), z @ s_ds.T)
        torch.testing.assert_close(pair.pull(z_S, key)[10:].view(3, d), s / d * z @ s_ds.T)


def test_the_columns_of_a_key_are_the_same_on_every_machine_and_library_version() -> None:
    assert sampling.draw(b"p2pfl", 12, 5, device=CPU).chosen_s.tolist() == CHOSEN
    far = sampling.draw(bytes(20), 25088, 12544, device=CPU).chosen_s.numpy().astype("<i4").tobytes()
    assert hashlib.sha256(far).hexdigest()[:16] == FAR


def test_what_is_not_sampled_is_left_alone_and_what_is_arrives_exactly() -> None:
    pair = Sampling(ratio=0.25, relaxation=1.0).bind((Slot("w", (50, 40)),))
    x_D, y_D = numbers(2000).float(), numbers(2000, seed=1).float()
    moved_D = x_D + pair.pull(pair.down(y_D, KEYS[0]) - pair.down(x_D, KEYS[0]), KEYS[0])
    columns = sampled_by_hand(KEYS[0], 0, 40, 10)
    others = [i for i in range(40) if i not in columns]
    x_RD, y_RD, moved_RD = x_D.view(50, 40), y_D.view(50, 40), moved_D.view(50, 40)
    torch.testing.assert_close(moved_RD[:, columns], y_RD[:, columns])
    assert torch.equal(moved_RD[:, others], x_RD[:, others])


def sampled_products(d: int, s: int, draws: int) -> Tensor:
    """S S^T of many keys: draws x d x d."""
    keys = (struct.pack("<Q", n) for n in range(draws))
    s_Nds = torch.stack([sampling_matrix(sampling.draw(key, d, s, device=CPU)) for key in keys])
    return s_Nds @ s_Nds.transpose(1, 2)


@pytest.mark.parametrize(("d", "s"), [(8, 4), (7, 3), (5, 5)])
def test_the_expectation_of_sampling_is_the_identity_too(d: int, s: int) -> None:
    draws = 3000
    mean_dd = sampled_products(d, s, draws).mean(0)
    assert torch.equal(mean_dd, torch.diag(mean_dd.diagonal()))
    standard_error = (d / s) * (s / d * (1 - s / d) / draws) ** 0.5
    assert (mean_dd.diagonal() - 1).abs().max() <= 6 * standard_error + 1e-12


@pytest.mark.parametrize(("d", "s"), [(12, 6), (12, 3), (7, 6)])
def test_the_variance_of_sampling_is_that_of_a_finite_population(d: int, s: int) -> None:
    draws = 4000
    a_d, b_d = numbers(d), numbers(d, seed=1)
    c_d = a_d * b_d
    errors_N = (sampled_products(d, s, draws) @ b_d @ a_d - c_d.sum()) ** 2
    expected = d * (d - s) / (s * (d - 1)) * float(((c_d - c_d.mean()) ** 2).sum())
    assert abs(float(errors_N.mean()) - expected) < 6 * float(errors_N.std()) / draws**0.5
    every = itertools.combinations(range(d), s)  # all samples there are: the theorem to the last digit
    exact = torch.tensor([(d / s * float(c_d[list(chosen)].sum()) - float(c_d.sum())) ** 2 for chosen in every])
    assert float(exact.double().mean()) == pytest.approx(expected, rel=1e-5)
