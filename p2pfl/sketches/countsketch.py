"""CountSketch of every weight matrix along its input side: W -> W S, by random buckets and signs.

Source: Wang & Zhang, "Matrix Sketching for Secure Collaborative Machine Learning" (DBCL), section 2:
every row of S (d_in x s) has one non-zero entry, at a random bucket, of random sign; E[S S^T] = I.
Balanced (the default): the buckets are dealt out like cards from a shuffled deck, so each holds d_in / s
coordinates or one more: still unbiased, half the noise.

Damping: with bucket loads q, `pull(z) = (z / q) S^T` makes `pull(down(x))` the orthogonal projection of x
onto the range of S, whatever the loads; where s divides d_in this is s/d_in times `up`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, ClassVar

import pydantic
from torch import Tensor

from p2pfl.contracts import Layout
from p2pfl.sketches._hashing import draw
from p2pfl.sketches._matrices import Matrices, widths


@dataclass(frozen=True)
class CountSketch:
    """DBCL's CountSketch: `ratio` of the columns of each weight matrix travels, under a key."""

    ratio: Annotated[float, pydantic.Field(gt=0, le=1)] = 0.5
    balanced: bool = True
    keyed: ClassVar[bool] = True

    def bind(self, layout: Layout) -> Buckets:
        """The maps for parameters of this layout."""
        return Buckets(layout, widths(layout, self.ratio), self.balanced)


@dataclass(frozen=True)
class Buckets:
    """The pair of maps, bound to a layout; `widths` holds s of each slot, 0 for a slot that travels whole."""

    layout: Layout
    widths: tuple[int, ...]
    balanced: bool
    matrices: Matrices = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "matrices", Matrices(self.layout, self.widths, partial(draw, balanced=self.balanced)))

    @property
    def size(self) -> int:
        """S: how many numbers travel."""
        return self.matrices.size

    def down(self, x_D: Tensor, key: bytes) -> Tensor:
        """`W S` for each matrix, the rest as it is."""
        return self.matrices.down(x_D, key)

    def up(self, z_S: Tensor, key: bytes) -> Tensor:
        """`Z S^T` for each matrix, the rest as it is."""
        return self.matrices.up(z_S, key)

    def pull(self, z_S: Tensor, key: bytes) -> Tensor:
        """`(Z / q) S^T` for each matrix, the rest as it is."""
        return self.matrices.pull(z_S, key)
