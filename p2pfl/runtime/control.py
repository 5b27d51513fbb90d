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
    "left": {"links": dict, "faults": dict, "pss_mb": NUMBER},
    "killed": {},
    "crashed": {"traceback": str},
}
"""The figures that each kind must have; a row may have more."""
OURS = ("peer", "round", "to", "link_bytes", "consensus_distance")
"""Columns of the record that are the launcher's to write."""


def check(message: Message, parameters: int) -> None:
    """Raises RemoteError for what no honest peer of a model of so many parameters says."""
    required, figures = KINDS.get(message.kind), message.figures
    if required is None:
        raise RemoteError(f"a {message.kind!r} message to the launcher")
    for name, wanted in required.items():
        value = figures.get(name)
        if not isinstance(value, wanted) or (isinstance(value, float) and not math.isfinite(value)):
            raise RemoteError(f"a {message.kind!r} message whose {name} is {type(value).__name__}")
        if isinstance(value, Mapping) and not all(_peer(j) and type(n) is int for j, n in value.items()):
            raise RemoteError(f"a {message.kind!r} message with broken {name}")
    if message.kind == "row" and not all(name not in OURS and _plain(value) for name, value in figures.items()):
        raise RemoteError("a row that writes in another's columns, or with a figure that is not plain")
    for name, tensor in message.tensors.items():
        if name != "model" or tensor.dtype != torch.float32 or tuple(tensor.shape) != (parameters,):
            raise RemoteError(f"a {message.kind!r} message with a tensor {name!r}")


def _peer(name: object) -> bool:
    return isinstance(name, str) and name.removeprefix("-").isdecimal()


def _plain(value: Figure) -> bool:
    if isinstance(value, list):
        return all(_plain(part) for part in value)
    return value is None or isinstance(value, (int, float, str))
