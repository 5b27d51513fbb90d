"""One contract, whatever carries the messages; strangers, liars and cut wires do no harm to those who keep to it."""

from __future__ import annotations

import asyncio
import gc
import math
import os
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgpack
import psutil
import pytest
import torch
import zmq
import zmq.auth
from zmq.auth.thread import ThreadAuthenticator

from p2pfl.contracts import Bus
from p2pfl.errors import LocalError
from p2pfl.messages import Form, Message, PeerId
from p2pfl.transport.frames import CHUNK_BYTES, Chunk, Part, encode
from p2pfl.transport.inproc import InprocBus
from p2pfl.transport.mailbox import STRIKES, Desk, Mailbox
from p2pfl.transport.outbox import Outbox
from p2pfl.transport.zeromq import Introduction, ZeroMQBus, introduce

RUN = b"run"
US, FRIEND, ROGUE = 0, 1, 2
D = 10_000
WIRES = ["inproc", "ipc", "tcp"]
SOCKETS = ["ipc", "tcp"]
SIZES = Callable[[int], dict[str, Form]]


def vectors(count: int) -> SIZES:
    form = Form({"x": (torch.float32, (count,))})
    return lambda r: {"params": form, "word": Form(figures={"text": str}), "big": form}


def params(r: int, value: float = 1.0, count: int = D) -> Message:
    return Message("params", r, {"x": torch.full((count,), float(value))})


def endpoint(wire: str, folder: Path, name: object) -> str:
    return f"ipc://{folder}/{name}" if wire == "ipc" else "tcp://127.0.0.1:*"


def raw_bus(
    wire: str, folder: Path, me: PeerId, others: tuple[PeerId, ...], count: int = D
) -> tuple[ZeroMQBus, Mailbox]:
    box = Mailbox(others, vectors(count), True)
    return ZeroMQBus(RUN, box, endpoint(wire, folder, me)), box


@asynccontextmanager
async def met(wire: str, folder: Path, count: int = D, peers: int = 2) -> AsyncIterator[list[Bus]]:
    """Peers 0, 1, ... that all know each other."""
    others = {i: tuple(j for j in range(peers) if j != i) for i in range(peers)}
    buses: list[Any] = []
    if wire == "inproc":
        boxes = {i: Mailbox(others[i], vectors(count), True) for i in others}
        buses = [InprocBus(i, boxes, others[i]) for i in others]
    else:
        buses = [raw_bus(wire, folder, i, others[i], count)[0] for i in others]
        known: dict[int, dict[int, Introduction]] = {i: {} for i in others}
        for i in others:
            for j in range(i):
                known[i][j], known[j][i] = introduce(buses[j].endpoint, buses[i].endpoint, buses[j].key, buses[i].key)
        for i, bus in enumerate(buses):
            bus.connect(known[i])
    try:
        yield buses
    finally:
        for bus in buses:
            await bus.close()


def played(scene: Awaitable[None], seconds: float = 25) -> None:
    async def bounded() -> None:
        await asyncio.wait_for(scene, seconds)

    asyncio.run(bounded())


def test_the_buses_keep_the_protocol() -> None:
    buses: list[type[Bus]] = [InprocBus, ZeroMQBus]
    assert buses


async def check_messages_come_whole_and_in_order(a: Bus, b: Bus) -> None:
    for r in range(1, 4):
        a.post(1, params(r, value=r))
        a.post(1, Message("word", r, figures={"text": f"round {r}"}))
    for r in range(1, 4):
        b.at(r)
        words = await b.collect("word", r, (0,))
        mail = await b.collect("params", r, (0,))
        assert words[0].figures == {"text": f"round {r}"}
        assert torch.equal(mail[0].tensors["x"], torch.full((D,), float(r)))


async def check_mail_is_in_the_order_of_peer_ids(a: Bus, b: Bus, c: Bus) -> None:
    c.post(0, params(1, 2.0))
    b.post(0, params(1, 1.0))
    mail = await a.collect("params", 1, (2, 1))
    assert [(j, float(m.tensors["x"][0])) for j, m in mail.items()] == [(1, 1.0), (2, 2.0)]


