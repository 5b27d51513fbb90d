"""Models on disk, as safetensors that PyTorch takes by the names of its parameters; and runs that begin with them.

They lie in the run's folder as `checkpoints/peer-3/round-000400.safetensors`. A file is written whole or not at all.
"""

from __future__ import annotations

import re
from pathlib import Path

import safetensors.numpy
import torch
from safetensors import SafetensorError
from torch import Tensor

from p2pfl.contracts import Layout
from p2pfl.errors import ScenarioError
from p2pfl.messages import HUB, PeerId, peer_name
from p2pfl.metrics.consensus import consensus_model

FOLDER = "checkpoints"
FILE = re.compile(r"round-(\d+)\.safetensors")


def write(run: Path, peer: PeerId, round: int, x_D: Tensor, layout: Layout, most: int) -> None:
    """Keep the model of a peer after a round, and of the older ones only so many that there are `most`."""
    folder = run / FOLDER / f"peer-{peer_name(peer)}"
    folder.mkdir(parents=True, exist_ok=True)
    parts = torch.split(x_D.detach().cpu(), [slot.size for slot in layout])
    tensors = {slot.name: part.view(slot.shape).numpy() for slot, part in zip(layout, parts, strict=True)}
    path = folder / f"round-{round:06}.safetensors"
    unfinished = path.with_suffix(".part")
    unfinished.write_bytes(safetensors.numpy.save(tensors, {"peer": peer_name(peer), "round": str(round)}))
    unfinished.replace(path)
    for old in sorted(rounds(folder))[:-most]:
        rounds(folder)[old].unlink()


def rounds(folder: Path) -> dict[int, Path]:
    """The checkpoints in the folder of a peer, by round."""
    found = ((FILE.fullmatch(path.name), path) for path in folder.glob("*.safetensors"))
    return {int(hit[1]): path for hit, path in found if hit is not None}


def find(run: Path, peer: PeerId, round: int | None) -> tuple[Path, ...]:
    """What a peer begins with: its own checkpoint, else the hub's, else everybody's, whose mean it takes.

    Those of `round`, or the last of each. Raises ScenarioError, its path below `init`, where there is nothing.
    """
    folders = sorted((run / FOLDER).glob("peer-*"))
    by_name = {folder.name: rounds(folder) for folder in folders}
    by_name = {name: kept for name, kept in by_name.items() if (kept if round is None else round in kept)}
    if not by_name:
        known = sorted({r for folder in folders for r in rounds(folder)})
        if known:
            remedy = f"there are those of {', '.join(map(str, known[-8:]))}"
            raise ScenarioError(f"{run} has no checkpoint of round {round}", remedy, ("round",))
        remedy = "give the folder of a run whose scenario says 'save: {checkpoints: 1}'"
        raise ScenarioError(f"{run} has no checkpoints", remedy, ("run",))
    wanted = [by_name[name] for name in (f"peer-{peer_name(peer)}", f"peer-{peer_name(HUB)}") if name in by_name]
    return tuple(kept[max(kept) if round is None else round] for kept in wanted[:1] or by_name.values())


def load(paths: tuple[Path, ...], layout: Layout) -> Tensor:
    """The model in a file, or the mean of several, as D numbers. Raises ScenarioError, its path below `init`."""
    return consensus_model([_load(path, layout) for path in paths])


def _load(path: Path, layout: Layout) -> Tensor:
    try:
        tensors = safetensors.numpy.load(path.read_bytes())
    except (OSError, SafetensorError) as error:
        raise ScenarioError(f"cannot read {path}, {error}", "take another round, or another run", ("run",)) from None
    held = {name: (str(x.dtype), x.shape) for name, x in tensors.items()}
    if held != {slot.name: ("float32", slot.shape) for slot in layout}:
        raise ScenarioError(f"{path} holds another model", "give the same model and data as that run", ("run",))
    return torch.cat([torch.from_numpy(tensors[slot.name]).reshape(-1) for slot in layout])
