"""Peer graphs by name: one family per file, and every networkx generator by its name and arguments."""

from __future__ import annotations

from typing import Any

from . import _generators


def elsewhere(name: str) -> type[Any] | None:
    """The networkx generator of this name as a plug-in, its arguments as options; None when there is none."""
    return _generators.plugin(name) if name in _generators.names() else None


def elsewhere_names() -> tuple[str, ...]:
    """Every networkx generator that can give a peer graph."""
    return _generators.names()
