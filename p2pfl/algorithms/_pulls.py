"""One pull between two peers that wake when they like: a point, the point that answers it, and opposite moves.

Source: Cheng et al., "LEASGD", eq. 3: both move by eta rho times their difference. Both messages are sketched under one
key, so both know the same part of that difference.
Shapes: D parameters, S numbers on the wire.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from p2pfl.algorithms._hearsay import Hearsay
from p2pfl.messages import Mail, Message, PeerId
from p2pfl.peer import Peer

LAST = 1 << 62
"""No waking of an honest peer has a higher number: it fits into the 8 bytes that a key is made of."""


def number(message: Message) -> int:
    """The waking in which a pull began, of who began it."""
    return int(str(message.figures["at"]))


def key(me: Peer, ours: str, j: PeerId, at: int) -> bytes:
    """The key of one pull and its answer: of the link, the waking in which it began, and who began it."""
    return me.key(j, at, me.id if ours == "pull" else j)


def point(me: Peer, kind: str, x_D: Tensor, hearsay: Hearsay, to: PeerId, at: int) -> Message:
    """Where this peer stands, sketched, and what it has heard: a `pull` of its own, or the `reply` to one."""
    z_S = me.pair.down(x_D, key(me, kind, to, at)).cpu()
    return Message(kind, 0, {"params": z_S, **hearsay.tensors}, {"at": at})


def fresh(me: Peer, answered: Mapping[PeerId, int], pulls: Mail) -> Mail:
    """Those of a later waking than the last that was answered: no key is used twice, whatever a liar asks for."""
    there = me.reachable(tuple(pulls))
    return {j: pull for j, pull in pulls.items() if j in there and answered.get(j, 0) < number(pull) < LAST}


def expected(asked: Mapping[PeerId, Message], answers: Mail) -> Mail:
    """Those to what was asked."""
    return {j: answer for j, answer in answers.items() if j in asked and number(answer) == number(asked[j])}


def moves(me: Peer, rho: float, theirs: Mail, ours: Mapping[PeerId, Message]) -> Tensor | float:
    """eta rho (theirs - ours), summed; both ends take eta of the waking in which the pull began."""
    differences, factors = {}, {}
    for j, message in theirs.items():
        away_S = (message.tensors["params"] - ours[j].tensors["params"]).to(me.task.device)
        differences[j] = me.pair.pull(away_S, key(me, ours[j].kind, j, number(message)))
        factors[j] = me.lr(number(message)) * rho
    return me.merge(differences, factors)
