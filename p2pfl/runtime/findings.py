"""What curious peers found, on disk: `attacks/peer-3/0001.json` says all of a finding but its tensors.

Beside it `0001.safetensors` holds what the attack made (inputs_BCHW, labels_B, counts, frames_FCHW, suspect_D,
reference_D, what there is of these) and, once it is judged, `0001.truth.safetensors` what was to be found. A file is
written whole or not at all; they are read with suspicion: what is broken costs only itself.
"""

from __future__ import annotations

import errno
import json
import math
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy
import safetensors.numpy
import torch
from safetensors import SafetensorError
from torch import Tensor

from p2pfl.messages import HUB, PeerId, peer_name

FOLDER = "attacks"
FILE = re.compile(r"([0-9]{4,9})\.json")
NAME = re.compile(r"(hub|[0-9]{1,9})(\+(hub|[0-9]{1,9})){0,9}")
"""What a peer is called, and several that share what they know: `3`, `hub`, `3+5`."""
WORD = re.compile(r"\w{1,40}")
MOST_JSON_BYTES, MOST_TENSOR_BYTES, NESTING = 2**24, 2**31, 16
"""Of a file that is read; and how deep what a finding says may nest."""

Told = dict[str, Any]
Label = int | str
"""A peer as records call it: by its number, or `hub`."""
Batch = tuple[PeerId, int]
"""Whose, and which of the batches of its run."""


@dataclass(frozen=True, eq=False)
class Found:
    """A finding as it was read: its file, what it says, and what every finding must say."""

    path: Path
    told: Told = field(repr=False)
    attacker: Label
    victim: Label
    round: int
    method: str
    reading: str | None
    batches: tuple[Batch, ...]


def write(folder: Path, told: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Path:
    """Keep a finding in the folder of a run, under the next number of its attacker. The path of its JSON.

    Raises OSError where the disk does, or a symbolic link leads elsewhere, ValueError where `told` does not say who
    attacks.
    """
    attacker = label(told.get("attacker"))
    if attacker is None:
        raise ValueError(f"attacker is {told.get('attacker')!r}: give a peer")
    home = _home(folder, attacker)
    if (elsewhere := link(folder, attacker)) is not None:
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(elsewhere))
    home.mkdir(parents=True, exist_ok=True)
    number = max((int(hit[1]) for path in home.iterdir() if (hit := FILE.fullmatch(path.name))), default=0) + 1
    path = home / f"{number:04}.json"
    if tensors:
        keep(path.with_suffix(".safetensors"), tensors)
    complete(path, {**told, "attacker": attacker, "victim": label(told.get("victim"))})
    return path


def link(folder: Path, attacker: Any) -> Path | None:
    """The symbolic link that would lead this attacker's findings out of the folder of a run; None without one."""
    home = _home(folder, label(attacker))
    return next((path for path in (home.parent, home) if path.is_symlink()), None)


def complete(path: Path, told: Mapping[str, Any]) -> None:
    """Write what a finding says, in the place of what it said."""
    replace(path, (json.dumps(_plain(told), indent=1, allow_nan=False) + "\n").encode())


