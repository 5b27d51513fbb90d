"""What the types of the keys cannot say: whether this machine and this graph can carry the scenario."""

from __future__ import annotations

import dataclasses
import re

import torch

from p2pfl import plugins
from p2pfl.errors import ScenarioError
from p2pfl.messages import HUB, PeerId, peer_name
from p2pfl.scenario.drawing import graph, varies
from p2pfl.scenario.keys import Scenario

Path = tuple[str | int, ...]


def check(scenario: Scenario) -> None:
    """Raises ScenarioError with the path of the culprit."""
    _check_groups(scenario)
    _check_device(scenario.training.device, ("training", "device"))
    _check_churn(scenario)
    _check_stop(scenario)
    _check_drift(scenario)
    _check_attacks(scenario)
    try:
        scenario.data.value.check()
    except ScenarioError as error:
        raise error.under("data", scenario.data.name) from None
    links = tuple(sorted((min(link), max(link)) for link in graph(scenario).edges))
    algorithm = scenario.algorithm
    for training in (scenario.training, *(group.training for group in scenario.groups.values())):
        try:
            algorithm.value.check(training, scenario.sketch.value, links)
        except ValueError as error:
            about = plugins.complaint(str(error), type(algorithm.value))
            raise about.under("algorithm", algorithm.name) from None


def _check_device(device: str, path: tuple[str, ...]) -> None:
    asked = re.fullmatch(r"cuda(?::([0-9]{1,4}))?", device)
    if asked is None and device not in ("auto", "cpu"):
        raise ScenarioError(f"no device {device!r}", "there are auto, cpu, cuda, cuda:0, cuda:1, ...", path)
    if asked is not None and int(asked[1] or 0) >= (there := torch.cuda.device_count()):
        raise ScenarioError(f"{'.'.join(path)} is {device!r}", f"this machine has {there} of them: say 'auto'", path)


def _check_groups(scenario: Scenario) -> None:
    """Every peer is there, and in one group at most."""
    seen: dict[PeerId, str] = {}
    there = scenario.algorithm.value.roles(scenario.peers)
    for name, group in scenario.groups.items():
        if not group.peers:
            raise ScenarioError(f"groups.{name}.peers is []", "name at least one peer", ("groups", name, "peers"))
        for at, peer in enumerate(group.peers):
            path = ("groups", name, "peers", at)
            if peer >= scenario.peers:
                raise ScenarioError(f"no peer {peer}", f"there are 0 to {scenario.peers - 1}", path)
            if peer not in there:
                problem = f"peer {peer} has nothing to do in {scenario.algorithm.name}"
                raise ScenarioError(problem, "leave the group out", path)
            if peer in seen:
                raise ScenarioError(f"peer {peer} is in the groups {seen[peer]} and {name}", "one group a peer", path)
            seen[peer] = name
        _check_device(group.training.device, ("groups", name, "training", "device"))


def _check_stop(scenario: Scenario) -> None:
    for at, stop in enumerate(scenario.stop):
        if stop.target and scenario.evaluate.target is None:
            raise ScenarioError("there is no target to stop at", "give evaluate.target", ("stop", at, "target"))


def _check_drift(scenario: Scenario) -> None:
    """Peers without rounds in common cannot all stop after one, nor lay their links anew in each."""
    algorithm = scenario.algorithm
    roles = algorithm.value.roles(scenario.peers).values()
    if not any(getattr(role.flow, "asynchronous", False) for role in roles):
        return
    why = f"needs rounds that peers have in common, and those of {algorithm.name} have none"
    for at, stop in enumerate(scenario.stop):
        if stop.seconds is None:
            name = next(key.name for key in dataclasses.fields(stop) if getattr(stop, key.name) is not None)
            raise ScenarioError(f"stop.{at}.{name} {why}", "stop after so many seconds", ("stop", at, name))
    if varies(scenario):
        raise ScenarioError(f"topology.{scenario.topology.name} {why}", "take a graph that stays", ("topology",))


def _check_churn(scenario: Scenario) -> None:
    there = [peer for peer in scenario.algorithm.value.roles(scenario.peers) if peer != HUB]
    for at, churn in enumerate(scenario.churn):
        if churn.round > scenario.rounds:
            problem, remedy = f"churn.{at}.round is {churn.round}", f"the run has {scenario.rounds} rounds"
            raise ScenarioError(problem, remedy, ("churn", at, "round"))
        _check_named(scenario, churn.kill, there, ("churn", at, "kill"))


def _check_attacks(scenario: Scenario) -> None:
    """Who attacks and who is attacked is there, and what they say can be read."""
    roles = scenario.algorithm.value.roles(scenario.peers)
    for at, malice in enumerate(scenario.attacks):
        for key, who in (("peers", malice.peers), ("victims", malice.victims)):
            _check_named(scenario, who, list(roles), ("attacks", at, key))
        attackers, path = scenario.named(malice.peers), ("attacks", at, "peers")
        if not attackers:
            raise ScenarioError(f"attacks.{at}.peers is []", "name who attacks", path)
        if both := set(attackers) & set(scenario.named(malice.victims)):
            problem = f"peer {peer_name(min(both))} is its own victim"
            raise ScenarioError(problem, "leave it out of victims", ("attacks", at, "victims"))
        for peer in attackers:
            flow = roles[peer].flow
            if not hasattr(flow, "telltale"):
                problem = f"what the mail of {scenario.algorithm.name} tells peer {peer_name(peer)} is not worked out"
                raise ScenarioError(problem, "take dpsgd, leasgd or fedavg, or the hub of easgd", path)
            if (latest := scenario.rounds - flow.telltale().lag) < malice.rounds[-1]:
                problem = f"attacks.{at}.rounds names round {malice.rounds[-1]} of {scenario.rounds}"
                remedy = f"what peer {peer_name(peer)} hears tells of rounds 1 to {latest}"
                raise ScenarioError(problem, remedy, ("attacks", at, "rounds"))
    _check_named(scenario, scenario.save.mail, list(roles), ("save", "mail"))


def _check_named(scenario: Scenario, who: tuple[PeerId | str, ...], there: list[PeerId], path: Path) -> None:
    """Each is a peer that is there, a group, or the hub where there is one."""
    numbers = [peer for peer in there if peer != HUB]
    for index, peer in enumerate(who):
        if isinstance(peer, str) and peer not in scenario.groups and not (peer == peer_name(HUB) and HUB in there):
            known = [*scenario.groups, *([peer_name(HUB)] if HUB in there else [])]
            raise ScenarioError(f"no group {peer!r}", plugins.nearest(peer, known), (*path, index))
        if isinstance(peer, int) and peer not in numbers:
            remedy = f"there are {numbers[0]} to {numbers[-1]}" if numbers else "no peer runs beside the hub"
            raise ScenarioError(f"no peer {peer}", remedy, (*path, index))
