"""Peer graphs by name: one family per file, and every networkx generator by its name and arguments.

A family has `graph(nodes, seeds)`. One whose links change from round to round has `graph_in(nodes, seeds, r)` too, its
`graph` being the union of all rounds. One that is read from a file says by `peers()` whom it is made for, and one that
is best seen with its peers on a circle has `circular = True`.
"""

from __future__ import annotations

from typing import Any

from . import _generators
from ._spec import chosen

__all__ = ["chosen", "elsewhere", "elsewhere_names"]


def elsewhere(name: str) -> type[Any] | None:
    """The networkx generator of this name as a plug-in, its arguments as options; None when there is none."""
    return _generators.plugin(name) if name in _generators.names() else None


def elsewhere_names() -> tuple[str, ...]:
    """Every networkx generator that can give a peer graph."""
    return _generators.names()
