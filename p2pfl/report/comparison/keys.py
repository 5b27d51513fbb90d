"""Scenarios as flat settings: `training.lr`, and for a plug-in its name and its options, `sketch.countsketch.ratio`.

The dotted keys are those of `--set`. Values are words, numbers, true, false or nothing; a list is its JSON text, but
one of plug-ins (`defences`) is their names, `none` where it is empty, beside the options of each as of any plug-in.
"""

from __future__ import annotations

import dataclasses
import json
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache
from typing import Any

from p2pfl import plugins, scenario, yaml_marks
from p2pfl.errors import ScenarioError
from p2pfl.plugins import Slot
from p2pfl.scenario.marks import Several

Settings = Mapping[str, Any]

MISSING = "–"
"""How a key is written that a scenario does not have."""
NONE, AND = "none", " + "
"""What a list of plug-ins is called that holds none, and what stands between several."""
LONGEST = 60


def read(text: str) -> Settings:
    """The flat settings of a run's scenario.yaml, defaults filled in where this version knows all of it.

    Raises ScenarioError when it is no mapping in YAML.
    """
    with suppress(ScenarioError):  # of another version, or plug-ins that are not at hand: it is taken as it stands
        text = scenario.dump(scenario.parse(text))
    return flat(yaml_marks.parse(text.encode(errors="replace"), "scenario.yaml").value)


def flat(nested: Mapping[str, Any]) -> Settings:
    """A scenario's nested mapping by dotted keys."""
    return dict(_leaves(nested, ()))


def varying(several: Sequence[Settings]) -> list[str]:
    """The keys whose values differ, in the order of the scenarios; those that somebody lacks among them."""
    keys = dict.fromkeys(key for settings in several for key in settings)
    return [key for key in keys if len({written(settings, key) for settings in several}) > 1]


def columns(keys: Iterable[str], first: Sequence[str] = ()) -> list[str]:
    """What a reader sees in place of many keys: a plug-in and its options are one. `first` go first, then plug-ins."""
    found = list(dict.fromkeys(map(column, keys)))
    order = [*map(column, first), "algorithm", *slots()]
    return sorted(found, key=lambda key: order.index(key) if key in order else len(order))


def column(key: str) -> str:
    """`sketch.countsketch.ratio` -> `sketch`, `training.lr` -> `training.lr`."""
    return next((slot for slot in slots() if f"{key}.".startswith(f"{slot}.")), key)


def cell(settings: Settings, column: str, telling: Iterable[str], hidden: Iterable[str] = ()) -> str:
    """What a run says in a column: `countsketch(ratio=0.5)`, with the options that are `telling` or not the default.

    Those that are `hidden` are left away.
    """
    if column not in slots() or column not in settings:
        return brief(_attacks(settings.get(column)) or written(settings, column))
    if settings[column] == NONE:
        return f"no {plugins.singular(slots()[column].room)}"
    told = (_named(settings, column, name, telling, hidden) for name in str(settings[column]).split(AND))
    return brief(AND.join(told))


def _attacks(value: object) -> str:
    """Who attacks whom, as `idlg by 3 on 2 in 5 rounds from 1`; nothing of what is no list of attacks."""
    try:
        told = json.loads(value) if isinstance(value, str) and value.startswith("[{") else []
    except (ValueError, RecursionError):
        return ""
    whole = all(isinstance(one, Mapping) and "attack" in one for one in told)
    return AND.join(map(_attack, told)) if whole else ""


def _attack(told: Mapping[str, Any]) -> str:
    """One entry of a scenario's attacks: the attack with its unusual options, who, on whom, and in which rounds."""
    name, given = _choice(told["attack"])
    options = flat(given) if isinstance(given, Mapping) else {}
    defaults, rounds = _defaults("attacks", name), told.get("rounds", [1])
    unusual = [f"{key}={written(options, key)}" for key in options if _unusual(options, key, key, defaults)]
    words = [f"{name}({', '.join(unusual)})" if unusual else name]
    for key, word in (("peers", "by"), ("victims", "on")):
        if isinstance(peers := told.get(key), list) and peers:
            words.append(f"{word} {', '.join(map(str, peers))}")
    if isinstance(rounds, list) and rounds and rounds != [1]:
        words.append(f"in {len(rounds)} rounds from {rounds[0]}" if len(rounds) > 1 else f"in round {rounds[0]}")
    return " ".join([*words, *(["together"] if told.get("collude") is True else [])])


