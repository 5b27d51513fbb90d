"""Flooding: a table of numbers by peer becomes known to everybody along the links, in `diameter` exchanges.

Shapes: M peers that learn.
"""

from __future__ import annotations

from collections.abc import Generator

import torch

from p2pfl.messages import Exchange, Form, Mail, Message, PeerId, Step
from p2pfl.peer import Peer


def flood(me: Peer, kind: str, r: int, known: dict[PeerId, float]) -> Generator[Step, Mail, dict[PeerId, float]]:
    """Share what is known with everybody; returns what came to be known. What this peer knew already, it keeps."""
    learners = me.roster.learners
    for hop in range(1, me.roster.diameter + 1):
        values_M = torch.tensor([known.get(i, 0.0) for i in learners], dtype=torch.float64)
        known_M = torch.tensor([i in known for i in learners], dtype=torch.uint8)
        table = Message(f"{kind} {hop}", r, {"values": values_M, "known": known_M})
        mail = yield Exchange(table.kind, r, dict.fromkeys(me.neighbours, table), me.neighbours)
        for message in mail.values():
            rows = zip(learners, message.tensors["values"].tolist(), message.tensors["known"].tolist(), strict=True)
            known = {i: value for i, value, is_known in rows if is_known} | known
    return known


def flood_forms(me: Peer, kind: str) -> dict[str, Form]:
    """What the messages of a flood must look like: one table a hop."""
    m = len(me.roster.learners)
    table = Form({"values": (torch.float64, (m,)), "known": (torch.uint8, (m,))})
    return {f"{kind} {hop}": table for hop in range(1, me.roster.diameter + 1)}
