"""Decentralised learning and its security, run for real.

record = p2pfl.launch("quickstart")            # a file, a shipped scenario's name, or a dict
record.summary["accuracy"]["mean"]
p2pfl.load("runs/*")                           # rows, one a run, for pandas
"""

from __future__ import annotations

import glob
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from p2pfl.runtime.launch import Record, Screen


def launch(
    source: str | Path | Mapping[str, Any],
    out: str | Path | None = None,
    sets: Sequence[str] = (),
    screen: Screen | None = None,
    born_s: float | None = None,
) -> Record:
    """Run a scenario and write its report: what `p2pfl launch` does.

    `source` is a path, the name of a shipped scenario, or a mapping; `sets` are like `--set`. `startup_s` counts from
    `born_s` (as time.time()), or from this call.
    Raises ScenarioError for anything wrong with what was asked, before anything is started or written.
    """
    born_s = time.time() if born_s is None else born_s
    from p2pfl import scenario
    from p2pfl.report.page import write
    from p2pfl.runtime.launch import Screen, run

    with scenario.located(source, sets):
        record = run(scenario.read(source, sets), None if out is None else Path(out), screen or Screen(), born_s)
    write(record.folder)
    return record


def load(pattern: str | Path) -> list[dict[str, Any]]:
    """The summaries of all run folders that a pattern matches, each with its `folder`; pandas takes the list."""
    folders = sorted(Path(found).parent for found in glob.glob(str(Path(pattern) / "summary.json")))
    return [{"folder": str(folder), **json.loads((folder / "summary.json").read_text())} for folder in folders]
