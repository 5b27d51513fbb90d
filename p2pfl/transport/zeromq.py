"""The bus between processes: one ROUTER to hear, one DEALER per neighbour to speak.

Who sent a frame is told by what the handshake proved, never by the message: a ZAP handler lets in a neighbour's
credential (its CURVE key on `tcp`, the token of that link on `ipc`) and nobody else's, and names the peer as
`User-Id` on each of its frames. Routing ids are never set. Everything is driven by the sockets' own descriptors in
one asyncio loop; what a slow neighbour does not take yet waits in an outbox, what a closed link cannot take is dropped.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import zmq
from zmq.utils import z85
from zmq.utils.monitor import parse_monitor_message

from p2pfl.errors import LocalError, RemoteError
from p2pfl.messages import Mail, Message, PeerId
from p2pfl.transport.frames import CHUNK_BYTES, HEADER_BYTES, Beat, Chunk, Decoder, encode, encode_beat
from p2pfl.transport.mailbox import BEAT_S, Desk, Mailbox

QUEUE_CHUNKS = 16
DRAIN_MESSAGES = 64
FLUSH_S = 5.0
DROP = zmq.EVENT_DISCONNECTED
WATCHED = zmq.EVENT_HANDSHAKE_SUCCEEDED | DROP


@dataclass(frozen=True)
class Introduction:
    """What one end of a link must know of the other: where it listens, what to show it, what it will show.

    On `tcp` both are its public CURVE key; on `ipc` they are the tokens of the link's two directions.
    """

    endpoint: str
    show: bytes
    expect: bytes


def introduce(there: str, here: str, their_key: bytes, our_key: bytes) -> tuple[Introduction, Introduction]:
    """The two ends of a link, for `here` and for `there`; on ipc, with fresh tokens."""
    if their_key:
        return Introduction(there, their_key, their_key), Introduction(here, our_key, our_key)
    to, fro = secrets.token_hex(32).encode(), secrets.token_hex(32).encode()
    return Introduction(there, to, fro), Introduction(here, fro, to)


class ZeroMQBus:
    """One peer's sockets. Bind by making one, then `connect` to exactly the neighbours one is introduced to."""

    def __init__(self, run: bytes, mailbox: Mailbox | Desk, endpoint: str) -> None:
        self.sent_bytes: Counter[PeerId] = Counter()
        self.faults = mailbox.faults
        self.key = b""
        self._run, self._mailbox, self._learning, self._numbers = run, mailbox, True, 0
        self._loop = asyncio.get_running_loop()
        self._decoders: dict[PeerId, Decoder] = {}
        self._welcome: dict[bytes, PeerId] = {}
        self._lines: dict[PeerId, _Line] = {}
        self._beats: asyncio.TimerHandle | None = None
        self._context = zmq.Context()
        self._context.set(zmq.MAX_SOCKETS, min(65535, int(self._context.get(zmq.SOCKET_LIMIT))))
        self._zap = self._context.socket(zmq.REP)
        self._zap.bind("inproc://zeromq.zap.01")
        self._router = self._context.socket(zmq.ROUTER)
        self._listen(endpoint)

    def _listen(self, endpoint: str) -> None:
        self._router.setsockopt(zmq.LINGER, 0)
        self._router.setsockopt(zmq.MAXMSGSIZE, max(CHUNK_BYTES, HEADER_BYTES))
        self._router.setsockopt(zmq.RCVHWM, QUEUE_CHUNKS)
        self._router.setsockopt(zmq.ZAP_DOMAIN, b"p2pfl")
        self._curve: tuple[bytes, bytes] | None = None
        if endpoint.startswith("tcp:"):
            self._curve = zmq.curve_keypair()
            self.key, self._router.curve_secretkey = self._curve
            self._router.curve_server = True
        else:
            self._router.plain_server = True
        try:
            self._router.bind(endpoint)
        except zmq.ZMQError as error:
            self._context.destroy(linger=0)
            raise LocalError(f"cannot listen on {endpoint}: {error.strerror}") from None
        self.endpoint: str = self._router.getsockopt(zmq.LAST_ENDPOINT).rstrip(b"\0").decode()
        self._watch(self._router, self._hear)

    def connect(self, neighbours: Mapping[PeerId, Introduction]) -> None:
        """Let these neighbours in, reach out to them, and begin to give signs of life."""
        for j, intro in neighbours.items():
            self._welcome[z85.decode(intro.expect) if self._curve else intro.expect] = j
            self._decoders[j] = Decoder(self._run, lambda kind, round, j=j: self._mailbox.wanted(j, kind, round))  # type: ignore[misc]
            self._lines[j] = _Line(self, j, intro)
        if self._beats is None:
            self._watch(self._zap, self._admit)  # not before: who came early waits at the door
            self._beats = self._loop.call_later(BEAT_S, self._beat)

    def at(self, round: int, learning: bool = True) -> None:
        """See Bus."""
        self._learning = learning
        if isinstance(self._mailbox, Mailbox):
            self._mailbox.at(round)
        if not learning:
            self._say_beat()

    def post(self, to: PeerId, message: Message) -> None:
        """See Bus."""
        self._numbers += 1
        for chunk in encode(self._run, self._numbers, message):
            self._lines[to].send(chunk)

    async def collect(self, kind: str, round: int, expect: tuple[PeerId, ...]) -> Mail:
        """See Bus."""
        assert isinstance(self._mailbox, Mailbox), "nobody waits at a desk"
        return await self._mailbox.collect(kind, round, expect)

    async def close(self) -> None:
        """See Bus."""
        if self._beats is not None:
            self._beats.cancel()
        flushing = [line.flushed() for line in self._lines.values()]
        if flushing:
            await asyncio.wait([asyncio.ensure_future(f) for f in flushing], timeout=FLUSH_S)
        for line in self._lines.values():
            line.close(linger_ms=int(FLUSH_S * 1000))
        for socket in (self._router, self._zap):
            self._loop.remove_reader(socket.getsockopt(zmq.FD))
            socket.close(linger=0)
        await self._loop.run_in_executor(None, self._context.term)

    def _beat(self) -> None:
        self._beats = self._loop.call_later(BEAT_S, self._beat)
        self._say_beat()

    def _say_beat(self) -> None:
        frame = encode_beat(self._run, Beat(self._mailbox.round, self._learning and not self._mailbox.waiting))
        for line in self._lines.values():
            if not line.outbox:  # what waits to be sent says as much
                line.send((frame, None))

    def _watch(self, socket: zmq.Socket[bytes], handler: Callable[[], bool]) -> None:
        """Call `handler` whenever the socket may have something, until it returns False (nothing left)."""

        def readable() -> None:
            if not socket.closed and handler():
                self._loop.call_soon(readable)

        self._loop.add_reader(socket.getsockopt(zmq.FD), readable)
        self._loop.call_soon(readable)

    def _admit(self) -> bool:
        """Answer libzmq's question who somebody is (ZAP, RFC 27): a neighbour, or nobody."""
        try:
            version, request, _, _, _, mechanism, *credentials = self._zap.recv_multipart(zmq.NOBLOCK)
        except zmq.Again:
            return False
        shown = credentials[-1] if mechanism in (b"CURVE", b"PLAIN") and credentials else b""
        peer = self._welcome.get(shown)
        verdict = [b"400", b"not a neighbour", b""] if peer is None else [b"200", b"OK", str(peer).encode()]
        self._zap.send_multipart([version, request, *verdict, b""])
        return True

    def _hear(self) -> bool:
        for _ in range(DRAIN_MESSAGES):
            try:
                _, *frames = self._router.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return False
            if frames:
                self._take(frames)
        return True

    def _take(self, frames: list[Any]) -> None:
        sender = int(frames[0].get("User-Id"))
        if self._mailbox.struck(sender):
            return
        try:
            if len(frames) > 2:
                raise RemoteError(f"a message of {len(frames)} parts")
            said = self._decoders[sender].feed(frames[0].buffer, frames[1].buffer if len(frames) == 2 else None)
        except RemoteError:
            self._mailbox.fault(sender)
            return
        if said is not None:
            self._mailbox.deliver(sender, said)