async def check_both_ways_at_once(a: Bus, b: Bus) -> None:
    for r in range(1, 30):
        a.at(r)
        b.at(r)
        a.post(1, params(r, 1.0))
        b.post(0, params(r, 2.0))
        ours, theirs = await asyncio.gather(a.collect("params", r, (1,)), b.collect("params", r, (0,)))
        assert float(ours[1].tensors["x"][0]) == 2.0
        assert float(theirs[0].tensors["x"][0]) == 1.0


async def check_large_messages_arrive_intact(a: Bus, b: Bus) -> None:
    x = torch.randn(10_000_000, generator=torch.Generator().manual_seed(1))
    a.post(1, Message("params", 1, {"x": x}))
    mail = await b.collect("params", 1, (0,))
    assert torch.equal(mail[0].tensors["x"], x)
    assert x.nbytes <= a.sent_bytes[1] <= 1.001 * x.nbytes


async def check_a_closed_peer_is_absent(a: Bus, b: Bus) -> None:
    b.post(0, params(1))
    assert list(await a.collect("params", 1, (1,))) == [1]
    waiting = asyncio.ensure_future(a.collect("params", 2, (1,)))
    await b.close()
    assert await asyncio.wait_for(waiting, 2.5) == {}
    a.post(1, params(3))  # dropped, and nobody minds


async def check_what_a_liar_says_is_counted_and_not_heard(a: Bus, b: Bus) -> None:
    for r in range(1, STRIKES):
        b.post(0, params(r, math.nan))
    b.post(0, params(STRIKES))
    assert list(await a.collect("params", STRIKES, (1,))) == [1], "one strike is left"
    assert a.faults[1] == STRIKES - 1
    b.post(0, params(STRIKES + 1, math.inf))
    b.post(0, params(STRIKES + 2))
    assert await a.collect("params", STRIKES + 2, (1,)) == {}
    assert a.faults[1] == STRIKES


CONTRACT: dict[str, tuple[Callable[..., Awaitable[None]], int, int]] = {
    "whole and in order": (check_messages_come_whole_and_in_order, 2, D),
    "the order of ids": (check_mail_is_in_the_order_of_peer_ids, 3, D),
    "both ways at once": (check_both_ways_at_once, 2, D),
    "large messages": (check_large_messages_arrive_intact, 2, 10_000_000),
    "a closed peer is absent": (check_a_closed_peer_is_absent, 2, D),
    "a liar is counted": (check_what_a_liar_says_is_counted_and_not_heard, 2, D),
}


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("behaviour", CONTRACT)
def test_a_bus(wire: str, behaviour: str, tmp_path: Path) -> None:
    check, peers, count = CONTRACT[behaviour]

    async def scene() -> None:
        async with met(wire, tmp_path, count, peers) as buses:
            await check(*buses)
            if behaviour == "a closed peer is absent":
                buses.pop()

    played(scene())


# Strangers, liars and cut wires


@dataclass
class Siege:
    """A bus with one honest neighbour, and a seat for another whose credential a rogue holds."""

    wire: str
    folder: Path
    us: ZeroMQBus = field(init=False)
    friend: ZeroMQBus = field(init=False)
    rogue: Introduction = field(init=False)
    rogue_keys: tuple[bytes, bytes] = field(default_factory=zmq.curve_keypair)

    async def __aenter__(self) -> Siege:
        self.us, _ = raw_bus(self.wire, self.folder, US, (FRIEND, ROGUE))
        self.friend, _ = raw_bus(self.wire, self.folder, FRIEND, (US,))
        ours, theirs = introduce(self.friend.endpoint, self.us.endpoint, self.friend.key, self.us.key)
        nowhere = f"ipc://{self.folder}/nowhere" if self.wire == "ipc" else "tcp://127.0.0.1:9"
        key = self.rogue_keys[0] if self.wire == "tcp" else b""
        to_rogue, self.rogue = introduce(nowhere, self.us.endpoint, key, self.us.key)
        self.us.connect({FRIEND: ours, ROGUE: to_rogue})
        self.friend.connect({US: theirs})
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.friend.close()
        await self.us.close(flush_s=0.2)  # nobody is where the rogue should listen

    async def friend_is_heard(self, r: int) -> None:
        self.friend.post(US, params(r, value=r))
        mail = await self.us.collect("params", r, (FRIEND,))
        assert float(mail[FRIEND].tensors["x"][0]) == r


