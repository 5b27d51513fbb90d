"""What an engine is told to run, whom it tells what happens, and what it must be able to do."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Protocol

from p2pfl import own_code, plugins, scenario
from p2pfl.messages import Message, PeerId
from p2pfl.runtime import capture, checkpoint
from p2pfl.runtime.life import Course, Keep, asynchronous
from p2pfl.runtime.spying import Noted, logged
from p2pfl.runtime.world import World
from p2pfl.scenario import Scenario
from p2pfl.seeds import Seeds

VARIABLE = "P2PFL_PLAN"
"""The environment variable by which a fork server is told the path of the plan."""
FILE = "plan.json"


@dataclass
class Watcher:
    """Who hears what happens to a peer, and may tell all peers something. `tell` is set by the engine.

    It hears messages of these kinds: `seated` (device), `began` (round 1, at_s), `row` (a row of the record; tensors:
    model), `spying` (about, done, loss: how far an attack is), `found` (spied: what it made of it; tensors), `gate`
    (through a round, waiting for the verdict), `left` (links: bytes by neighbour; faults; pss_mb), `killed` (as the
    scenario says), `crashed` (traceback). It tells of a `verdict` (last) on the round at a gate.
    """

    hear: Callable[[PeerId, Message], None]
    tell: Callable[[Message], None] = lambda message: None

    def __call__(self, peer: PeerId, message: Message) -> None:
        """Something happened to a peer."""
        self.hear(peer, message)


class Engine(Protocol):
    """Starts the peers of a plan, tells `watch` what they say, and leaves nothing behind."""

    async def run(self, plan: Plan, watch: Watcher, stop: asyncio.Event) -> None:
        """Run to the end, or until `stop` is set; then within 3 s. Raises LocalError when nothing can start."""


@dataclass(frozen=True)
class Plan:
    """A scenario with the root of its randomness, the name of this run, which is on every frame, and its folder."""

    settings: Scenario
    root: bytes
    run: bytes
    folder: Path = Path()
    plugins: Path | None = field(default_factory=own_code.adopted)
    """The folder of the user's own plug-ins that the scenario may name; every process of the run adopts it."""

    @cached_property
    def world(self) -> World:
        """The scenario made concrete, once in this process."""
        return World(self.settings, Seeds(self.root))

    def course(self, peer: PeerId) -> Course:
        """What is asked of one peer beyond its algorithm."""
        settings, evaluate, save = self.settings, self.settings.evaluate, self.settings.save
        alone = asynchronous(self.world.roles[peer].flow)  # nobody comes to a gate: each stops by its own clock
        killed = [event.round for event in settings.churn if peer in settings.named(event.kill)]
        return Course(
            settings.rounds,
            evaluate.every,
            evaluate.split,
            share_model=sum(role.evaluated for role in self.world.roles.values()) > 1,
            killed=min(killed) if killed else None,
            test=evaluate.test,
            gated=bool(settings.stop) and not alone,
            keep_every=(save.every or evaluate.every) if save.checkpoints else None,
            logged=logged(settings, peer, settings.rounds),
            seconds=min((stop.seconds for stop in settings.stop if alone and stop.seconds), default=math.inf),
        )

    def keep(self, peer: PeerId, kept: Keep | Noted) -> None:
        """Put a model of a peer, or what it noted, on disk, in the folder of the run."""
        if isinstance(kept, Noted):
            capture.write(self.folder, self.world, kept.page, kept.start_D)
            return
        most = self.settings.save.checkpoints
        checkpoint.write(self.folder, peer, kept.round, kept.x_D, self.world.layout, most)

    def write(self, path: Path) -> None:
        """For another process of this run; the file holds the root, so its folder must be private."""
        parts = {"scenario": scenario.dump(self.settings), "root": self.root.hex(), "run": self.run.hex()}
        parts["folder"] = str(self.folder.resolve())
        path.write_text(json.dumps(parts | {"plugins": self.plugins and str(self.plugins)}))

    @staticmethod
    def read(path: Path) -> Plan:
        """What `write` wrote, in a process that has no plug-ins of the user's own yet."""
        parts = json.loads(path.read_text())
        plugins.adopt(Path(parts["plugins"]) if parts["plugins"] else None)
        root, run = bytes.fromhex(parts["root"]), bytes.fromhex(parts["run"])
        return Plan(scenario.parse(parts["scenario"]), root, run, Path(parts["folder"]))


@cache
def opened(path: Path) -> Plan:
    """The plan in a file, read once in a process: the world that a fork server makes of it, all its peers share."""
    return Plan.read(path)
