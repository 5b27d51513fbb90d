"""Runs as rows: nested, for pandas; and flat, as runs.csv, with a column for each figure and setting that differs."""

from __future__ import annotations

import csv
import glob
import io
import json
import os
import secrets
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from p2pfl.errors import ScenarioError
from p2pfl.report.comparison import keys
from p2pfl.report.comparison.keys import Settings
from p2pfl.report.comparison.request import CASES
from p2pfl.report.folder import ends
from p2pfl.report.units import flat


def rows(pattern: str | Path) -> list[dict[str, Any]]:
    """The summaries of all runs that a pattern matches, those of a sweep among them.

    Each has its `folder`, and its `settings`: the resolved scenario by dotted keys. A run without a summary is passed
    over; one whose summary or scenario cannot be read is, with a warning.
    """
    found: list[dict[str, Any]] = []
    for folder in sorted(Path(path).parent for path in _summaries(Path(pattern))):
        scenario, summary = ends(folder)
        try:
            if not summary:
                raise ScenarioError("its summary.json cannot be read")
            ours = {"folder": str(folder), "settings": dict(keys.read(scenario))}
            found.append({"folder": "", **summary, **ours})
        except ScenarioError as error:
            warnings.warn(f"'{folder}' is left out: {error}", stacklevel=3)
    return found


def table(folders: Sequence[Path], path: Path) -> None:
    """Write runs.csv: folder, the settings that differ, the seed, and the figures of summary.json by dotted keys.

    A row a run, unfinished ones too; a folder that holds no scenario has none. A figure whose name is that of a setting
    is called `summary.<name>`. Lists are JSON.
    """
    read = {folder: found for folder in dict.fromkeys(folders) if (found := _flat(folder)) is not None}
    vary = keys.varying([settings for settings, _ in read.values()])
    told = {"folder", "seed", *(key for key in vary if key not in ("seed", "name", "engine"))}
    ordered = ["folder", *(key for key in vary if key in told - {"seed"}), "seed"]
    lines: list[dict[str, Any]] = []
    for folder, (settings, summary) in read.items():
        figures = {f"summary.{key}" if key in told else key: value for key, value in summary.items() if key != "seed"}
        lines.append({"folder": str(folder), **{key: settings.get(key) for key in told - {"folder"}}, **figures})
        _take_in(ordered, list(figures))
    text = io.StringIO()
    writer = csv.DictWriter(text, ordered, lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    replace(path, text.getvalue())


def replace(path: Path, text: str) -> None:
    """Write a file whole: who reads it meanwhile, or writes it too, finds an old or a new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
    try:
        draft.write_text(text, encoding="utf-8", errors="replace", newline="")  # a name may hold half a surrogate pair
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def _summaries(pattern: Path) -> Iterable[str]:
    if pattern.is_dir():  # its own name may hold what a pattern would read otherwise
        pattern = Path(glob.escape(str(pattern)))
    return {*glob.glob(str(pattern / "summary.json")), *glob.glob(str(pattern / CASES / "*" / "summary.json"))}


def _flat(folder: Path) -> tuple[Settings, Mapping[str, Any]] | None:
    scenario, summary = ends(folder)
    try:
        settings = keys.read(scenario)
    except ScenarioError:
        return None
    plain = {key: json.dumps(value) if isinstance(value, list) else value for key, value in flat(summary)}
    return settings, plain


def _take_in(ordered: list[str], keys: Sequence[str]) -> None:
    """Columns that are new go behind the one that they follow here, so that their order hangs on no run."""
    at = ordered.index("seed") + 1
    for key in keys:
        if key not in ordered:
            ordered.insert(at, key)
        at = ordered.index(key) + 1