@contextmanager
def dealer(siege: Siege, **secrets: Any) -> Iterator[zmq.Socket[bytes]]:
    """A raw socket to the besieged; what it shows is the rogue's credential unless told otherwise."""
    context = zmq.Context()
    raw = context.socket(zmq.DEALER)
    raw.setsockopt(zmq.SNDHWM, 4)
    raw.setsockopt(zmq.SNDTIMEO, 10_000)
    raw.setsockopt(zmq.LINGER, 0)
    if siege.wire == "tcp":
        shown = {
            "curve_publickey": siege.rogue_keys[0],
            "curve_secretkey": siege.rogue_keys[1],
            "curve_serverkey": siege.us.key,
        }
    else:
        shown = {"plain_username": b"peer", "plain_password": siege.rogue.show}
    try:
        for option, value in (secrets or shown).items():
            setattr(raw, option, value)
        yield raw
    finally:
        raw.close()
        context.term()


def handshake(raw: zmq.Socket[bytes], to: str) -> bool:
    """Connect; whether the handshake came to a good end."""
    events = zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_HANDSHAKE_FAILED_AUTH | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    monitor = raw.get_monitor_socket(events | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL | zmq.EVENT_DISCONNECTED)
    raw.connect(to)
    try:
        assert monitor.poll(10_000)
        return int.from_bytes(monitor.recv_multipart()[0][:2], "little") == zmq.EVENT_HANDSHAKE_SUCCEEDED
    finally:
        raw.disable_monitor()
        monitor.close()


NOBODY = zmq.curve_keypair()
STRANGERS: dict[str, Callable[[Siege], dict[str, Any]]] = {
    "no mechanism": lambda siege: {"linger": 0},
    "another token": lambda siege: {"plain_username": b"peer", "plain_password": b"0" * 64},
    "the other direction's token": lambda siege: {"plain_username": b"peer", "plain_password": siege.rogue.expect},
    "no token": lambda siege: {"plain_username": b"peer", "plain_password": b"0"},
    "another key": lambda siege: {
        "curve_publickey": NOBODY[0],
        "curve_secretkey": NOBODY[1],
        "curve_serverkey": siege.us.key or NOBODY[0],
    },
    "a neighbour's key without its secret": lambda siege: {
        "curve_publickey": siege.rogue_keys[0],
        "curve_secretkey": NOBODY[1],
        "curve_serverkey": siege.us.key or NOBODY[0],
    },
}


@pytest.mark.parametrize("wire", SOCKETS)
@pytest.mark.parametrize("stranger", STRANGERS)
def test_a_stranger_is_refused_at_the_handshake(wire: str, stranger: str, tmp_path: Path) -> None:
    async def scene() -> None:
        async with Siege(wire, tmp_path) as siege:
            with dealer(siege, **STRANGERS[stranger](siege)) as raw:
                assert not await asyncio.to_thread(handshake, raw, siege.us.endpoint)
            await siege.friend_is_heard(1)
            assert not siege.us.faults

    played(scene())


@pytest.mark.parametrize("wire", SOCKETS)
def test_a_neighbour_speaks_for_nobody_but_himself(wire: str, tmp_path: Path) -> None:
    async def scene() -> None:
        async with Siege(wire, tmp_path) as siege:
            with dealer(siege) as raw:
                raw.setsockopt(zmq.IDENTITY, b"1")
                if wire == "ipc":
                    raw.plain_username = b"1"
                raw.connect(siege.us.endpoint)
                raw.send_multipart(only_chunk(1, params(1, value=-1.0)))
                siege.friend.post(US, params(1, value=7.0))
                mail = await siege.us.collect("params", 1, (FRIEND, ROGUE))
                assert {j: float(m.tensors["x"][0]) for j, m in mail.items()} == {FRIEND: 7.0, ROGUE: -1.0}

    played(scene())


GREETING = b"\xff" + bytes(8) + b"\x7f" + b"\x03\x00"
RAW_BYTES = {
    "silence": b"",
    "garbage": bytes(range(256)) * 400,
    "half a greeting": GREETING,
    "ZMTP 1": b"\x01\x00" + b"\x05\x00hello" * 50,
    "ZMTP 2": b"\xff" + bytes(8) + b"\x7f\x01\x05" + b"\x00\x00" + b"\x00\x05hello" * 50,
    "NULL": GREETING + b"NULL".ljust(20, b"\0") + bytes(32) + b"\x04\x1a\x05READY" + bytes(19) + b"\x00\x05hello" * 50,
    "a huge frame": GREETING + b"PLAIN".ljust(20, b"\0") + bytes(32) + b"\x06" + b"\x7f" + b"\xff" * 7 + b"x" * 5000,
    "HTTP": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
}


