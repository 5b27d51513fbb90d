"""What private training costs: a step by clipped gradients of single examples against a plain step, and its noise.

Steps are of batch 64, in one thread as in a peer among many, of the same task with and without a guard that clips; the
noise, which a private step adds, is drawn beside them from a seeded generator. All are measured in turns, ratios are of
each turn, and their medians are printed with the quartiles.

    python benchmarks/private.py [TURNS]
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from functools import partial
from statistics import quantiles

import numpy
import torch
from sketches import KEY, measured, mnist_like, told

from p2pfl.contracts import Training
from p2pfl.learning.model import Model
from p2pfl.learning.models.cnn import Cnn
from p2pfl.learning.models.mlp import Mlp
from p2pfl.learning.models.resnet18 import Resnet18
from p2pfl.learning.task import SGDTask
from p2pfl.protection import Shield
from p2pfl.runtime import tuning
from p2pfl.seeds import Seeds
from p2pfl.sketches.countsketch import CountSketch

BATCH = 64
MODELS: Mapping[str, tuple[Model, int, float | None]] = {
    "MLP 784-200-200-10": (Mlp((200, 200)), 9, 2.0),
    "CNN": (Cnn(), 1, None),
    "ResNet-18, 8 channels": (Resnet18(width=8), 1, None),
}
"""How many steps of each are one measurement, and what clipping may cost."""


CLIPPING = Shield(lambda g_S, at: g_S.div_(BATCH), clip=1.0)
"""A guard that clips and does no more, so that nothing else is measured."""


def main() -> None:
    """Measure everything."""
    turns = int(sys.argv[1]) if len(sys.argv) > 1 else 21
    torch.set_num_threads(1)
    tuning.keep_memory()  # as every peer does
    for device in [torch.device("cpu")] + [torch.device("cuda")] * torch.cuda.is_available():
        for name, (model, count, reach) in MODELS.items():
            steps(name, model, device, count, reach, turns)


def steps(name: str, model: Model, device: torch.device, count: int, reach: float | None, turns: int) -> None:
    """Clipped steps, dense and sketched, as multiples of plain ones; the noise as a share of a plain step."""
    common = model, mnist_like(), numpy.arange(600), Training(batch=BATCH, lr=0.05), device, Seeds.of(1)
    plain, guarded = SGDTask(*common), SGDTask(*common, guard=CLIPPING)
    x_D = plain.start(Seeds.of(2))
    pair, generator = CountSketch().bind(plain.layout), Seeds.of(3).torch("noise")
    sketched = (pair.down(x_D, KEY), None, 0, count, pair, KEY)
    jobs: dict[str, Callable[[], object]] = {
        "plain": partial(plain.steps, x_D, None, 0, count),
        "clipped": partial(guarded.steps, x_D, None, 0, count),
        "plain, sketched": partial(plain.steps, *sketched),
        "clipped, sketched": partial(guarded.steps, *sketched),
        "its noise": lambda: [torch.randn(len(x_D), generator=generator).to(device) for _ in range(count)],
    }
    took = measured(jobs, device, turns)
    print(
        f"\n{device}, {name}, D = {len(x_D):,}: a plain step takes {1e3 * quantiles(took['plain'])[1] / count:.2f} ms"
    )
    for job in ("clipped", "its noise"):
        told(job, took[job], took["plain"], reach if job == "clipped" else None)
    told("clipped, sketched", took["clipped, sketched"], took["plain, sketched"], None)


if __name__ == "__main__":
    main()
