"""The mail that a run kept, read back as the pages of a peer: with suspicion, since it may be somebody else's.

What hangs on the randomness of the run (the graph, who holds what, the secrets of links) is taken from the folder, so
that a run without a seed can be read too. Messages must be of the forms that the algorithm gives them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from p2pfl.curiosity import Known
from p2pfl.errors import RemoteError, ScenarioError
from p2pfl.evidence import Notes, Page
from p2pfl.learning.task import SGDTask
from p2pfl.messages import Message, PeerId, peer_name
from p2pfl.peer import KEY_BYTES, Flow, Peer, Roster
from p2pfl.runtime import bundle
from p2pfl.runtime.capture import ORIGIN, bound_of, origin_bytes, place
from p2pfl.runtime.insight import bare
from p2pfl.runtime.world import Seat, Weights, World
from p2pfl.seeds import Seeds
from p2pfl.transport.forms import check_whole

FILE = re.compile(r"round-(\d{6,9})\.safetensors")
LEEWAY_BYTES = 1 << 20
"""How much larger a file may be than what is expected of it."""
BROKEN = (KeyError, ValueError, TypeError, AttributeError, IndexError, RuntimeError, RemoteError)
"""What values raise that are not what they should be."""


@dataclass(frozen=True, eq=False)
class Holder:
    """A peer as its mail has it before round 1: its examples, what all know of the graph, and the point it began at.

    `common` says that all began there. Its private streams are those of its attacks alone.
    """

    me: Peer
    rows_N: Tensor
    weights: Weights
    start_D: Tensor
    common: bool


def kept(run: Path, peer: PeerId) -> bool:
    """Whether a run keeps the mail of this peer."""
    return (place(run, peer) / ORIGIN).is_file()


def insist(run: Path, peer: PeerId) -> None:
    """Raise ScenarioError where a run keeps no mail of this peer."""
    if not kept(run, peer):
        name = peer_name(peer)
        raise ScenarioError(f"{run} keeps no mail of peer {name}", f"launch with 'save: {{mail: [{name}]}}'")


def holder(run: Path, world: World, peer: PeerId, device: str, digest: str) -> Holder:
    """Who kept this mail, of the scenario of this digest. Raises ScenarioError where there is none, or it is broken."""
    insist(run, peer)
    path = place(run, peer) / ORIGIN
    held = bundle.read(path, origin_bytes(world) + LEEWAY_BYTES)
    try:
        if (held["peer"], held["scenario"]) != (peer, digest):
            raise ValueError("it is of another peer, or of another scenario")
        return _holder(held, world, peer, torch.device(device))
    except BROKEN as error:
        raise bundle.broken(path, f"{type(error).__name__} {error}"[:200]) from None


def _holder(held: Mapping[str, Any], world: World, peer: PeerId, device: torch.device) -> Holder:
    """Raises one of BROKEN where `held` is not what a peer holds."""
    settings, training = world.settings, world.training(peer)
    private, rows_N = Seeds(_bytes(held["attack"], 32)), held["rows"]
    if rows_N.dtype != torch.int64 or rows_N.dim() != 1:
        raise ValueError("rows are int64")
    if len(rows_N) and not 0 <= int(rows_N.min()) <= int(rows_N.max()) < len(world.data.train_y):
        raise ValueError("rows lie outside of the data")
    weights, roster = _weights(held, world), _roster(held, world)
    run_steps = settings.rounds * training.steps(len(rows_N))
    me = Peer(
        peer,
        tuple(weights[peer]),
        weights[peer],
        roster,
        SGDTask(settings.model.value, world.data, rows_N.numpy(), training, device, private, run_steps),
        settings.sketch.value,
        settings.aggregator.value,
        training,
        "own" if settings.init == "own" else "shared",
        Seeds(_bytes(held["shared"], 32)),
        private,
        {int(j): _bytes(secret, KEY_BYTES) for j, secret in held["secrets"].items()},
        None if held["origin"] is None else _vector(held["origin"], world).to(device),
    )
    return Holder(me, rows_N, weights, _vector(held["start"], world).to(device), held["common"] is True)


def own(world: World, holders: Sequence[Holder]) -> Known:
    """The examples that these hold themselves."""
    rows_N = torch.cat([each.rows_N for each in holders])
    columns = {name: values[rows_N.numpy()] for name, values in world.data.columns.items()}
    return Known(world.data.train_x[rows_N], world.data.train_y[rows_N], columns)


def notes(run: Path, world: World, holders: Sequence[Holder], until: int) -> Notes:
    """What these noted up to round `until`. Raises ScenarioError for a page that is broken."""
    first, around = holders[0], dict[int, Weights]()
    pages = {each.me.id: _pages(run, world, each, until, around) for each in holders}
    examples = first.me.roster.examples
    trainings = {i: world.training(i) for i in examples}
    starts = {each.me.id: each.start_D for each in holders}
    graphs, origin_D = {0: first.weights, **around}, first.start_D if first.common else None
    return Notes(pages, origin_D, trainings, examples, world.settings.rounds, graphs, starts)


def _pages(run: Path, world: World, held: Holder, until: int, around: dict[int, Weights]) -> dict[int, Page]:
    """The pages of a peer, by round; the weights of rounds that have their own are put into `around`."""
    found = ((FILE.fullmatch(path.name), path) for path in place(run, held.me.id).iterdir() if path.is_file())
    files = {int(hit[1]): path for hit, path in found if hit is not None}
    bound, most = bound_of(world, held.me), min(until, world.settings.rounds)
    rounds = [r for r in sorted(files) if 1 <= r <= most]
    return {r: _page(files[r], r, world, held.me, bound.round_bytes, around) for r in rounds}


def _page(
    path: Path,
    r: int,
    world: World,
    me: Peer,
    most_bytes: Callable[[Peer, int], int],
    around: dict[int, Weights],
) -> Page:
    """The page in a file; its size is looked at before it is read."""
    flow = world.roles[me.id].flow
    me = Seat(me, flow, evaluated=False).in_round(me, r)
    held = bundle.read(path, most_bytes(me, r) + LEEWAY_BYTES)
    try:
        if held["round"] != r:
            raise ValueError("it is of another round")
        if not {*held["said"], *held["heard"]} <= {*me.neighbours}:
            raise ValueError("it holds mail of peers that are no neighbours")
        if "weights" in held:
            around[r] = _weights(held, world)
            weights, roster = around[r][me.id], replace(me.roster, links=_links(held, world))
            me = replace(me, neighbours=tuple(weights), weights=weights, roster=roster)
        said = {j: _mail(mail, world.roles[j].flow, me) for j, mail in held["said"].items()}
        heard = {j: _mail(mail, flow, me) for j, mail in held["heard"].items()}
        _vector(held["own"], world)
        state = _moved(held["state"], me.task.device)
        for x_D in (flow.model(state), *_tensors(state)):
            _vector(x_D, world)
        return Page(r, bare(me), said, heard, state)
    except BROKEN as error:
        raise bundle.broken(path, f"{type(error).__name__} {error}"[:200]) from None


def _mail(held: Any, flow: Flow, me: Peer) -> tuple[Message, ...]:
    """The messages of one neighbour, each of the form that the flow of who is told has for it."""
    messages = tuple(Message(m.kind, m.round, m.tensors, m.figures) for m in held)
    for message in messages:
        if type(message.round) is not int or message.round < 0:
            raise ValueError("a message is of no round")
        check_whole(message, flow.forms(me, message.round)[message.kind])
    return messages


def _weights(held: Mapping[str, Any], world: World) -> Weights:
    """The weights of all peers' neighbours."""
    weights = {i: {j: float(w) for j, w in row.items()} for i, row in held["weights"].items()}
    if weights.keys() != world.roles.keys() or not all(row.keys() <= weights.keys() for row in weights.values()):
        raise ValueError("it names peers that are not there")
    return weights