@pytest.mark.parametrize("wire", SOCKETS)
def test_whatever_a_raw_socket_sends_does_no_harm(wire: str, tmp_path: Path) -> None:
    async def scene() -> None:
        async with Siege(wire, tmp_path) as siege:
            raws = []
            for said in RAW_BYTES.values():
                raw = socket.socket(socket.AF_UNIX if wire == "ipc" else socket.AF_INET)
                where = siege.us.endpoint.partition("://")[2]
                raw.connect(where if wire == "ipc" else ("127.0.0.1", int(where.rpartition(":")[2])))
                with suppress(OSError):  # it may be cut off already
                    raw.sendall(said)
                raws.append(raw)
            for r in (1, 2):
                await siege.friend_is_heard(r)
            assert not siege.us.faults
            for raw in raws:
                raw.close()

    played(scene())


def only_chunk(number: int, message: Message) -> tuple[bytes, memoryview]:
    [(header, payload)] = encode(RUN, number, message)
    assert payload is not None
    return header, payload


def of_model(header: bytes, **changes: Any) -> bytes:
    parts = msgpack.unpackb(header)
    for at, value in changes.items():
        parts[int(at.removeprefix("part"))] = value
    packed: bytes = msgpack.packb(parts)
    return packed


MIB = b"\xff" * CHUNK_BYTES


def lies(number: int) -> dict[str, list[list[Any]]]:
    """What a rogue may send, as messages of frames; `number` makes each a new message."""
    header, payload = only_chunk(number, params(number % 4 + 1))
    small = [[of_model(header), payload[:4]]] + [
        [msgpack.packb([1, Part.LATER, RUN, number, at]), payload[at : at + 4]] for at in range(4, 400, 4)
    ]
    return {
        "garbage": [[MIB]] * 4,
        "small garbage": [[os.urandom(20)]] * 20,
        "endless small chunks": small,
        "numbers that are not finite": [[header, bytes(payload[:-4]) + b"\0\0\xc0\x7f"]],
        "another run": [[of_model(header, part2=b"nur"), payload]],
        "too many parts": [[header, payload, *[b"x" * 100_000] * 20]],
        "empty parts": [[b""], [b"", b""], [b"", b"", b""]],
        "a header too long": [[MIB, payload]],
        "another size": [[of_model(header, part6=[["x", "float32", [2**38]]]), MIB]],
        "chunks of no message": [[header, payload], [msgpack.packb([1, Part.LATER, RUN, number, 0]), MIB]],
        "the same again": [[header, payload], [header, payload]],
    }


def lie(siege: Siege, kind: str, done: threading.Event) -> None:
    with dealer(siege) as raw:
        raw.connect(siege.us.endpoint)
        for number in range(1, 40):
            for frames in lies(number)[kind]:
                raw.send_multipart(frames)
        done.wait(10)


@pytest.mark.parametrize("wire", SOCKETS)
@pytest.mark.parametrize("kind", lies(1))
def test_a_misbehaving_neighbour_is_counted_and_no_longer_heard(wire: str, kind: str, tmp_path: Path) -> None:
    async def scene() -> None:
        async with Siege(wire, tmp_path) as siege:
            await siege.friend_is_heard(1)
            before_bytes = psutil.Process().memory_info().rss
            done = threading.Event()
            lying = asyncio.ensure_future(asyncio.to_thread(lie, siege, kind, done))
            mail = await siege.us.collect("params", 1000, (ROGUE,))
            assert mail == {}, "it is given up when it is struck"
            assert siege.us.faults == {ROGUE: STRIKES}
            for r in range(2, 5):
                siege.us.at(r)
                await siege.friend_is_heard(r)
            assert psutil.Process().memory_info().rss - before_bytes < 64e6
            done.set()
            await lying

    played(scene())


