"""What every sketch of matrices lets its user choose: which part of the columns travels, and which layers travel whole.

Source: Wang & Zhang, "Matrix Sketching for Secure Collaborative Machine Learning" (DBCL), section 4.2: s "is determined
by the server [...]; the server can vary s after each iteration".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import pydantic

from p2pfl.contracts import Layout, Slot
from p2pfl.seeds import Seeds

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

S = TypeVar("S", bound="DataclassInstance")


def _ratio(given: Any) -> float | tuple[float, float]:
    bounds = tuple(given) if isinstance(given, (list, tuple)) else (given, given)
    numbers = all(isinstance(bound, (int, float)) and not isinstance(bound, bool) for bound in bounds)
    if not numbers or len(bounds) != 2 or not 0 < bounds[0] <= bounds[1] <= 1:
        raise ValueError("must be above 0 and at most 1, or two such numbers, the smaller first")
    return bounds if isinstance(given, (list, tuple)) else float(given)


_Share = Annotated[float, pydantic.Field(gt=0, le=1)]
Ratio = Annotated[
    float | tuple[float, float],
    pydantic.Field(gt=0, le=1),  # for those who read it: the validator knows
    pydantic.PlainValidator(_ratio, json_schema_input_type=_Share | tuple[_Share, _Share]),
]
"""s/d: a number, or two between which it is drawn anew every round."""
Relaxation = Annotated[float, pydantic.Field(gt=0)] | None
"""How many times as far as a projection a peer is pulled; None: as far as is well."""
MOST_RELAXED = 1.5
"""With half of the columns on a ring, a little below what brings peers together fastest, and safe on every graph."""


def check_relaxation(relaxation: Relaxation, ratio: Ratio) -> None:
    """Raises ValueError for one that drives peers apart on some graph."""
    limit = min(2.0, 1 / _bounds(ratio)[1])
    if relaxation is not None and (relaxation > limit or relaxation == limit > 1):
        why = "beyond, what a sketch leaves out outweighs what it tells, and peers drift apart"
        raise ValueError(f"relaxation must be below {limit:g} at this ratio, not {relaxation:g}: {why}")


def reach(relaxation: Relaxation, ratio: Ratio) -> float:
    """The relaxation: by default half way from a projection to no damping, which is 1 / ratio, and at most 1.5."""
    return min(MOST_RELAXED, (1 + 1 / _bounds(ratio)[0]) / 2) if relaxation is None else relaxation


def _bounds(ratio: Ratio) -> tuple[float, float]:
    return ratio if isinstance(ratio, tuple) else (ratio, ratio)


def in_round(sketch: S, ratio: Ratio, seeds: Seeds, r: int) -> S:
    """A sketch with the ratio of a round, drawn from the stream that all peers share: it costs no message."""
    return replace(sketch, ratio=float(seeds.numpy("ratio", r).uniform(*ratio))) if isinstance(ratio, tuple) else sketch


def widths(layout: Layout, ratio: Ratio, plain: Sequence[str] = ()) -> tuple[int, ...]:
    """s of each slot, how many columns of its matrix travel; 0 where it travels whole, as all layers in `plain` do.

    Of two bounds the middle. Raises ValueError where the model has no layer of such a name.
    """
    layers = dict.fromkeys(slot.name.rpartition(".")[0] for slot in layout)
    for name in plain:
        if name not in layers:
            raise ValueError(f"plain names no layer {name!r}: there are {', '.join(layers)}")
    share = sum(_bounds(ratio)) / 2
    return tuple(0 if slot.name.rpartition(".")[0] in plain else width(slot, share) for slot in layout)


def width(slot: Slot, ratio: float) -> int:
    """s of one slot."""
    if slot.output or len(slot.shape) < 2:
        return 0
    return max(1, round(ratio * (slot.size // slot.shape[0])))
