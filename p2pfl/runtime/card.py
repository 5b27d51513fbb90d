"""A run that is over, as a notebook shows it: what it came to, what it cost, and where its report is."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

ROW = "display:flex;flex-wrap:wrap;gap:8px;margin:4px 0"
TILE = "border:1px solid #8886;border-radius:6px;padding:6px 12px"
FIGURE = "font-size:1.35em;font-weight:600"
SMALL = "font-size:0.85em;opacity:0.75"
STEPS = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


def html(folder: Path, summary: Mapping[str, Any], stopped: bool, crashed: Sequence[str]) -> str:
    """A few tiles and a link, as HTML that needs no script; whatever was recorded is escaped."""
    tiles = "".join(
        f'<div style="{TILE}"><div style="{SMALL}">{escape(label)}</div><div style="{FIGURE}">{escape(figure)}</div>'
        f'<div style="{SMALL}">{escape(beside)}</div></div>'
        for label, figure, beside in _tiles(summary)
    )
    ended = ["stopped before the end"] if stopped else []
    ended += [f"crashed: peer {', '.join(crashed)}"] if crashed else []
    notes = "".join(f"<div><b>{escape(note)}</b></div>" for note in ended)
    page = folder / "report.html"
    link = f'<a href="{escape(_address(page))}" target="_blank" rel="noopener">{escape(str(page))}</a>'
    name = f"<div><b>{escape(str(summary.get('name', folder.name)))}</b></div>"
    return f'<div>{name}{notes}<div style="{ROW}">{tiles}</div><div>{link}</div></div>'


def _tiles(summary: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Label, figure, and what is said beside it; what was not measured is left out."""
    accuracy, sent, round_s = (summary.get(key) or {} for key in ("accuracy", "bytes", "round_s"))
    if "mean" in accuracy:
        worst, best = accuracy.get("min", 0.0), accuracy.get("max", 0.0)
        spread = f"{100 * worst:.1f} % to {100 * best:.1f} %" if worst < best else ""
        yield "test accuracy", f"{100 * accuracy['mean']:.1f} %", spread
    if "rounds" in summary:
        target = summary.get("rounds_to_target")
        yield "rounds", f"{summary['rounds']:,}", "" if target is None else f"target reached in round {target}"
    if "sent" in sent:
        yield "sent", _size(sent["sent"]), f"{_size(sent['sent_per_peer_round'])} a peer and round"
    if "wall_s" in summary:
        median_s = round_s.get("median")
        yield "wall time", f"{summary['wall_s']:.1f} s", "" if median_s is None else f"{1000 * median_s:.0f} ms a round"


def _size(count: float) -> str:
    """1234567 -> `1.2 MB`."""
    return next((f"{count / step:.1f} {unit}" for step, unit in STEPS if count >= step), f"{count:.0f} B")


def _address(page: Path) -> str:
    """Where a notebook that lies in the working folder finds the page."""
    try:
        return quote(os.path.relpath(page))
    except ValueError:  # on another drive
        return page.absolute().as_uri()
