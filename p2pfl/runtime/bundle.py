"""Values as one safetensors file: tensors as its tensors, all else as JSON in its metadata.

Plain values, mappings, lists, bytes and dataclasses are written; a dataclass comes back as a namespace of its fields:
no file can name code. Numbers come back bit for bit. A file is written whole or not at all, for its owner's eyes.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from p2pfl.errors import LocalError, ScenarioError

KEY = "value"
"""The entry of the metadata that holds the JSON."""
NESTING = 16
DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.uint8)


def write(path: Path, value: Any) -> None:
    """Put the value into a file that nobody else may read. Raises LocalError for what no file can hold."""
    tensors: dict[str, Tensor] = {}
    text = json.dumps(_coded(value, "", tensors, {}))
    unfinished = path.with_suffix(".part")
    with open(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(safetensors.torch.save(tensors, {KEY: text}))
    unfinished.replace(path)


def read(path: Path, limit_bytes: int) -> Any:
    """What `write` wrote, its tensors on the CPU. Raises ScenarioError that names the file."""
    try:
        if (size := path.stat().st_size) > limit_bytes:
            raise broken(path, f"it has {size} bytes, and what belongs there at most {limit_bytes}")
        raw = path.read_bytes()
        # cloned, so aligned as torch aligns: the last bit of a sum may hang on it
        tensors = {name: x.clone() for name, x in safetensors.torch.load(raw).items()}
        head = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
        return _decoded(json.loads(head["__metadata__"][KEY]), tensors, NESTING)
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise broken(path, f"{type(error).__name__} {error}"[:200]) from None


def broken(path: Path, why: str) -> ScenarioError:
    """The error for a file that does not hold what it should."""
    return ScenarioError(f"cannot read {path}, {why}", "launch again, or take the mail of another run")


def _coded(value: Any, at: str, tensors: dict[str, Tensor], names: dict[int, str]) -> Any:
    """JSON of a value; each tensor is put into `tensors`, once, named by the first place `at` which it stands."""
    match value:
        case None | bool() | int() | float() | str():
            return value
        case bytes():
            return {"hex": value.hex()}
        case Tensor():
            if id(value) not in names:
                names[id(value)] = at
                tensors[at] = value.detach().cpu().clone(memory_format=torch.contiguous_format)
            return {"tensor": names[id(value)]}
        case Mapping():
            pairs = [[_coded(k, at, {}, {}), _coded(v, _below(at, k), tensors, names)] for k, v in value.items()]
            return {"pairs": pairs}
        case SimpleNamespace():
            return _fields(vars(value), at, tensors, names)
        case list() | tuple():
            return [_coded(part, _below(at, k), tensors, names) for k, part in enumerate(value)]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        held = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return _fields(held, at, tensors, names)
    raise LocalError(f"a file cannot hold {at or 'this'}, which is of {type(value).__name__}")


def _fields(held: Mapping[str, Any], at: str, tensors: dict[str, Tensor], names: dict[int, str]) -> Any:
    return {"fields": {name: _coded(part, _below(at, name), tensors, names) for name, part in held.items()}}


def _below(at: str, part: object) -> str:
    return f"{at}/{part}" if at else str(part)


def _decoded(coded: Any, tensors: Mapping[str, Tensor], nesting: int) -> Any:
    """The value of some JSON. Raises ValueError, KeyError or TypeError where it is none."""
    if nesting == 0:
        raise ValueError("it is nested too deep")
    if isinstance(coded, list):
        return [_decoded(part, tensors, nesting - 1) for part in coded]
    if not isinstance(coded, dict):
        return coded
    ((kind, held),) = coded.items()
    match kind:
        case "hex":
            return bytes.fromhex(held)
        case "tensor":
            if tensors[held].dtype not in DTYPES:
                raise ValueError(f"{held} is of {tensors[held].dtype}")
            return tensors[held]
        case "pairs":
            return {_decoded(key, {}, 2): _decoded(part, tensors, nesting - 1) for key, part in held}
        case "fields":
            return SimpleNamespace(**{name: _decoded(part, tensors, nesting - 1) for name, part in held.items()})
    raise ValueError(f"it holds a {kind}")
