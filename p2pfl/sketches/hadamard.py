"""A subsampled randomised Hadamard transform of every weight matrix along its input side: W -> W S.

Source: Ailon & Chazelle 2006, "Approximate nearest neighbors and the fast Johnson-Lindenstrauss transform"; Tropp 2011,
"Improved analysis of the subsampled randomized Hadamard transform". S = sqrt(d'/s) E D H P: E pads d columns with
zeros to d', the next power of two, D has random signs, H is the orthonormal Walsh-Hadamard matrix, P picks s of the d'
columns without replacement; so E[S S^T] = I. Every number sent mixes all columns, and no matrix is ever written down.

Variance: given the signs, a^T S S^T b is d' times the mean of a sample, of s of the d' numbers
c_j = (a E D H)_j (b E D H)_j whose sum is a . b; see sampling.py. Over the signs
E sum c_j^2 = (|a|^2 |b|^2 + 2 (a . b)^2 - 2 sum a_k^2 b_k^2) / d', which leaves (d' - s) / (s (d' - 1)) times the sum
over k != l of a_k^2 b_l^2 + a_k b_k a_l b_l: DBCL's Lemma 5 times (d' - s) / (d' - 1), at d' = 2 s half its noise.
Damping: `pull(z) = (s/d') z S^T` makes `pull(down(x))` a projection of R^d' seen in d of its dimensions: it is a
projection itself where d is a power of two, and else still never overshoots in any direction.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import numpy
import torch
from torch import Tensor

from p2pfl.contracts import Layout
from p2pfl.seeds import Seeds
from p2pfl.sketches import _adjoint, _options
from p2pfl.sketches._hashing import words
from p2pfl.sketches._matrices import Matrices, blocks
from p2pfl.sketches.sampling import shuffled


@dataclass(frozen=True)
class Hadamard:
    """`ratio` of the columns of the Hadamard transform of each weight matrix, of random signs, travel under a key.

    Layers in `plain` travel whole. Peers pull on each other `relaxation` times as far as what was sketched of their
    difference (1: just that; by default 1.5, less where more than half of the columns travel).
    """

    ratio: _options.Ratio = 0.5
    plain: tuple[str, ...] = ()
    relaxation: _options.Relaxation = None
    keyed: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _options.check_relaxation(self.relaxation, self.ratio)

    @property
    def reach(self) -> float:
        """How many times as far as a projection a pull goes."""
        return _options.reach(self.relaxation, self.ratio)

    def in_round(self, seeds: Seeds, r: int) -> Hadamard:
        """The sketch of a round, of one ratio."""
        return _options.in_round(self, self.ratio, seeds, r)

    def bind(self, layout: Layout) -> Matrices:
        """The maps for parameters of this layout. Raises ValueError when it has no layer of a name in `plain`."""
        return Matrices(layout, _options.widths(layout, self.ratio, self.plain), draw, self.reach)


@dataclass(frozen=True)
class Transform:
    """S of one matrix: column i takes `sign_d[i]`, and of the transform's `padded` columns `chosen_s` travel."""

    sign_d: Tensor
    chosen_s: Tensor
    padded: int

    def fold(self, x: Tensor, z: Tensor) -> None:
        """Fill `z` (rows x s) with `x S`."""
        for x_B, z_B in blocks(x, z):
            wide = x_B.new_zeros(self.padded, len(x_B))
            torch.mul(x_B.T, self.sign_d[:, None], out=wide[: len(self.sign_d)])
            transform(wide)
            torch.mul(wide.index_select(0, self.chosen_s).T, self._scale, out=z_B)

    def unfold(self, z: Tensor, x: Tensor, damped: bool) -> None:
        """Fill `x` (rows x d) with `z S^T`, or damped with `(s/d') z S^T`."""
        factor = self._scale * (self._damping if damped else 1.0)
        for x_B, z_B in blocks(x, z):
            wide = z_B.new_zeros(self.padded, len(z_B)).index_copy_(0, self.chosen_s, z_B.T)
            transform(wide)
            torch.mul(wide[: len(self.sign_d)].T, self.sign_d, out=x_B).mul_(factor)

    def folded(self, x: Tensor) -> Tensor:
        """`fold` for autograd."""
        return _adjoint.folded(self, x, len(self.chosen_s))

    def unfolded(self, z: Tensor, damped: bool) -> Tensor:
        """`unfold` for autograd."""
        up = _adjoint.unfolded(self, z, len(self.sign_d))
        return up * self._damping if damped else up

    @property
    def _scale(self) -> float:
        """sqrt(d'/s) / sqrt(d'), the latter of H."""
        return 1 / math.sqrt(len(self.chosen_s))

    @property
    def _damping(self) -> float:
        return len(self.chosen_s) / self.padded


def transform(wide: Tensor) -> None:
    """Multiply `wide` (d' x rows) from the left by the Hadamard matrix of entries +-1, in place.

    Columns come first, so that each butterfly runs through contiguous memory.
    """
    apart = 1
    while apart < len(wide):
        pairs = wide.view(-1, 2, apart * wide.shape[1])
        sums, differences = pairs[:, 0], pairs[:, 1]
        sums.add_(differences)
        torch.sub(sums, differences, alpha=2, out=differences)
        apart *= 2


@lru_cache(maxsize=64)
def draw(key: bytes, columns: int, s: int, *, device: torch.device) -> Transform:
    """S of d x s: a column's sign is the lowest bit of its word; the first s of the shuffled d' columns travel."""
    padded = 1 << (columns - 1).bit_length()
    word_d = words(key, padded)
    signs = 1 - 2 * (word_d[:columns] & 1).astype(numpy.float32)
    sign_d, chosen_s = (torch.as_tensor(each, device=device) for each in (signs, shuffled(word_d)[:s]))
    return Transform(sign_d, chosen_s, padded)
