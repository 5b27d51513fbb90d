"""What an attack makes of the notes of a curious peer, or of several that collude: rows of the record, one a reading.

An attack is given what these peers' place in the algorithm lets them know, and what everybody knows; nothing else.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from p2pfl.curiosity import Case, Finding, Known, Network
from p2pfl.evidence import MATCHED, PLAIN, Bare, Clue, Notes, Page, Telltale
from p2pfl.messages import Aside, Figure, PeerId, Report, Watch, peer_name
from p2pfl.peer import Peer
from p2pfl.scenario import Malice, Scenario, Start
from p2pfl.scenario import plain as written
from p2pfl.seeds import Seeds

if TYPE_CHECKING:
    from p2pfl.learning.data import Data
    from p2pfl.runtime.world import World

CERTAIN = (PLAIN, MATCHED)
"""Readings that are right wherever what they go by is."""
SURE = 1e-6
"""What an attack found out is built upon where its squared mismatch with what was seen is this part at most."""


@dataclass(frozen=True, eq=False)
class Place:
    """Who attacks from where: all that an attack may use besides the notes."""

    attackers: tuple[PeerId, ...]
    telltale: Telltale
    network: Network
    own: Known
    links: tuple[tuple[PeerId, PeerId], ...]
    masks: bool
    engine: str
    trained: bool
    device: torch.device
    seeds: Seeds

    @property
    def name(self) -> str:
        """How the attackers are called: `3`, or `3+5`."""
        return called(self.attackers)


def called(attackers: tuple[PeerId, ...]) -> str:
    """How one attacker, or several together, are called."""
    return "+".join(map(peer_name, attackers))


def place(world: World, attackers: tuple[PeerId, ...], seeds: Seeds) -> Place:
    """The place of these peers; what they hold of the data is their own shards."""
    settings, data = world.settings, world.data
    rows = torch.as_tensor([int(row) for i in attackers for k in world.roles[i].shards for row in world.kept[k]])
    rows = rows.to(torch.int64)
    columns = {name: values[rows.numpy()] for name, values in data.columns.items()}
    model = settings.model.value
    return Place(
        attackers,
        world.roles[min(attackers)].flow.telltale(),  # type: ignore[attr-defined]  # checked at the door
        Network(partial(model.build, data.shape, data.classes), world.layout, data.shape, data.classes, box(data)),
        Known(data.train_x[rows], data.train_y[rows], columns),
        world.links,
        any(getattr(defence.value, "masks", False) for defence in settings.defences),
        settings.engine.name,
        isinstance(settings.init, Start),
        torch.device(world.device(min(attackers))),
        seeds.child("attack"),
    )


def box(data: Data) -> tuple[float, float]:
    """Where inputs lie: known from how they are scaled, and from the test part, which is nobody's own."""
    public = data.test_x if len(data.test_x) else data.train_x[:0]
    return (float(public.min()), float(public.max())) if len(public) else (0.0, 1.0)


def blank(world: World, attackers: tuple[PeerId, ...]) -> Notes:
    """Notes without a page; where all began is filled in by who knows it."""
    examples = world.roster.examples
    trainings = {i: world.training(i) for i in examples}
    pages: dict[PeerId, dict[int, Page]] = {i: {} for i in attackers}
    return Notes(pages, None, trainings, examples, world.settings.rounds, {0: world.weights})


def bare(me: Peer) -> Peer:
    """The peer as its notes have it: nothing in them leads to the examples of others."""
    task: Any = Bare(me.task.layout, me.task.device, me.task.examples)
    return replace(me, task=task)


def common_start(world: World) -> bool:
    """Whether all peers begin at one point, which every one of them then knows."""
    if isinstance(world.settings.init, Start):
        return len({world.origin(i) for i in world.roles}) == 1
    return bool(world.settings.init == "shared")


def attackers_of(settings: Scenario, malice: Malice) -> tuple[PeerId, ...]:
    """Who attacks, in order."""
    return tuple(sorted(settings.named(malice.peers)))


def victims(settings: Scenario, malice: Malice, place: Place, *members: Peer) -> tuple[PeerId, ...]:
    """Whom to attack: those who are named, or all of whom a clue can be had."""
    named = settings.named(malice.victims)
    return named or tuple(sorted({j for me in members for j in place.telltale.suspects(me)} - set(place.attackers)))


