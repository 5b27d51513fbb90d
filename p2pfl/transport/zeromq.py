"""The bus between processes: one ROUTER to hear, one DEALER per neighbour to speak.

Who sent a frame is told by what the handshake proved, never by the message: the `Door` answers ZAP's question and
names the peer as `User-Id` on each of its frames. Routing ids are never set: the ROUTER gives one to each connection,
which tells a new one from the last. Everything is driven by the sockets' own descriptors in one asyncio loop.
"""

from __future__ import annotations

import asyncio
import weakref
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import zmq
from zmq.utils import z85
from zmq.utils.monitor import parse_monitor_message

from p2pfl.errors import LocalError
from p2pfl.messages import Mail, Message, PeerId
from p2pfl.transport.door import Door, Introduction, introduce
from p2pfl.transport.ear import Ear
from p2pfl.transport.frames import CHUNK_BYTES, CURVE_BYTES, Beat, Chunk, encode, encode_beat, wire_bytes
from p2pfl.transport.mailbox import BEAT_S, Desk, Mailbox
from p2pfl.transport.outbox import OUTBOX_BYTES, Outbox

__all__ = ["Introduction", "ZeroMQBus", "introduce"]

MOST_SOCKETS = 1 << 14  # three a neighbour; each that may be costs 12 bytes
QUEUE_CHUNKS, DRAIN_CHUNKS = 16, 64
FLUSH_S, GRACE_S = 5.0, 0.1
"""What came before a link closed still counts: it may lie in a buffer yet."""
WATCHED = zmq.EVENT_HANDSHAKE_SUCCEEDED | (DROP := zmq.EVENT_DISCONNECTED)


class ZeroMQBus:
    """One peer's sockets. Bind by making one, then `connect` to exactly the neighbours one is introduced to."""

    def __init__(self, run: bytes, mailbox: Mailbox | Desk, endpoint: str) -> None:
        self.sent_bytes: Counter[PeerId] = Counter()
        self.faults = mailbox.faults
        self.curve = zmq.curve_keypair() if endpoint.startswith("tcp:") else None
        self.key: bytes = self.curve[0] if self.curve else b""
        self.context = zmq.Context()
        self.context.linger = 0
        self._sockets: list[zmq.Socket[bytes]] = []
        # where nobody closes the bus: were its sockets gone before its context, that would wait for them for ever
        weakref.finalize(self, lambda context, _: context.destroy(linger=0), self.context, self._sockets)
        self.context.set(zmq.MAX_SOCKETS, MOST_SOCKETS)
        self._run, self._mailbox, self._learning, self._numbers = run, mailbox, True, 0
        self.loop = asyncio.get_running_loop()
        self._door = Door()
        self._lines: dict[PeerId, _Line] = {}
        self._ears: dict[PeerId, Ear] = {}
        self._beats: asyncio.TimerHandle | None = None
        self._zap = self.context.socket(zmq.REP)
        self._zap.bind("inproc://zeromq.zap.01")
        self._router = self.context.socket(zmq.ROUTER)
        self._listen(endpoint)

    def _listen(self, endpoint: str) -> None:
        self._router.setsockopt(zmq.MAXMSGSIZE, CHUNK_BYTES + CURVE_BYTES)
        self._router.setsockopt(zmq.RCVHWM, QUEUE_CHUNKS)
        self._router.setsockopt(zmq.ZAP_DOMAIN, b"p2pfl")
        if self.curve:
            self._router.curve_secretkey, self._router.curve_server = self.curve[1], True
        else:
            self._router.plain_server = True
        try:
            self._router.bind(endpoint)
        except zmq.ZMQError as error:
            self.context.destroy(linger=0)
            raise LocalError(f"cannot listen on {endpoint}: {error.strerror}") from None
        self.endpoint: str = self._router.getsockopt_string(zmq.LAST_ENDPOINT).rstrip("\0")
        self.watch(self._router, self._hear)

    def connect(self, neighbours: Mapping[PeerId, Introduction]) -> None:
        """Let these neighbours in, reach out to them, and begin to give signs of life."""
        for j, intro in neighbours.items():
            self._door.welcome(j, z85.decode(intro.expect) if self.curve else intro.expect)
            self._ears[j] = Ear(self._run, self._mailbox, j)
            self._lines[j] = _Line(self, self._mailbox, j, intro)
        if self._beats is None:
            self.watch(self._zap, self._admit)  # not before: who came early waits at the door
            self._beats = self.loop.call_later(BEAT_S, self._beat)

    def at(self, round: int, learning: bool = True) -> None:
        """See Bus."""
        self._learning = learning
        if isinstance(self._mailbox, Mailbox):
            self._mailbox.at(round)
        if not learning:
            self._say_beat()

    def post(self, to: PeerId, message: Message) -> None:
        """See Bus. Raises LocalError for what no message can carry."""
        self._numbers += 1
        if to in self._lines:
            self._lines[to].outbox.post(encode(self._run, self._numbers, message))

    async def collect(self, kind: str, round: int, expect: tuple[PeerId, ...]) -> Mail:
        """See Bus."""
        assert isinstance(self._mailbox, Mailbox), "nobody waits at a desk"
        return await self._mailbox.collect(kind, round, expect)

    def take(self, kind: str) -> Mail:
        """See Bus."""
        assert isinstance(self._mailbox, Mailbox), "nobody waits at a desk"
        return self._mailbox.take(kind)

    async def close(self, flush_s: float = FLUSH_S) -> None:
        """See Bus. Takes `flush_s` at most."""
        until_s = self.loop.time() + flush_s
        if self._beats is not None:
            self._beats.cancel()
        try:
            with suppress(TimeoutError):
                await asyncio.wait_for(asyncio.gather(*(j.outbox.empty.wait() for j in self._lines.values())), flush_s)
        finally:
            self._shut(until_s)
        await asyncio.to_thread(self.context.term)

    def _shut(self, until_s: float) -> None:
        for line in self._lines.values():
            line.close(linger_s=max(0.0, until_s - self.loop.time()))
        for socket in (self._router, self._zap):
            self.leave(socket, linger_s=0.0)
        if self.endpoint.startswith("ipc://"):
            Path(self.endpoint.removeprefix("ipc://")).unlink(missing_ok=True)  # libzmq does not

    def watch(self, socket: zmq.Socket[bytes], handler: Callable[[], bool]) -> None:
        """Call `handler` whenever the socket may have something, until it has looked at all (False)."""

        def readable() -> None:
            try:
                if not socket.closed and handler():
                    self.loop.call_soon(readable)
            except Exception as error:  # never silent; and a defect of ours is no reason to stop listening
                self._mailbox.fail(error)
                if not isinstance(error, zmq.ZMQError):
                    self.loop.call_soon(readable)

        self._sockets.append(socket)
        self.loop.add_reader(int(socket.getsockopt(zmq.FD)), readable)
        self.loop.call_soon(readable)

    def leave(self, socket: zmq.Socket[bytes], linger_s: float) -> None:
        """Undo `watch`, and close the socket."""
        self.loop.remove_reader(int(socket.getsockopt(zmq.FD)))
        socket.close(linger=int(linger_s * 1000))

    def _beat(self) -> None:
        self._beats = self.loop.call_later(BEAT_S, self._beat)
        self._say_beat()

    def _say_beat(self) -> None:
        frame = encode_beat(self._run, Beat(self._mailbox.round, self._learning and not self._mailbox.waiting))
        for line in self._lines.values():
            if line.outbox.empty.is_set():  # what waits to be sent says as much
                line.outbox.post([(frame, None)])

    def _admit(self) -> bool:
        with suppress(zmq.Again):
            self._zap.send_multipart(self._door.answer(self._zap.recv_multipart(zmq.NOBLOCK)))
            return True
        return False

    def _hear(self) -> bool:
        for _ in range(DRAIN_CHUNKS):
            try:
                connection, *frames = self._router.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return False
            if frames:
                self._ears[int(frames[0].get("User-Id"))].hear(connection.bytes, frames)
        return True


