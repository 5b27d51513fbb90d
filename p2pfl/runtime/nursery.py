"""What the fork server does before it forks peers: import torch, load the data, take one step, freeze it all.

The fork server imports this module (by way of `child`); the plan's path reaches it by the environment, the one way there is.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import torch

from p2pfl.errors import P2PFLError
from p2pfl.runtime.plan import Plan
from p2pfl.runtime.world import World
from p2pfl.seeds import Seeds

PLAN = "plan.json"
_VARIABLE = "P2PFL_NURSERY_PLAN"


def method() -> str:
    """How processes are started here: forked from a warm server where there is one."""
    return "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"


@contextmanager
def prepared(plan: Path) -> Iterator[None]:
    """A fork server that starts within this context prepares for this plan."""
    os.environ[_VARIABLE] = str(plan)
    try:
        yield
    finally:
        del os.environ[_VARIABLE]


@cache
def world(plan: Path) -> tuple[Plan, World]:
    """The plan and its world: made once by the server, then shared by all peers it forks."""
    read = Plan.read(plan)
    return read, read.world()


def _warm_up(plan: Path) -> None:
    """Whatever every peer would do first. A failure is left to the peers, who can report it."""
    _, made = world(plan)
    torch.set_num_threads(1)  # no thread may be running when the server forks
    peer = made.roster.learners[0]
    if made.device(peer) == "cpu" and not torch.cuda.is_available():
        task = made.task(peer, Seeds(bytes(32)))
        task.evaluate(task.steps(task.start(Seeds(bytes(32))), None, 0, 1).x_D, "validation")
    gc.collect()
    gc.freeze()


if _VARIABLE in os.environ and multiprocessing.current_process().name == "MainProcess":
    try:
        _warm_up(Path(os.environ[_VARIABLE]))
    except P2PFLError:
        pass