@contextmanager
def router(wire: str, folder: Path, keys: tuple[bytes, bytes]) -> Iterator[zmq.Socket[bytes]]:
    """A rogue's own ear: it lets in anybody."""
    context = zmq.Context()
    ear = context.socket(zmq.ROUTER)
    for option in (zmq.RCVTIMEO, zmq.SNDTIMEO):
        ear.setsockopt(option, 5000)
    ear.setsockopt(zmq.SNDHWM, 1)
    ear.setsockopt(zmq.LINGER, 0)
    ear.setsockopt(zmq.ROUTER_MANDATORY, 1)
    doorman = ThreadAuthenticator(context)
    doorman.start()
    doorman.configure_plain(passwords={"peer": "token"})
    doorman.configure_curve(location=zmq.auth.CURVE_ALLOW_ANY)
    if wire == "tcp":
        ear.curve_secretkey, ear.curve_server = keys[1], True
    else:
        ear.plain_server = True
    ear.bind(endpoint(wire, folder, "rogue"))
    try:
        yield ear
    finally:
        ear.close()
        doorman.stop()
        context.term()


def flood(ear: zmq.Socket[bytes], name: bytes) -> int:
    """Send small frames until nobody takes them; how many went."""
    ear.setsockopt(zmq.SNDTIMEO, 300)
    for sent in range(200_000):
        try:
            ear.send_multipart([name, b"x" * 900])
        except zmq.Again:
            return sent
    return 200_000


@pytest.mark.parametrize("wire", SOCKETS)
def test_nothing_comes_in_where_a_bus_only_speaks(wire: str, tmp_path: Path) -> None:
    async def scene() -> None:
        keys = zmq.curve_keypair()
        with router(wire, tmp_path, keys) as ear:
            us, _ = raw_bus(wire, tmp_path, US, (ROGUE,))
            there = ear.getsockopt_string(zmq.LAST_ENDPOINT).rstrip("\0")
            show = keys[0] if wire == "tcp" else b"token"
            us.connect({ROGUE: Introduction(there, show, us.key or b"b")})
            us.post(ROGUE, params(1))
            name, *_ = await asyncio.to_thread(ear.recv_multipart)
            assert 900 * await asyncio.to_thread(flood, ear, name) < 64e6, (
                "a flood of small frames stays with the rogue"
            )
            us.post(ROGUE, params(2))
            assert (await asyncio.to_thread(ear.recv_multipart))[0] == name, "and the link goes on"
            await us.close()

    played(scene())


@pytest.mark.parametrize("wire", SOCKETS)
def test_a_large_frame_where_a_bus_only_speaks_cuts_the_link(wire: str, tmp_path: Path) -> None:
    async def scene() -> None:
        keys = zmq.curve_keypair()
        with router(wire, tmp_path, keys) as ear:
            us, _ = raw_bus(wire, tmp_path, US, (ROGUE,))
            there = ear.getsockopt_string(zmq.LAST_ENDPOINT).rstrip("\0")
            us.connect({ROGUE: Introduction(there, keys[0] if wire == "tcp" else b"token", us.key or b"b")})
            us.post(ROGUE, params(1))
            name, *_ = await asyncio.to_thread(ear.recv_multipart)
            waiting = asyncio.ensure_future(us.collect("params", 1, (ROGUE,)))
            await asyncio.to_thread(ear.send_multipart, [name, MIB])
            assert await waiting == {}
            await us.close()

    played(scene())


@dataclass
class Proxy:
    """A TCP wire that counts what goes through, and can be cut."""

    to_port: int
    passed_bytes: int = 0
    cut_at_bytes: int | None = None
    port: int = 0
    lines: list[asyncio.StreamWriter] = field(default_factory=list)

    async def __aenter__(self) -> Proxy:
        self.server = await asyncio.start_server(self.join, "127.0.0.1", 0)
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self.cut()
        self.server.close()

    def cut(self) -> None:
        for line in self.lines:
            line.transport.abort()
        self.lines.clear()

    async def join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self.to_port)
        self.lines += [writer, there_writer]
        with suppress(ConnectionError):
            await asyncio.gather(self.carry(reader, there_writer, True), self.carry(there_reader, writer, False))

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, counts: bool) -> None:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
            self.passed_bytes += len(data) if counts else 0
            if counts and self.cut_at_bytes is not None and self.passed_bytes > self.cut_at_bytes:
                self.cut_at_bytes = None
                self.cut()
        writer.close()


