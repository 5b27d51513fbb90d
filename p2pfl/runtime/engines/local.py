"""One process per peer on this machine, forked from a server that has torch, the data and one step behind it.

Peers talk to the launcher over a control channel of their own: the same bus, on sockets of its own. Sockets of `ipc`
lie in a private folder that is gone when the run is. CUDA is touched only after the fork.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import resource
import shutil
import signal
import sys
import tempfile
import types
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import forkserver, resource_tracker
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess, current_process
from pathlib import Path
from typing import Any

import torch

from p2pfl.errors import LocalError
from p2pfl.messages import Message, PeerId, peer_name
from p2pfl.runtime import child
from p2pfl.runtime.child import CONTROL_LIMIT_BYTES
from p2pfl.runtime.plan import FILE, VARIABLE, Plan, Watcher
from p2pfl.transport.mailbox import Desk
from p2pfl.transport.zeromq import Introduction, ZeroMQBus, introduce

NURSERY = "p2pfl.runtime.nursery"
GRACE_S = 1.5
"""How long a peer may take to stop when asked; then it is terminated, and soon after killed."""
LONGEST_TMPDIR = 70
"""What the 104 bytes of a socket's path leave, /p2pfl-12345678/listener-12345678 taken off."""


@dataclass(frozen=True)
class Local:
    """One real process a peer on this machine, over ipc or tcp sockets."""

    async def run(self, plan: Plan, watch: Watcher, stop: asyncio.Event) -> None:
        """See Engine."""
        folder = _private_folder()
        launch = _Launch(plan, watch, folder)
        try:
            await launch.run(stop)
        finally:
            await launch.end()
            shutil.rmtree(folder, ignore_errors=True)


def _private_folder() -> Path:
    """A new folder that only this user may enter; in /tmp where TMPDIR is too long for the path of a socket."""
    fits = len(tempfile.gettempdir()) <= LONGEST_TMPDIR
    return Path(tempfile.mkdtemp(prefix="p2pfl-", dir=None if fits else "/tmp"))


