"""Tuned numbers that are the smallest or the largest of what was tried: the best may lie beyond them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from p2pfl.report.comparison.keys import labelled, named
from p2pfl.report.units import count, number

Tried = Sequence[Mapping[str, Any]]
"""Entries of `tuning` in sweep.json."""


def sentence(index: Mapping[str, Any]) -> str:
    """Which chosen values of a sweep (what sweep.json holds) lie at the edge of what was tried; empty where none do."""
    entries = index.get("tuning")
    settings: dict[str, list[Mapping[str, Any]]] = {}
    for entry in entries if isinstance(entries, list) else ():
        if isinstance(entry, Mapping) and isinstance(entry.get("candidate"), Mapping):
            settings.setdefault(repr(entry.get("setting")), []).append(entry)
    tuned = [tried for tried in settings.values() if any(entry.get("chosen") is True for entry in tried)]
    found = Counter(edge for tried in tuned for edge in _edges(tried))
    if not found:
        return ""
    told = f" of {count(len(tuned), 'setting')}" if len(tuned) > 1 else ""
    listed = "; ".join(f"{edge} in {times}{told}" if told else edge for edge, times in found.items())
    return f"At the edge of what was tried: {listed}. Try further values."


def _edges(tried: Tried) -> Iterator[str]:
    """Each number that was chosen in a setting and has others on one side only."""
    for key, value in next((entry["candidate"] for entry in tried if entry.get("chosen") is True), {}).items():
        grid = [number(entry["candidate"].get(key)) for entry in tried]
        numbers = [each for each in grid if each is not None]
        if len(numbers) < len(grid) or min(numbers) == max(numbers) or min(numbers) < value < max(numbers):
            continue  # it is no grid of numbers, or there is nothing to choose, or the choice lies within
        yield f"{labelled(str(key), named(value))} (the {'smallest' if value == min(numbers) else 'largest'})"
