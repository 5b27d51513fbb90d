"""The door: what a user wrote becomes typed values, or one error that says where.

A plug-in is named alone, or as the one key of a mapping of its options. Below this room nobody sees a dict, a YAML
key or a default. What is refused here is refused before anything is started or written.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.resources
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from p2pfl import plugins, yaml_marks
from p2pfl.errors import ScenarioError
from p2pfl.plugins import Choice
from p2pfl.scenario.checks import check
from p2pfl.scenario.keys import SLOTS, Scenario

LOCAL_STEPS = 5
"""Steps a round when the scenario gives neither local_steps nor local_epochs."""

UNBUILT = ("defences", "groups", "attacks", "stop", "save", "hosts", "tune", "matrix")
UNBUILT_WITHIN = {"init": ("run", "round"), "topology": ("file", "schedule")}
UNBUILT_CHURN = ("pause", "partition", "heal", "join")


def read(source: str | Path | Mapping[str, Any], sets: Sequence[str] = ()) -> Scenario:
    """The scenario in a file, in one that ships with the package, or in a mapping, after each `--set key=value`.

    Raises ScenarioError, with the place of the culprit; nothing is started or written.
    """
    with located(source, sets) as document:
        scenario = _resolve(document.value)
        check(scenario)
        return scenario


@contextmanager
def located(source: str | Path | Mapping[str, Any], sets: Sequence[str] = ()) -> Iterator[yaml_marks.Document]:
    """Within, every ScenarioError about this source gets the place of its culprit."""
    document = yaml_marks.wrap(source) if isinstance(source, Mapping) else _open(str(source))
    for setting in sets:
        document = yaml_marks.override(document, setting, SLOTS)
    try:
        yield document
    except ScenarioError as error:
        raise document.locate(error) from None


def shipped() -> dict[str, Path]:
    """The scenarios that come with the package, by name; those in folders as `folder/name`."""
    root = Path(str(importlib.resources.files("p2pfl.scenarios")))
    return {path.relative_to(root).with_suffix("").as_posix(): path for path in sorted(root.rglob("*.yaml"))}


def dump(scenario: Scenario) -> str:
    """YAML of the scenario with every default written; `read` gives back an equal one."""
    return yaml_marks.dump(_plain(scenario))


def parse(text: str) -> Scenario:
    """What `dump` wrote, for another process: nothing is checked against this machine again."""
    return _resolve(yaml_marks.parse(text.encode(), "scenario").value)


def digest(scenario: Scenario) -> str:
    """A short hash of all that the scenario says: 8 hexadecimal digits."""
    return hashlib.sha256(dump(scenario).encode()).hexdigest()[:8]


def _open(name: str) -> yaml_marks.Document:
    path, known = Path(name), shipped()
    try:
        if not path.is_file() and name.removesuffix(".yaml") in known:
            path = known[name.removesuffix(".yaml")]
            name = path.name
        with path.open("rb") as file:
            return yaml_marks.parse(file.read(yaml_marks.LARGEST_BYTES + 1), name)
    except (OSError, ValueError) as error:
        if isinstance(error, FileNotFoundError):
            raise ScenarioError(f"no scenario {plugins.brief(name)}", plugins.nearest(name, list(known))) from None
        reason = getattr(error, "strerror", None) or error
        raise ScenarioError(f"cannot read {plugins.brief(name)}, {reason}", "give a YAML file") from None


def _resolve(value: Mapping[str, Any]) -> Scenario:
    _refuse_unbuilt(value)
    given = {key: slot.default for key, slot in SLOTS.items() if slot.default is not None}
    given |= {key: part for key, part in value.items() if key not in UNBUILT}
    given.setdefault("topology", SLOTS["algorithm"].choose(given["algorithm"]).value.topology)
    scenario: Scenario = plugins.fill(Scenario, given)
    training = scenario.training
    if training.local_steps is None and training.local_epochs is None:
        training = dataclasses.replace(training, local_steps=LOCAL_STEPS)
    return dataclasses.replace(scenario, training=training)


def _refuse_unbuilt(value: Mapping[str, Any]) -> None:
    matrix = value.get("matrix")
    for key, values in matrix.items() if isinstance(matrix, dict) else ():
        if values == []:
            raise ScenarioError(f"matrix.{key} is an empty list", "give at least one value", ("matrix", key))
    found: list[tuple[str | int, ...]] = [(key,) for key in UNBUILT if value.get(key) not in ([], {}, None)]
    for key, inner in UNBUILT_WITHIN.items():
        found += [(key, word) for word in inner if isinstance(value.get(key), dict) and word in value[key]]
    churn = value.get("churn")
    for at, entry in enumerate(churn if isinstance(churn, list) else ()):
        found += [("churn", at, word) for word in UNBUILT_CHURN if isinstance(entry, dict) and word in entry]
    for path in found:
        raise ScenarioError(f"{'.'.join(map(str, path))} is not built yet", "remove the key", path)


def _plain(value: Any) -> Any:
    if isinstance(value, Choice):
        options = _plain(value.value)
        return {value.name: options} if options else value.name
    if dataclasses.is_dataclass(value):
        return {option.name: _plain(getattr(value, option.name)) for option in plugins.options_of(type(value))}
    if isinstance(value, Mapping):
        return {key: _plain(part) for key, part in value.items()}
    return [_plain(part) for part in value] if isinstance(value, list | tuple) else value