@asynccontextmanager
async def through_a_proxy(tmp_path: Path, count: int) -> AsyncIterator[tuple[ZeroMQBus, ZeroMQBus, Proxy]]:
    (a, _), (b, _) = raw_bus("tcp", tmp_path, 0, (1,), count), raw_bus("tcp", tmp_path, 1, (0,), count)
    async with Proxy(int(b.endpoint.rpartition(":")[2])) as proxy:
        to_b, to_a = introduce(f"tcp://127.0.0.1:{proxy.port}", a.endpoint, b.key, a.key)
        a.connect({1: to_b})
        b.connect({0: to_a})
        yield a, b, proxy
        await a.close()
        await b.close()


def test_the_bytes_that_are_counted_are_those_on_the_wire(tmp_path: Path) -> None:
    async def scene() -> None:
        count = 1_000_000
        async with through_a_proxy(tmp_path, count) as (a, b, proxy):
            a.post(1, params(1, count=count))
            assert list(await b.collect("params", 1, (0,))) == [0]
            assert abs(proxy.passed_bytes / a.sent_bytes[1] - 1) < 0.001
            assert a.sent_bytes[1] < 1.001 * 4 * count

    played(scene())


def test_a_cut_wire_costs_its_mail_and_is_nobody_s_fault(tmp_path: Path) -> None:
    async def scene() -> None:
        count = 5_000_000
        async with through_a_proxy(tmp_path, count) as (a, b, proxy):
            proxy.cut_at_bytes = 3_000_000
            a.post(1, params(1, count=count))
            for r in range(2, 200):  # until the link stands again
                a.at(r)
                a.post(1, Message("word", r, figures={"text": "hello"}))
                with suppress(TimeoutError):
                    if await asyncio.wait_for(b.collect("word", r, (0,)), 0.2):
                        break
            a.post(1, params(r + 1, 3.0, count=count))
            mail = await b.collect("params", r + 1, (0,))
            assert float(mail[0].tensors["x"].sum()) == 3.0 * count
            assert not b.faults
            assert proxy.cut_at_bytes is None, "it was cut"

    played(scene())


@pytest.mark.parametrize("wire", SOCKETS)
def test_a_new_process_in_a_neighbour_s_place_is_heard(wire: str, tmp_path: Path) -> None:
    async def scene() -> None:
        async with Siege(wire, tmp_path) as siege:
            for r in (1, 2, 3):
                with dealer(siege) as raw:
                    raw.connect(siege.us.endpoint)
                    header, payload = only_chunk(1, params(r, r))  # it counts its messages anew
                    raw.send_multipart([header, payload])
                    mail = await siege.us.collect("params", r, (ROGUE,))
                    assert float(mail[ROGUE].tensors["x"][0]) == r
            assert not siege.us.faults

    played(scene())


@pytest.mark.parametrize("wire", SOCKETS)
def test_closing_does_not_wait_long_for_a_link_that_never_stood(wire: str, tmp_path: Path) -> None:
    async def scene() -> None:
        us, _ = raw_bus(wire, tmp_path, US, (ROGUE,))
        nowhere = "tcp://127.0.0.1:9" if wire == "tcp" else f"ipc://{tmp_path}/nowhere"
        us.connect({ROGUE: Introduction(nowhere, us.key or b"a", us.key or b"b")})
        us.post(ROGUE, params(1))
        began_s = asyncio.get_running_loop().time()
        await us.close(flush_s=0.3)
        assert asyncio.get_running_loop().time() - began_s < 3
        assert us.sent_bytes[ROGUE] == 0

    played(scene())


@pytest.mark.parametrize("wire", SOCKETS)
def test_what_was_posted_before_the_link_stood_arrives_and_closing_sends_it(wire: str, tmp_path: Path) -> None:
    async def scene() -> None:
        (a, _), (b, _) = raw_bus(wire, tmp_path, 0, (1,), 3_000_000), raw_bus(wire, tmp_path, 1, (0,), 3_000_000)
        to_b, to_a = introduce(b.endpoint, a.endpoint, b.key, a.key)
        a.connect({1: to_b})
        a.post(1, params(1, count=3_000_000))
        closing = asyncio.ensure_future(a.close())
        await asyncio.sleep(0)
        b.connect({0: to_a})
        assert list(await b.collect("params", 1, (0,))) == [0]
        await closing
        await b.close()

    played(scene())


