"""Attacks on the mail that a run kept: at any time after it, without learning again, and those of colluders at its end.

What is worked out is what the peer itself would have worked out during the run, bit for bit, given the time.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from p2pfl import plugins, scenario, yaml_marks, yaml_settings
from p2pfl.errors import ScenarioError
from p2pfl.evidence import Notes
from p2pfl.messages import Aside, Message, PeerId, Report
from p2pfl.runtime import capture, findings, judging, recall, spying
from p2pfl.runtime.beside import reports
from p2pfl.runtime.world import World
from p2pfl.scenario import Malice, Scenario
from p2pfl.scenario.anchoring import anchored
from p2pfl.scenario.checks import check
from p2pfl.seeds import Seeds

SLOTS = ("attack",)
"""Where `--set` chooses a plug-in in the entry of an attack."""
LARGEST_ROW = 1 << 24
"""Characters of a line of a record that is read."""
Hear = Callable[[PeerId, Message], object]
"""Hears what a run hears of a curious peer: `spying` as it goes, and a `row` with `spied` for each finding."""


@dataclass(frozen=True, eq=False)
class Coalition:
    """One peer or several that attack together, and what they noted."""

    place: spying.Place
    notes: Notes
    members: tuple[recall.Holder, ...]

    @property
    def last(self) -> int:
        """The last round of which they know what a peer did in it."""
        noted = max((r for pages in self.notes.pages.values() for r in pages), default=0)
        return noted - self.place.telltale.lag


@dataclass(frozen=True)
class Raid:
    """An attack on a former run, checked: the folder of the run, its world and its digest, and who attacks how."""

    folder: Path
    world: World
    digest: str
    malice: Malice

    def run(self, hear: Hear) -> Outcome:
        """Attack, judge what was found, and add it to the run's summary; Ctrl-C ends it early.

        Raises ScenarioError where there is no mail of these rounds, or it is broken.
        """
        coalition = _gathered(self.folder, self.world, self.digest, self.malice)
        if (latest := self.malice.rounds[-1]) > coalition.last:
            problem = f"rounds names round {latest}"
            remedy = f"the mail in {self.folder} tells of rounds 1 to {coalition.last}"
            raise ScenarioError(problem, remedy, ("rounds",))
        written: list[Path] = []
        stopped, threads = False, torch.get_num_threads()
        torch.set_num_threads(self.world.threads)  # as the peer had: the last bit of a figure may hang on it
        try:
            _attack(self.world.settings, coalition, self.malice, partial(_keep, self.folder, written, hear))
        except KeyboardInterrupt:  # what was found so far is judged all the same
            stopped = True
        finally:
            torch.set_num_threads(threads)
        return Outcome(_judged(self.folder, self.world, written), stopped)


@dataclass(frozen=True)
class Outcome:
    """What an attack came to: an entry for each finding, as in the summary; whether Ctrl-C ended it early."""

    entries: tuple[Mapping[str, Any], ...]
    stopped: bool


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
    for peer in spying.attackers_of(settings, malice):
        recall.insist(run, peer)
    return Raid(run, World(computed, Seeds.of(settings.seed)), scenario.digest(settings), malice)


def coalitions(run: Path, world: World, hear: Hear) -> None:
    """The attacks of a run's colluders, after its last round; their mail is then dropped, unless it was to be kept.

    Rounds that the run did not come to are passed over, and who died in the first. Raises ScenarioError where what was
    kept is broken.
    """
    settings, digest = world.settings, scenario.digest(world.settings)
    for malice in settings.attacks:
        there = tuple(i for i in settings.named(malice.peers) if recall.kept(run, i))
        if malice.collude and there:
            malice = replace(malice, peers=there)
            _attack(settings, _gathered(run, world, digest, malice), malice, hear)
    for peer in set(capture.keepers(settings)) - set(settings.named(settings.save.mail)):
        shutil.rmtree(capture.place(run, peer), ignore_errors=True)


def _gathered(run: Path, world: World, digest: str, malice: Malice) -> Coalition:
    """Who attacks, with all that their mail has. Raises ScenarioError where there is none, or it is broken."""
    attackers = spying.attackers_of(world.settings, malice)
    device = world.device(min(attackers))
    members = tuple(recall.holder(run, world, peer, device, digest) for peer in attackers)
    me = members[0].me
    place = spying.place(world, attackers, me.private)
    place = replace(place, own=recall.own(world, members), links=me.roster.links, seeds=me.private)
    return Coalition(place, recall.notes(run, world, members, malice.rounds[-1] + place.telltale.lag), members)


def _attack(settings: Scenario, coalition: Coalition, malice: Malice, hear: Hear) -> None:
    """Work on every round and victim in turn, each within its time."""
    for aside in _asides(settings, coalition, malice):
        say = partial(_say, coalition.place.attackers[0], hear)
        for report in reports(aside, say, lambda: False):
            say(report)


def _asides(settings: Scenario, coalition: Coalition, malice: Malice) -> Iterator[Aside]:
    place, notes = coalition.place, coalition.notes
    for r in malice.rounds:
        if r > coalition.last:
            return
        there = [page.me for page in notes.page(r + place.telltale.lag)]
        for victim in spying.victims(settings, malice, place, *there):
            yield spying.aside(place, notes, malice, victim, r)


def _say(peer: PeerId, hear: Hear, said: Report | Message) -> None:
    """Hand on what a peer says as the launcher of a run would hear it."""
    hear(peer, said if isinstance(said, Message) else Message("row", said.round, said.tensors, said.figures))


def _keep(folder: Path, written: list[Path], hear: Hear, peer: PeerId, message: Message) -> None:
    """Put a finding into the folder of the run, and let it be seen."""
    if isinstance(told := message.figures.get("spied"), Mapping):
        written.append(findings.write(folder, told, message.tensors))
    hear(peer, message)


def _judged(folder: Path, world: World, written: Sequence[Path]) -> tuple[Mapping[str, Any], ...]:
    """Judge all findings of the run, say in its summary what they came to, and here what those `written` did."""
    found = judging.summed(folder, world, findings.held(_rows(folder / "records.jsonl")))
    path, unfinished = folder / "summary.json", folder / "summary.json.part"
    entries = dict(zip((each.path for each in findings.read(folder)), found.get("attacks", ()), strict=False))
    try:
        summary = json.loads(path.read_bytes())
    except (OSError, ValueError):
        summary = None  # the run never ended: it has no summary
    if isinstance(summary, dict):
        unfinished.write_text(json.dumps({**summary, **found}, indent=2) + "\n")
        unfinished.replace(path)
    return tuple(entries[each] for each in written if each in entries)


def _rows(path: Path) -> Iterator[Mapping[str, Any]]:
    """The rows of a record that tell what batches held; what is cut off or nonsense costs only itself."""
    if not path.is_file():
        return
    with path.open(encoding="utf-8", errors="replace") as lines:
        while line := lines.readline(LARGEST_ROW):
            try:
                row = json.loads(line) if '"held"' in line else None
            except (ValueError, RecursionError):
                continue
            if isinstance(row, dict):
                yield row


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
    return replace(anchored(malice, document), collude=len(named) > 1)


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
