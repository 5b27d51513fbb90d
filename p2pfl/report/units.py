"""How figures are written for people: bytes, seconds and shares, by the names that summary.json gives them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

BEYOND = 1e30
"""Nothing that a run measures is larger, and plots overflow long before floats do."""
COUNTS = (("billions", 1e9), ("millions", 1e6), ("thousands", 1e3))
SIZES = ("B", "kB", "MB", "GB", "TB", "PB")


def number(value: object) -> float | None:
    """What was recorded, as a number fit to be drawn; None for all else (records are untrusted)."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) < BEYOND else None


def numbers(value: object) -> Mapping[str, float]:
    """The finite numbers of a mapping, by key; empty for all else."""
    if not isinstance(value, Mapping):
        return {}
    found = {str(key): number(figure) for key, figure in value.items()}
    return {key: figure for key, figure in found.items() if figure is not None}


def peer_label(value: object) -> str | None:
    """A peer as records name it: `hub` (-1 in a graph) or its number; None if it is no peer."""
    text = str(value) if isinstance(value, int | str) and not isinstance(value, bool) else ""
    if text in ("hub", "-1"):
        return "hub"
    return str(int(text)) if text.isascii() and text.isdecimal() and len(text) < 8 else None


def peer_order(label: str) -> int:
    """A key to sort peers by: the hub first, then by number."""
    return -1 if label == "hub" else int(label)


def size_unit(count: float) -> tuple[str, float]:
    """The unit in which so many bytes read well, and how many bytes it is."""
    step = min(int(math.log10(max(count, 1.0)) / 3), len(SIZES) - 1)
    return SIZES[step], 1000.0**step


def size(count: float) -> str:
    """1234567 -> `1.2 MB` (decimal, as networks count)."""
    unit, bytes_each = size_unit(count)
    amount = count / bytes_each
    return f"{amount:.0f} {unit}" if amount >= 100 or unit == "B" else f"{amount:.1f} {unit}"


def thousands(count: float) -> tuple[str, float]:
    """The word in which so many of anything read well on an axis, and how many it is."""
    return next(((word, each) for word, each in COUNTS if count >= 10 * each), ("", 1.0))


def duration(time_s: float) -> str:
    """0.0432 -> `43 ms`, 200 -> `3 min 20 s`."""
    if time_s < 1:
        return f"{time_s * 1000:.0f} ms" if time_s >= 0.01 or time_s <= 0 else f"{time_s * 1000:.2g} ms"
    if time_s < 120:
        return f"{time_s:.1f} s"
    minutes, seconds = divmod(round(time_s), 60)
    hours, rest = divmod(minutes, 60)
    return f"{hours:,} h {rest:02} min" if hours else f"{minutes} min {seconds:02} s"


def share(part: float, digits: int = 1) -> str:
    """0.95 -> `95.0 %`."""
    return f"{100 * part:.{digits}f} %"


def plain(figure: float) -> str:
    """8970 -> `8,970`, 0.0812345 -> `0.08123`, 0.00001 -> `1e-5`."""
    if float(figure).is_integer() and abs(figure) < 1e15:
        return f"{figure:,.0f}"
    return f"{figure:.4g}".replace("e-0", "e-")


def count(number: float, thing: str) -> str:
    """1, `peer` -> `1 peer`; 8 -> `8 peers`."""
    return f"{number:,.0f} {thing}{'' if number == 1 else 's'}"


def humane(path: str, value: object) -> str:
    """A figure of summary.json in the unit that its path (`bytes.sent`) says."""
    figure = number(value)
    if figure is None:
        if isinstance(value, bool):
            return "yes" if value else "no"
        return "–" if value is None else ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    parts = path.split(".")
    if parts[-1] == "seconds" or any(part.endswith("_s") for part in parts):
        return duration(figure)
    if parts[0] == "bytes" or parts[-1].endswith("_bytes"):
        return size(figure)
    if any(part.endswith("_mb") for part in parts):
        return size(figure * 1e6)
    if parts[0].endswith("accuracy") or parts[-1].endswith("_accuracy"):
        return share(figure, 2)
    if parts[-1].startswith("recovered"):
        return share(figure)
    if parts[-1].endswith("_db"):
        return f"{figure:.1f} dB"
    return str(value) if parts[0] == "seed" else plain(figure)


def flat(summary: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, object]]:
    """The figures of nested mappings as `("bytes.sent", 12)`, in their order; lists of mappings are left out."""
    for key, value in summary.items():
        path = f"{above}.{key}" if above else str(key)
        if isinstance(value, Mapping):
            yield from flat(value, path)
        elif not (isinstance(value, list) and any(isinstance(item, Mapping) for item in value)):
            yield path, value
