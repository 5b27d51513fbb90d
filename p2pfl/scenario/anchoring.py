"""Relative paths of a scenario: they go from the folder of its file, those of `--set` from where the user stands."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from p2pfl import yaml_marks
from p2pfl.plugins import Choice


def anchored(value: Any, document: yaml_marks.Document, at: tuple[str | int, ...] = ()) -> Any:
    """The same value with every path in it absolute; `at` is where in the document the value stands."""
    if isinstance(value, Path):
        by_setting = document.mark(at).startswith("--set")
        return Path.cwd() / ("" if by_setting else document.folder) / value.expanduser()
    if isinstance(value, Choice):
        chosen = anchored(value.value, document, (*at, value.name))
        return value if chosen is value.value else Choice(value.name, chosen)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        old = {field.name: getattr(value, field.name) for field in dataclasses.fields(value) if field.init}
        new = {name: anchored(part, document, (*at, name)) for name, part in old.items()}
        changed = {name: part for name, part in new.items() if part is not old[name]}
        return dataclasses.replace(value, **changed) if changed else value
    if isinstance(value, Mapping):
        made = {key: anchored(part, document, (*at, key)) for key, part in value.items()}
        return made if any(made[key] is not value[key] for key in made) else value
    if isinstance(value, tuple):
        parts = tuple(anchored(part, document, (*at, k)) for k, part in enumerate(value))
        return parts if any(a is not b for a, b in zip(parts, value, strict=True)) else value
    return value
