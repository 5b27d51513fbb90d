"""What every sketch of matrices lets its user choose: which part of the columns travels, and which layers travel whole.

Source: Wang & Zhang, "Matrix Sketching for Secure Collaborative Machine Learning" (DBCL), section 4.2: s "is determined
by the server [...]; the server can vary s after each iteration".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import pydantic

from p2pfl.contracts import Layout, Slot
from p2pfl.seeds import Seeds


def _ratio(given: Any) -> float | tuple[float, float]:
    bounds = tuple(given) if isinstance(given, (list, tuple)) else (given, given)
    numbers = all(isinstance(bound, (int, float)) and not isinstance(bound, bool) for bound in bounds)
    if not numbers or len(bounds) != 2 or not 0 < bounds[0] <= bounds[1] <= 1:
        raise ValueError("must be above 0 and at most 1, or two such numbers, the smaller first")
    return bounds if isinstance(given, (list, tuple)) else float(given)


_Share = Annotated[float, pydantic.Field(gt=0, le=1)]
Ratio = Annotated[
    float | tuple[float, float], pydantic.PlainValidator(_ratio, json_schema_input_type=_Share | tuple[_Share, _Share])
]
"""s/d: a number, or two between which it is drawn anew every round."""
Damping = Annotated[float, pydantic.Field(gt=0)]
"""What the projection is multiplied by when peers pull on each other."""


def check_damping(damping: float) -> None:
    """Raises ValueError for a damping that overshoots."""
    if damping > 1:
        remedy = "1 is all that was sketched of a difference; peers that go further drift apart"
        raise ValueError(f"damping must be at most 1, not {damping:g}: {remedy}")


def drawn(bounds: tuple[float, float], seeds: Seeds, r: int) -> float:
    """The ratio of a round, from the stream that all peers share: it costs no message."""
    return float(seeds.numpy("ratio", r).uniform(*bounds))


def widths(layout: Layout, ratio: Ratio, plain: Sequence[str] = ()) -> tuple[int, ...]:
    """s of each slot, how many columns of its matrix travel; 0 where it travels whole, as all layers in `plain` do.

    Of two bounds the middle. Raises ValueError where the model has no layer of such a name.
    """
    layers = dict.fromkeys(slot.name.rpartition(".")[0] for slot in layout)
    for name in plain:
        if name not in layers:
            raise ValueError(f"plain names no layer {name!r}: there are {', '.join(layers)}")
    share = sum(ratio) / 2 if isinstance(ratio, tuple) else ratio
    return tuple(0 if slot.name.rpartition(".")[0] in plain else width(slot, share) for slot in layout)


def width(slot: Slot, ratio: float) -> int:
    """s of one slot."""
    if slot.output or len(slot.shape) < 2:
        return 0
    return max(1, round(ratio * (slot.size // slot.shape[0])))
