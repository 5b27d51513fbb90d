"""Find a plug-in by the name of its file; say what there is when there is none.

A plug-in is a module in its room holding one frozen dataclass whose name is the module's
(`local_only` holds `LocalOnly`). Its fields are its options in YAML, its `__post_init__` their check.
The folder is the registry: nobody ever names a Python path. A room may offer names beyond its
files by functions `elsewhere(name) -> type | None` and `elsewhere_names()` in its `__init__.py`.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import pkgutil
import re
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pydantic
from pydantic_core import CoreSchema, core_schema

from p2pfl import own_code
from p2pfl.errors import ScenarioError
from p2pfl.wording import brief as brief
from p2pfl.wording import nearest as nearest
from p2pfl.wording import singular as singular
from p2pfl.wording import type_name

ROOMS: Mapping[str, str] = {
    "topologies": "p2pfl.topologies",
    "datasets": "p2pfl.learning.datasets",
    "partitions": "p2pfl.learning.partitions",
    "models": "p2pfl.learning.models",
    "schedules": "p2pfl.learning.schedules",
    "algorithms": "p2pfl.algorithms",
    "sketches": "p2pfl.sketches",
    "aggregators": "p2pfl.aggregators",
    "defences": "p2pfl.defences",
    "attacks": "p2pfl.attacks",
    "engines": "p2pfl.runtime.engines",
}
"""The rooms that hold plug-ins, and their packages."""

STRICT = pydantic.ConfigDict(
    strict=True,
    extra="forbid",
    allow_inf_nan=False,
    frozen=True,
    arbitrary_types_allowed=True,
    protected_namespaces=(),
)
"""How everything that comes from a user is read: exact types, no unknown key, finite numbers."""

UNKNOWN = ("extra_forbidden", "unexpected_keyword_argument")
WORDING = (
    ("Input should be a valid array", "must be a list"),
    ("Input should be a valid tuple", "must be a list"),
    ("Input should be an object", "must be a mapping"),
    ("Input should be a valid dictionary", "must be a mapping"),
    ("Input should be a valid integer", "must be an integer"),
    ("Input should be a valid number", "must be a number"),
    ("Input should be a valid string", "must be a word"),
    ("Input should be a valid boolean", "must be true or false"),
    ("Input should be", "must be"),
)


@dataclass(frozen=True)
class Choice:
    """A plug-in, and the name it was chosen by."""

    name: str
    value: Any


@dataclass(frozen=True)
class Slot:
    """Marks the field `key` as holding a plug-in of `room`: the one named `default` when the user is silent.

    The key of a field further in is dotted: `training.schedule`.
    """

    key: str
    room: str
    default: str | None = None

    @property
    def path(self) -> tuple[str, ...]:
        """The key as the path of an error."""
        return tuple(self.key.split("."))

    def choose(self, given: Any) -> Choice:
        """The plug-in that was given by its name, or as the one key of a mapping of its options, or its first one."""
        name, options = next(iter(given.items())) if isinstance(given, dict) and len(given) == 1 else (given, {})
        if not isinstance(name, str):
            remedy = f"name one {singular(self.room)}, alone or with its options as '{{name: {{...}}}}'"
            raise ScenarioError(f"{self.key} is {brief(given)}", remedy, self.path)
        try:
            cls = find(self.room, name)
            if options is not None and not isinstance(options, dict):
                options = {first_option(cls): options}
            return Choice(name, fill(cls, options or {}))
        except ScenarioError as error:
            raise error.under(*self.path, name) from None

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self.choose)

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: Any) -> dict[str, Any]:
        return {"x-room": self.room, "default": self.default}


def names(room: str) -> tuple[str, ...]:
    """The plug-ins of a room, in alphabetical order."""
    package = importlib.import_module(ROOMS[room])
    return tuple(sorted(m.name for m in pkgutil.iter_modules(package.__path__) if not m.name.startswith("_")))


def find(room: str, name: str) -> type[Any]:
    """The plug-in's class. Raises ScenarioError when the room has none of that name, or one that is broken."""
    if name in names(room):
        return own_code.held(f"{ROOMS[room]}.{name}")
    package = importlib.import_module(ROOMS[room])
    if hasattr(package, "elsewhere") and (found := package.elsewhere(name)) is not None:
        return typing.cast(type[Any], found)
    if (file := own_code.unused(room, name)) is not None:
        problem = f"{singular(room)} {brief(name)} is code of your own, {file}"
        raise ScenarioError(problem, "say --allow-code to run it")
    further = package.elsewhere_names() if hasattr(package, "elsewhere_names") else ()
    raise ScenarioError(f"no {singular(room)} {brief(name)}", nearest(name, names(room), further))


def adopt(folder: Path | None) -> None:
    """Let the plug-ins of the user's own in `folder` be found, and those of no other. Raises ScenarioError."""
    own_code.adopt(folder, ROOMS)


def build(room: str, name: str, options: Mapping[str, Any]) -> Any:
    """The plug-in with these options. Raises ScenarioError, its path beginning with the option."""
    return fill(find(room, name), options)


