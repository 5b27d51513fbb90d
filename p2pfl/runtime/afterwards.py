"""Attacks on the mail that a run kept: at any time after it, without learning again, and those of colluders at its end.

What is worked out is what the peer itself would have worked out during the run, bit for bit, given the time.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from p2pfl import scenario
from p2pfl.errors import ScenarioError
from p2pfl.evidence import Notes
from p2pfl.messages import Aside, Figure, Message, PeerId, Report, peer_name
from p2pfl.runtime import capture, findings, insight, judging, recall
from p2pfl.runtime.beside import reports
from p2pfl.runtime.world import World
from p2pfl.scenario import Malice, Scenario

LARGEST_ROW, LARGEST_SUMMARY = 1 << 24, 1 << 26
"""Characters of a line of a record that is read, bytes of a summary."""
Hear = Callable[[PeerId, Message], object]
"""Hears what a run hears of a curious peer: `spying` as it goes, and `found` with what it found."""
Over = Callable[[], bool]
"""Says that there is no more time: what was found so far is all."""


@dataclass(frozen=True, eq=False)
class Coalition:
    """One peer or several that attack together, and what they noted."""

    place: insight.Place
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
            keep = partial(_keep, self.folder, written, hear)
            _attack(self.world.settings, coalition, self.malice, keep, lambda: False)
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


def coalitions(run: Path, world: World, hear: Hear, over: Over) -> None:
    """The attacks of a run's colluders, after its last round; their mail is then dropped, unless it was to be kept.

    Rounds that the run did not come to are passed over, and who died in the first. Where their mail is broken they have
    failed, and say so of each victim: the run is summed up all the same.
    """
    settings, digest = world.settings, scenario.digest(world.settings)
    for malice in settings.attacks:
        there = tuple(i for i in settings.named(malice.peers) if recall.kept(run, i))
        if not malice.collude or not there or over():
            continue
        malice = replace(malice, peers=there)
        try:
            _attack(settings, _gathered(run, world, digest, malice), malice, hear, over)
        except Exception as error:  # whatever a colluder was sent is read here, and the run must be summed up
            for report in _failures(world, malice, error):
                _say(min(there), hear, report)
    for peer in set(capture.keepers(settings)) - set(settings.named(settings.save.mail)):
        shutil.rmtree(capture.place(run, peer), ignore_errors=True)
    with suppress(OSError):  # where other mail is kept the folder stays
        (run / capture.FOLDER).rmdir()


def _failures(world: World, malice: Malice, error: Exception) -> Iterator[Report]:
    """What there is to say of an attack that could not even begin: for each victim once."""
    attackers = insight.attackers_of(world.settings, malice)
    told: dict[str, Figure] = {"attacker": insight.called(attackers), "method": malice.attack.name}
    told |= {"round": malice.rounds[0], "failed": f"{type(error).__name__}: {error}".partition("\n")[0][:200]}
    for victim in world.settings.named(malice.victims) or sorted({*world.roster.learners} - {*attackers}):
        yield Report(malice.rounds[0], {"spied": {**told, "victim": peer_name(victim)}})


def _gathered(run: Path, world: World, digest: str, malice: Malice) -> Coalition:
    """Who attacks, with all that their mail has. Raises ScenarioError where there is none, or it is broken."""
    attackers = insight.attackers_of(world.settings, malice)
    device = world.device(min(attackers))
    members = tuple(recall.holder(run, world, peer, device, digest) for peer in attackers)
    me = members[0].me
    place = insight.place(world, attackers, me.private)
    place = replace(place, own=recall.own(world, members), links=me.roster.links, seeds=me.private)
    return Coalition(place, recall.notes(run, world, members, malice.rounds[-1] + place.telltale.lag), members)


def _attack(settings: Scenario, coalition: Coalition, malice: Malice, hear: Hear, over: Over) -> None:
    """Work on every round and victim in turn, each within its time."""
    say = partial(_say, coalition.place.attackers[0], hear)
    for aside in _asides(settings, coalition, malice):
        if over():
            return
        for report in reports(aside, say, over):
            say(report)


def _asides(settings: Scenario, coalition: Coalition, malice: Malice) -> Iterator[Aside]:
    place, notes = coalition.place, coalition.notes
    for r in malice.rounds:
        if r > coalition.last:
            return
        there = [page.me for page in notes.page(r + place.telltale.lag)]
        for victim in insight.victims(settings, malice, place, *there):
            yield insight.aside(place, notes, malice, victim, r)


def _say(peer: PeerId, hear: Hear, said: Report | Message) -> None:
    """Hand on what a peer says as the launcher of a run would hear it."""
    hear(peer, said if isinstance(said, Message) else Message("found", said.round, said.tensors, said.figures))


def _keep(folder: Path, written: list[Path], hear: Hear, peer: PeerId, message: Message) -> None:
    """Put a finding into the folder of the run, and let it be seen."""
    if isinstance(told := message.figures.get("spied"), Mapping):
        written.append(findings.write(folder, told, message.tensors))
    hear(peer, message)


def _judged(folder: Path, world: World, written: Sequence[Path]) -> tuple[Mapping[str, Any], ...]:
    """Judge all findings of the run, say in its summary what they came to, and here what those `written` did."""
    found = judging.summed(folder, world, findings.held(_rows(folder / "records.jsonl")))
    entries = dict(zip((each.path for each in findings.read(folder)), found.get("attacks", ()), strict=False))
    _tell(folder / "summary.json", found)
    return tuple(entries[each] for each in written if each in entries)


def _tell(path: Path, found: Mapping[str, Any]) -> None:
    """Put it into a summary; a broken one is left as it is, and a run that never ended has none."""
    try:
        if not path.is_file() or path.stat().st_size > LARGEST_SUMMARY:
            return
        summary = json.loads(path.read_bytes())
        text = json.dumps({**summary, **found}, indent=2) + "\n" if isinstance(summary, dict) else None
    except (OSError, ValueError, RecursionError):
        return
    if text is not None:
        findings.replace(path, text.encode())


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
