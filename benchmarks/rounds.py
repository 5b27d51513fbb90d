"""Round time of real peers against plain PyTorch doing the same steps, one loop a core, in the same minutes.

    python benchmarks/rounds.py [small|large] [--repeats 5]

small: a ring of 8 peers, MLP 784-200-200-10 on MNIST, 20 local steps of batch 32 a round.
large: a ring of 4 peers, MLP 784-2500-3200-10 (10M parameters), 1 local step a round: bound by communication.

The plain side is two processes at once, each taking the steps of half the peers with torch.optim.SGD, one thread
each, so that a lost core shows on both sides. Sides alternate; the ratio is that of the medians, with every pair's.
"""

from __future__ import annotations

import itertools
import json
import multiprocessing
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import click
import torch
from torch import nn

from p2pfl import scenario
from p2pfl.learning.datasets.mnist import Mnist
from p2pfl.runtime.launch import run


@dataclass(frozen=True)
class Case:
    """What is measured: peers, hidden layers, local steps, and over how many rounds."""

    peers: int
    hidden: tuple[int, ...]
    local_steps: int
    rounds: int
    reach: float


CASES = {"small": Case(8, (200, 200), 20, 100, 1.16), "large": Case(4, (2500, 3200), 1, 20, 3.6)}


def plain_loop(case: Case, barrier: object, times_s: object) -> None:
    """The steps of half the peers, as anybody would write them."""
    torch.set_num_threads(1)
    data = Mnist().load()
    layers: list[nn.Module] = [nn.Flatten()]
    widths = [784, *case.hidden, 10]
    for i, (inputs, outputs) in enumerate(itertools.pairwise(widths)):
        layers += [nn.Linear(inputs, outputs)] + ([nn.ReLU()] if i < len(widths) - 2 else [])
    model = nn.Sequential(*layers)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    order = torch.randperm(len(data.train_x))
    began_s = 0.0
    for at in range(case.local_steps * case.peers // 2 * case.rounds + 5):
        if at == 5:
            barrier.wait()  # type: ignore[attr-defined]
            began_s = time.perf_counter()
        rows = order[at * 32 % 50_000 :][:32]
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(data.train_x[rows]), data.train_y[rows]).backward()
        optimizer.step()
    times_s.put((time.perf_counter() - began_s) / case.rounds)  # type: ignore[attr-defined]


def plain_round_s(case: Case) -> float:
    """Seconds a round of the plain side: the slower of its two processes."""
    context = multiprocessing.get_context("spawn")
    barrier, times_s = context.Barrier(2), context.Queue()
    both = [context.Process(target=plain_loop, args=(case, barrier, times_s)) for _ in range(2)]
    for process in both:
        process.start()
    found = [times_s.get() for _ in both]
    for process in both:
        process.join()
    return max(found)


def peers_round_s(case: Case, transport: str) -> tuple[float, dict[str, object]]:
    """Seconds a round of real peers, from the end of round 2 to the end of the last but one, and the summary."""
    settings = scenario.read(
        {
            "name": "rounds",
            "seed": 1,
            "peers": case.peers,
            "rounds": case.rounds + 3,
            "topology": "ring",
            "data": "mnist",
            "model": {"mlp": {"hidden": list(case.hidden)}},
            "training": {"batch": 32, "lr": 0.05, "local_steps": case.local_steps},
            "evaluate": {"every": case.rounds + 3},
            "transport": transport,
        }
    )
    with tempfile.TemporaryDirectory() as folder:
        record = run(settings, Path(folder) / "run")
        rows = [json.loads(line) for line in (record.folder / "records.jsonl").read_text().splitlines()]
    ends_s = {
        r: max(row["time_s"] for row in rows if row["round"] == r and "round_s" in row)
        for r in range(1, case.rounds + 3)
    }
    return (ends_s[case.rounds + 2] - ends_s[2]) / case.rounds, record.summary


@click.command()
@click.argument("name", type=click.Choice(list(CASES)), default="small")
@click.option("--repeats", default=5)
@click.option("--transport", default="auto")
def main(name: str, repeats: int, transport: str) -> None:
    """Measure one case and print it."""
    case = CASES[name]
    plain, peers = [], []
    for _ in range(repeats):
        plain.append(plain_round_s(case))
        found, summary = peers_round_s(case, transport)
        peers.append(found)
        click.echo(f"  plain {plain[-1] * 1e3:7.1f} ms   peers {found * 1e3:7.1f} ms   ratio {found / plain[-1]:.2f}")
    sent, ratio = summary["bytes"], statistics.median(peers) / statistics.median(plain)
    click.echo(f"{name}: round {statistics.median(peers) * 1e3:.1f} ms, {ratio:.2f} of plain (reach {case.reach})")
    wire = sent["sent_per_peer_round"] / sent["minimum_per_peer_round"]
    click.echo(f"bytes on the wire, dense, against degree x 4 x parameters: {wire:.5f} (reach 1.01)")


if __name__ == "__main__":
    main()
