"""The bus within one process: mail is handed over as it is, without bytes; the contract is the same."""

from __future__ import annotations

import asyncio
from collections import Counter

from p2pfl.errors import RemoteError
from p2pfl.messages import Mail, Message, PeerId
from p2pfl.transport.forms import check_whole
from p2pfl.transport.frames import Beat
from p2pfl.transport.mailbox import BEAT_S, Mailbox


class InprocBus:
    """A bus among the mailboxes of one process. Nobody alters a tensor that was posted, so none is copied."""

    def __init__(self, me: PeerId, mailboxes: dict[PeerId, Mailbox], neighbours: tuple[PeerId, ...]) -> None:
        self.sent_bytes: Counter[PeerId] = Counter()
        self._me, self._mailboxes, self._neighbours = me, mailboxes, neighbours
        self.faults = mailboxes[me].faults
        self._learning, self._loop = True, asyncio.get_running_loop()
        self._beats = self._loop.call_later(BEAT_S, self._beat)

    def at(self, round: int, learning: bool = True) -> None:
        """See Bus."""
        self._learning = learning
        self._mailboxes[self._me].at(round)
        self._say_beat()

    def post(self, to: PeerId, message: Message) -> None:
        """See Bus. What counts as sent are the tensors' bytes; a liar's mail is refused as on the wire."""
        mailbox = self._mailboxes.get(to)
        if mailbox is None:
            return
        self.sent_bytes[to] += sum(t.nbytes for t in message.tensors.values())
        if mailbox.struck(self._me):
            return
        try:
            wanted = mailbox.wanted(self._me, message.kind, message.round)
            if wanted is not None:
                check_whole(message, wanted)
                mailbox.deliver(self._me, message)
        except RemoteError:
            mailbox.fault(self._me)

    async def collect(self, kind: str, round: int, expect: tuple[PeerId, ...]) -> Mail:
        """See Bus."""
        self._loop.call_soon(self._say_beat)
        return await self._mailboxes[self._me].collect(kind, round, expect)

    def take(self, kind: str) -> Mail:
        """See Bus."""
        return self._mailboxes[self._me].take(kind)

    async def close(self) -> None:
        """See Bus: for the others, the link is gone."""
        self._beats.cancel()
        self._mailboxes.pop(self._me, None)
        for j in self._neighbours:
            if j in self._mailboxes:
                self._mailboxes[j].link(self._me, stands=False)

    def _beat(self) -> None:
        self._beats = self._loop.call_later(BEAT_S, self._beat)
        self._say_beat()

    def _say_beat(self) -> None:
        mailbox = self._mailboxes.get(self._me)
        for j in self._neighbours if mailbox else ():
            if mailbox and j in self._mailboxes:
                self._mailboxes[j].deliver(self._me, Beat(mailbox.round, self._learning and not mailbox.waiting))
