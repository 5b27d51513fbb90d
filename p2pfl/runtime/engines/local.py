"""One process per peer on this machine, forked from a server that has torch, the data and one step behind it.

Peers talk to the launcher over a control channel of their own: the same bus, on sockets of its own. Sockets of `ipc`
lie in a private folder that is gone when the run is. CUDA is touched only after the fork.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, ClassVar

import torch

from p2pfl.errors import LocalError
from p2pfl.messages import Message, PeerId, peer_name
from p2pfl.runtime import child, control, forking
from p2pfl.runtime.plan import FILE, Plan, Watcher
from p2pfl.transport.mailbox import Desk
from p2pfl.transport.zeromq import Introduction, ZeroMQBus, introduce

GRACE_S = 1.5
"""How long a peer may take to stop when asked; then it is terminated, and soon after killed."""
QUIET_S, BURIAL_S = 0.2, 5.0
"""A process that ended is heard until it has been silent for so long, and no longer than that."""

SILENT_S = 60.0
"""Once others are through, a peer without a sign of life for so long holds the run up no longer."""


@dataclass(frozen=True)
class Local:
    """One real process a peer on this machine, over ipc or tcp sockets."""

    wired: ClassVar[bool] = True

    async def run(self, plan: Plan, watch: Watcher, stop: asyncio.Event) -> None:
        """See Engine."""
        folder = forking.private_folder()
        try:
            with forking.many_descriptors():
                launch = _Launch(plan, watch, folder)
                try:
                    await launch.run(stop)
                finally:
                    await launch.end()
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@dataclass
class _Launch:
    """The launcher's side of a run: who is there, who is through, who is gone."""

    plan: Plan
    watch: Watcher
    folder: Path
    processes: dict[PeerId, BaseProcess] = field(default_factory=dict)
    addresses: dict[PeerId, tuple[str, bytes]] = field(default_factory=dict)
    through: set[PeerId] = field(default_factory=set)
    heard_s: dict[PeerId, float] = field(default_factory=dict)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    vigil: asyncio.TimerHandle | None = None

    def __post_init__(self) -> None:
        self.world = self.plan.world
        self.parameters = sum(slot.size for slot in self.world.layout)
        self.spies = control.Spies(self.world)
        pixels = math.prod(self.world.data.shape)
        limit_bytes = control.most_bytes(self.parameters, pixels, bool(self.plan.settings.attacks))
        desk = Desk(self.hear, lambda peer: None, limit_bytes, self.alive)
        self.bus = ZeroMQBus(self.plan.run, desk, self.at("launcher"))
        self.watch.tell = self.tell

    async def run(self, stop: asyncio.Event) -> None:
        roles, stopped = self.world.roles, asyncio.ensure_future(stop.wait())
        self.plan.write(self.folder / FILE)
        tokens = {i: introduce(self.at(f"control-{peer_name(i)}"), self.bus.endpoint, b"", b"") for i in roles}
        with forking.main_hidden(), forking.server_prepared(self.folder / FILE):
            for i in roles:
                if not stopped.done():
                    await self.start(i, tokens[i][1], stopped)
        self.bus.connect({i: ours for i, (ours, _) in tokens.items()})
        await self.until(stopped, lambda: set(self.addresses) | self.through >= set(roles))
        self.introduce_all()
        await self.until(stopped, lambda: self.through >= set(roles))
        stopped.cancel()

    def at(self, name: str) -> str:
        return f"ipc://{self.folder / name}"

    async def start(self, i: PeerId, launcher: Introduction, stopped: asyncio.Future[Any]) -> None:
        """Start a peer. The first waits until the fork server is prepared, which must not hold Ctrl-C up."""
        endpoint = "tcp://127.0.0.1:*" if self.plan.settings.transport == "tcp" else self.at(f"peer-{peer_name(i)}")
        arguments = (str(self.folder), i, launcher, self.at(f"control-{peer_name(i)}"), endpoint)
        process: BaseProcess = forking.context().Process(  # type: ignore[attr-defined]
            target=child.live, args=arguments, name=f"peer {peer_name(i)}", daemon=True
        )
        loop = asyncio.get_running_loop()
        starting = loop.run_in_executor(None, process.start)
        await asyncio.wait([starting, stopped], return_when=asyncio.FIRST_COMPLETED)
        if stopped.done() and not self.processes and (server := forking.server_pid()) is not None:
            os.kill(server, signal.SIGKILL)
        try:
            await starting
        except (EOFError, OSError):
            if not stopped.done():
                raise LocalError("the process that peers are forked from has died") from None
            return
        self.processes[i] = process
        loop.add_reader(process.sentinel, partial(self.exited, i))

    def hear(self, i: PeerId, message: Message) -> None:
        """What a peer says on its control channel. Raises RemoteError for what it must not say."""
        control.check(message, self.parameters)
        self.spies.check(i, message)
        if message.kind == "ready":
            self.addresses[i] = (str(message.figures["endpoint"]), bytes(message.figures["key"]))  # type: ignore[arg-type]
            self.changed.set()
        elif message.kind in ("left", "killed", "crashed"):
            self.gone(i, message)
        else:
            self.watch(i, message)

    def alive(self, i: PeerId) -> None:
        """A peer gave a sign of life."""
        self.heard_s[i] = asyncio.get_running_loop().time()

    def keep_vigil(self) -> None:
        """Kill who has given no sign of life for long: it is stopped, and would hold the run up for ever."""
        loop = asyncio.get_running_loop()
        left = self.processes.keys() - self.through
        for i in left:
            if loop.time() - self.heard_s.get(i, 0.0) >= SILENT_S:
                said = f"killed: no sign of life for {SILENT_S:g} s, while others were through\n"
                self.gone(i, Message("crashed", 0, figures={"traceback": said}))
                self.processes[i].kill()
        self.vigil = loop.call_later(SILENT_S, self.keep_vigil) if left else None

    def tell(self, message: Message) -> None:
        """Tell every peer that still lives."""
        for i in self.addresses.keys() - self.through:
            self.bus.post(i, message)

    def gone(self, i: PeerId, message: Message) -> None:
        if i in self.through:
            return
        self.through.add(i)
        self.changed.set()
        self.watch(i, message)
        if self.vigil is None and self.plan.settings.wait == "learned":
            self.vigil = asyncio.get_running_loop().call_later(SILENT_S, self.keep_vigil)

    def exited(self, i: PeerId) -> None:
        """A process is no more; what it still had to say may lie on the control channel."""
        loop = asyncio.get_running_loop()
        loop.remove_reader(self.processes[i].sentinel)
        loop.call_later(QUIET_S, self.bury, i, loop.time() + BURIAL_S)

    def bury(self, i: PeerId, at_last_s: float) -> None:
        """Once it is silent: say that it is gone, to its neighbours too, whose links to it may never have stood."""
        loop = asyncio.get_running_loop()
        if loop.time() - self.heard_s.get(i, 0.0) < QUIET_S and loop.time() < at_last_s:
            loop.call_later(QUIET_S, self.bury, i, at_last_s)
            return
        self.processes[i].join()
        code = self.processes[i].exitcode
        for j in self.world.graph[i]:
            if j in self.addresses and j not in self.through:
                self.bus.post(j, Message("gone", 0, figures={"peer": i}))
        self.gone(i, Message("crashed", 0, figures={"traceback": f"the process ended with exit code {code}\n"}))

    def introduce_all(self) -> None:
        """Tell each peer how to reach, and how to know, exactly its neighbours; then they may start."""
        known: dict[PeerId, dict[str, list[str]]] = {i: {} for i in self.addresses}
        for i, j in self.world.links:
            if i not in known or j not in known:
                continue
            (there, their_key), (here, our_key) = self.addresses[j], self.addresses[i]
            to_j, to_i = introduce(there, here, their_key, our_key)
            known[i][str(j)] = [to_j.endpoint, to_j.show.decode(), to_j.expect.decode()]
            known[j][str(i)] = [to_i.endpoint, to_i.show.decode(), to_i.expect.decode()]
        for i, neighbours in known.items():
            text = torch.frombuffer(bytearray(json.dumps(neighbours).encode()), dtype=torch.uint8)
            self.bus.post(i, Message("go", 0, {"neighbours": text}))

    async def until(self, stopped: asyncio.Future[Any], done: Callable[[], bool]) -> None:
        """Wait for a condition on what peers said, or for the stop."""
        while not done() and not stopped.done():
            self.changed.clear()
            waiting = asyncio.ensure_future(self.changed.wait())
            await asyncio.wait([waiting, stopped], return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()

    async def end(self) -> None:
        """Ask every peer to stop, then make it; no process outlives the run, and none of them crashed by that."""
        self.through.update(self.processes)
        if self.vigil is not None:
            self.vigil.cancel()
        for i in self.addresses:
            self.bus.post(i, Message("stop", 0))
        asked: list[tuple[Callable[[BaseProcess], None], float]] = [
            (lambda process: None, GRACE_S),
            (BaseProcess.terminate, 0.5),
            (BaseProcess.kill, 0.5),
        ]
        for insist, seconds in asked:
            living = [process for process in self.processes.values() if process.is_alive()]
            for process in living:
                insist(process)
            await forking.joined(living, seconds)
        for process in self.processes.values():
            asyncio.get_running_loop().remove_reader(process.sentinel)
        await self.bus.close(flush_s=0.0)  # nobody is left to read
        forking.stop_server()  # nothing outlives the run