class _Line:
    """What goes out to one neighbour: a DEALER, its monitor, and the outbox."""

    def __init__(self, bus: ZeroMQBus, mailbox: Mailbox | Desk, to: PeerId, intro: Introduction) -> None:
        limit_bytes = OUTBOX_BYTES if isinstance(mailbox, Mailbox) else None  # a launcher is told all
        self.outbox = Outbox(self._sent, limit_bytes)
        self._bus, self._mailbox, self._to, self._stands = bus, mailbox, to, False
        self._loss: asyncio.TimerHandle | None = None
        self._dealer = socket = bus.context.socket(zmq.DEALER)
        socket.setsockopt(zmq.SNDHWM, QUEUE_CHUNKS)
        socket.setsockopt(zmq.SNDBUF, 2 * CHUNK_BYTES)  # so that a chunk is sent at one go, not in five
        socket.setsockopt(zmq.RCVHWM, 1)  # nobody has anything to say here
        socket.setsockopt(zmq.MAXMSGSIZE, 1024)  # but to shake hands
        socket.setsockopt(zmq.IMMEDIATE, 1)  # nothing is queued for a link that does not stand
        socket.setsockopt(zmq.RECONNECT_IVL_MAX, 2000)
        if bus.curve:
            socket.curve_publickey, socket.curve_secretkey = bus.curve
            socket.curve_serverkey = intro.show
        else:
            socket.plain_username, socket.plain_password = b"peer", intro.show
        self._monitor = socket.get_monitor_socket(WATCHED)
        bus.watch(self._monitor, self._changed)
        bus.watch(socket, self._ready)
        socket.connect(intro.endpoint)

    def _sent(self, chunk: Chunk) -> bool:
        if not self._stands:  # libzmq would take it before the handshake, and lose it when that fails
            return False
        header, payload = chunk
        try:
            self._dealer.send(header, zmq.NOBLOCK | (0 if payload is None else zmq.SNDMORE))
            if payload is not None:
                self._dealer.send(payload, zmq.NOBLOCK, copy=False)
        except zmq.Again:
            return False
        self._bus.sent_bytes[self._to] += wire_bytes(chunk, sealed=self._bus.curve is not None)
        return True

    def _ready(self) -> bool:
        if int(self._dealer.getsockopt(zmq.EVENTS)) & zmq.POLLOUT:
            self.outbox.flush()
        return False

    def _changed(self) -> bool:
        try:
            event = parse_monitor_message(self._monitor.recv_multipart(zmq.NOBLOCK))["event"]
        except zmq.Again:
            return False
        if event != DROP:
            self._stands = True
            self._lost(None)
            self.outbox.open()
            self._mailbox.link(self._to, stands=True)
        elif self._stands:  # else it never stood, and what waits for it waits on
            self._stands = False
            self.outbox.shut()
            self._lost(self._bus.loop.call_later(GRACE_S, self._mailbox.link, self._to, False))
        return True

    def _lost(self, loss: asyncio.TimerHandle | None) -> None:
        """Expect the loss of the link to be told, or no longer."""
        if self._loss is not None:
            self._loss.cancel()
        self._loss = loss

    def close(self, linger_s: float) -> None:
        self._lost(None)
        self._dealer.disable_monitor()
        self._bus.leave(self._monitor, linger_s=0.0)
        self._bus.leave(self._dealer, linger_s)
