"""CountSketch of every weight matrix along its input side: W -> W S, by random buckets and signs.

Source: Wang & Zhang, "Matrix Sketching for Secure Collaborative Machine Learning" (DBCL), section 2:
every row of S (d x s) has one non-zero entry, at a random bucket, of random sign; E[S S^T] = I.

Balanced (the default, ours): the columns are cut into blocks of s; a block goes to the s buckets in its order, but
turned by an offset drawn for it. So each bucket holds d / s columns or one more, at half the noise, and all is done in
the order in which memory lies. (In the authors' code columns are shuffled: the same noise, several times the time.)

Variance: a^T S S^T b - a^T b is the sum over pairs k != l that share a bucket of sign_k sign_l a_k b_l. Signs are
independent, so its expected square is the sum over pairs of P(k and l meet) (a_k^2 b_l^2 + a_k b_k a_l b_l). Drawn
independently, any two columns meet with probability 1/s: the paper's lemma 5. Balanced, two columns of one block never
meet, two of different blocks with probability 1/s, as one of their offsets is uniform whatever the other: the same sum
over pairs of different blocks only. With s = d there is one block, and no noise.

Damping: with bucket loads q, `pull(z) = (z / q) S^T` makes `pull(down(x))` the orthogonal projection of x
onto the range of S, whatever the loads; where s divides d this is s/d times `up`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from p2pfl.contracts import Layout
from p2pfl.seeds import Seeds
from p2pfl.sketches import _options
from p2pfl.sketches._hashing import draw
from p2pfl.sketches._matrices import Matrices


@dataclass(frozen=True)
class CountSketch:
    """DBCL's CountSketch: `ratio` of the columns of each weight matrix travels, under a key; layers in `plain` whole.

    `balanced` fills buckets evenly. Peers pull on each other `relaxation` times as far as what was sketched of their
    difference (1: just that; by default 1.5, less where more than half of the columns travel).
    """

    ratio: _options.Ratio = 0.5
    plain: tuple[str, ...] = ()
    balanced: bool = True
    relaxation: _options.Relaxation = None
    keyed: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _options.check_relaxation(self.relaxation, self.ratio)

    @property
    def reach(self) -> float:
        """How many times as far as a projection a pull goes."""
        return _options.reach(self.relaxation, self.ratio)

    def in_round(self, seeds: Seeds, r: int) -> CountSketch:
        """The sketch of a round, of one ratio."""
        return _options.in_round(self, self.ratio, seeds, r)

    def bind(self, layout: Layout) -> Matrices:
        """The maps for parameters of this layout. Raises ValueError when it has no layer of a name in `plain`."""
        widths = _options.widths(layout, self.ratio, self.plain)
        return Matrices(layout, widths, partial(draw, balanced=self.balanced), self.reach)