def fill(cls: type[Any], options: Mapping[str, Any]) -> Any:
    """An instance of the dataclass `cls` from what a user wrote, read as JSON is. Raises ScenarioError."""
    try:
        checked = schema(cls).model_validate_json(json.dumps(dict(options)))
        return cls(**{field.name: getattr(checked, field.name) for field in options_of(cls)})
    except pydantic.ValidationError as error:
        raise explain(error, cls) from None
    except ValueError as error:
        raise complaint(str(error), cls) from None


def options_of(cls: type[Any]) -> tuple[dataclasses.Field[Any], ...]:
    """The options of a plug-in: the fields that can be given."""
    return tuple(field for field in dataclasses.fields(cls) if field.init)


def first_option(cls: type[Any]) -> str:
    """The option that may be given alone, as in `{file: lab.graphml}`. Raises ScenarioError where there is none."""
    if not (options := options_of(cls)):
        raise ScenarioError(f"{cls.__name__} has no options", "name it alone")
    return options[0].name


def default_of(option: dataclasses.Field[Any]) -> Any:
    """The default of an option; `dataclasses.MISSING` where it must be given."""
    return option.default if option.default_factory is dataclasses.MISSING else option.default_factory()


def kind_of(cls: type[Any], option: str) -> str:
    """The type of an option and its bounds, as they are shown to a user: `float > 0`; of a plug-in, `topology`."""
    hint = typing.get_type_hints(cls, include_extras=True)[option]
    if room := next((mark.room for mark in getattr(hint, "__metadata__", ()) if isinstance(mark, Slot)), None):
        return singular(room)
    optional = " or null" if type(None) in typing.get_args(hint) else ""
    if optional:
        hint = next(part for part in typing.get_args(hint) if part is not type(None))
    return f"{type_name(hint)}{optional}"


def shown(value: Any) -> str:
    """A value as a user would write it in YAML: `null`, `[64, 64]`, `complete`, `{small_world: {k: 6}}`."""
    if isinstance(value, Choice):
        options = [(each, getattr(value.value, each.name)) for each in options_of(type(value.value))]
        unusual = {each.name: given for each, given in options if given != default_of(each)}
        return shown({value.name: unusual}) if unusual else value.name
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {shown(part)}" for key, part in value.items()) + "}"
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {each.name: getattr(value, each.name) for each in dataclasses.fields(value)}
        return shown({name: part for name, part in fields.items() if part is not None})
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(shown, value))}]"
    return json.dumps(value) if value is None or isinstance(value, bool) else str(value) or "''"


def schema(cls: type[Any]) -> type[pydantic.BaseModel]:
    """The options of a plug-in as a pydantic model: strict, unknown keys refused."""
    return _schema(cls)  # type: ignore[arg-type]  # mypy does not know that classes are hashable


@cache
def _schema(cls: type[Any]) -> type[pydantic.BaseModel]:
    hints = typing.get_type_hints(cls, include_extras=True)
    fields: dict[str, Any] = {}
    for option in options_of(cls):
        default = default_of(option)
        fields[option.name] = (hints[option.name], ... if default is dataclasses.MISSING else default)
    return pydantic.create_model(cls.__name__, __config__=STRICT, **fields)


def explain(error: pydantic.ValidationError, cls: type[Any]) -> ScenarioError:
    """The first complaint of pydantic about options of `cls`, in words a user understands."""
    complaints = error.errors(include_url=False)
    first = next((each for each in complaints if each["type"] in UNKNOWN), complaints[0])
    path = tuple(part for part in first["loc"] if part not in ("tuple", "union"))
    key = ".".join(str(part) for part in path)
    if first["type"] in UNKNOWN:
        known = [option.name for option in options_of(_inner(cls, path[:-1]))]
        return ScenarioError(f"unknown key {brief(path[-1])}", nearest(str(path[-1]), known), path)
    if first["type"] in ("missing", "missing_argument"):
        return ScenarioError(f"{key} is missing", f"add '{path[-1]}: ...'", path)
    if first["type"] == "value_error" and isinstance(first["input"], dict):
        return complaint(str(first["ctx"]["error"]), _inner(cls, path)).under(*path)
    said = str(first["ctx"]["error"]) if first["type"] == "value_error" else first["msg"]
    said = next((said.replace(old, new) for old, new in WORDING if said.startswith(old)), said)
    return ScenarioError(f"{key} is {brief(first['input'])}", said[:1].lower() + said[1:], path)


def complaint(text: str, cls: type[Any]) -> ScenarioError:
    """What a plug-in of class `cls` said, `problem: remedy`, the culprit being the option that the text begins with."""
    problem, _, remedy = text.partition(": ")
    first = re.match(r"\w*", text)
    known = [option.name for option in options_of(cls)]
    return ScenarioError(problem, remedy, (first[0],) if first and first[0] in known else ())


def _inner(cls: type[Any], path: Sequence[str | int]) -> type[Any]:
    """The dataclass that the options at `path` beneath those of `cls` belong to."""
    for part in path:
        hint = cls if isinstance(part, int) else typing.get_type_hints(cls).get(part, cls)
        inner = [kind for kind in (hint, *typing.get_args(hint)) if isinstance(kind, type)]
        cls = next((kind for kind in inner if dataclasses.is_dataclass(kind)), cls)
    return cls
