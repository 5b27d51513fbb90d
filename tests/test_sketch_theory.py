"""What the papers prove of sketches, held against the matrix S itself: over many keys, and over every S of a tiny size.

Source: Wang & Zhang, "Matrix Sketching for Secure Collaborative Machine Learning" (DBCL), section 6 and appendix B.
Shapes: d columns, s of the sketch, N matrices drawn; W_old, W_new of 3 x d and V of 2 x d.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import struct
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from statistics import NormalDist

import pytest
import scipy.linalg
import scipy.stats
import torch
from torch import Tensor

from p2pfl import plugins
from p2pfl.contracts import Pair, Sketch, Slot
from p2pfl.sketches import gaussian
from p2pfl.sketches.gaussian import Gaussian
from p2pfl.sketches.hadamard import Hadamard

DRAWS, FEW = 3000, 1500
ERRORS = 6.0
"""A mean over keys may be so many of its standard errors away from what is proven."""
SIZES = [(12, 6), (12, 5), (7, 3)]
TINY = [(3, 2), (4, 2), (5, 2), (4, 3), (3, 3)]
KEYED = [name for name in plugins.names("sketches") if plugins.build("sketches", name, {}).keyed]


pytestmark = pytest.mark.usefixtures("one_thread")


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def bound(sketch: Sketch, d: int) -> Pair:
    return sketch.bind((Slot("w", (d, d)),))


@cache
def drawn(name: str, d: int, s: int, draws: int = DRAWS, **options: object) -> Tensor:
    """S of many keys, N x d x s: what the sketch makes of the identity."""
    pair = bound(plugins.build("sketches", name, {"ratio": s / d, **options}), d)
    eye_D = torch.eye(d, dtype=torch.float64).flatten()
    return torch.stack([pair.down(eye_D, struct.pack("<QQ", n, 0)).view(d, s) for n in range(draws)])


def squared(s_Nds: Tensor) -> Tensor:
    """S S^T, N x d x d."""
    return s_Nds @ s_Nds.transpose(1, 2)


# Who shall be drawn: every S there is, each as likely as any other


def plain(d: int, s: int) -> Iterator[Tensor]:
    """CountSketch as published: d buckets and d signs, all independent."""
    for bucket_d, sign_d in itertools.product(itertools.product(range(s), repeat=d), signs(d)):
        yield entries({(i, bucket_d[i]): sign_d[i] for i in range(d)}, d, s)


def balanced(d: int, s: int) -> Iterator[Tensor]:
    """Blocks of s columns (the last may be shorter), each laid around the circle of buckets from a place of its own."""
    blocks = -(-d // s)
    for offsets, sign_d in itertools.product(itertools.product(range(s), repeat=blocks), signs(d)):
        yield entries({(i, (i + offsets[i // s]) % s): sign_d[i] for i in range(d)}, d, s)


def sampling(d: int, s: int) -> Iterator[Tensor]:
    """s of the d columns, times sqrt(d/s)."""
    for chosen in itertools.combinations(range(d), s):
        yield entries({(i, k): math.sqrt(d / s) for k, i in enumerate(chosen)}, d, s)


def hadamard(d: int, s: int) -> Iterator[Tensor]:
    """sqrt(d'/s) E D H P: every choice of signs and columns."""
    padded = padded_of(d)
    h = torch.tensor(scipy.linalg.hadamard(padded)[:d] / math.sqrt(padded))
    for chosen, sign_d in itertools.product(itertools.combinations(range(padded), s), signs(d)):
        yield math.sqrt(padded / s) * torch.tensor(sign_d, dtype=torch.float64)[:, None] * h[:, list(chosen)]


@cache
def every(variant: str, d: int, s: int) -> Tensor:
    """S S^T of every S there is, N x d x d."""
    return squared(torch.stack(list(FAMILIES[variant](d, s))))


def signs(d: int) -> Iterator[tuple[float, ...]]:
    return itertools.product((-1.0, 1.0), repeat=d)


def entries(at: dict[tuple[int, int], float], d: int, s: int) -> Tensor:
    s_ds = torch.zeros(d, s, dtype=torch.float64)
    for place, number in at.items():
        s_ds[place] = number
    return s_ds


def padded_of(d: int) -> int:
    return next(2**power for power in range(d + 1) if 2**power >= d)


# What is proven: E (a^T S S^T b - a . b)^2, and E |W S S^T - W|^2 over |W|^2

Variance = Callable[[Tensor, Tensor, int], float]


def lemma_5(a_d: Tensor, b_d: Tensor, chance: Callable[[int, int], float]) -> float:
    """The sum over k != l of a_k^2 b_l^2 + a_k b_k a_l b_l, each times the chance that k and l share a bucket."""
    a, b = a_d.tolist(), b_d.tolist()
    pairs = itertools.permutations(range(len(a)), 2)
    return sum(chance(k, m) * (a[k] ** 2 * b[m] ** 2 + a[k] * b[k] * a[m] * b[m]) for k, m in pairs)


def plain_variance(a_d: Tensor, b_d: Tensor, s: int) -> float:
    return lemma_5(a_d, b_d, lambda k, m: 1 / s)


def balanced_variance(a_d: Tensor, b_d: Tensor, s: int) -> float:
    return lemma_5(a_d, b_d, lambda k, m: 0 if k // s == m // s else 1 / s)


def hadamard_variance(a_d: Tensor, b_d: Tensor, s: int) -> float:
    padded = padded_of(len(a_d))
    return lemma_5(a_d, b_d, lambda k, m: (padded - s) / (s * (padded - 1)) if padded > 1 else 0)


def gaussian_variance(a_d: Tensor, b_d: Tensor, s: int) -> float:
    return float((a_d @ a_d) * (b_d @ b_d) + (a_d @ b_d) ** 2) / s


def sampling_variance(a_d: Tensor, b_d: Tensor, s: int) -> float:
    c_d, d = a_d * b_d, len(a_d)
    return d * (d - s) / (s * (d - 1)) * float(((c_d - c_d.mean()) ** 2).sum())


PROVEN: dict[str, tuple[str, dict[str, object], Variance]] = {
    "plain": ("countsketch", {"balanced": False}, plain_variance),
    "balanced": ("countsketch", {}, balanced_variance),
    "sampling": ("sampling", {}, sampling_variance),
    "hadamard": ("hadamard", {}, hadamard_variance),
    "gaussian": ("gaussian", {}, gaussian_variance),
}
FAMILIES = {"plain": plain, "balanced": balanced, "sampling": sampling, "hadamard": hadamard}
CONSTANTS: dict[str, Callable[[int, int], float]] = {
    "plain": lambda d, s: 1 - 1 / d,
    "balanced": lambda d, s: sum(1 - min(s, d - i // s * s) / d for i in range(d)) / d,
    "sampling": lambda d, s: 1 - s / d,
    "hadamard": lambda d, s: (1 - 1 / d) * (1 - (s - 1) / (padded_of(d) - 1)),
    "gaussian": lambda d, s: 1 + 1 / d,
}
"""c of Theorem 3 for columns of equal norm: E |W S S^T - W|^2 = c (d/s) |W|^2; `balanced` at s | d is 1 - s/d."""


def agrees(found_N: Tensor, expected: float) -> bool:
    """Whether the mean is what it should be, as far as so many draws can tell."""
    return abs(float(found_N.mean()) - expected) <= ERRORS * float(found_N.std()) / len(found_N) ** 0.5 + 1e-12


def drawn_as(variant: str, d: int, s: int, draws: int = DRAWS) -> Tensor:
    name, options, _ = PROVEN[variant]
    return squared(drawn(name, d, s, draws, **options))


def test_every_keyed_sketch_has_its_theorems_here() -> None:
    assert {name for name, _, _ in PROVEN.values()} == set(KEYED)
    assert set(CONSTANTS) == set(PROVEN)


@pytest.mark.parametrize("variant", FAMILIES)
@pytest.mark.parametrize(("d", "s"), TINY)
def test_the_theorems_hold_to_the_last_digit_over_every_matrix_there_is(variant: str, d: int, s: int) -> None:
    every_Ndd = every(variant, d, s)
    torch.testing.assert_close(every_Ndd.mean(0), torch.eye(d, dtype=torch.float64), rtol=0, atol=1e-12)
    a_d, b_d = numbers(d), numbers(d, seed=1)
    errors_N = (every_Ndd @ b_d @ a_d - a_d @ b_d) ** 2
    assert float(errors_N.mean()) == pytest.approx(PROVEN[variant][2](a_d, b_d, s), rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("variant", FAMILIES)
@pytest.mark.parametrize(("d", "s"), TINY)
def test_keys_draw_each_matrix_there_is_as_often_as_any_other(variant: str, d: int, s: int) -> None:
    def counted(products_Ndd: Tensor) -> Counter[tuple[float, ...]]:
        return Counter(tuple(round(x, 6) + 0.0 for x in each.flatten().tolist()) for each in products_Ndd)

    shares, seen = counted(every(variant, d, s)), counted(drawn_as(variant, d, s, FEW))
    assert set(seen) <= set(shares)
    expected = {each: FEW * share / shares.total() for each, share in shares.items()}
    chi2 = sum((seen[each] - count) ** 2 / count for each, count in expected.items())
    assert len(shares) == 1 or scipy.stats.chi2.sf(chi2, len(shares) - 1) > 1e-6


@pytest.mark.parametrize("name", KEYED)
@pytest.mark.parametrize(("d", "s"), [*SIZES, (5, 1)])
def test_the_expectation_of_s_s_transposed_is_the_identity(name: str, d: int, s: int) -> None:
    products_Ndd = squared(drawn(name, d, s))
    error_dd = products_Ndd.std(0) / DRAWS**0.5
    assert ((products_Ndd.mean(0) - torch.eye(d)).abs() <= ERRORS * error_dd + 1e-9).all()


@pytest.mark.parametrize("variant", PROVEN)
@pytest.mark.parametrize(("d", "s"), SIZES)
def test_the_variance_of_a_product_is_the_one_that_is_proven(variant: str, d: int, s: int) -> None:
    a_d, b_d = numbers(d), numbers(d, seed=1)
    assert agrees((drawn_as(variant, d, s) @ b_d @ a_d - a_d @ b_d) ** 2, PROVEN[variant][2](a_d, b_d, s))


def test_the_balanced_sketch_has_about_half_the_noise_of_the_published_one_at_half_the_columns() -> None:
    a_d, b_d = numbers(400), numbers(400, seed=1)
    assert balanced_variance(a_d, b_d, 200) / plain_variance(a_d, b_d, 200) == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("variant", PROVEN)
@pytest.mark.parametrize(("d", "s"), SIZES)
def test_what_two_rounds_tell_of_an_update_is_off_by_the_noise_of_both(variant: str, d: int, s: int) -> None:
    old_Ndd, new_Ndd = drawn_as(variant, d, s).chunk(2)  # Lemma 4 and Theorem 1
    w_old, w_new, v = numbers(3, d), numbers(3, d, seed=1), numbers(2, d, seed=2)
    estimate_N = w_old @ old_Ndd - w_new @ new_Ndd
    errors_N = (((estimate_N - (w_old - w_new)) @ v.T) ** 2).sum((1, 2))
    rows = itertools.product([*w_old, *w_new], v)
    assert agrees(errors_N, sum(PROVEN[variant][2](w_d, v_d, s) for w_d, v_d in rows))


@pytest.mark.parametrize("variant", PROVEN)
def test_two_rounds_under_one_key_would_be_off_by_the_noise_of_the_update_alone(variant: str) -> None:
    d, s = SIZES[0]
    w_old, v_d = numbers(d), numbers(d, seed=2)
    w_new = w_old + 0.01 * numbers(d, seed=1)
    both_N = (w_old - w_new) @ drawn_as(variant, d, s) @ v_d
    assert agrees((both_N - (w_old - w_new) @ v_d) ** 2, PROVEN[variant][2](w_old - w_new, v_d, s))


@pytest.mark.parametrize("variant", PROVEN)
@pytest.mark.parametrize(("d", "s"), SIZES)
def test_theorem_3_has_this_constant(variant: str, d: int, s: int) -> None:
    old_Ndd, new_Ndd = drawn_as(variant, d, s).chunk(2)
    w_old, w_new = numbers(3, d).sign(), numbers(3, d, seed=1).sign()  # columns of equal norm
    errors_N = ((w_old @ old_Ndd - w_new @ new_Ndd - (w_old - w_new)) ** 2).sum((1, 2))
    both = float((w_old**2).sum() + (w_new**2).sum())
    assert agrees(errors_N, CONSTANTS[variant](d, s) * d / s * both)
    everywhere = sum(PROVEN[variant][2](w_old[0], unit_d, s) for unit_d in torch.eye(d, dtype=torch.float64))
    assert everywhere == pytest.approx(CONSTANTS[variant](d, s) * d / s * float(w_old[0] @ w_old[0]))


@pytest.mark.parametrize("variant", PROVEN)
def test_at_half_the_columns_a_guess_of_zero_is_nearer_to_a_small_update_than_the_estimate(variant: str) -> None:
    d, s = SIZES[0]
    old_Ndd, new_Ndd = drawn_as(variant, d, s).chunk(2)
    w_d = numbers(d)
    delta_d = 0.1 * numbers(d, seed=1)
    estimate_Nd = w_d @ old_Ndd - (w_d - delta_d) @ new_Ndd
    assert float(((estimate_Nd - delta_d) ** 2).sum(1).mean()) > 10 * float(delta_d @ delta_d)


@pytest.mark.parametrize(("d", "s"), [(1, 1), (6, 6), (33, 33)])
def test_with_as_many_buckets_as_columns_the_balanced_sketch_has_no_noise_at_all(d: int, s: int) -> None:
    eye_dd = torch.eye(d, dtype=torch.float64)
    assert torch.equal(squared(drawn("countsketch", d, s, draws=50)), eye_dd.expand(50, d, d))
    assert balanced_variance(numbers(d), numbers(d, seed=1), s) == 0
    assert CONSTANTS["balanced"](d, s) == 0
    if d > 1:
        assert not torch.equal(squared(drawn("countsketch", d, s, draws=50, balanced=False)), eye_dd.expand(50, d, d))


# The Gaussian sketch


def test_gaussian_entries_are_the_quantiles_that_plain_python_looks_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gaussian, "ENTRIES", 12)  # three rows of four a block
    gaussian.block.cache_clear()
    d, s, key = 8, 4, b"a key of 16 byte"
    scale = math.sqrt(sum(NormalDist().inv_cdf((n + 0.5) / 65536) ** 2 for n in range(65536)) / 65536)
    rows = []
    for number in range(3):
        text = hashlib.shake_256(key + bytes(4) + struct.pack("<I", number)).digest(24)
        words = struct.unpack("<12H", text)
        rows += [[NormalDist().inv_cdf((n + 0.5) / 65536) / scale for n in words[i : i + 4]] for i in (0, 4, 8)]
    s_ds = torch.tensor(rows[:d], dtype=torch.float64) / math.sqrt(s)
    pair = bound(Gaussian(ratio=s / d), d)
    found_ds = pair.down(torch.eye(d, dtype=torch.float64).flatten(), key).view(d, s)
    torch.testing.assert_close(found_ds, s_ds, rtol=1e-6, atol=1e-9)
    z_S = numbers(d * s)
    torch.testing.assert_close(pair.up(z_S, key), (z_S.view(d, s) @ found_ds.T).flatten())
    gaussian.block.cache_clear()


def test_the_quantiles_are_those_of_the_normal_law_the_same_on_every_machine_and_library_version() -> None:
    table = gaussian.quantiles()
    assert hashlib.sha256(table.astype("<f4").tobytes()).hexdigest()[:16] == "8babbcaf96568f10"
    wide = table.astype("f8")
    assert abs(float(wide.mean())) < 1e-12
    assert float((wide**2).mean()) == pytest.approx(1, abs=1e-8)
    assert float((wide**4).mean()) == pytest.approx(3, abs=1e-3)
    ranks = (torch.arange(65536, dtype=torch.float64) + 0.5) / 65536
    torch.testing.assert_close(torch.as_tensor(wide), torch.special.ndtri(ranks), rtol=1e-4, atol=0)


def test_a_gaussian_pull_is_damped_by_what_leaves_the_smallest_error() -> None:
    d, s = 12, 5
    x_d, y_d = numbers(d), numbers(d, seed=1)
    moves_Nd = (y_d - x_d) @ drawn_as("gaussian", d, s)
    square = float(((y_d - x_d) ** 2).sum())
    pair, key, best = bound(Gaussian(ratio=s / d), d), b"key", s / (d + s + 1)
    z_S = numbers(d * s)
    torch.testing.assert_close(pair.pull(z_S, key), best * pair.up(z_S, key))
    left = {}
    for c in (0.5 * best, best, 1.5 * best):
        errors_N = ((x_d + c * moves_Nd - y_d) ** 2).sum(1)
        assert agrees(errors_N, square * (1 - 2 * c + c**2 * (d + s + 1) / s))
        left[c] = float(errors_N.mean())
    assert min(left, key=left.__getitem__) == best
    assert left[best] == pytest.approx(square * (1 - best), rel=0.02)


@pytest.mark.parametrize("wanted", [False, True], ids=["plain", "with a gradient"])
def test_no_more_than_a_few_blocks_of_a_gaussian_matrix_are_ever_in_memory(wanted: bool) -> None:
    d, s = 6000, 3000  # 72 MB in all
    pair = Gaussian().bind((Slot("w", (2, d)),))
    x_D = numbers(2 * d).float().requires_grad_(wanted)
    gaussian.quantiles()
    tracemalloc.start()
    z_S = pair.down(x_D, b"key")
    if wanted:
        (gradient_D,) = torch.autograd.grad((pair.up(z_S, b"key") ** 2).sum() / 2, x_D)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 4 * d * s / 2
    plain_D, gradient = x_D.detach(), pair.up(pair.down(x_D.detach(), b"key"), b"key")
    torch.testing.assert_close(z_S.detach(), pair.down(plain_D, b"key"))
    if wanted:
        expected_D = pair.up(pair.down(gradient, b"key"), b"key")
        torch.testing.assert_close(gradient_D, expected_D, rtol=1e-4, atol=1e-3)


# The Hadamard sketch


@pytest.mark.parametrize(("d", "s"), [(1, 1), (7, 3), (8, 4), (9, 9), (25, 12), (64, 20)])
def test_the_hadamard_sketch_is_the_product_of_its_four_matrices(d: int, s: int) -> None:
    padded = padded_of(d)
    key = b"a key of 16 byte"
    text = hashlib.shake_256(key + bytes(4)).digest(8 * padded)
    words = struct.unpack(f"<{padded}Q", text)
    order = sorted(range(padded), key=lambda j: (words[j] >> padded.bit_length(), j))[:s]
    sign_dd = torch.diag(torch.tensor([-1.0 if word & 1 else 1.0 for word in words], dtype=torch.float64))
    h = torch.tensor(scipy.linalg.hadamard(padded) / math.sqrt(padded))
    pick = torch.eye(padded, dtype=torch.float64)[:, order]
    s_ds = math.sqrt(padded / s) * torch.eye(d, padded, dtype=torch.float64) @ sign_dd @ h @ pick
    pair = bound(Hadamard(ratio=s / d, relaxation=1.0), d)
    x, z = numbers(d, d), numbers(d, s, seed=1)
    torch.testing.assert_close(pair.down(x.flatten(), key).view(d, s), x @ s_ds)
    torch.testing.assert_close(pair.up(z.flatten(), key).view(d, d), z @ s_ds.T)
    torch.testing.assert_close(pair.pull(z.flatten(), key).view(d, d), s / padded * z @ s_ds.T)
    for go, given in ((pair.down, x), (pair.up, z)):
        narrow = go(given.float().flatten(), key)
        torch.testing.assert_close(narrow.double(), go(given.flatten(), key), rtol=1e-4, atol=1e-5)


def test_where_d_is_a_power_of_two_a_hadamard_pull_is_a_projection() -> None:
    pair = bound(Hadamard(relaxation=1.0), 16)
    x_D = numbers(256)
    once_D = pair.pull(pair.down(x_D, b"key"), b"key")
    torch.testing.assert_close(pair.pull(pair.down(once_D, b"key"), b"key"), once_D)
