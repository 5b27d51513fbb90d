"""What the wire costs: our bus against bare pyzmq, between two processes on this machine.

Goodput of parameter messages, one way: each is put together in a tensor and checked to be finite. Bare pyzmq moves the
same bytes as 1 MiB messages into one tensor that is always the same and checks it likewise: `in step` its sender is as
far ahead of the receiver's word as a mailbox permits ours, in a `stream` it waits for no word. All are measured in
turns; ratios are of medians; CPU is of both processes. Our `tcp` is always CURVE and our `ipc` never.

    python benchmarks/transport.py [REPEATS]
"""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import sys
import tempfile
import time
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from statistics import median
from typing import Any

import numpy
import torch
import zmq

from p2pfl.messages import Form, Message
from p2pfl.runtime import tuning
from p2pfl.transport.forms import finite
from p2pfl.transport.mailbox import Mailbox
from p2pfl.transport.zeromq import ZeroMQBus, introduce

MIB = 1 << 20
MODELS = {"0.8 MB": 200_000, "40 MB": 10_000_000}
BLOCK_BYTES = 240_000_000
AHEAD = 4  # messages that the sender is ahead of the receiver's word, within what a mailbox keeps
WIRES, BARE = ("ipc", "tcp"), ("ipc null", "tcp null", "tcp curve")


