"""What a peer may say to the launcher: its bytes are as hostile as any, so each kind of message is checked."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch

from p2pfl.errors import RemoteError
from p2pfl.messages import Figure, Message

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
    written = message.kind in ("row", "found", "spying")
    if written and not all(name not in OURS and _plain(value) for name, value in figures.items()):
        raise RemoteError("a row that writes in another's columns, or with a figure that is not plain")
    for name, tensor in message.tensors.items():
        if message.kind == "found" and (tensor.dtype, tensor.dim()) == FOUND.get(name):
            continue
        if name != "model" or tensor.dtype != torch.float32 or tuple(tensor.shape) != (parameters,):
            raise RemoteError(f"a {message.kind!r} message with a tensor {name!r}")


def _counted(item: tuple[object, object]) -> bool:
    """Whether it is a peer, and a number of something."""
    name, count = item
    return isinstance(name, str) and name.removeprefix("-").isdecimal() and type(count) is int


def _plain(value: Figure) -> bool:
    if isinstance(value, list):
        return all(_plain(part) for part in value)
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and _plain(part) for key, part in value.items())
    return value is None or isinstance(value, (int, float, str))
