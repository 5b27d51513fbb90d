"""Find a plug-in by the name of its file; say what there is when there is none.

A plug-in is a module in its room holding one frozen dataclass whose name is the module's
(`local_only` holds `LocalOnly`). Its fields are its options in YAML, its `__post_init__` their check.
The folder is the registry: nobody ever names a Python path. A room may offer names beyond its
files by a function `elsewhere(name) -> type | None` in its `__init__.py`.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import pkgutil
import typing
from collections.abc import Mapping
from functools import cache
from typing import Any

import pydantic

from p2pfl.errors import ScenarioError

ROOMS: Mapping[str, str] = {
    "topologies": "p2pfl.topologies",
    "datasets": "p2pfl.learning.datasets",
    "partitions": "p2pfl.learning.partitions",
    "models": "p2pfl.learning.models",
    "algorithms": "p2pfl.algorithms",
    "sketches": "p2pfl.sketches",
    "aggregators": "p2pfl.aggregators",
    "engines": "p2pfl.runtime.engines",
}
"""The rooms that hold plug-ins, and their packages."""

STRICT = pydantic.ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, frozen=True, arbitrary_types_allowed=True)
"""How everything that comes from a user is read: exact types, no unknown key, finite numbers."""


def names(room: str) -> tuple[str, ...]:
    """The plug-ins of a room, in alphabetical order."""
    package = importlib.import_module(ROOMS[room])
    return tuple(sorted(m.name for m in pkgutil.iter_modules(package.__path__) if not m.name.startswith("_")))


def find(room: str, name: str) -> type[Any]:
    """The plug-in's class. Raises ScenarioError when the room has none of that name."""
    if name in names(room):
        module = importlib.import_module(f"{ROOMS[room]}.{name}")
        wanted = name.replace("_", "")
        for key, value in vars(module).items():
            if key.lower() == wanted and dataclasses.is_dataclass(value) and isinstance(value, type):
                return value
        raise TypeError(f"{module.__name__} holds no dataclass named like its file")
    elsewhere = getattr(importlib.import_module(ROOMS[room]), "elsewhere", None)
    if elsewhere is not None and (found := elsewhere(name)) is not None:
        return typing.cast(type[Any], found)
    raise ScenarioError(f"no {singular(room)} {name!r}", nearest(name, names(room)))


def build(room: str, name: str, options: Mapping[str, Any]) -> Any:
    """The plug-in with these options. Raises ScenarioError, its path beginning with the option."""
    return fill(find(room, name), options)


def fill(cls: type[Any], options: Mapping[str, Any]) -> Any:
    """An instance of the dataclass `cls` from what a user wrote. Raises ScenarioError."""
    try:
        checked = schema(cls).model_validate(dict(options))
        return cls(**{field.name: getattr(checked, field.name) for field in options_of(cls)})
    except pydantic.ValidationError as error:
        raise explain(error, [field.name for field in options_of(cls)]) from None
    except ValueError as error:
        named = next((key for key in options if str(error).startswith(key)), None)
        raise ScenarioError(str(error), path=() if named is None else (named,)) from None


def options_of(cls: type[Any]) -> tuple[dataclasses.Field[Any], ...]:
    """The options of a plug-in: the fields that can be given."""
    return tuple(field for field in dataclasses.fields(cls) if field.init)


@cache
def schema(cls: type[Any]) -> type[pydantic.BaseModel]:
    """The options of a plug-in as a pydantic model: strict, unknown keys refused."""
    hints = typing.get_type_hints(cls, include_extras=True)
    fields: dict[str, Any] = {}
    for field in options_of(cls):
        default: Any = field.default
        if default is dataclasses.MISSING:
            default = ... if field.default_factory is dataclasses.MISSING else field.default_factory()
        fields[field.name] = (hints[field.name], default)
    return pydantic.create_model(cls.__name__, __config__=STRICT, **fields)


def explain(error: pydantic.ValidationError, known: list[str]) -> ScenarioError:
    """The first complaint of pydantic, in words a user understands."""
    first = error.errors(include_url=False)[0]
    path = tuple(part for part in first["loc"] if part not in ("tuple", "union"))
    key = ".".join(str(part) for part in path)
    if first["type"] == "extra_forbidden":
        return ScenarioError(f"unknown key {str(path[-1])!r}", nearest(str(path[-1]), known), path)
    if first["type"] == "missing":
        return ScenarioError(f"{path[-1]} is missing", f"add '{path[-1]}: ...'", path)
    if first["type"] == "value_error":
        return ScenarioError(f"{key}: {first['ctx']['error']}", path=path)
    wants = first["msg"].replace("Input should be a valid tuple", "must be a list")
    wants = wants.replace("Input should be a valid dictionary", "must be a mapping").replace("Input should be", "must be")
    return ScenarioError(f"{key} is {brief(first['input'])}", wants[:1].lower() + wants[1:], path)


def nearest(name: str, known: list[str] | tuple[str, ...]) -> str:
    """A remedy for a name that nobody knows."""
    close = difflib.get_close_matches(str(name), known, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"there are {', '.join(known)}"


def singular(room: str) -> str:
    """`topologies` -> `topology`, `sketches` -> `sketch`, `models` -> `model`."""
    for plural, single in (("ies", "y"), ("tches", "tch"), ("s", "")):
        if room.endswith(plural):
            return room.removesuffix(plural) + single
    return room


def brief(value: object) -> str:
    """A value as it is shown in an error: on one line, and not too long."""
    shown = repr(value)
    return shown if len(shown) <= 60 else shown[:57] + "..."
