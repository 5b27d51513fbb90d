"""How keys of a scenario are read that are more than a number or a word: who, which rounds, and lists of plug-ins."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pydantic
from pydantic_core import CoreSchema, core_schema

from p2pfl import plugins
from p2pfl.errors import ScenarioError
from p2pfl.messages import PeerId
from p2pfl.plugins import Choice, Slot


def _who(given: Any) -> PeerId | str:
    if type(given) is int and given >= 0:
        return given
    if isinstance(given, str) and given:
        return given
    raise ValueError("must be a peer's number, or the name of a group")


def _rounds(given: Any) -> tuple[int, ...]:
    """Rounds as a list, or as `{from: 1, to: 30, every: 5}`."""
    wanted = (
        "rounds must be numbers from 1 on: list them, or say from, to and every as in '{from: 1, to: 30, every: 5}'"
    )
    if isinstance(given, dict):
        bounds = {"from": 1, "every": 1} | given
        if set(bounds) != {"from", "to", "every"} or not all(type(n) is int and n > 0 for n in bounds.values()):
            raise ValueError(wanted)
        given = list(range(bounds["from"], bounds["to"] + 1, bounds["every"]))
    if not isinstance(given, list | tuple) or not given or not all(type(n) is int and n > 0 for n in given):
        raise ValueError(wanted)
    return tuple(sorted(set(given)))


Count = Annotated[int, pydantic.Field(ge=1)]
Share = Annotated[float, pydantic.Field(gt=0, le=1)]
Who = Annotated[PeerId | str, pydantic.PlainValidator(_who, json_schema_input_type=PeerId | str)]
"""A peer by its number, the hub, or all peers of a group by its name."""
Rounds = Annotated[
    tuple[int, ...], pydantic.PlainValidator(_rounds, json_schema_input_type=tuple[Count, ...] | Mapping[str, Count])
]
"""Rounds of a run, in order."""


@dataclass(frozen=True)
class Start:
    """Where peers begin: at the checkpoints of a former run, in its folder; those of its last round by default."""

    run: Path
    round: Count | None = None


@dataclass(frozen=True)
class StartOrWord:
    """Marks a field that is `shared`, `own` or a Start."""

    words: tuple[str, ...] = ("shared", "own")

    def choose(self, given: Any) -> Start | str:
        """What was given, if it is one of these. Raises ScenarioError."""
        if given in self.words:
            return str(given)
        if not isinstance(given, dict):
            remedy = f"must be {', '.join(self.words)}, or '{{run: FOLDER, round: 400}}'"
            raise ScenarioError(f"init is {plugins.brief(given)}", remedy, ("init",))
        try:
            start: Start = plugins.fill(Start, given)
        except ScenarioError as error:
            raise error.under("init") from None
        return start

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self.choose)

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: Any) -> dict[str, Any]:
        start = plugins.schema(Start).model_json_schema()
        return {"anyOf": [{"enum": list(self.words)}, start]}


@dataclass(frozen=True)
class Several:
    """Marks the field `key` as holding plug-ins of `room`, in order."""

    key: str
    room: str

    def choose(self, given: Any) -> tuple[Choice, ...]:
        """The plug-ins that were given as a list. Raises ScenarioError."""
        if not isinstance(given, list):
            remedy = f"must be a list, as in '[{plugins.shown(given)}]'"
            raise ScenarioError(f"{self.key} is {plugins.brief(given)}", remedy, (self.key,))
        return tuple(self._chosen(at, one) for at, one in enumerate(given))

    def _chosen(self, at: int, given: Any) -> Choice:
        try:
            return Slot(self.key, self.room).choose(given)
        except ScenarioError as error:
            raise ScenarioError(error.problem, error.remedy, (self.key, at, *error.path[1:]), error.where) from None

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self.choose)

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: Any) -> dict[str, Any]:
        return {"type": "array", "items": {"x-room": self.room, "default": None}}


@dataclass(frozen=True)
class Entries:
    """Marks the field `key` as a list of mappings, each of which becomes a `cls`: where plug-ins may be named."""

    key: str
    cls: type[Any]

    def choose(self, given: Any) -> tuple[Any, ...]:
        """The entries that were given as a list. Raises ScenarioError."""
        if not isinstance(given, list) or not all(isinstance(one, dict) for one in given):
            remedy = f"must be a list of mappings, as in '[{{{plugins.options_of(self.cls)[0].name}: ...}}]'"
            raise ScenarioError(f"{self.key} is {plugins.brief(given)}", remedy, (self.key,))
        return tuple(self._chosen(at, one) for at, one in enumerate(given))

    def _chosen(self, at: int, given: Mapping[str, Any]) -> Any:
        try:
            return plugins.fill(self.cls, given)
        except ScenarioError as error:
            raise error.under(self.key, at) from None

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self.choose)

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: Any) -> dict[str, Any]:
        return {"type": "array", "items": plugins.schema(self.cls).model_json_schema()}