@dataclass
class Side:
    """One of the two processes: its buses by wire, and its bare sockets by wire and mechanism."""

    me: int
    folder: str
    curve: dict[str, Any]
    buses: dict[str, ZeroMQBus] = field(default_factory=dict)
    bare: dict[str, zmq.Socket[bytes]] = field(default_factory=dict)
    round: int = 0

    def forms(self, _: int) -> dict[str, Form]:
        sizes = {name: Form({"x": (torch.float32, (d,))}) for name, d in MODELS.items()}
        return {**sizes, "word": Form()}

    def open(self) -> dict[str, tuple[str, bytes]]:
        """Bind one bus a wire; what the other side must know of them."""
        for wire in WIRES:
            where = f"ipc://{self.folder}/{self.me}" if wire == "ipc" else "tcp://127.0.0.1:*"
            self.buses[wire] = ZeroMQBus(b"run", Mailbox((1 - self.me,), self.forms, learned=False), where)
        return {wire: (bus.endpoint, bus.key) for wire, bus in self.buses.items()}

    def open_bare(self, ports: dict[str, str] | None = None) -> dict[str, str]:
        """Bind the receiver's sockets, or connect the sender's to them."""
        for name in BARE:
            socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.DEALER)
            socket.linger, socket.hwm = 0, 64
            if name == "tcp curve" and ports is None:
                socket.curve_secretkey, socket.curve_server = self.curve["server"][1], True
            elif name == "tcp curve":
                socket.curve_publickey, socket.curve_secretkey = self.curve["client"]
                socket.curve_serverkey = self.curve["server"][0]
            if ports is None:
                socket.bind(f"ipc://{self.folder}/bare" if name == "ipc null" else "tcp://127.0.0.1:*")
            else:
                socket.connect(ports[name])
            self.bare[name] = socket
        return {name: s.getsockopt_string(zmq.LAST_ENDPOINT).rstrip("\0") for name, s in self.bare.items()}

    async def post(self, wire: str, model: str, count: int) -> None:
        """Send so many messages, as far ahead as a mailbox allows."""
        bus, x = self.buses[wire], torch.ones(MODELS[model])
        for k in range(count + AHEAD):
            self.round += 1
            bus.at(self.round - AHEAD)
            if k >= AHEAD and k % 2 == 0:
                await bus.collect("word", self.round - AHEAD + 1, (1 - self.me,))
            if k < count:
                bus.post(1 - self.me, Message(model, self.round, {"x": x}))

    async def collect(self, wire: str, model: str, count: int) -> None:
        """Hear so many messages, with a word back for every two."""
        bus = self.buses[wire]
        for k in range(count):
            self.round += 1
            bus.at(self.round)
            mail = await bus.collect(model, self.round, (1 - self.me,))
            assert len(mail) == 1
            if k % 2:
                bus.post(1 - self.me, Message("word", self.round))
        self.round += AHEAD

    async def pingpong(self, wire: str, count: int) -> list[float]:
        bus, took_s = self.buses[wire], []
        for _ in range(count):
            self.round += 1
            bus.at(self.round)
            began_s = time.perf_counter()
            if self.me == 0:
                bus.post(1, Message("word", self.round))
            await bus.collect("word", self.round, (1 - self.me,))
            took_s.append(time.perf_counter() - began_s)
            if self.me == 1:
                bus.post(0, Message("word", self.round))
        return took_s

    def push(self, name: str, model: str, count: int, in_step: bool) -> None:
        """Bare pyzmq's sender; in step, it is as far ahead of the receiver's word as ours."""
        socket, x = self.bare[name], torch.ones(MODELS[model]).numpy().data.cast("B")
        for k in range(count + AHEAD):
            if in_step and k >= AHEAD and k % 2 == 0:
                socket.recv()
            for at in range(0, len(x) if k < count else 0, MIB):
                socket.send(x[at : at + MIB], copy=False)

    def pull(self, name: str, model: str, count: int, in_step: bool) -> None:
        socket, x = self.bare[name], torch.empty(MODELS[model])
        bytes_of = x.view(torch.uint8).numpy()
        for k in range(count):
            for at in range(0, len(bytes_of), MIB):
                part = bytes_of[at : at + MIB]
                numpy.copyto(part, numpy.frombuffer(socket.recv(copy=False).buffer, numpy.uint8))
                assert finite(x[at // 4 : at // 4 + len(part) // 4])
            if in_step and k % 2:
                socket.send(b"word")


def settle() -> None:
    """As a peer's process is prepared."""
    torch.set_num_threads(1)
    tuning.keep_memory()  # bare pyzmq has the same good of it
    gc.freeze()


def sender(pipe: Connection, folder: str, curve: dict[str, Any]) -> None:
    """The other process: does what it is told, and says how much CPU that took."""
    settle()

    async def obey() -> None:
        side = Side(1, folder, curve)
        pipe.send(side.open())
        _, introductions, ports = await asyncio.to_thread(pipe.recv)
        for wire, bus in side.buses.items():
            bus.connect({0: introductions[wire]})
        side.open_bare(ports)
        while (order := await asyncio.to_thread(pipe.recv)) is not None:
            what, *arguments = order
            cpu_s = time.process_time()
            if what == "push":
                await asyncio.to_thread(side.push, *arguments)
            else:
                await getattr(side, what)(*arguments)
            pipe.send(time.process_time() - cpu_s)
        for bus in side.buses.values():
            await bus.close(flush_s=0.0)

    asyncio.run(obey())


@dataclass
class Bench:
    """The receiver's process, which measures."""

    side: Side
    pipe: Connection

    async def meet(self) -> None:
        theirs, ours = self.pipe.recv(), self.side.open()
        there = {}
        for wire, bus in self.side.buses.items():
            to_them, there[wire] = introduce(theirs[wire][0], ours[wire][0], theirs[wire][1], ours[wire][1])
            bus.connect({1: to_them})
        self.pipe.send((ours, there, self.side.open_bare()))

    async def block(self, name: str, model: str, bare: str = "") -> tuple[float, float]:
        """GB/s and CPU seconds a GB of one block of messages."""
        count = BLOCK_BYTES // (8 * MODELS[model]) * 2
        gigabytes = count * 4 * MODELS[model] / 1e9
        cpu_s, began_s = time.process_time(), time.perf_counter()
        if bare:
            self.pipe.send(("push", name, model, count, bare == "in step"))
            await asyncio.to_thread(self.side.pull, name, model, count, bare == "in step")
        else:
            self.pipe.send(("post", name, model, count))
            await self.side.collect(name, model, count)
        took_s = time.perf_counter() - began_s
        cpu_s = time.process_time() - cpu_s + await asyncio.to_thread(self.pipe.recv)
        return gigabytes / took_s, cpu_s / gigabytes

    async def goodput(self, model: str, repeats: int) -> dict[tuple[str, str], tuple[float, float]]:
        """Medians of GB/s and CPU s/GB of everything, measured in turns; the first turn warms up."""
        turns: dict[tuple[str, str], list[tuple[float, float]]] = {}
        each = [(wire, "") for wire in WIRES] + [(name, bare) for name in BARE for bare in ("in step", "stream")]
        for turn in range(repeats + 1):
            for name, bare in each:
                row = await self.block(name, model, bare)
                turns.setdefault((name, bare), []).extend([row] if turn else [])
        return {key: (median(g for g, _ in rows), median(c for _, c in rows)) for key, rows in turns.items()}

    async def round_trip_ms(self, wire: str, count: int = 1000) -> float:
        self.pipe.send(("pingpong", wire, count))
        took_s = await self.side.pingpong(wire, count)
        await asyncio.to_thread(self.pipe.recv)
        return 1e3 * median(took_s)


async def measure(bench: Bench, repeats: int) -> None:
    await bench.meet()
    for wire in bench.side.buses:
        print(f"a small message there and back, {wire}: {await bench.round_trip_ms(wire):.2f} ms (<= 1)")
    print(f"{'':8}{'ours':12}{'GB/s':>6}{'CPU s/GB':>10}   {'bare pyzmq':20}{'GB/s':>6}{'CPU s/GB':>10}{'ratio':>8}")
    for model in MODELS:
        rows = await bench.goodput(model, repeats)
        for ours, name in (("ipc", "ipc null"), ("tcp", "tcp curve"), ("tcp", "tcp null")):
            for bare in ("in step", "stream"):
                (g, c), (bare_g, bare_c) = rows[ours, ""], rows[name, bare]
                what = f"{model:8}{'tcp curve' if ours == 'tcp' else 'ipc plain':12}{g:6.2f}{c:10.2f}"
                print(f"{what}   {f'{name}, {bare}':20}{bare_g:6.2f}{bare_c:10.2f}{g / bare_g:8.2f}")
    cpu_s = time.process_time()
    await asyncio.sleep(5)
    print(f"two idle buses: {20 * (time.process_time() - cpu_s):.2f} % of a core (<= 1)")
    bench.pipe.send(None)
    for bus in bench.side.buses.values():
        await bus.close(flush_s=0.0)


def main() -> None:
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    settle()
    curve = {"server": zmq.curve_keypair(), "client": zmq.curve_keypair()}
    with tempfile.TemporaryDirectory() as folder:
        ours, theirs = multiprocessing.Pipe()
        process = multiprocessing.get_context("spawn").Process(target=sender, args=(theirs, folder, curve), daemon=True)
        process.start()
        asyncio.run(measure(Bench(Side(0, folder, curve), ours), repeats))
        process.join(10)


if __name__ == "__main__":
    main()
