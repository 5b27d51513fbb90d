"""What every engine keeps to: it runs all peers of a plan to the end, with the figures of the simulation, and stops.

Figures are those of every row but times, memory and bytes.
"""

from __future__ import annotations

import asyncio
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from p2pfl import plugins, scenario
from p2pfl.messages import Message, PeerId
from p2pfl.runtime.plan import Engine, Plan, Watcher
from p2pfl.seeds import Seeds

LIMIT_S, STOP_S = 120.0, 30.0
"""An engine that takes longer to come to its end, or to stop, hangs."""
WRITTEN = {
    **{"name": "conformance", "seed": 3, "peers": 3, "rounds": 3, "sketch": "countsketch", "topology": "complete"},
    **{"model": {"mlp": {"hidden": [8]}}, "evaluate": {"every": 2}, "churn": [{"round": 3, "kill": [1]}]},
    "training": {"batch": 16, "local_steps": 2, "device": "cpu"},
}
Figures = dict[tuple[PeerId, int], dict[str, Any]]


def gives_the_figures_of_the_simulation_bit_for_bit(plugin: Any) -> None:
    """Three peers, of whom one is killed: all rows, and every model that was shared."""
    expected, found = _run(plugins.build("engines", "simulate", {})), _heard(plugin)
    assert not found.crashed, f"a peer crashed: {found.crashed[0]}"
    assert found.killed == {1}, f"the scenario kills peer 1 in round 3; it says that {found.killed} were killed"
    assert found.figures.keys() == expected.figures.keys(), f"it reports {sorted(found.figures)} as (peer, round)"
    for key, row in expected.figures.items():
        assert found.figures[key] == row, f"peer {key[0]} has other figures in round {key[1]}: {found.figures[key]}"
    same = all(torch.equal(model_D, found.models[key]) for key, model_D in expected.models.items())
    assert same, "a peer ends with another model"


def says_of_every_peer_how_it_began_and_ended(plugin: Any) -> None:
    """Seated, began, and left or killed: what a record is made of."""
    said = _heard(plugin).said
    for kind, peers in (("seated", {0, 1, 2}), ("began", {0, 1, 2}), ("left", {0, 2}), ("killed", {1})):
        assert said.get(kind) == peers, f"it says {kind!r} of the peers {sorted(said.get(kind, ()))}, not of {peers}"


def stops_when_it_is_told(plugin: Any) -> None:
    """Before the first round, too."""
    _run(plugin, stopped=True)


class _Heard:
    """What an engine said of a run."""

    def __init__(self) -> None:
        self.said: dict[str, set[PeerId]] = {}
        self.figures: Figures = {}
        self.models: dict[tuple[PeerId, int], Tensor] = {}
        self.crashed: list[str] = []

    @property
    def killed(self) -> set[PeerId]:
        return self.said.get("killed", set())

    def watch(self, peer: PeerId, message: Message) -> None:
        self.said.setdefault(message.kind, set()).add(peer)
        if message.kind == "crashed":
            self.crashed.append(str(message.figures["traceback"]).strip().splitlines()[-1])
        if message.kind == "row":
            key = (peer, message.round)
            kept = {k: v for k, v in message.figures.items() if not k.endswith(("_s", "_bytes"))}
            self.figures.setdefault(key, {}).update(kept)
            if "model" in message.tensors:
                self.models[key] = message.tensors["model"]


@lru_cache(maxsize=1)
def _heard(plugin: Any) -> _Heard:
    """One run, for every check that only looks at it."""
    return _run(plugin)


def _run(engine: Engine, stopped: bool = False) -> _Heard:
    plan = Plan(scenario.read(WRITTEN), Seeds.of(3).root, bytes(8))
    heard, before = _Heard(), torch.get_num_threads()

    async def run() -> None:
        stop = asyncio.Event()
        if stopped:
            stop.set()
        await asyncio.wait_for(engine.run(plan, Watcher(heard.watch), stop), STOP_S if stopped else LIMIT_S)

    torch.set_num_threads(plan.world.threads)
    try:
        asyncio.run(run())
    finally:
        torch.set_num_threads(before)
    return heard