def keep(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors as float32 and int64, with their names and shapes."""
    arrays = {name: _array(tensor) for name, tensor in tensors.items()}
    replace(path, safetensors.numpy.save(arrays))


def replace(path: Path, content: bytes) -> None:
    """Write a file whole or not at all, and wherever links may lead: in this place."""
    unfinished = path.with_name(f"{path.name}.part")
    unfinished.unlink(missing_ok=True)
    with unfinished.open("xb") as file:  # exclusive: follows no link
        file.write(content)
    unfinished.replace(path)


def read(folder: Path) -> list[Found]:
    """All findings of a run, by attacker and in order; nothing of those that are broken."""
    homes = [] if (folder / FOLDER).is_symlink() else (folder / FOLDER).glob("peer-*")
    paths = [path for home in homes if not home.is_symlink() for path in home.glob("*.json")]
    found = (_found(path) for path in sorted(filter(_ours, paths), key=_order))
    return [each for each in found if each is not None]


def tensors(found: Found) -> dict[str, Tensor]:
    """What an attack made; {} where it made none, or the file is broken."""
    return load(found.path.with_suffix(".safetensors"))


def load(path: Path) -> dict[str, Tensor]:
    """The tensors of a file, in float32 and int64; {} where there are none, or it is broken."""
    try:
        if path.is_symlink() or not path.is_file() or path.stat().st_size > MOST_TENSOR_BYTES:
            return {}
        arrays = safetensors.numpy.load(path.read_bytes())
        return {name: torch.from_numpy(numpy.array(array)) for name, array in arrays.items() if _known(array)}
    except (OSError, SafetensorError, KeyError, TypeError, ValueError):  # KeyError: of a type that numpy has not
        return {}


def held(rows: Iterable[Mapping[str, Any]]) -> dict[Batch, tuple[int, ...]]:
    """What a record's rows say of the batches of attacked rounds: which rows of the training part they held."""
    found: dict[Batch, tuple[int, ...]] = {}
    for row in rows:
        peer, batches = peer_id(row.get("peer")), row.get("held")
        if peer is None or not isinstance(batches, Mapping):
            continue
        for number, examples in batches.items():
            whole = isinstance(examples, list | tuple) and all(type(k) is int and k >= 0 for k in examples)
            if whole and re.fullmatch("[0-9]{1,15}", str(number)):
                found[peer, int(number)] = tuple(examples)
    return found


def label(peer: Any) -> Label | None:
    """A peer, given by id or name, as records call it; several that collude as `3+5`; None where it is none."""
    if isinstance(peer, list | tuple):
        peer = "+".join(str(label(each)) for each in peer)
    if type(peer) is int and peer >= HUB:
        return peer if peer != HUB else peer_name(HUB)
    if isinstance(peer, str) and NAME.fullmatch(peer):
        return int(peer) if peer.isdecimal() else peer
    return None


def peer_id(peer: Any) -> PeerId | None:
    """The id of the one peer that is meant; None where it is none."""
    named = label(peer)
    return HUB if named == peer_name(HUB) else named if isinstance(named, int) else None


def _ours(path: Path) -> bool:
    """Whether a path is that of a finding, and no link to something else, nor a device."""
    return FILE.fullmatch(path.name) is not None and not path.is_symlink() and path.is_file()


def _home(folder: Path, attacker: Label | None) -> Path:
    return folder / FOLDER / f"peer-{attacker}"


def _found(path: Path) -> Found | None:
    try:
        if path.stat().st_size > MOST_JSON_BYTES:
            return None
        told = _plain(json.loads(path.read_bytes()))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(told, dict):
        return None
    attacker, victim, round = label(told.get("attacker")), label(told.get("victim")), told.get("round")
    method, reading = _word(told.get("method")), _word(told.get("reading"))
    if attacker is None or victim is None or method is None:
        return None
    if not isinstance(round, int) or isinstance(round, bool) or not 0 <= round < 10**9:
        return None
    return Found(path, told, attacker, victim, round, method, reading, _batches(told.get("batches")))


def _batches(given: Any) -> tuple[Batch, ...]:
    pairs = given if isinstance(given, list) else []
    whole = (pair for pair in pairs if isinstance(pair, list) and len(pair) == 2 and type(pair[1]) is int)
    return tuple((peer, number) for peer, number in ((peer_id(pair[0]), pair[1]) for pair in whole) if peer is not None)


def _word(given: Any) -> str | None:
    return given if isinstance(given, str) and WORD.fullmatch(given) else None


def _order(path: Path) -> tuple[int, str, int]:
    """Peers by their numbers, a hub first; the findings of each by theirs."""
    name = path.parent.name.removeprefix("peer-")
    return (int(name) if name.isdecimal() else -1, name, int(path.stem))


def _plain(value: Any, nesting: int = NESTING) -> Any:
    """A value as JSON has it, which knows no bytes and no number that is not finite; nor does anybody count so far."""
    if nesting == 0:
        return None
    match value:
        case float():
            return value if math.isfinite(value) else None
        case None | bool() | str():
            return value
        case int():
            return value if abs(value) < 2**63 else None
        case bytes():
            return value.hex()
        case Mapping():
            return {str(key): _plain(each, nesting - 1) for key, each in value.items()}
        case list() | tuple():
            return [_plain(each, nesting - 1) for each in value]
    return str(value)


def _array(tensor: Tensor) -> numpy.ndarray:
    kind = torch.float32 if tensor.is_floating_point() else torch.int64
    return numpy.ascontiguousarray(tensor.detach().to("cpu", kind).numpy())


def _known(array: numpy.ndarray) -> bool:
    return array.dtype in (numpy.float32, numpy.int64)
