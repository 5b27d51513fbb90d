"""What the fork server does before it forks peers: import torch, load the data, take one step, freeze it all.

The fork server imports this module by its name, and nobody else does. The plan's path reaches it by the environment,
the one way there is.
"""

from __future__ import annotations

import contextlib
import gc
import os
from pathlib import Path

import torch

from p2pfl.errors import P2PFLError
from p2pfl.runtime import child  # noqa: F401 - imported here, so that no peer has to
from p2pfl.runtime.plan import VARIABLE, opened
from p2pfl.seeds import Seeds


def warm_up(plan: Path) -> None:
    """Whatever every peer would do first. GPUs are left alone: they do not survive a fork."""
    world = opened(plan).world
    torch.set_num_threads(1)  # no thread may be running when the server forks
    _ = world.weights  # made here, for all
    peer = world.roster.learners[0]
    if not torch.version.cuda:
        task = world.task(peer, Seeds(bytes(32)))
        task.evaluate(task.steps(task.start(Seeds(bytes(32))), None, 0, 1).x_D, "validation")
    gc.collect()
    gc.freeze()


if VARIABLE in os.environ:
    with contextlib.suppress(P2PFLError):  # it is the peers who can report a failure
        warm_up(Path(os.environ[VARIABLE]))
