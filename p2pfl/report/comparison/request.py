"""What `p2pfl report` was asked for: a run's own page, a sweep's, or a comparison. Imports only what that takes."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from p2pfl.errors import ScenarioError
from p2pfl.plugins import brief
from p2pfl.report.folder import mapping

CASES = "cases"
"""The folder of a sweep that holds its runs."""


def answer(folders: Sequence[Path], out: Path | None = None) -> tuple[Path, ...]:
    """What `p2pfl report` does: a run's own page again, a sweep's within it, a comparison of all else.

    Returns what was written, the page first. Folders may be of runs, of sweeps or of both; beside a page of several
    there is runs.csv. Raises ScenarioError.
    """
    if missing := [folder for folder in folders if not os.path.lexists(folder)]:
        raise ScenarioError(f"no folder {brief(str(missing[0]))}", "give the folder that `p2pfl launch` wrote")
    if out is not None and out.is_dir():
        raise ScenarioError(f"{brief(str(out))} is a folder", "name the file that the page is to be", where="--out")
    cases, index = sweep(folders[0])
    if len(folders) == 1 and cases:
        from p2pfl.report.comparison.page import table, write

        title = str(index.get("name") or folders[0].resolve().name)
        if out is not None:
            return (write(cases, out, title, index),)
        rows = folders[0] / "runs.csv"
        table(cases, rows)
        return write(cases, folders[0] / "report.html", title, index), rows
    if len(folders) == 1:
        if out is not None:
            raise ScenarioError("the page of one run lies in its folder", "leave --out away, or name several runs")
        from p2pfl.report import page

        return (page.write(folders[0]),)
    from p2pfl.report.comparison.page import table, write

    every = [path for folder in folders for path in sweep(folder)[0] or [folder]]
    written = write(every, out or Path("comparison.html"))
    rows = written.with_name("runs.csv")
    table(every, rows)
    return written, rows


def sweep(folder: Path) -> tuple[list[Path], Mapping[str, Any]]:
    """The runs of a sweep in the order of its index, and the index (sweep.json); no runs where it is no sweep."""
    try:
        there = {path.name: path for path in sorted((folder / CASES).iterdir()) if path.is_dir()}
    except OSError:
        return [], {}
    index = mapping(folder / "sweep.json")
    told = index.get("cases")
    entries = [entry for entry in told if isinstance(entry, Mapping)] if isinstance(told, list) else []
    named = [Path(str(entry.get("folder"))).name for entry in entries]
    return [there[name] for name in dict.fromkeys([*named, *there]) if name in there], index
