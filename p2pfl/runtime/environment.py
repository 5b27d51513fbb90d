"""What is known of a run before its first peer starts, written into its folder: scenario, graph, environment."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import psutil
import torch

from p2pfl import own_code, scenario
from p2pfl.messages import peer_name
from p2pfl.runtime.world import World, cores


def prepare(folder: Path, world: World, version: str) -> None:
    """Write what is known before the first peer starts: scenario, graph, environment."""
    settings = world.settings
    devices = ", ".join(sorted({world.device(i) for i in world.roles}))
    head = f"# as resolved by p2pfl {version}; devices: {devices}; torch threads a peer: {world.threads}\n"
    (folder / "scenario.yaml").write_text(head + scenario.dump(settings))
    graph = {"nodes": sorted(world.graph), "links": [list(link) for link in world.links]}
    (folder / "graph.json").write_text(json.dumps(graph))
    environment = {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "p2pfl": version,
        "commit": _commit(),
        "python": sys.version.split()[0],
        "libraries": {name: metadata.version(name) for name in ("torch", "numpy", "pyzmq", "msgpack", "networkx")},
        "system": platform.platform(),
        "cores": cores(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "gpus": [torch.cuda.get_device_name(k) for k in range(torch.cuda.device_count())],
        "devices": {peer_name(i): world.device(i) for i in world.roles},
        "torch_threads_per_peer": world.threads,
        "data_sha256": settings.data.value.checksums(),
        "plugins_sha256": _kept_plugins(folder),
    }
    (folder / "environment.json").write_text(json.dumps(environment, indent=2))


def _kept_plugins(folder: Path) -> dict[str, str]:
    """Copy the user's own plug-ins beside the run's scenario; SHA-256 of each, by its place there."""
    for name, file in own_code.files().items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(file.read_bytes())
    return own_code.checksums()


def _commit() -> str | None:
    """The commit that p2pfl runs from, where it runs from its own checkout."""
    here = Path(__file__).resolve().parents[2]
    try:
        asked = subprocess.run(
            ["git", "rev-parse", "--show-toplevel", "HEAD"], cwd=here, capture_output=True, text=True, timeout=5
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    top, _, commit = asked.stdout.strip().partition("\n")
    return commit if asked.returncode == 0 and Path(top) == here else None
