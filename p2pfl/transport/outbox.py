"""What one neighbour does not take yet: bounded, in order, whole messages or nothing."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from p2pfl.transport.frames import Chunk

OUTBOX_BYTES = 1 << 27
ROOM_MESSAGES = 4


class Outbox:
    """Chunks on their way to `send`, which says whether it took one.

    Where more than `limit_bytes` wait already (None: no limit), and more than some messages of this size, a further
    one is dropped as a whole: a neighbour so far behind has more use for the older ones, which it still works on.
    While shut, everything is dropped.
    """

    def __init__(self, send: Callable[[Chunk], bool], limit_bytes: int | None) -> None:
        self.empty = asyncio.Event()
        self.empty.set()
        self._send, self._limit_bytes, self._open = send, limit_bytes, True
        self._chunks: deque[Chunk] = deque()
        self._waiting_bytes = 0

    def post(self, message: list[Chunk]) -> None:
        """Send these chunks, or keep what is not taken."""
        size = sum(_bytes(chunk) for chunk in message)
        full = self._limit_bytes is not None and self._waiting_bytes > max(self._limit_bytes, ROOM_MESSAGES * size)
        if full or not self._open:
            return
        self._chunks.extend(message)
        self._waiting_bytes += size
        self.empty.clear()
        self.flush()

    def flush(self) -> None:
        """Send what waits, as far as it is taken."""
        while self._chunks:
            if not self._send(self._chunks[0]):
                return
            self._waiting_bytes -= _bytes(self._chunks.popleft())
        self.empty.set()

    def open(self) -> None:
        """The link stands: what waits is sent, and what is posted from now on is kept."""
        self._open = True
        self.flush()

    def shut(self) -> None:
        """The link is gone, and with it what waited."""
        self._open, self._waiting_bytes = False, 0
        self._chunks.clear()
        self.empty.set()


def _bytes(chunk: Chunk) -> int:
    header, payload = chunk
    return len(header) + (0 if payload is None else len(payload))
