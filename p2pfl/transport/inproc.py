"""The bus within one process: mail is handed over as it is, without bytes; the contract is the same."""

from __future__ import annotations

from collections import Counter

from p2pfl.messages import Mail, Message, PeerId
from p2pfl.transport.frames import Beat
from p2pfl.transport.mailbox import Mailbox


class InprocBus:
    """A bus among the mailboxes of one process. Nobody alters a tensor that was posted, so none is copied."""

    def __init__(self, me: PeerId, mailboxes: dict[PeerId, Mailbox], neighbours: tuple[PeerId, ...]) -> None:
        self.sent_bytes: Counter[PeerId] = Counter()
        self._me, self._mailboxes, self._neighbours = me, mailboxes, neighbours
        self.faults = mailboxes[me].faults

    def at(self, round: int, learning: bool = True) -> None:
        """See Bus."""
        if learning:
            self._mailboxes[self._me].at(round)
        self._beat(round, learning)

    def post(self, to: PeerId, message: Message) -> None:
        """See Bus. What counts as sent are the tensors' bytes."""
        mailbox = self._mailboxes.get(to)
        if mailbox is None:
            return
        self.sent_bytes[to] += sum(t.nbytes for t in message.tensors.values())
        if message.round >= mailbox.round:
            mailbox.deliver(self._me, message)

    async def collect(self, kind: str, round: int, expect: tuple[PeerId, ...]) -> Mail:
        """See Bus."""
        mailbox = self._mailboxes[self._me]
        self._beat(mailbox.round, learning=False)
        mail = await mailbox.collect(kind, round, expect)
        self._beat(mailbox.round, learning=True)
        return mail

    async def close(self) -> None:
        """See Bus: for the others, the link is gone."""
        self._mailboxes.pop(self._me, None)
        for j in self._neighbours:
            if j in self._mailboxes:
                self._mailboxes[j].link(self._me, stands=False)

    def _beat(self, round: int, learning: bool) -> None:
        for j in self._neighbours:
            if j in self._mailboxes:
                self._mailboxes[j].deliver(self._me, Beat(round, learning))
