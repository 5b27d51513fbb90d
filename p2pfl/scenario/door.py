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

from p2pfl import own_code, plugins, yaml_marks, yaml_settings
from p2pfl.errors import ScenarioError
from p2pfl.plugins import Choice
from p2pfl.scenario.anchoring import anchored
from p2pfl.scenario.checks import check
from p2pfl.scenario.keys import SLOTS, Scenario
from p2pfl.scenario.publication import PUBLISHED, Published, assigned, spelled, written

LOCAL_STEPS = 5
"""Steps a round when the scenario gives neither local_steps nor local_epochs."""

UNBUILT = ("hosts",)
OF_A_SWEEP = ("matrix", "tune")
"""Keys that make many scenarios of one."""
UNBUILT_CHURN = ("pause", "partition", "heal", "join")


def read(source: str | Path | Mapping[str, Any], sets: Sequence[str] = ()) -> Scenario:
    """The scenario in a file, in one that ships with the package, or in a mapping, after each `--set key=value`.

    Raises ScenarioError, with the place of the culprit; nothing is started or written.
    """
    with located(source, sets) as document:
        return settled(document)


def settled(document: yaml_marks.Document) -> Scenario:
    """The scenario that a document holds, checked. Raises ScenarioError with the path of the culprit."""
    scenario: Scenario = anchored(_resolve(document.value), document)
    check(scenario)
    published(document)
    return scenario


def published(document: yaml_marks.Document, case: yaml_marks.Document | None = None) -> Published | None:
    """What a paper reports of what the document describes; each `when` is a part of a scenario with every name spelled.

    In a sweep `case` is one of the scenarios that run. Raises ScenarioError with the path or the place of the culprit.
    """
    found, figures = written(document), []
    for at, entry in enumerate(found.figures if found is not None else ()):
        changed = assigned(document, at, case or document, SLOTS)
        try:
            whole = plain(anchored(_resolve(changed.value), changed))
        except ScenarioError as error:
            raise changed.locate(error) from None
        asked = assigned(document, at, yaml_marks.Document({}, {}), SLOTS)
        figures.append(dataclasses.replace(entry, when=spelled(asked.value, whole)))
    return found and dataclasses.replace(found, figures=tuple(figures))


@contextmanager
def located(source: str | Path | Mapping[str, Any], sets: Sequence[str] = ()) -> Iterator[yaml_marks.Document]:
    """Within, every ScenarioError about this source gets the place of its culprit."""
    document = yaml_marks.wrap(source) if isinstance(source, Mapping) else _open(str(source))
    for setting in sets:
        document = yaml_settings.override(document, setting, SLOTS)
    try:
        with own_code.offered(_plugins_beside(document)):
            yield document
    except ScenarioError as error:
        raise document.locate(error) from None


def allow_code(source: str | Path | Mapping[str, Any], allowed: bool = True) -> None:
    """Let the plug-ins in the folder `plugins/` beside a scenario run in this process, and none of another folder.

    Beside a mapping, or a scenario that ships with the package, is where the user stands. Not `allowed`: none at all.
    Raises ScenarioError for a file in there that nothing could name.
    """
    document = yaml_marks.wrap(source) if isinstance(source, Mapping) else _open(str(source))
    plugins.adopt(_plugins_beside(document) if allowed else None)


def shipped() -> dict[str, Path]:
    """The scenarios that come with the package, by name; those in folders as `folder/name`."""
    root = Path(str(importlib.resources.files("p2pfl.scenarios")))
    return {path.relative_to(root).with_suffix("").as_posix(): path for path in sorted(root.rglob("*.yaml"))}


def dump(scenario: Scenario) -> str:
    """YAML of the scenario with every default written; `read` gives back an equal one."""
    return yaml_marks.dump(plain(scenario))


def parse(text: str) -> Scenario:
    """What `dump` wrote, for another process: nothing is checked against this machine again."""
    return _resolve(yaml_marks.parse(text.encode(), "scenario").value)


