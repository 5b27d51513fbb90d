"""What an engine is told to run, whom it tells what happens, and what it must be able to do."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Protocol

from p2pfl import scenario
from p2pfl.messages import Message, PeerId
from p2pfl.runtime.life import Course
from p2pfl.runtime.world import World
from p2pfl.scenario import Scenario
from p2pfl.seeds import Seeds

VARIABLE = "P2PFL_PLAN"
"""The environment variable by which a fork server is told the path of the plan."""
FILE = "plan.json"

Watcher = Callable[[PeerId, Message], None]
"""Hears what happens to a peer, as a message of one of these kinds:

`seated` (device), `began` (round 1, at_s), `row` (a row of the record; tensors: model), `left` (links: bytes by
neighbour; faults; pss_mb), `killed` (as the scenario says), `crashed` (traceback).
"""


class Engine(Protocol):
    """Starts the peers of a plan, tells `watch` what they say, and leaves nothing behind."""

    async def run(self, plan: Plan, watch: Watcher, stop: asyncio.Event) -> None:
        """Run to the end, or until `stop` is set; then within 3 s. Raises LocalError when nothing can start."""


@dataclass(frozen=True)
class Plan:
    """A scenario with the root of its randomness and the name of this run, which is on every frame."""

    settings: Scenario
    root: bytes
    run: bytes

    @cached_property
    def world(self) -> World:
        """The scenario made concrete, once in this process."""
        return World(self.settings, Seeds(self.root))

    def course(self, peer: PeerId) -> Course:
        """What is asked of one peer beyond its algorithm."""
        killed = [event.round for event in self.settings.churn if peer in event.kill]
        evaluated = sum(role.evaluated for role in self.world.roles.values())
        evaluate = self.settings.evaluate
        return Course(
            self.settings.rounds, evaluate.every, evaluate.split, evaluated > 1, min(killed) if killed else None
        )

    def write(self, path: Path) -> None:
        """For another process of this run; the file holds the root, so its folder must be private."""
        parts = {"scenario": scenario.dump(self.settings), "root": self.root.hex(), "run": self.run.hex()}
        path.write_text(json.dumps(parts))

    @staticmethod
    def read(path: Path) -> Plan:
        """What `write` wrote."""
        parts = json.loads(path.read_text())
        return Plan(scenario.parse(parts["scenario"]), bytes.fromhex(parts["root"]), bytes.fromhex(parts["run"]))


@cache
def opened(path: Path) -> Plan:
    """The plan in a file, read once in a process: the world that a fork server makes of it, all its peers share."""
    return Plan.read(path)
