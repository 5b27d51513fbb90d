"""What somebody means by a topology in a few words: a family, a family with options, or the path of a graph file."""

from __future__ import annotations

from pathlib import Path

from p2pfl import yaml_marks
from p2pfl.errors import ScenarioError
from p2pfl.plugins import Choice, Slot

from ._graph_files import FORMATS
from ._lines import content, lines

SLOT = Slot("topology", "topologies")


def chosen(spec: str) -> Choice:
    """The plug-in that `torus`, `{small_world: {k: 4}}` or `lab.graphml` means. Raises ScenarioError.

    A file of links whose first column is called `round` is a schedule.
    """
    path = Path(spec)
    if "{" not in spec and (path.suffix.lower() in FORMATS or path.is_file()):
        return SLOT.choose({"schedule" if _is_schedule(path) else "file": {"path": spec}})
    return SLOT.choose(yaml_marks.parse(f"topology: {spec}".encode(), "SPEC").value["topology"])


def _is_schedule(path: Path) -> bool:
    if path.suffix.lower() == ".graphml":
        return False
    try:
        return next(lines(content(path), str(path)), ("", [""]))[1][0].lower() == "round"
    except ScenarioError:  # whoever reads it for what it holds says what is wrong
        return False