def digest(scenario: Scenario) -> str:
    """A short hash of all that the scenario says: 8 hexadecimal digits."""
    return hashlib.sha256(dump(scenario).encode()).hexdigest()[:8]


def _plugins_beside(document: yaml_marks.Document) -> Path:
    return Path.cwd() / document.folder / own_code.FOLDER


def _open(name: str) -> yaml_marks.Document:
    path, known, folder = Path(name), shipped(), str(Path(name).parent)
    try:
        if not path.is_file() and name.removesuffix(".yaml") in known:
            path, folder = known[name.removesuffix(".yaml")], ""
            name = path.name
        with path.open("rb") as file:
            document = yaml_marks.parse(file.read(yaml_marks.LARGEST_BYTES + 1), name)
        return dataclasses.replace(document, folder=folder)
    except (OSError, ValueError) as error:
        if isinstance(error, FileNotFoundError):
            raise ScenarioError(f"no scenario {plugins.brief(name)}", plugins.nearest(name, list(known))) from None
        reason = getattr(error, "strerror", None) or error
        raise ScenarioError(f"cannot read {plugins.brief(name)}, {reason}", "give a YAML file") from None


def _resolve(value: Mapping[str, Any]) -> Scenario:
    _refuse_unbuilt(value)
    given: dict[str, Any] = {key: slot.default for key, slot in SLOTS.items() if slot.default and slot.path == (key,)}
    given |= {key: part for key, part in value.items() if key not in (*UNBUILT, *OF_A_SWEEP, PUBLISHED)}
    given.setdefault("topology", SLOTS["algorithm"].choose(given["algorithm"]).value.topology)
    given["training"] = _taught({"local_steps": LOCAL_STEPS}, given.get("training", {}))
    if isinstance(given.get("groups"), dict):
        given["groups"] = {name: _grouped(group, given["training"]) for name, group in given["groups"].items()}
    scenario: Scenario = plugins.fill(Scenario, given)
    return scenario


def _grouped(group: Any, training: Any) -> Any:
    """A group as written, with what it does not say of training taken from the scenario's."""
    return {**group, "training": _taught(training, group.get("training", {}))} if isinstance(group, dict) else group


def _taught(general: Any, special: Any) -> Any:
    """Training as in `general` but for what `special` says; of local_steps and local_epochs one replaces the other."""
    if not isinstance(special, dict) or not isinstance(general, dict):
        return special
    length = ("local_steps", "local_epochs")
    says = any(special.get(key) is not None for key in length)
    kept = {key: part for key, part in general.items() if not (says and key in length)}
    return kept | {key: part for key, part in special.items() if says or key not in length}


def _refuse_unbuilt(value: Mapping[str, Any]) -> None:
    for key in OF_A_SWEEP:
        if value.get(key) not in ({}, None):
            raise ScenarioError(f"{key} makes a sweep of this scenario", "remove it to have the one", (key,))
    found: list[tuple[str | int, ...]] = [(key,) for key in UNBUILT if value.get(key) not in ([], {}, None)]
    churn = value.get("churn")
    for at, entry in enumerate(churn if isinstance(churn, list) else ()):
        found += [("churn", at, word) for word in UNBUILT_CHURN if isinstance(entry, dict) and word in entry]
    for path in found:
        raise ScenarioError(f"{'.'.join(map(str, path))} is not built yet", "remove the key", path)


def plain(value: Any) -> Any:
    """A value as words, numbers, lists and mappings: what a user would have written, with every default."""
    if isinstance(value, Choice):
        options = plain(value.value)
        return {value.name: options} if options else value.name
    if dataclasses.is_dataclass(value):
        return {option.name: plain(getattr(value, option.name)) for option in plugins.options_of(type(value))}
    if isinstance(value, Mapping):
        return {key: plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    return str(value) if isinstance(value, Path) else value
