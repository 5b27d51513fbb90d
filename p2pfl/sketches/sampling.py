"""Some columns of every weight matrix, drawn at random: W -> W S, the sketch that dropout amounts to.

Source: Wang & Zhang, "Matrix Sketching for Secure Collaborative Machine Learning" (DBCL), section 2: the columns of
S (d x s) are sampled uniformly from sqrt(d/s) e_1 .. sqrt(d/s) e_d; here without replacement, so E[S S^T] = I still
and no column travels twice. The weaker veil (section 3): with s = d/2 who sees two rounds knows a quarter of the
columns of an update exactly, where a CountSketch mixes them.

Variance: a^T S S^T b is d times the mean of a sample, of s of the d numbers c_i = a_i b_i. Without replacement
(Cochran 1977, "Sampling Techniques", theorem 2.2) its variance is d (d - s) / (s (d - 1)) sum_i (c_i - mean c)^2;
with replacement d - s is d - 1: at s = d/2 about twice as much.
Damping: `pull(z) = (s/d) z S^T` makes `pull(down(x))` x on the sampled columns and zero elsewhere.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

import numpy
import torch
from numpy.typing import NDArray
from torch import Tensor

from p2pfl.contracts import Layout
from p2pfl.seeds import Seeds
from p2pfl.sketches import _options
from p2pfl.sketches._hashing import words
from p2pfl.sketches._matrices import Matrices, blocks


@dataclass(frozen=True)
class Sampling:
    """DBCL's uniform sampling: `ratio` of the columns of each weight matrix travels, the others do not, under a key.

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

    def in_round(self, seeds: Seeds, r: int) -> Sampling:
        """The sketch of a round, of one ratio."""
        return _options.in_round(self, self.ratio, seeds, r)

    def bind(self, layout: Layout) -> Matrices:
        """The maps for parameters of this layout. Raises ValueError when it has no layer of a name in `plain`."""
        return Matrices(layout, _options.widths(layout, self.ratio, self.plain), draw, self.reach)


def shuffled(word_d: NDArray[Any]) -> NDArray[numpy.int64]:
    """All columns, in the order of their words, whose lowest bits make room for the column's number."""
    columns = len(word_d)
    low = numpy.uint64((1 << columns.bit_length()) - 1)
    return (numpy.sort(word_d & ~low | numpy.arange(columns, dtype=numpy.uint64)) & low).astype(numpy.int64)


@dataclass(frozen=True)
class Sample:
    """S of one matrix: column k of the sketch is `scale` times column `chosen_s[k]`.

    From the other side, column i lies at `place_d[i]` of the sketch where `sent_d[i]` is 1, and nowhere where it is 0.
    """

    chosen_s: Tensor
    place_d: Tensor
    sent_d: Tensor
    scale: float

    def fold(self, x: Tensor, z: Tensor) -> None:
        """Fill `z` (rows x s) with `x S`."""
        for x_B, z_B in blocks(x, z):
            torch.index_select(x_B, 1, self.chosen_s, out=z_B).mul_(self.scale)

    def unfold(self, z: Tensor, x: Tensor, damped: bool) -> None:
        """Fill `x` (rows x d) with `z S^T`, or damped with `(s/d) z S^T`."""
        factor = 1 / self.scale if damped else self.scale
        for x_B, z_B in blocks(x, z):
            torch.index_select(z_B * factor, 1, self.place_d, out=x_B).mul_(self.sent_d)

    def folded(self, x: Tensor) -> Tensor:
        """`fold` for autograd."""
        return x.index_select(1, self.chosen_s) * self.scale

    def unfolded(self, z: Tensor, damped: bool) -> Tensor:
        """`unfold` for autograd."""
        factor = 1 / self.scale if damped else self.scale
        return (z * factor).index_select(1, self.place_d) * self.sent_d


@lru_cache(maxsize=64)
def draw(key: bytes, columns: int, s: int, *, device: torch.device) -> Sample:
    """S of d x s: the first s of the shuffled columns, in that order."""
    chosen_s = shuffled(words(key, columns))[:s]
    place_d, sent_d = numpy.zeros(columns, numpy.int64), numpy.zeros(columns, numpy.float32)
    place_d[chosen_s], sent_d[chosen_s] = numpy.arange(s), 1
    chosen, place, sent = (torch.as_tensor(each, device=device) for each in (chosen_s, place_d, sent_d))
    return Sample(chosen, place, sent, math.sqrt(columns / s))