def aside(place: Place, notes: Notes, malice: Malice, victim: PeerId, r: int) -> Aside:
    """The attack on one victim's round, to be worked out."""
    token = object()
    notes.awaited[token] = r
    about = f"{malice.attack.name} on peer {peer_name(victim)}, round {r}"
    return Aside(r, about, malice.seconds, partial(_awaited, token, place, notes, malice, victim, r))


def _awaited(
    token: object, place: Place, notes: Notes, malice: Malice, victim: PeerId, r: int, watch: Watch
) -> Iterator[Report]:
    try:
        yield from work(place, notes, malice, victim, r, watch)
    finally:
        notes.awaited.pop(token, None)


def work(place: Place, notes: Notes, malice: Malice, victim: PeerId, r: int, watch: Watch) -> Iterator[Report]:
    """Attack one victim's round: a row for each reading as it comes, or one that says that nothing can be read."""
    began_s, found = time.perf_counter(), False
    told = _told(place, notes, malice, victim, r)
    try:
        clue = place.telltale.clue(notes, victim, r)
        told |= {} if clue is None else {"threat": clue.threat, "holds": clue.holds}
        for finding in malice.attack.value.spy(case_of(place, notes, clue, victim, r, watch)):
            found = True
            _learn(notes, finding)
            seconds = {"seconds": round(time.perf_counter() - began_s, 3)}
            yield Report(r, {"spied": {**told, **_said(finding), **seconds}}, _shown(finding))
            began_s = time.perf_counter()
    except Exception as error:  # an attack that fails is the attacker's loss, the peer goes on taking part
        reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0][:200]}"
        yield Report(r, {"spied": {**told, "failed": reason}})
        return
    if not found:
        yield Report(r, {"spied": {**told, "threat": told.get("threat", "none")}})


def case_of(place: Place, notes: Notes, clue: Clue | None, victim: PeerId, r: int, watch: Watch) -> Case:
    """All that an attack on one victim's round is given."""
    heard: dict[PeerId, dict[int, torch.Tensor]] = {}
    for q in sorted({q for pages in notes.pages.values() for q in list(pages) if q <= r + place.telltale.lag}):
        for j, x_D in place.telltale.heard(notes, q).items():
            heard.setdefault(j, {})[q] = x_D
    return Case(
        place.attackers,
        victim,
        r,
        clue,
        partial(place.telltale.clue, notes),
        heard,
        place.links,
        partial(place.telltale.mixes, notes),
        place.network,
        place.own,
        place.masks,
        place.device,
        place.seeds.child(victim, r),
        watch,
    )


def _told(place: Place, notes: Notes, malice: Malice, victim: PeerId, r: int) -> dict[str, Figure]:
    """What is said with every result: who, whom, when, how, and what was assumed."""
    steps = notes.steps(victim) if victim in notes.trainings else 1
    before = (r - 1) * steps
    epoch = -(-notes.examples[victim] // notes.trainings[victim].batch) if victim in notes.trainings else 1
    return {
        "attacker": place.name,
        "victim": peer_name(victim),
        "round": r,
        "method": malice.attack.name,
        "options": written(malice.attack.value),
        "knowledge": "colluders" if notes.collude else "own",
        "engine": place.engine,
        "untrained": not place.trained and before < epoch,
    }


def _learn(notes: Notes, finding: Finding) -> None:
    """What was found out for sure is known from now on."""
    mismatch = finding.figures.get("mismatch")
    if finding.reading in CERTAIN and isinstance(mismatch, float) and mismatch <= SURE:
        notes.solved.update(finding.displacements)


def _said(finding: Finding) -> dict[str, Figure]:
    said: dict[str, Figure] = {"reading": finding.reading, "batches": [list(batch) for batch in finding.batches]}
    if finding.score is not None:
        said["score"] = finding.score
    if finding.frames_at:
        said["frames_at"] = list(finding.frames_at)
    return {**finding.figures, **said}


def _shown(finding: Finding) -> dict[str, torch.Tensor]:
    names = ("inputs_BCHW", "labels_B", "counts", "frames_FCHW", "suspect_D", "reference_D")
    shown = {name: getattr(finding, name) for name in names}
    held = {name: tensor.detach().cpu().contiguous() for name, tensor in shown.items() if tensor is not None}
    return {name: tensor.float() if tensor.is_floating_point() else tensor.long() for name, tensor in held.items()}
