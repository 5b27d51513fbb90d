"""What came for one peer, and how long it waits for what did not: the part that every bus shares.

Absence is normal, being behind is not absence. A neighbour is given up on for an exchange when its link is closed,
when it is past that round already (links keep their order, so its mail can no longer come), or when it learns at
that round or an earlier one and has made no progress for longer than a bound learned from its own slowest stretch:
one maximum per link. A neighbour that waits itself, or measures, is not to blame as long as its beats come.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from p2pfl.errors import RemoteError
from p2pfl.messages import Form, Mail, Message, PeerId
from p2pfl.transport.frames import Anything, Beat, Wanted

BEAT_S = 1.0
FLOOR_S = 3.0
"""No neighbour is given up on sooner: a machine may hiccup."""
START_S = 60.0
"""The bound before anything was learned."""
PATIENCE = 3.0
"""The bound as a multiple of the slowest stretch seen."""
STRIKES = 10
"""A neighbour with so many faults is no longer heard."""
AHEAD_MESSAGES = 4
"""How much early mail is kept of one neighbour, in messages of the largest form."""

Forms = Callable[[int], Mapping[str, Form]]


@dataclass
class _Link:
    """What is known of one neighbour. Times in seconds of the mailbox's clock."""

    heard_s: float
    round: int = 0
    learning: bool = True
    closed: bool = False
    slowest_s: float = math.nan
    mail: dict[tuple[str, int], Message] = field(default_factory=dict)
    seen: set[tuple[str, int]] = field(default_factory=set)


class Mailbox:
    """Mail by neighbour, kind and round. All methods run in the thread of one event loop.

    `forms(round)` says what each kind of message must look like in a round; with `learned` false nobody is given
    up on for being slow.
    """

    def __init__(
        self, neighbours: tuple[PeerId, ...], forms: Forms, learned: bool, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.faults: Counter[PeerId] = Counter()
        self.waiting = False
        self._forms, self._learned, self._clock = forms, learned, clock
        self._links = {j: _Link(clock()) for j in neighbours}
        self._round = 0
        self._changed = asyncio.Event()

    @property
    def round(self) -> int:
        """The round that this peer works on."""
        return self._round

    def at(self, round: int) -> None:
        """This peer works on `round` now: mail for earlier rounds is no longer kept."""
        self._round = round
        for link in self._links.values():
            link.mail = {key: m for key, m in link.mail.items() if key[1] >= round}
            link.seen = {key for key in link.seen if key[1] >= round}

    def wanted(self, sender: PeerId, kind: str, round: int) -> Wanted:
        """What such a message must look like; None where it is too late, or too much. Raises RemoteError."""
        forms = self._forms(round)
        if kind not in forms:
            raise RemoteError(f"a {kind!r} message in round {round}: nobody sends that")
        link = self._links[sender]
        if (kind, round) in link.seen:
            raise RemoteError(f"a second {kind!r} message for round {round}")
        if round < self._round:
            return None
        most = max(_size(form) for form in forms.values())
        held = sum(t.nbytes for m in link.mail.values() for t in m.tensors.values())
        if held + _size(forms[kind]) > AHEAD_MESSAGES * most or len(link.seen) >= 1024:
            return None
        link.seen.add((kind, round))
        return forms[kind]

    def deliver(self, sender: PeerId, said: Message | Beat) -> None:
        """A whole message, or a sign of life, has come from `sender`."""
        link = self._links[sender]
        if isinstance(said, Message):
            self._progress(link, max(link.round, said.round), learning=link.learning)
            link.mail[said.kind, said.round] = said
        elif said.round > link.round or said.learning != link.learning:
            self._progress(link, max(link.round, said.round), said.learning)
        elif not said.learning:
            link.heard_s = self._clock()
        self._changed.set()

    def _progress(self, link: _Link, round: int, learning: bool) -> None:
        now = self._clock()
        if link.learning:
            stretch_s = now - link.heard_s
            link.slowest_s = stretch_s if math.isnan(link.slowest_s) else max(link.slowest_s, stretch_s)
        link.heard_s, link.round, link.learning = now, round, learning

    def link(self, sender: PeerId, stands: bool) -> None:
        """The link to `sender` stands (again), or is gone."""
        link = self._links[sender]
        link.closed = not stands or self.struck(sender)
        if stands:
            link.heard_s = self._clock()
        self._changed.set()

    def fault(self, sender: PeerId) -> None:
        """`sender` broke a rule; after some strikes it is no longer heard."""
        self.faults[sender] += 1
        if self.struck(sender):
            self.link(sender, stands=False)

    def struck(self, sender: PeerId) -> bool:
        """Whether `sender` broke so many rules that it is no longer heard."""
        return self.faults[sender] >= STRIKES

    async def collect(self, kind: str, round: int, expect: tuple[PeerId, ...]) -> Mail:
        """Wait for the `kind` message of `round` from each of `expect`, as long as each may still send it."""
        self.waiting = True
        try:
            while missing := [j for j in expect if (kind, round) not in self._links[j].mail]:
                patience_s = max(self._patience_s(self._links[j], round) for j in missing)
                if patience_s <= 0:
                    break
                self._changed.clear()
                try:
                    await asyncio.wait_for(self._changed.wait(), None if math.isinf(patience_s) else patience_s)
                except TimeoutError:
                    continue
        finally:
            self.waiting = False
        mail = {j: self._links[j].mail.pop((kind, round), None) for j in sorted(expect)}
        return {j: message for j, message in mail.items() if message is not None}

    def _patience_s(self, link: _Link, round: int) -> float:
        """For how many seconds to wait for this neighbour yet; 0 or less when it is absent."""
        if link.closed or link.round > round:
            return 0.0
        if not self._learned:
            return math.inf
        bound_s = START_S if math.isnan(link.slowest_s) else max(FLOOR_S, PATIENCE * link.slowest_s)
        return link.heard_s + bound_s - self._clock()


class Desk:
    """In place of a mailbox where nobody waits for mail: each message is handed to `hear(sender, message)` at once."""

    def __init__(self, hear: Callable[[PeerId, Message], None], lost: Callable[[PeerId], None], limit_bytes: int) -> None:
        self.faults: Counter[PeerId] = Counter()
        self.waiting, self.round = True, 0
        self._hear, self._lost, self._limit_bytes = hear, lost, limit_bytes

    def wanted(self, sender: PeerId, kind: str, round: int) -> Wanted:
        """Anything of bearable size."""
        return Anything(self._limit_bytes)

    def deliver(self, sender: PeerId, said: Message | Beat) -> None:
        """Hand it over; signs of life are not for the desk."""
        if isinstance(said, Message):
            self._hear(sender, said)

    def link(self, sender: PeerId, stands: bool) -> None:
        """Say so when a link is gone."""
        if not stands:
            self._lost(sender)

    def fault(self, sender: PeerId) -> None:
        """`sender` broke a rule."""
        self.faults[sender] += 1

    def struck(self, sender: PeerId) -> bool:
        """Whether `sender` broke so many rules that it is no longer heard."""
        return self.faults[sender] >= STRIKES


def _size(form: Form) -> int:
    return sum(dtype.itemsize * math.prod(shape) for dtype, shape in form.tensors.values()) or 64
