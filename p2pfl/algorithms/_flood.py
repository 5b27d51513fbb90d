"""Flooding: what one peer knows becomes known to all, from neighbour to neighbour, whoever has died meanwhile.

Source: flooding in synchronous networks, Lynch 1996, "Distributed Algorithms", section 4.1. Where nobody is missing it
takes `diameter` exchanges. Where somebody is, ways may have become longer, and nobody knows by how much; but a hop
that brings nothing new is followed by no other that does, so who has had one knows all that there is to know. The
longest ways of two neighbours differ by one at most: one more table is all that a neighbour can still wait for.

Shapes: M peers that learn.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Generator, Mapping

import torch

from p2pfl.messages import Exchange, Form, Mail, Message, PeerId, Step
from p2pfl.peer import Peer, Roster

UNKNOWN, TOLD, SILENT = 0, 1, 2
"""What a table has of a peer: nothing; its number; that it is there, but does not tell."""


def gather(me: Peer, kind: str, r: int, value: float) -> Generator[Step, Mail, dict[PeerId, float]]:
    """The number of each peer that can be reached, at all of them; nan for one that is there but does not tell.

    What this peer knew already, it keeps. Who died before the first hop is missing at everybody, so that all go on
    alike; who dies later costs the others their patience, once.
    """
    known, settled, last, hop = {me.id: value}, True, False, 0
    everybody = distances(me.roster, me.id, me.roster.learners).keys()
    while not last and not (hop >= me.roster.diameter and known.keys() >= everybody):
        hop += 1
        last = hop == _most_hops(me) or (settled and hop > me.roster.diameter)
        table = Message(f"{kind} {hop}", r, _table(me, known))
        mail = yield Exchange(table.kind, r, dict.fromkeys(me.neighbours, table), () if last else me.neighbours)
        before = len(known)
        for message in mail.values():
            known = _read(me, message) | known
        settled = len(known) == before
    return known


def spread(
    me: Peer, kind: str, r: int, source: PeerId, among: Collection[PeerId], numbers: Mapping[PeerId, float]
) -> Generator[Step, Mail, dict[PeerId, float]]:
    """The `numbers` that the peer `source` has, at all `among` whom all know to be there; {} for who hears nothing.

    Each peer hears from its neighbours that are nearer to the source, once, and tells those that are farther.
    """
    away, known = distances(me.roster, source, among), dict(numbers)
    mine = away.get(me.id, 0)
    nearer, farther = ([j for j in me.neighbours if away.get(j) == mine + step] for step in (-1, 1))
    if nearer:
        mail = yield Exchange(kind, r, expect=tuple(nearer))
        for message in mail.values():
            known = _read(me, message) | known
    yield Exchange(kind, r, dict.fromkeys(farther, Message(kind, r, _table(me, known))))
    return known


def forms(me: Peer, gathered: str, spread: str) -> dict[str, Form]:
    """What the messages must look like that gather numbers under one name, and spread others under another."""
    m = len(me.roster.learners)
    table = Form({"values": (torch.float64, (m,)), "known": (torch.uint8, (m,))})
    return {f"{gathered} {hop}": table for hop in range(1, _most_hops(me) + 1)} | {spread: table}


def distances(roster: Roster, source: PeerId, among: Collection[PeerId]) -> dict[PeerId, int]:
    """How many links away from `source` those are whom it can reach through peers `among`."""
    around: dict[PeerId, list[PeerId]] = {i: [] for i in among}
    for i, j in roster.links:
        if i in around and j in around:
            around[i].append(j)
            around[j].append(i)
    away, edge = {source: 0}, [source]
    while edge:
        edge = list(dict.fromkeys(j for i in edge for j in around.get(i, ()) if j not in away))
        away |= dict.fromkeys(edge, max(away.values()) + 1)
    return away


def _most_hops(me: Peer) -> int:
    """One for each peer on the longest way there can be, one that brings nothing, and one for who still waits."""
    return len(me.roster.learners) + 1


def _table(me: Peer, known: Mapping[PeerId, float]) -> dict[str, torch.Tensor]:
    """One row a peer. A number that is not finite would be refused on its way: who has one does not tell."""
    values_M = [value if math.isfinite(value := known.get(i, 0.0)) else 0.0 for i in me.roster.learners]
    known_M = [UNKNOWN if i not in known else TOLD if math.isfinite(known[i]) else SILENT for i in me.roster.learners]
    return {"values": torch.tensor(values_M, dtype=torch.float64), "known": torch.tensor(known_M, dtype=torch.uint8)}


def _read(me: Peer, message: Message) -> dict[PeerId, float]:
    values_M, known_M = (message.tensors[name].tolist() for name in ("values", "known"))
    rows = zip(me.roster.learners, values_M, known_M, strict=True)
    return {i: value if is_known == TOLD else math.nan for i, value, is_known in rows if is_known}
