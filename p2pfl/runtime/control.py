"""What a peer may say to the launcher: its bytes are as hostile as any, so each kind of message is checked."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from p2pfl.errors import RemoteError
from p2pfl.messages import Figure, Message, PeerId, peer_name
from p2pfl.runtime.insight import attackers_of
from p2pfl.runtime.world import World

Type = type | tuple[type, ...]
NUMBER = (int, float)
KINDS: Mapping[str, Mapping[str, Type]] = {
    "seated": {"device": str, "pid": int},
    "ready": {"endpoint": str, "key": bytes},
    "began": {"at_s": NUMBER},
    "gate": {},
    "row": {"time_s": NUMBER, "sent_bytes": int, "vectors": int, "tensor_bytes": int},
    "found": {"time_s": NUMBER, "sent_bytes": int, "spied": dict},
    "spying": {"about": str, "done": NUMBER},
    "left": {"links": dict, "faults": dict, "pss_mb": NUMBER},
    "killed": {},
    "crashed": {"traceback": str},
}
"""The figures that each kind must have; a row may have more."""
COUNTS = ("links", "faults")
"""Figures that are numbers by peer."""
PICTURES = {"inputs_BCHW": (torch.float32, 4), "frames_FCHW": (torch.float32, 4), "labels_B": (torch.int64, 1)}
FOUND = PICTURES | {"counts": (torch.int64, 1)} | dict.fromkeys(("suspect_D", "reference_D"), (torch.float32, 1))
"""The tensors of what a curious peer found: of what type, and how many dimensions."""
MOST_EXAMPLES = 1 << 12
"""That one finding shows."""
OURS = ("peer", "round", "to", "link_bytes", "consensus_distance")
"""Columns of the record that are the launcher's to write."""
APART = ("spied", "spying")
"""Columns that rows of the record have only where an attack is told of."""
LONGEST, NESTING, READINGS = 1000, 16, 8
"""Characters of a text; how deep figures nest; findings on one victim's round, one a reading."""


SPIES = ("found", "spying")
"""Kinds that only who attacks may say."""


def most_bytes(parameters: int, pixels: int, curious: bool) -> int:
    """How large a message of a peer can be: a model, or what was found, where somebody looks for it."""
    return 4 * (2 * parameters + (MOST_EXAMPLES + 16) * pixels) if curious else 4 * parameters


def check(message: Message, parameters: int) -> None:
    """Raises RemoteError for what no honest peer of a model of so many parameters says."""
    required, figures = KINDS.get(message.kind), message.figures
    if required is None:
        raise RemoteError(f"a {message.kind!r} message to the launcher")
    for name, wanted in required.items():
        value = figures.get(name)
        if not isinstance(value, wanted) or (isinstance(value, float) and not math.isfinite(value)):
            raise RemoteError(f"a {message.kind!r} message whose {name} is {type(value).__name__}")
        if name in COUNTS and isinstance(value, Mapping) and not all(map(_counted, value.items())):
            raise RemoteError(f"a {message.kind!r} message with broken {name}")
    if message.kind in ("row", *SPIES):
        kept = (*OURS, *APART) if message.kind == "row" else OURS
        if not all(name not in kept and len(name) <= LONGEST and _plain(value) for name, value in figures.items()):
            raise RemoteError("a row that writes in another's columns, or with a figure that is not plain")
    for name, tensor in message.tensors.items():
        if message.kind == "found" and (tensor.dtype, tensor.dim()) == FOUND.get(name):
            continue
        if name != "model" or tensor.dtype != torch.float32 or tuple(tensor.shape) != (parameters,):
            raise RemoteError(f"a {message.kind!r} message with a tensor {name!r}")


@dataclass
class Spies:
    """Who attacks by itself in a run, and how many findings each may still tell: nobody does in another's name.

    Those who collude attack after the run, and tell the launcher nothing.
    """

    world: World
    left: Counter[PeerId] = field(default_factory=Counter, init=False)

    def __post_init__(self) -> None:
        settings, victims = self.world.settings, len(self.world.roles)
        self._attacks: dict[PeerId, set[tuple[str, int]]] = {}
        for malice in settings.attacks:
            for peer in () if malice.collude else attackers_of(settings, malice):
                self._attacks.setdefault(peer, set()).update((malice.attack.name, r) for r in malice.rounds)
                self.left[peer] += len(malice.rounds) * victims * READINGS

    def check(self, peer: PeerId, message: Message) -> None:
        """Raises RemoteError for what this peer cannot have to tell of an attack. After `check` of the message."""
        if message.kind not in SPIES:
            return
        if peer not in self._attacks:
            raise RemoteError(f"a {message.kind!r} message of a peer that does not attack")
        if message.kind == "found":
            self._check_finding(peer, message)
            self.left[peer] -= 1

    def _check_finding(self, peer: PeerId, message: Message) -> None:
        told = message.figures["spied"]
        assert isinstance(told, Mapping)
        attacker, victim, method, round = (told.get(name) for name in ("attacker", "victim", "method", "round"))
        if attacker != peer_name(peer):
            raise RemoteError("a finding in the name of another")
        known = type(round) is int and round == message.round and isinstance(method, str)
        if not known or (method, round) not in self._attacks[peer]:
            raise RemoteError("a finding of an attack that the scenario does not have")
        if victim not in [peer_name(i) for i in self.world.roles]:
            raise RemoteError("a finding on a peer that is not there")
        if self.left[peer] <= 0:
            raise RemoteError("more findings than its attacks can have")


def _counted(item: tuple[object, object]) -> bool:
    """Whether it is a peer, and a number of something."""
    name, count = item
    return isinstance(name, str) and name.removeprefix("-").isdecimal() and type(count) is int


def _plain(value: Figure, nesting: int = NESTING) -> bool:
    """Whether JSON can say it, and it is neither nested too deep nor a text that nobody reads."""
    if isinstance(value, list):
        return nesting > 0 and all(_plain(part, nesting - 1) for part in value)
    if isinstance(value, Mapping):
        keys = all(isinstance(key, str) and len(key) <= LONGEST for key in value)
        return nesting > 0 and keys and all(_plain(part, nesting - 1) for part in value.values())
    return len(value) <= LONGEST if isinstance(value, str) else value is None or isinstance(value, (int, float))