def _named(settings: Settings, column: str, name: str, telling: Iterable[str], hidden: Iterable[str]) -> str:
    """One plug-in of a column, with its options."""
    above = f"{column}.{name}."
    defaults = _defaults(slots()[column].room, name)
    options = {key.removeprefix(above): key for key in settings if key.startswith(above)}
    seen = {option: key for option, key in options.items() if key not in hidden}
    shown = [option for option, key in seen.items() if key in telling or _unusual(settings, key, option, defaults)]
    said = [f"{option}={written(settings, options[option])}" for option in shown]
    return f"{name}({', '.join(said)})" if said else name


def written(settings: Settings, key: str) -> str:
    """A value as it is shown and compared: 1.0 is `1`, and what is not there is a dash."""
    value = settings.get(key, MISSING)
    if isinstance(value, float):
        return f"{value:.12g}"
    return value if isinstance(value, str) else json.dumps(value)


def brief(text: str, longest: int = LONGEST) -> str:
    """On one line, of letters that can be shown, and not too long: both ends tell most."""
    shown = "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)
    return shown if len(shown) <= longest else f"{shown[: longest // 3]}…{shown[1 - longest + longest // 3 :]}"


def named(value: object) -> str:
    """A plug-in as a user wrote it, `{countsketch: {ratio: 0.5}}` -> `countsketch(ratio=0.5)`; all else as it is."""
    if isinstance(value, Mapping) and len(value) == 1:
        name, options = next(iter(value.items()))
        told = options.items() if isinstance(options, Mapping) else ()
        return brief(f"{name}({', '.join(f'{key}={named(option)}' for key, option in told) or options})")
    if isinstance(value, list) and value and all(isinstance(each, Mapping) for each in value):
        return brief(AND.join(map(named, value)))
    return brief(written({"": value}, ""))


def labelled(column: str, text: str) -> str:
    """A value in a list of settings: plug-ins and places speak for themselves, all else needs its key."""
    return text if column in slots() or column in ("name", "folder", "attacks") else f"{column}={text}"


@cache
def slots() -> Mapping[str, Slot | Several]:
    """The keys of a scenario that hold a plug-in or a list of them, dotted where they lie deeper."""
    return dict(_slots(scenario.Scenario, ""))


def _slots(cls: type[Any], above: str) -> Iterator[tuple[str, Slot | Several]]:
    for key, hint in typing.get_type_hints(cls, include_extras=True).items():
        marks = [mark for mark in getattr(hint, "__metadata__", ()) if isinstance(mark, Slot | Several)]
        if marks:
            yield above + key, marks[0]
        elif isinstance(hint, type) and dataclasses.is_dataclass(hint):
            yield from _slots(hint, f"{above}{key}.")


def _leaves(value: Any, path: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    key = ".".join(path)
    if key in slots():
        choices = [_choice(each) for each in (value if isinstance(value, list) else [value])]
        yield key, AND.join(name for name, _ in choices) or NONE
        for name, options in choices:
            if options not in ({}, None):
                yield from _leaves(options, (*path, name))
    elif isinstance(value, Mapping) and (value or not path):
        for part, inner in value.items():
            yield from _leaves(inner, (*path, part))
    else:
        yield key, json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else value


def _choice(value: Any) -> tuple[str, Any]:
    """The name of a plug-in as a scenario has it, and its options."""
    name, options = next(iter(value.items())) if isinstance(value, Mapping) and len(value) == 1 else (value, {})
    return name if isinstance(name, str) else json.dumps(name, ensure_ascii=False), options


@cache
def _defaults(room: str, name: str) -> Settings:
    """The defaults of a plug-in's options; none of one that is not at hand."""
    try:
        options = plugins.options_of(plugins.find(room, name))
    except ScenarioError:
        return {}
    known = {option.name: plugins.default_of(option) for option in options}
    return {
        option: list(value) if isinstance(value, tuple) else value
        for option, value in known.items()
        if value is None or isinstance(value, str | int | float | tuple)
    }


def _unusual(settings: Settings, key: str, option: str, defaults: Settings) -> bool:
    if option not in defaults:
        return True
    return written(settings, key) != written(dict(_leaves(defaults[option], (key,))), key)
