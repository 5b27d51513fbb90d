"""The door: what a user wrote becomes typed values, or one error that says where.

A plug-in is named alone, or as the one key of a mapping of its options. Below this file nobody sees a dict, a YAML
key or a default. What is refused here is refused before anything is started or written.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.resources
import re
import typing
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import networkx as nx
import pydantic
import torch

from p2pfl import plugins, yaml_marks
from p2pfl.contracts import Training
from p2pfl.errors import ScenarioError
from p2pfl.messages import HUB, PeerId
from p2pfl.plugins import Choice, Slot
from p2pfl.seeds import Seeds

LOCAL_STEPS = 5
"""Steps a round when the scenario gives neither local_steps nor local_epochs."""

UNBUILT = ("defences", "groups", "attacks", "stop", "save", "hosts", "tune", "matrix")
UNBUILT_WITHIN = {"init": ("run", "round"), "topology": ("file", "schedule")}
UNBUILT_CHURN = ("pause", "partition", "heal", "join")


def _well_named(name: str) -> str:
    if re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}", name) is None:
        raise ValueError("must be of 1 to 100 letters, digits, '-', '_' and '.', and not begin with '.'")
    return name


Count = Annotated[int, pydantic.Field(ge=1)]


@dataclass(frozen=True)
class Churn:
    """Who is killed in which round."""

    round: Count
    kill: tuple[Annotated[PeerId, pydantic.Field(ge=0)], ...]


@dataclass(frozen=True)
class Evaluate:
    """Every how many rounds models are evaluated, on what, and the accuracy that is waited for."""

    every: Count = 5
    target: Annotated[float, pydantic.Field(ge=0, le=1)] | None = None
    split: Literal["validation", "test"] = "validation"


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """One experiment, every default filled in."""

    name: Annotated[str, pydantic.AfterValidator(_well_named)]
    seed: int | None = None
    peers: Annotated[int, pydantic.Field(ge=1, le=10_000)] = 8
    rounds: Count = 30
    init: Literal["shared", "own"] = "shared"
    topology: Annotated[Choice, Slot("topology", "topologies")]
    data: Annotated[Choice, Slot("data", "datasets", "digits")]
    partition: Annotated[Choice, Slot("partition", "partitions", "iid")]
    model: Annotated[Choice, Slot("model", "models", "mlp")]
    training: Training = dataclasses.field(default_factory=Training)
    algorithm: Annotated[Choice, Slot("algorithm", "algorithms", "dpsgd")]
    sketch: Annotated[Choice, Slot("sketch", "sketches", "dense")]
    aggregator: Annotated[Choice, Slot("aggregator", "aggregators", "mean")]
    churn: tuple[Churn, ...] = ()
    evaluate: Evaluate = Evaluate()
    wait: Literal["learned", "all"] = "learned"
    transport: Literal["auto", "ipc", "tcp"] = "auto"
    engine: Annotated[Choice, Slot("engine", "engines", "local")]


SLOTS: Mapping[str, Slot] = {
    key: hint.__metadata__[0]
    for key, hint in typing.get_type_hints(Scenario, include_extras=True).items()
    if typing.get_origin(hint) is Annotated and isinstance(hint.__metadata__[0], Slot)
}


def read(source: str | Path | Mapping[str, Any], sets: Sequence[str] = ()) -> Scenario:
    """The scenario in a file, in one that ships with the package, or in a mapping, after each `--set key=value`.

    Raises ScenarioError, with the place of the culprit; nothing is started or written.
    """
    with located(source, sets) as document:
        scenario = _resolve(document.value)
        _check(scenario)
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


def graph(scenario: Scenario, seeds: Seeds | None = None) -> nx.Graph[PeerId]:
    """The peer graph: exactly the algorithm's peers, undirected, connected. Raises ScenarioError.

    `seeds` is the root of the run; without a seed in the scenario each root gives another random graph.
    """
    nodes, topology = tuple(scenario.algorithm.value.roles(scenario.peers)), scenario.topology
    root = Seeds.of(scenario.seed) if seeds is None else seeds
    try:
        drawn: nx.Graph[PeerId] = topology.value.graph(nodes, root.child("topology"))
    except ScenarioError as error:
        raise error.under("topology", topology.name) from None
    if drawn.is_directed() or drawn.is_multigraph() or set(drawn) != set(nodes):
        problem, remedy = f"topology {topology.name!r} is no simple graph of the {len(nodes)} peers", "take another"
        raise ScenarioError(problem, remedy, ("topology", topology.name))
    parts = [sorted(part) for part in nx.connected_components(drawn)]
    if len(parts) > 1:
        listed = " and ".join(plugins.brief(part) for part in parts[:4]) + (" and more" if len(parts) > 4 else "")
        problem = f"topology {topology.name!r} is not connected, it falls into {listed}"
        raise ScenarioError(problem, "give it more links, or another seed", ("topology", topology.name))
    return drawn


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


def _check(scenario: Scenario) -> None:
    _check_device(scenario.training.device)
    _check_churn(scenario)
    try:
        scenario.data.value.check()
    except ScenarioError as error:
        raise error.under("data", scenario.data.name) from None
    links = tuple(sorted((min(link), max(link)) for link in graph(scenario).edges))
    algorithm = scenario.algorithm
    try:
        algorithm.value.check(scenario.training, links)
    except ValueError as error:
        about = plugins.complaint(str(error), type(algorithm.value))
        raise about.under("algorithm", algorithm.name) from None


def _check_device(device: str) -> None:
    path = ("training", "device")
    asked = re.fullmatch(r"cuda(?::([0-9]{1,4}))?", device)
    if asked is None and device not in ("auto", "cpu"):
        raise ScenarioError(f"no device {device!r}", "there are auto, cpu, cuda, cuda:0, cuda:1, ...", path)
    if asked is not None and int(asked[1] or 0) >= (there := torch.cuda.device_count()):
        raise ScenarioError(f"training.device is {device!r}", f"this machine has {there} of them: say 'auto'", path)


def _check_churn(scenario: Scenario) -> None:
    there = [peer for peer in scenario.algorithm.value.roles(scenario.peers) if peer != HUB]
    for at, churn in enumerate(scenario.churn):
        if churn.round > scenario.rounds:
            problem, remedy = f"churn.{at}.round is {churn.round}", f"the run has {scenario.rounds} rounds"
            raise ScenarioError(problem, remedy, ("churn", at, "round"))
        for index, peer in enumerate(churn.kill):
            if peer not in there:
                remedy = f"there are {there[0]} to {there[-1]}" if there else "no peer runs beside the hub"
                raise ScenarioError(f"no peer {peer}", remedy, ("churn", at, "kill", index))


def _plain(value: Any) -> Any:
    if isinstance(value, Choice):
        options = _plain(value.value)
        return {value.name: options} if options else value.name
    if dataclasses.is_dataclass(value):
        return {option.name: _plain(getattr(value, option.name)) for option in plugins.options_of(type(value))}
    if isinstance(value, Mapping):
        return {key: _plain(part) for key, part in value.items()}
    return [_plain(part) for part in value] if isinstance(value, list | tuple) else value
