"""A thousand peers in one thread: the time and the memory of a peer, against the bare training steps.

    python benchmarks/scale.py [--peers 1000] [--repeats 3]

D-PSGD on a random 4-regular graph, digits, MLP 64-64-10, 5 local steps a round, engine `simulate`. The plain side
takes the same steps on the same examples, each peer with its own model and its own torch.optim.SGD, on as many threads.
Sides alternate, each in a process of its own; the ratio is that of the medians. Memory a peer is the most that the
process ever has, less what it has with 8 peers.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import torch
from torch import nn

from p2pfl import scenario
from p2pfl.runtime.launch import Screen, run
from p2pfl.runtime.world import World
from p2pfl.seeds import Seeds

ROUNDS, SKIPPED, FEW = 12, 2, 8


def settings(peers: int) -> scenario.Scenario:
    """What is simulated."""
    return scenario.read(
        {
            "name": "scale",
            "seed": 1,
            "peers": peers,
            "rounds": ROUNDS,
            "topology": {"random_regular": {"degree": 4}},
            "model": {"mlp": {"hidden": [64]}},
            "training": {"batch": 32, "lr": 0.1, "local_steps": 5, "device": "cpu"},
            "evaluate": {"every": ROUNDS},
            "engine": "simulate",
        }
    )


def simulated(peers: int) -> dict[str, float]:
    """Seconds a peer and round, from the end of round 2 to that of the last but one, and the most memory."""
    ends_s: dict[int, float] = {}

    def hear(row: dict[str, Any]) -> None:
        ends_s[row["round"]] = time.perf_counter()

    with tempfile.TemporaryDirectory() as folder:
        run(settings(peers), Path(folder) / "run", Screen(hear))
    rounds = ROUNDS - 1 - SKIPPED
    return {"peer_round_s": (ends_s[ROUNDS - 1] - ends_s[SKIPPED]) / rounds / peers, "memory_mb": most_memory_mb()}


def plain(peers: int) -> dict[str, float]:
    """Seconds a peer and round of the same steps, as anybody would write them."""
    world = World(settings(peers), Seeds.of(1))
    torch.set_num_threads(1)
    data, steps = world.data, world.settings.training.steps(1)
    models = [nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)) for _ in range(peers)]
    optimizers = [torch.optim.SGD(model.parameters(), lr=0.1) for model in models]
    rows = [torch.from_numpy(part) for part in world.shards]
    began_s = time.perf_counter()
    for round in range(ROUNDS):
        if round == SKIPPED:
            began_s = time.perf_counter()
        for rows_B, model, optimizer in zip(rows, models, optimizers, strict=True):
            for _ in range(steps):
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(data.train_x[rows_B]), data.train_y[rows_B]).backward()
                optimizer.step()
    return {"peer_round_s": (time.perf_counter() - began_s) / (ROUNDS - SKIPPED) / peers, "memory_mb": most_memory_mb()}


def most_memory_mb() -> float:
    """The most memory this process ever had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)


def measured(side: str, peers: int) -> dict[str, float]:
    """One side, in a process of its own."""
    words = [sys.executable, __file__, "--side", side, "--peers", str(peers)]
    found: dict[str, float] = json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout)
    return found


@click.command()
@click.option("--peers", default=1000)
@click.option("--repeats", default=3)
@click.option("--side", type=click.Choice(["both", "simulated", "plain"]), default="both")
def main(peers: int, repeats: int, side: str) -> None:
    """Measure and print."""
    if side != "both":
        click.echo(json.dumps(simulated(peers) if side == "simulated" else plain(peers)))
        return
    ours, theirs = [], []
    for _ in range(repeats):
        theirs.append(measured("plain", peers))
        ours.append(measured("simulated", peers))
        a_ms, b_ms = ours[-1]["peer_round_s"] * 1e3, theirs[-1]["peer_round_s"] * 1e3
        click.echo(f"  a peer and round: {a_ms:.2f} ms, bare steps {b_ms:.2f} ms, ratio {a_ms / b_ms:.2f}")
    ratio = statistics.median(m["peer_round_s"] for m in ours) / statistics.median(m["peer_round_s"] for m in theirs)
    few_mb = measured("simulated", FEW)["memory_mb"]
    memory_mb = statistics.median(m["memory_mb"] for m in ours)
    each_mb = (memory_mb - few_mb) / (peers - FEW)
    click.echo(
        f"scale: {peers} peers, {ratio:.2f} of the bare steps (reach 1.3), {memory_mb:.0f} MB, {each_mb:.3f} MB a peer"
    )


if __name__ == "__main__":
    main()