def _links(held: Mapping[str, Any], world: World) -> tuple[tuple[PeerId, PeerId], ...]:
    links = tuple((i, j) for i, j in held["links"])
    if not {i for link in links for i in link} <= world.roles.keys():
        raise ValueError("it names links of peers that are not there")
    return links


def _roster(held: Mapping[str, Any], world: World) -> Roster:
    learners, examples = tuple(held["learners"]), {i: int(count) for i, count in held["examples"].items()}
    if not {*learners} == {*examples} <= world.roles.keys():
        raise ValueError("it names learners that are not there")
    return Roster(learners, examples, _links(held, world))


def _bytes(held: Any, count: int) -> bytes:
    if not isinstance(held, bytes) or len(held) != count:
        raise ValueError(f"a key or a root is not of {count} bytes")
    return held


def _vector(held: Any, world: World) -> Tensor:
    """D finite numbers."""
    d = sum(slot.size for slot in world.layout)
    if not isinstance(held, Tensor) or (held.dtype, tuple(held.shape)) != (torch.float32, (d,)):
        raise ValueError(f"parameters must be {d} numbers of float32")
    if not bool(torch.isfinite(held).all()):
        raise ValueError("parameters must be finite")
    return held


def _tensors(value: Any) -> Iterator[Tensor]:
    """Whatever tensors a value has."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict | SimpleNamespace):
        for part in (vars(value) if isinstance(value, SimpleNamespace) else value).values():
            yield from _tensors(part)
    elif isinstance(value, list):
        for part in value:
            yield from _tensors(part)


def _moved(value: Any, device: torch.device) -> Any:
    """The same value, its tensors on a device."""
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, SimpleNamespace):
        return SimpleNamespace(**{name: _moved(part, device) for name, part in vars(value).items()})
    if isinstance(value, dict):
        return {key: _moved(part, device) for key, part in value.items()}
    return [_moved(part, device) for part in value] if isinstance(value, list) else value
