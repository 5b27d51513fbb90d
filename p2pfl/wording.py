"""How names, values and types are called when the user is told of them."""

from __future__ import annotations

import difflib
import typing
from collections.abc import Sequence
from typing import Any

SIGNS = (("gt", ">"), ("ge", ">="), ("lt", "<"), ("le", "<="))


def nearest(name: str, known: Sequence[str], further: Sequence[str] = ()) -> str:
    """A remedy for a name that nobody knows: a near one, or all that are `known` (not those that are `further`)."""
    close = difflib.get_close_matches(str(name), [*known, *further], n=1, cutoff=0.5)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"there are {', '.join(known)}" if known else "there are none"


def singular(room: str) -> str:
    """`topologies` -> `topology`, `sketches` -> `sketch`, `models` -> `model`."""
    for plural, single in (("ies", "y"), ("tches", "tch"), ("s", "")):
        if room.endswith(plural):
            return room.removesuffix(plural) + single
    return room


def brief(value: object) -> str:
    """A value as it is shown in an error: on one line, and not too long."""
    shown = repr(value)
    return shown if len(shown) <= 60 else shown[:57] + "..."


def type_name(hint: Any) -> str:
    """A type with its bounds, as it is shown to a user: `float > 0`, `a | b`, `list of int`."""
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        bounds = [bound for extra in parts[1:] for bound in getattr(extra, "metadata", ())]
        written = [
            f" {sign} {getattr(bound, name)}" for bound in bounds for name, sign in SIGNS if hasattr(bound, name)
        ]
        return type_name(parts[0]) + ",".join(written)
    if origin is typing.Literal:
        return " | ".join(map(str, parts))
    if origin in (tuple, list):
        return f"list of {type_name(parts[0])}"
    return str(getattr(hint, "__name__", hint)).replace("Any", "any")