class _Line:
    """What goes out to one neighbour: a DEALER, its monitor, and an outbox for what it does not take yet."""

    def __init__(self, bus: ZeroMQBus, to: PeerId, intro: Introduction) -> None:
        self.outbox: deque[Chunk] = deque()
        self._bus, self._to, self._open = bus, to, True
        self._empty = asyncio.Event()
        self._empty.set()
        self._dealer = socket = bus._context.socket(zmq.DEALER)
        socket.setsockopt(zmq.SNDHWM, QUEUE_CHUNKS)
        socket.setsockopt(zmq.IMMEDIATE, 1)  # nothing is queued for a link that does not stand
        socket.setsockopt(zmq.RECONNECT_IVL, 50)
        socket.setsockopt(zmq.RECONNECT_IVL_MAX, 2000)
        if bus._curve:
            socket.curve_publickey, socket.curve_secretkey = bus._curve
            socket.curve_serverkey = intro.show
        else:
            socket.plain_username, socket.plain_password = b"peer", intro.show
        self._monitor = socket.get_monitor_socket(WATCHED)
        bus._watch(self._monitor, self._changed)
        bus._watch(socket, self._flush)
        socket.connect(intro.endpoint)

    def send(self, chunk: Chunk) -> None:
        if not self._open:
            return
        if self.outbox or not self._sent(chunk):
            self.outbox.append(chunk)
            self._empty.clear()

    def _sent(self, chunk: Chunk) -> bool:
        header, payload = chunk
        try:
            if payload is None:
                self._dealer.send(header, zmq.NOBLOCK)
                size = 0
            else:
                size = len(payload)
                self._dealer.send(header, zmq.NOBLOCK | zmq.SNDMORE)
                self._dealer.send(payload, zmq.NOBLOCK)
        except zmq.Again:
            return False
        framing = (2 if len(header) < 256 else 9) + (0 if payload is None else 2 if size < 256 else 9)
        self._bus.sent_bytes[self._to] += len(header) + size + framing
        return True

    def _flush(self) -> bool:
        while self.outbox:
            if not self._sent(self.outbox[0]):
                return False
            self.outbox.popleft()
        self._empty.set()
        return False

    async def flushed(self) -> None:
        await self._empty.wait()

    def _changed(self) -> bool:
        try:
            event = parse_monitor_message(self._monitor.recv_multipart(zmq.NOBLOCK))["event"]
        except zmq.Again:
            return False
        self._open = event != DROP
        if not self._open:
            while self._bus._hear():  # what came before the link closed still counts
                pass
            self.outbox.clear()
            self._empty.set()
        self._bus._mailbox.link(self._to, self._open)
        return True

    def close(self, linger_ms: int) -> None:
        for socket in (self._monitor, self._dealer):
            self._bus._loop.remove_reader(socket.getsockopt(zmq.FD))
        self._dealer.disable_monitor()
        self._monitor.close(linger=0)
        self._dealer.close(linger=linger_ms if self._open else 0)
