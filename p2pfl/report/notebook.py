"""A run as it happens in a notebook: one display in the output of the cell, drawn anew each time.

Source: display ids of the Jupyter messaging protocol, https://jupyter-client.readthedocs.io/en/stable/messaging.html.
`rich` alone would need ipywidgets for this, and an extension of the notebook for those.
"""

from __future__ import annotations

import importlib
import io
from typing import Any

from rich.console import Console, RenderableType

WIDTH = 100
"""Characters in a line."""
PRE = '<pre style="overflow-x:auto;line-height:1.3;font-family:Menlo,Consolas,monospace;white-space:pre">{code}</pre>'


class Cell:
    """To a notebook what `rich.live.Live` is to a terminal."""

    def __init__(self) -> None:
        self._handle: Any = None

    def start(self) -> None:
        """Take a place in the output of the cell that runs."""
        ipython: Any = importlib.import_module("IPython.display")  # no dependency: a notebook has it
        self._handle = ipython.display(_drawn(""), raw=True, display_id=True)

    def update(self, view: RenderableType, refresh: bool = True) -> None:
        """Draw it there, in place of what was there; from whatever thread."""
        self._handle.update(_drawn(view), raw=True)

    def stop(self) -> None:
        """Leave there what was drawn last."""


def cell(console: Console) -> Cell | None:
    """Where to draw, if the console is that of a notebook."""
    return Cell() if console.is_jupyter else None


def _drawn(view: RenderableType) -> dict[str, str]:
    """As HTML and as text; both are escaped by whoever writes them."""
    paper = Console(
        record=True, file=io.StringIO(), width=WIDTH, force_jupyter=False, force_terminal=True, color_system="truecolor"
    )
    paper.print(view)
    text = paper.export_text(clear=False)
    return {"text/html": paper.export_html(inline_styles=True, code_format=PRE), "text/plain": text}
