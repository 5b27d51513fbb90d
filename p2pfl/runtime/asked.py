"""What `p2pfl attack` is asked for, read strictly: a former run, who attacks, and one entry of `attacks`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from p2pfl import plugins, scenario, yaml_marks, yaml_settings
from p2pfl.errors import ScenarioError
from p2pfl.runtime import findings, insight, recall
from p2pfl.runtime.afterwards import Raid
from p2pfl.runtime.world import World
from p2pfl.scenario import Malice, Scenario
from p2pfl.scenario.anchoring import anchored
from p2pfl.scenario.checks import check
from p2pfl.seeds import Seeds

SLOTS = ("attack",)
"""Where `--set` chooses a plug-in in the entry of an attack."""


def prepared(
    run: Path,
    peers: Sequence[int | str],
    entry: str | Path | Mapping[str, Any],
    sets: Sequence[str] = (),
    device: str = "auto",
    allow_code: bool = False,
) -> Raid:
    """What was asked for. Raises ScenarioError for all that is wrong with it; nothing is written."""
    settings, document = _settings(run, allow_code), _document(entry, sets)
    try:
        malice = _malice(document, peers)
        computed = _on(settings, device)
        _check(computed, malice)
    except ScenarioError as error:
        raise document.locate(error) from None
    attackers = insight.attackers_of(settings, malice)
    for peer in attackers:
        recall.insist(run, peer)
    if (link := findings.link(run, attackers)) is not None:
        raise ScenarioError(f"{link} is a symbolic link", "remove it: an attack writes into its run alone")
    return Raid(run, World(computed, Seeds.of(settings.seed)), scenario.digest(settings), malice)


def _settings(run: Path, allow_code: bool) -> Scenario:
    """The scenario of a former run; with `allow_code` the plug-ins that it kept may run. Raises ScenarioError."""
    path = run / "scenario.yaml"
    if not path.is_file():
        problem = f"{plugins.brief(str(run))} is not a run folder"
        raise ScenarioError(problem, "give the folder that `p2pfl launch` wrote")
    scenario.allow_code(path, allow_code)
    with scenario.located(path):
        return scenario.parse(path.read_text())


def _document(entry: str | Path | Mapping[str, Any], sets: Sequence[str]) -> yaml_marks.Document:
    """The entry as it was written, after each `--set key=value`. Raises ScenarioError, located."""
    if isinstance(entry, Mapping):
        document = yaml_marks.wrap(entry)
    else:
        path = Path(entry)
        try:
            raw = path.read_bytes()
        except OSError as error:
            problem = f"cannot read {plugins.brief(str(path))}, {error.strerror}"
            raise ScenarioError(problem, "give the YAML file of an attack") from None
        document = replace(yaml_marks.parse(raw, str(entry)), folder=str(path.parent))
    for setting in sets:
        document = yaml_settings.override(document, setting, SLOTS)
    return document


def _malice(document: yaml_marks.Document, peers: Sequence[int | str]) -> Malice:
    """One entry of `attacks`, by these peers. Raises ScenarioError."""
    if "peers" in document.value:
        raise ScenarioError("peers is given in the attack", "leave it out, --as says who attacks", ("peers",))
    named = [int(peer) if str(peer).isdecimal() else str(peer) for peer in dict.fromkeys(peers)]
    malice: Malice = plugins.fill(Malice, {**document.value, "peers": named})
    there: Malice = anchored(malice, document)
    return replace(there, collude=len(named) > 1)


def _on(settings: Scenario, device: str) -> Scenario:
    """The scenario with all its peers on one device: that of the run may not be here."""
    groups = {
        name: replace(group, training=replace(group.training, device=device)) for name, group in settings.groups.items()
    }
    return replace(settings, training=replace(settings.training, device=device), groups=groups)


def _check(settings: Scenario, malice: Malice) -> None:
    """Raises ScenarioError where this attack is impossible in that run."""
    try:
        check(replace(settings, attacks=(malice,)))
    except ScenarioError as error:
        if error.path[:2] != ("attacks", 0):
            raise
        problem = error.problem.removeprefix("attacks.0.")
        by_option = "--as" if error.path[2:3] == ("peers",) else error.where
        raise ScenarioError(problem, error.remedy, error.path[2:], by_option) from None
