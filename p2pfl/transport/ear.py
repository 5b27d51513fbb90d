"""What comes in from one neighbour: the chunks of its present connection, put together; faults are counted."""

from __future__ import annotations

from typing import Any

from p2pfl.errors import RemoteError
from p2pfl.messages import PeerId
from p2pfl.transport.frames import Decoder
from p2pfl.transport.mailbox import Desk, Mailbox


class Ear:
    """Hears one neighbour. A new connection begins afresh; what is left of the one before is no longer heard."""

    def __init__(self, run: bytes, mailbox: Mailbox | Desk, sender: PeerId) -> None:
        self._run, self._mailbox, self._sender = run, mailbox, sender
        self._connection = self._former = b""
        self._decoder = self._fresh()

    def _fresh(self) -> Decoder:
        return Decoder(self._run, lambda kind, round: self._mailbox.wanted(self._sender, kind, round))

    def hear(self, connection: bytes, frames: list[Any]) -> None:
        """Take one chunk, as the frames of a message that came over `connection`."""
        if self._mailbox.struck(self._sender) or connection == self._former:
            return
        if connection != self._connection:
            self._connection, self._former, self._decoder = connection, self._connection, self._fresh()
        try:
            if len(frames) > 2:
                raise RemoteError(f"a message of {len(frames)} parts")
            said = self._decoder.feed(frames[0].buffer, frames[1].buffer if len(frames) == 2 else None)
        except RemoteError:
            self._mailbox.fault(self._sender)
            return
        if said is None:
            self._mailbox.arriving(self._sender)
        else:
            self._mailbox.deliver(self._sender, said)
