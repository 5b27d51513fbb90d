"""A Gaussian sketch of every weight matrix along its input side: W -> W S, S of independent normal numbers.

Source: Johnson & Lindenstrauss 1984, as Wang & Zhang, "Matrix Sketching for Secure Collaborative Machine Learning"
(DBCL), section 2, name it: the entries of S (d x s) are N(0, 1/s), so E[S S^T] = I. Slow, as d s numbers are drawn for
every product: the yardstick that CountSketch is held against.

Variance: a^T S S^T b is off by (|a|^2 |b|^2 + (a . b)^2) / s in mean square.
Damping: of e = y - x, a pull by c S S^T leaves, as E[(S S^T)^2] = (d + s + 1) / s I,
E|e - c e S S^T|^2 = |e|^2 (1 - 2 c + c^2 (d + s + 1) / s), smallest at c = s / (d + s + 1), where 1 - c is left.
This is no projection. It never lengthens an e where the largest eigenvalue of c S S^T is at most 2, which for large d
is (sqrt s + sqrt d)^2 / (d + s) <= 2: so with high probability only, the more so the larger d and the smaller s. Of 400
matrices at s = d/2, 19 lengthened some e at d = 50 and 2 at d = 400, but none an e drawn at random, from d = 20 on.
Numbers: S comes in blocks of rows, 16 bits of SHAKE-256 of the key and the block's number for each entry, which look
it up among 65,536 equally likely quantiles of the normal law: the same on every machine and library version.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from hashlib import shake_256
from statistics import NormalDist
from typing import Any, ClassVar

import numpy
import torch
from numpy.typing import NDArray
from torch import Tensor

from p2pfl.contracts import Layout
from p2pfl.seeds import Seeds
from p2pfl.sketches import _adjoint, _options
from p2pfl.sketches._matrices import Matrices

ENTRIES = 1 << 20
"""Entries of S in a block: no more are ever in memory at once. With another number every S is another."""
KEPT = 4
"""Blocks that are remembered, so that a small S is not drawn anew for every step: some 16 MiB."""
WORDS = 1 << 16


@dataclass(frozen=True)
class Gaussian:
    """Random normal mixtures of the columns of each weight matrix travel, `ratio` as many, under a key; slow.

    Layers in `plain` travel whole. Peers pull on each other `relaxation` times as far as leaves the smallest error.
    """

    ratio: _options.Ratio = 0.5
    plain: tuple[str, ...] = ()
    relaxation: _options.Relaxation = 1.0
    keyed: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _options.check_relaxation(self.relaxation, self.ratio)

    @property
    def reach(self) -> float:
        """How many times as far as a projection a pull goes."""
        return _options.reach(self.relaxation, self.ratio)

    def in_round(self, seeds: Seeds, r: int) -> Gaussian:
        """The sketch of a round, of one ratio."""
        return _options.in_round(self, self.ratio, seeds, r)

    def bind(self, layout: Layout) -> Matrices:
        """The maps for parameters of this layout. Raises ValueError when it has no layer of a name in `plain`."""
        return Matrices(layout, _options.widths(layout, self.ratio, self.plain), draw, self.reach)


@dataclass(frozen=True)
class Normal:
    """S of one matrix: not its entries, but where they come from."""

    key: bytes
    columns: int
    s: int
    device: torch.device

    def fold(self, x: Tensor, z: Tensor) -> None:
        """Fill `z` (rows x s) with `x S`."""
        z.zero_()
        for columns, s_Bs in self._blocks(x.dtype):
            z.addmm_(x[:, columns], s_Bs, alpha=1 / math.sqrt(self.s))

    def unfold(self, z: Tensor, x: Tensor, damped: bool) -> None:
        """Fill `x` (rows x d) with `z S^T`, or damped with `s / (d + s + 1) z S^T`."""
        factor = self._damping if damped else 1.0
        for columns, s_Bs in self._blocks(x.dtype):
            x[:, columns].addmm_(z, s_Bs.T, beta=0, alpha=factor / math.sqrt(self.s))

    def folded(self, x: Tensor) -> Tensor:
        """`fold` for autograd."""
        return _adjoint.folded(self, x, self.s)

    def unfolded(self, z: Tensor, damped: bool) -> Tensor:
        """`unfold` for autograd."""
        up = _adjoint.unfolded(self, z, self.columns)
        return up * self._damping if damped else up

    @property
    def _damping(self) -> float:
        return self.s / (self.columns + self.s + 1)

    def _blocks(self, dtype: torch.dtype) -> Iterator[tuple[slice, Tensor]]:
        """Which rows of S, the columns of a matrix, and sqrt(s) times these rows."""
        at_once = max(1, ENTRIES // self.s)
        for number, first in enumerate(range(0, self.columns, at_once)):
            rows = min(at_once, self.columns - first)
            yield slice(first, first + rows), block(self.key, number, rows, self.s, self.device).to(dtype)


def draw(key: bytes, columns: int, s: int, *, device: torch.device) -> Normal:
    """S of d x s: nothing is drawn before it is used."""
    return Normal(key, columns, s, device)


@lru_cache(maxsize=KEPT)
def block(key: bytes, number: int, rows: int, s: int, device: torch.device) -> Tensor:
    """Some rows of sqrt(s) S: independent numbers of mean 0 and variance 1."""
    text = shake_256(key + number.to_bytes(4, "little")).digest(2 * rows * s)
    return torch.as_tensor(quantiles()[numpy.frombuffer(text, "<u2")].reshape(rows, s), device=device)


@cache
def quantiles() -> NDArray[Any]:
    """65,536 quantiles of the normal law, scaled so that the mean of their squares is 1; fourth powers: 2.9992, not 3.

    Rounded to float32, far coarser than what mathematical libraries differ by.
    """
    upper = numpy.array([NormalDist().inv_cdf((word + 0.5) / WORDS) for word in range(WORDS // 2, WORDS)])
    upper /= numpy.sqrt(numpy.mean(upper**2))
    return numpy.concatenate([-upper[::-1], upper]).astype(numpy.float32)
