"""What a run keeps of the mail of curious peers: all that they said and heard, to be attacked at any time after it.

It lies in the run's folder as `mail/peer-3/origin.safetensors`, what the peer holds before round 1, and
`mail/peer-3/round-000001.safetensors`, one file a round. The keys of the peer's links are in there, so the files are
for their owner's eyes; the root of the peer's own randomness is never written. Which examples every batch held, all
peers then say in their rows of the record: attacks are judged by it, and the launcher holds it until the run is over.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from p2pfl import scenario
from p2pfl.errors import ScenarioError
from p2pfl.evidence import Page
from p2pfl.messages import PeerId, peer_name
from p2pfl.peer import Flow, Peer
from p2pfl.runtime import bundle
from p2pfl.runtime.insight import common_start
from p2pfl.runtime.world import World
from p2pfl.scenario import Scenario
from p2pfl.transport.forms import size_bytes

FOLDER = "mail"
ORIGIN = "origin.safetensors"
FILE_BYTES, MESSAGE_BYTES = 1 << 12, 1 << 9
"""What a file holds beside its tensors: for itself, and for each message and each tensor of one."""
LINK_BYTES = 128
"""What a link takes of a file: both ends, and both weights."""
SIZES = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


def keepers(settings: Scenario) -> tuple[PeerId, ...]:
    """Whose mail a run keeps: of those whom the scenario names, and of those that collude, until they have attacked."""
    colluding = (malice.peers for malice in settings.attacks if malice.collude)
    return tuple(sorted({i for who in (settings.save.mail, *colluding) for i in settings.named(who)}))


def place(run: Path, peer: PeerId) -> Path:
    """Where the mail of a peer lies in the folder of its run."""
    return run / FOLDER / f"peer-{peer_name(peer)}"


def write(run: Path, world: World, page: Page, start_D: Tensor) -> None:
    """Keep what a round showed a peer; before the first of its pages, what it holds, and the point that it began at."""
    folder, me, r = place(run, page.me.id), page.me, page.round
    if not (folder / ORIGIN).exists():
        folder.parent.mkdir(exist_ok=True, mode=0o700)
        folder.mkdir(exist_ok=True, mode=0o700)
        bundle.write(folder / ORIGIN, _held(world, me, start_D))
    flow = world.roles[me.id].flow
    own_D = flow.model(page.state)
    value = {"round": r, "said": page.said, "heard": page.heard, "own": own_D, "state": page.state}
    if scenario.varies(world.settings):
        weights, roster = world.around(r)
        value |= {"weights": weights, "links": roster.links}
    bundle.write(folder / f"round-{r:06}.safetensors", value)


def _held(world: World, me: Peer, start_D: Tensor) -> dict[str, Any]:
    """What a peer holds before round 1; `attack` is the root of the randomness of its attacks, and of nothing else."""
    rows = [torch.as_tensor(world.kept[k], dtype=torch.int64) for k in world.roles[me.id].shards]
    return {
        "peer": me.id,
        "scenario": scenario.digest(world.settings),
        "engine": world.settings.engine.name,
        "secrets": me.secrets,
        "shared": me.shared.root,
        "attack": me.private.child("attack").root,
        "origin": me.origin,
        "start": start_D,
        "common": common_start(world),
        "rows": torch.cat(rows) if rows else torch.empty(0, dtype=torch.int64),
        "learners": world.roster.learners,
        "examples": world.roster.examples,
        "weights": world.weights,
        "links": world.links,
    }


def check(world: World) -> None:
    """Raise ScenarioError where nothing can be made of the mail, or there may be more of it than is allowed."""
    settings, path = world.settings, ("save", "mail")
    for peer in settings.named(settings.save.mail):
        if not hasattr(world.roles[peer].flow, "telltale"):
            problem = f"what the mail of {settings.algorithm.name} tells peer {peer_name(peer)} is not worked out"
            raise ScenarioError(problem, "leave it out: no attack could use it", path)
    most_bytes = sum(estimate(world, i) for i in keepers(settings))
    if most_bytes > settings.save.mail_bytes:
        remedy = "raise save.mail_bytes above that, or keep fewer rounds"
        raise ScenarioError(f"save.mail would keep up to {size(most_bytes)}", remedy, path)


def notice(world: World) -> str:
    """How much mail a run will keep of whom, to be said beforehand; empty where it keeps none."""
    if not (peers := keepers(world.settings)):
        return ""
    names = f"peer{'s' if len(peers) > 1 else ''} {', '.join(map(peer_name, peers))}"
    said = f"up to {size(sum(estimate(world, i) for i in peers))} of {names}"
    if not world.settings.save.mail:
        return said
    return f"{said}; and some {size(logged_bytes(world))} of records, of which examples each batch of all peers held"


def logged_bytes(world: World) -> int:
    """About how much longer a record is in which all peers say what each of their batches held."""
    width, rounds = len(f"{len(world.data.train_y)}, "), world.settings.rounds
    trainings = ((world.training(i), count) for i, count in world.roster.examples.items())
    return width * rounds * sum(training.steps(count) * min(training.batch, count) for training, count in trainings)


def estimate(world: World, peer: PeerId) -> int:
    """How many bytes the mail of a peer takes on disk at most: what all its neighbours may say and hear, and its own.

    Where links change, every link that there ever is counts in every round.
    """
    seat = dataclasses.replace(world.seat(peer, one_thread=True), around=None)
    bound, rounds = bound_of(world, seat.me), range(1, world.settings.rounds + 1)
    return origin_bytes(world) + sum(bound.round_bytes(seat.in_round(seat.me, r), r) for r in rounds)


def origin_bytes(world: World) -> int:
    """How large the file can be of what a peer holds before round 1."""
    vectors, rows = 8 * sum(slot.size for slot in world.layout), 8 * len(world.data.train_y)
    return vectors + rows + LINK_BYTES * len(world.links) + FILE_BYTES + MESSAGE_BYTES * len(world.roles)


@dataclass(frozen=True)
class Bound:
    """How large the file of a round can be: `beside_bytes`, and mail to and from neighbours of these flows."""

    beside_bytes: int
    flow: Flow
    neighbours: tuple[tuple[Flow, int], ...]

    def round_bytes(self, me: Peer, r: int) -> int:
        """That of round `r`, the peer having the sketch of the round."""
        hears = _mail_bytes(self.flow, me, r)
        mail = sum(count * (hears + _mail_bytes(flow, me, r)) for flow, count in self.neighbours)
        return self.beside_bytes + mail


def bound_of(world: World, me: Peer) -> Bound:
    """The bound for this peer, whose neighbours are all that it ever has."""
    flow, flows = world.roles[me.id].flow, {id(role.flow): role.flow for role in world.roles.values()}
    around = Counter(id(world.roles[j].flow) for j in me.neighbours)
    own_bytes = 4 * sum(slot.size for slot in world.layout) * _vectors(flow, me)
    links_bytes = LINK_BYTES * len(me.roster.links) if scenario.varies(world.settings) else 0
    beside_bytes = own_bytes + links_bytes + FILE_BYTES
    return Bound(beside_bytes, flow, tuple((flows[key], count) for key, count in around.items()))


def _mail_bytes(flow: Flow, me: Peer, r: int) -> int:
    """What one neighbour can say in a round to a peer of this flow."""
    forms = flow.forms(me, r).values()
    return sum(size_bytes(form.tensors) + MESSAGE_BYTES * (1 + len(form.tensors)) for form in forms)


def _vectors(flow: Flow, me: Peer) -> int:
    """How many vectors of D numbers the state of a flow has at most."""
    state = flow.start(me)
    fields = dataclasses.fields(state) if dataclasses.is_dataclass(state) else ()
    return max(1, sum("Tensor" in str(field.type) for field in fields))


def size(count: float) -> str:
    """1234567 -> `1.2 MB`."""
    return next((f"{count / step:.1f} {unit}" for step, unit in SIZES if count >= step), f"{count:.0f} B")