@dataclass
class _Launch:
    """The launcher's side of a run: who is there, who is through, who is gone."""

    plan: Plan
    watch: Watcher
    folder: Path
    processes: dict[PeerId, BaseProcess] = field(default_factory=dict)
    addresses: dict[PeerId, tuple[str, bytes]] = field(default_factory=dict)
    through: set[PeerId] = field(default_factory=set)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        desk = Desk(self.hear, lambda peer: None, CONTROL_LIMIT_BYTES)
        self.bus = ZeroMQBus(self.plan.run, desk, self.at("launcher"))

    async def run(self, stop: asyncio.Event) -> None:
        world = self.plan.world()
        _allow_many_sockets()
        self.plan.write(self.folder / FILE)
        tokens = {i: introduce(self.at(f"control-{peer_name(i)}"), self.bus.endpoint, b"", b"") for i in world.roles}
        with _main_hidden(), _nursery_prepares(self.folder / FILE):
            method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
            context = multiprocessing.get_context(method)
            stopped = asyncio.ensure_future(stop.wait())
            for i in world.roles:
                if not stopped.done():
                    await self.start(context, i, tokens[i][1], stopped)
        self.bus.connect({i: ours for i, (ours, _) in tokens.items()})
        await self.until(stopped, lambda: set(self.addresses) | self.through >= set(world.roles))
        self.introduce_all(world.graph.edges)
        await self.until(stopped, lambda: self.through >= set(world.roles))
        stopped.cancel()

    def at(self, name: str) -> str:
        return f"ipc://{self.folder / name}"

    async def start(
        self, context: BaseContext, i: PeerId, launcher: Introduction, stopped: asyncio.Future[Any]
    ) -> None:
        """Start a peer. The first waits until the fork server is prepared, which must not hold Ctrl-C up."""
        endpoint = "tcp://127.0.0.1:*" if self.plan.settings.transport == "tcp" else self.at(f"peer-{peer_name(i)}")
        arguments = (str(self.folder), i, launcher, self.at(f"control-{peer_name(i)}"), endpoint)
        process: BaseProcess = context.Process(  # type: ignore[attr-defined]
            target=child.live, args=arguments, name=f"peer {peer_name(i)}", daemon=True
        )
        loop = asyncio.get_running_loop()
        starting = loop.run_in_executor(None, process.start)
        await asyncio.wait([starting, stopped], return_when=asyncio.FIRST_COMPLETED)
        server = forkserver._forkserver._forkserver_pid  # type: ignore[attr-defined]
        if stopped.done() and not self.processes and server is not None:
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
        """What a peer says on its control channel."""
        if message.kind == "ready":
            endpoint, key = message.figures["endpoint"], message.figures["key"]
            assert isinstance(endpoint, str)
            assert isinstance(key, bytes)
            self.addresses[i] = (endpoint, key)
            self.changed.set()
            return
        if message.kind in ("left", "killed", "crashed"):
            self.gone(i, message)
        else:
            self.watch(i, message)

    def gone(self, i: PeerId, message: Message) -> None:
        if i not in self.through:
            self.through.add(i)
            self.watch(i, message)
            self.changed.set()

    def exited(self, i: PeerId) -> None:
        """A process is no more; what it still had to say may lie on the control channel."""
        asyncio.get_running_loop().remove_reader(self.processes[i].sentinel)
        asyncio.get_running_loop().call_later(0.2, self.bury, i)

    def bury(self, i: PeerId) -> None:
        self.processes[i].join()
        code = self.processes[i].exitcode
        self.gone(i, Message("crashed", 0, figures={"traceback": f"the process ended with exit code {code}\n"}))

    def introduce_all(self, links: Iterable[tuple[PeerId, PeerId]]) -> None:
        """Tell each peer how to reach, and how to know, exactly its neighbours; then they may start."""
        known: dict[PeerId, dict[str, list[str]]] = {i: {} for i in self.addresses}
        for i, j in links:
            if i not in known or j not in known:
                continue
            to_j, to_i = introduce(
                self.addresses[j][0], self.addresses[i][0], self.addresses[j][1], self.addresses[i][1]
            )
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
            await _joined(living, seconds)
        for process in self.processes.values():
            asyncio.get_running_loop().remove_reader(process.sentinel)
        await self.bus.close(flush_s=0.0)  # nobody is left to read
        forkserver._forkserver._stop()  # type: ignore[attr-defined] # nothing outlives the run


async def _joined(processes: list[BaseProcess], seconds: float) -> None:
    loop = asyncio.get_running_loop()
    joining = [loop.run_in_executor(None, process.join, seconds) for process in processes]
    if joining:
        await asyncio.wait(joining)


@contextmanager
def _main_hidden() -> Iterator[None]:
    """Children need nothing of the caller's `__main__`: a script or notebook without a guard is not run again."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


@contextmanager
def _nursery_prepares(plan: Path) -> Iterator[None]:
    """A fork server that starts within this context prepares for this plan; it is gone afterwards."""
    forkserver._forkserver._stop()  # type: ignore[attr-defined] # one that prepared for another plan
    multiprocessing.set_forkserver_preload([NURSERY])
    os.environ[VARIABLE] = str(plan)
    kept = current_process()._config  # type: ignore[attr-defined]
    elsewhere = kept.get("tempdir")
    kept["tempdir"] = str(plan.parent)  # where the server's own socket will lie
    try:
        resource_tracker.ensure_running()  # first, since it unblocks what is blocked
        heard = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # a terminal sends Ctrl-C to all
        try:
            forkserver.ensure_running()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, heard)
        yield
    finally:
        kept["tempdir"] = elsewhere
        del os.environ[VARIABLE]


def _allow_many_sockets() -> None:
    """A hub of many members needs many descriptors: take as many as the system lets this user have."""
    if sys.platform != "win32":
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
