"""A matplotlib figure as inline SVG that lives with others on one page and takes the page's colours.

Each colour has a role, drawn in a hex value of its own and handed out as a CSS variable, so that the page
can give every role a light and a dark shade. Ids are prefixed, so that no two figures share one.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

SHADES = {
    "ink": "#1f2937",
    "muted": "#6b7281",
    "grid": "#e5e7ec",
    "card": "#fefefe",
    "peer": "#6f9fd9",
    "mean": "#1d4fd7",
    "other": "#b4540a",
    "even": "#5f92d8",
    "odd": "#b3cdef",
    "slow": "#e39b2d",
    "slow2": "#f3d09a",
    "bad": "#d92d2d",
    "none": "#c9ced6",
}


@dataclass(frozen=True)
class Picture:
    """One plot of the page. `keys` say what each role's colour stands for."""

    name: str
    title: str
    svg: str
    keys: tuple[tuple[str, str], ...] = ()
    caption: str = ""
    wide: bool = False


@contextmanager
def style() -> Iterator[None]:
    """Every figure is drawn within this: calm axes, and the same bytes for the same figures."""
    ink, muted = SHADES["ink"], SHADES["muted"]
    look: Any = {
        "svg.fonttype": "none",
        "savefig.bbox": None,
        "svg.hashsalt": "p2pfl",
        "font.size": 9,
        "text.parse_math": False,
        "text.color": ink,
        "axes.labelcolor": muted,
        "axes.edgecolor": SHADES["grid"],
        "axes.facecolor": "none",
        "figure.facecolor": "none",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": SHADES["grid"],
        "grid.linewidth": 0.8,
        "xtick.color": muted,
        "ytick.color": muted,
        "xtick.major.size": 0,
        "ytick.major.size": 0,
        "xtick.minor.size": 0,
        "ytick.minor.size": 0,
    }
    with matplotlib.rc_context(look):
        yield


def canvas(width_px: int, height_px: int, left_px: int = 56, right_px: int = 14) -> tuple[Figure, Axes]:
    """A figure whose one pair of axes has margins of fixed size, so that nothing has to be measured."""
    figure = Figure(figsize=(width_px / 100, height_px / 100), dpi=100)
    top_px, bottom_px = 10, 46
    width, height = (width_px - left_px - right_px) / width_px, (height_px - top_px - bottom_px) / height_px
    return figure, figure.add_axes((left_px / width_px, bottom_px / height_px, width, height))


def inline(figure: Figure, name: str, label: str, shades: Mapping[str, str] = SHADES) -> str:
    """The figure as one `<svg>` element; `name` prefixes its ids and `label` is read aloud. Both are our own words."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None}, dpi=144)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style[^>]*>.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", svg)
    svg = re.sub(r'(<g id="[^"]*-peer-(\w+)")>', r'\1 class="peer"><title>peer \2</title>', svg)
    box = re.search(r'viewBox="[^"]*"', svg)
    svg = svg.replace(svg[: svg.index(">") + 1], f'<svg role="img" aria-label="{label}" {box and box.group(0)}>', 1)
    roles = {shade: role for role, shade in shades.items()}
    return re.sub(r"(?<=: )#[0-9a-f]{6}", lambda hit: f"var(--{roles[hit[0]]})" if hit[0] in roles else hit[0], svg)
