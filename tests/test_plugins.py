"""A plug-in is a file of its room: found by name, built from options, explained when that fails."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

import pydantic
import pytest

from p2pfl import plugins, yaml_marks
from p2pfl.errors import ScenarioError

EVERY_PLUGIN = [(room, name) for room in plugins.ROOMS for name in plugins.names(room)]


@dataclass(frozen=True)
class Part:
    """A nested option."""

    size: int = 1


@dataclass(frozen=True)
class Example:
    """Options of every kind."""

    ratio: Annotated[float, pydantic.Field(gt=0, le=1)]
    k: int = 3
    kind: Literal["a", "b"] = "a"
    widths: tuple[int, ...] = (1, 2)
    parts: tuple[Part, ...] = ()
    sizes: Mapping[str, int] = dataclasses.field(default_factory=dict)
    limit: Annotated[int, pydantic.Field(ge=0)] | None = None

    def __post_init__(self) -> None:
        if self.k == 13:
            raise ValueError("k is 13: take a luckier number")
        if self.k == 14:
            raise ValueError("kinds of trouble: none begins with an option")


def test_options_are_typed_values() -> None:
    options = {"ratio": 1, "widths": [4], "parts": [{"size": 2}], "sizes": {"x": 1}, "kind": "b"}
    filled = plugins.fill(Example, options)
    assert filled == Example(1.0, 3, "b", (4,), (Part(2),), {"x": 1})
    assert type(filled.ratio) is float


@pytest.mark.parametrize(
    ("options", "said", "path"),
    [
        ({}, "ratio is missing: add 'ratio: ...'", ("ratio",)),
        ({"ratio": 0}, "ratio is 0: must be greater than 0", ("ratio",)),
        ({"ratio": "1"}, "ratio is '1': must be a number", ("ratio",)),
        ({"ratio": float("nan")}, "ratio is nan: must be a finite number", ("ratio",)),
        ({"ratio": 1, "raito": 1}, "unknown key 'raito': did you mean 'ratio'?", ("raito",)),
        ({"raito": 1}, "unknown key 'raito': did you mean 'ratio'?", ("raito",)),
        ({"ratio": 1, "k": True}, "k is True: must be an integer", ("k",)),
        ({"ratio": 1, "k": 3.0}, "k is 3.0: must be an integer", ("k",)),
        ({"ratio": 1, "kind": "c"}, "kind is 'c': must be 'a' or 'b'", ("kind",)),
        ({"ratio": 1, "widths": 3}, "widths is 3: must be a list", ("widths",)),
        ({"ratio": 1, "widths": [3, "x"]}, "widths.1 is 'x': must be an integer", ("widths", 1)),
        ({"ratio": 1, "parts": [{"siez": 3}]}, "unknown key 'siez': did you mean 'size'?", ("parts", 0, "siez")),
        ({"ratio": 1, "sizes": [1]}, "sizes is [1]: must be a mapping", ("sizes",)),
        ({"ratio": 1, "k": 13}, "k is 13: take a luckier number", ("k",)),
        ({"ratio": 1, "k": 14}, "kinds of trouble: none begins with an option", ()),
    ],
)
def test_a_wrong_option_is_explained_in_one_line(
    options: dict[str, object], said: str, path: tuple[object, ...]
) -> None:
    with pytest.raises(ScenarioError) as raised:
        plugins.fill(Example, options)
    assert str(raised.value) == said
    assert raised.value.path == path


def test_an_unknown_plugin_is_answered_with_the_nearest_or_with_all() -> None:
    with pytest.raises(ScenarioError, match=r"no sketch 'countsketsch': did you mean 'countsketch'\?"):
        plugins.find("sketches", "countsketsch")
    with pytest.raises(ScenarioError, match="no sketch 'zzz': there are countsketch, dense"):
        plugins.find("sketches", "zzz")


@pytest.mark.parametrize("name", ["os", "_files", "dense.Dense", "../dense", "__init__", ""])
def test_nothing_but_a_file_of_the_room_can_be_named(name: str) -> None:
    with pytest.raises(ScenarioError, match="no sketch"):
        plugins.find("sketches", name)


def test_types_are_shown_with_their_bounds() -> None:
    shown = [plugins.kind_of(Example, option.name) for option in plugins.options_of(Example)]
    assert shown[:4] == ["float > 0, <= 1", "int", "a | b", "list of int"]
    assert shown[-1] == "int >= 0 or null"


def test_values_are_shown_as_yaml_has_them() -> None:
    topology = plugins.Slot("topology", "topologies")
    written = [None, True, 0.5, "mean", [64, 32], [], {"a": 1}, "torus", {"small_world": {"k": 6}}, ""]
    given: list[object] = [*written[:4], (64, 32), (), {"a": 1}]
    given += [topology.choose("torus"), topology.choose({"small_world": {"k": 6}}), ""]
    assert [yaml_marks.read(plugins.shown(value), str).value for value in given] == written


def test_rooms_have_a_singular() -> None:
    words = [plugins.singular(room) for room in plugins.ROOMS]
    assert words == [
        "topology",
        "dataset",
        "partition",
        "model",
        "schedule",
        "algorithm",
        "sketch",
        "aggregator",
        "defence",
        "attack",
        "engine",
    ]
