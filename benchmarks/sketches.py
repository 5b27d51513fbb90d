"""What sketches cost: `down` and `up` against a copy of the same bytes, a sketched training step against a dense one.

A copy reads and writes every number of a matrix once. Steps are of batch 10, as in DBCL's FedAvg, in one thread as in
a peer among many. All are measured in turns, ratios are of each turn, and their medians are printed with the quartiles.

    python benchmarks/sketches.py [TURNS]
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from statistics import quantiles

import numpy
import torch

from p2pfl import plugins
from p2pfl.contracts import Pair, Slot, Training
from p2pfl.learning.data import Data
from p2pfl.learning.model import Model
from p2pfl.learning.models.cnn import Cnn
from p2pfl.learning.models.mlp import Mlp
from p2pfl.learning.task import SGDTask
from p2pfl.runtime import tuning
from p2pfl.seeds import Seeds
from p2pfl.sketches.countsketch import CountSketch

KEY = bytes(range(16))
MATRICES = ((200, 784), (512, 3136), (1000, 4096), (4096, 4096))
MODELS: Mapping[str, tuple[Model, int, float]] = {"MLP": (Mlp((200, 200)), 60, 1.0), "CNN": (Cnn(), 4, 1.25)}
"""DBCL's, how many steps of each are one measurement, and what they may cost."""
BRISK_S = 0.002
"""What is shorter is repeated until it takes as long."""


def main() -> None:
    """Measure everything."""
    turns = int(sys.argv[1]) if len(sys.argv) > 1 else 41
    torch.set_num_threads(1)
    tuning.keep_memory()  # as every peer does
    devices = [torch.device("cpu")] + [torch.device("cuda")] * torch.cuda.is_available()
    for device in devices:
        copies(device, turns)
        for name, (model, count, limit) in MODELS.items():
            steps(name, model, device, count, limit, turns)


def copies(device: torch.device, turns: int) -> None:
    """Each sketch at half the columns, on each matrix, as multiples of a copy."""
    for rows, columns in MATRICES:
        x_D = torch.randn(rows * columns, device=device)
        out_D = torch.empty_like(x_D)
        jobs: dict[str, Callable[[], object]] = {"copy": partial(out_D.copy_, x_D)}
        for name in plugins.names("sketches"):
            sketch = plugins.build("sketches", name, {})
            if sketch.keyed and not (name == "gaussian" and rows * columns > 1 << 20):  # its matrix would be drawn anew
                pair: Pair = sketch.bind((Slot("w", (rows, columns)),))
                jobs |= {f"{name} down": partial(pair.down, x_D, KEY)}
                jobs |= {f"{name} up": partial(pair.up, torch.randn(pair.size, device=device), KEY)}
        took = measured(jobs, device, turns)
        print(f"\n{device}, {rows} x {columns}: a copy takes {1e6 * quantiles(took['copy'])[1]:.0f} us")
        for name in list(jobs)[1:]:
            told(name, took[name], took["copy"], 3.0 if name.startswith("countsketch") else None)


def steps(name: str, model: Model, device: torch.device, count: int, limit: float, turns: int) -> None:
    """A step of SGD in the sketched space, as multiples of one in the whole."""
    task = SGDTask(model, mnist_like(), numpy.arange(600), Training(batch=10, lr=0.05), device, Seeds.of(1))
    x_D = task.start(Seeds.of(2))
    pair = CountSketch().bind(task.layout)
    z_S = pair.down(x_D, KEY)
    jobs: dict[str, Callable[[], object]] = {
        "dense": partial(task.steps, x_D, None, 0, count),
        "sketched": partial(task.steps, z_S, None, 0, count, pair, KEY),
    }
    took = measured(jobs, device, turns)
    print(f"\n{device}, {name} of DBCL: a dense step takes {1e6 * quantiles(took['dense'])[1] / count:.0f} us")
    told("sketched", took["sketched"], took["dense"], limit)


def mnist_like() -> Data:
    """600 images of the size of MNIST's: what they show does not matter here."""
    x_NCHW, y_N = torch.randn(600, 1, 28, 28), torch.arange(600) % 10
    return Data(x_NCHW, y_N, x_NCHW[:0], y_N[:0], x_NCHW, y_N, classes=10)


def measured(jobs: Mapping[str, Callable[[], object]], device: torch.device, turns: int) -> dict[str, list[float]]:
    """Seconds of each job in each turn."""
    often = {name: max(1, round(BRISK_S / seconds(job, device, 3))) for name, job in jobs.items()}
    took: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(turns):
        for name, job in jobs.items():
            took[name].append(seconds(job, device, often[name]))
    return took


def seconds(job: Callable[[], object], device: torch.device, often: int) -> float:
    """How long the job takes, of so many in a row."""
    wait(device)
    began_s = time.perf_counter()
    for _ in range(often):
        job()
    wait(device)
    return (time.perf_counter() - began_s) / often


def wait(device: torch.device) -> None:
    """Until the device has done what it was asked for."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def told(name: str, took: list[float], limit: list[float], reach: float | None) -> None:
    """One line of the table."""
    low, middle, high = quantiles([ours / theirs for ours, theirs in zip(took, limit, strict=True)])
    asked = "" if reach is None else f"   reach {reach:g}"
    print(f"  {name:<18} {middle:6.2f} x   ({low:.2f} to {high:.2f}){asked}", flush=True)


if __name__ == "__main__":
    main()