@pytest.mark.parametrize("wire", SOCKETS)
def test_a_closed_bus_leaves_neither_descriptors_nor_files(wire: str, tmp_path: Path) -> None:
    async def scene() -> None:
        async with met(wire, tmp_path, peers=3) as (a, b, _):
            await check_both_ways_at_once(a, b)

    played(scene())
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        played(scene())
    assert len(os.listdir("/proc/self/fd")) == before
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("wire", SOCKETS)
def test_a_bus_that_nobody_closed_hangs_nobody(wire: str, tmp_path: Path) -> None:
    async def scene() -> None:
        (a, _), (b, _) = raw_bus(wire, tmp_path, 0, (1,)), raw_bus(wire, tmp_path, 1, (0,))
        to_b, to_a = introduce(b.endpoint, a.endpoint, b.key, a.key)
        a.connect({1: to_b})
        b.connect({0: to_a})
        for r in range(1, 50):
            a.post(1, params(r))
        await b.collect("params", 1, (0,))

    played(scene())
    gc.collect()


def test_a_port_in_use_is_named() -> None:
    async def scene() -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            where = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
            with pytest.raises(LocalError, match=r"cannot listen on tcp://127\.0\.0\.1:\d+: Address already in use"):
                ZeroMQBus(RUN, Mailbox((), vectors(D), True), where)

    played(scene())


def test_a_desk_hears_at_once_and_a_failing_hearer_is_not_silent(tmp_path: Path) -> None:
    async def scene() -> None:
        heard: asyncio.Queue[Message] = asyncio.Queue()
        lost, failures = asyncio.Event(), []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context["exception"]))

        def hear(sender: PeerId, message: Message) -> None:
            if message.figures.get("bad"):
                raise ValueError("defect")
            heard.put_nowait(message)

        desk = ZeroMQBus(RUN, Desk(hear, lambda j: lost.set(), 1 << 20), f"ipc://{tmp_path}/desk")
        child = ZeroMQBus(RUN, Desk(hear, lambda j: None, 1 << 20), f"ipc://{tmp_path}/child")
        to_child, to_desk = introduce(child.endpoint, desk.endpoint, b"", b"")
        desk.connect({5: to_child})
        child.connect({-2: to_desk})
        child.post(-2, Message("row", 1, {"x": torch.tensor([math.nan])}, {"bad": True}))
        child.post(-2, Message("row", 2, {"x": torch.tensor([math.nan])}, {"loss": math.nan}))
        message = await heard.get()
        assert message.round == 2
        assert [str(failure) for failure in failures] == ["defect"]
        child.post(-2, Message("row", 3, {"x": torch.zeros(1 << 19)}))
        child.post(-2, Message("row", 4))
        assert (await heard.get()).round == 4
        assert desk.faults == {5: 1}
        await child.close()
        await lost.wait()
        await desk.close()

    played(scene())


@dataclass
class Gate:
    """Takes what comes while it is open."""

    open: bool = False
    taken: list[Chunk] = field(default_factory=list)

    def take(self, chunk: Chunk) -> bool:
        if self.open:
            self.taken.append(chunk)
        return self.open


def chunks(r: int, count: int) -> list[Chunk]:
    return encode(RUN, r, params(r, count=count))


def test_an_outbox_keeps_whole_messages_up_to_its_bound_and_their_order() -> None:
    gate = Gate()
    outbox = Outbox(gate.take, limit_bytes=9_000_000)
    posted = {r: chunks(r, 500_000) for r in range(1, 9)}
    for message in posted.values():
        outbox.post(message)
    gate.open = True
    outbox.flush()
    assert gate.taken == [chunk for r in range(1, 6) for chunk in posted[r]], (
        "five exceed the bound, and no more is kept"
    )
    assert outbox.empty.is_set()
    outbox.post(posted[8])
    assert gate.taken[-2:] == posted[8]


def test_an_outbox_that_is_shut_drops_what_waits_and_what_comes() -> None:
    gate = Gate()
    outbox = Outbox(gate.take, limit_bytes=None)
    outbox.post(chunks(1, 10))
    assert not outbox.empty.is_set()
    outbox.shut()
    gate.open = True
    outbox.post(chunks(2, 10))
    assert outbox.empty.is_set()
    outbox.open()
    outbox.post(chunks(3, 10))
    assert gate.taken == chunks(3, 10)
