"""What came for one peer, and how long it waits for what did not: the part that every bus shares.

Absence is normal, being behind is not absence. A neighbour is given up on for an exchange when its link is closed,
when it is past that round already (links keep their order, so its mail can no longer come), or when it learns at
that round or an earlier one and has made no progress for longer than a bound learned from its own slowest round:
one maximum per link. A neighbour that waits itself or measures, as its beats say, and one whose bytes are on their way
is not to blame for that time. Progress is a message or a later round, and nothing else: words alone buy little.

Mail of round 0 belongs to no round: whatever rounds sender and receiver work on, it is kept until it is taken. Of each
neighbour and kind there is one message of it at most, so it is bounded without any clock.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress

from p2pfl.errors import LocalError, RemoteError
from p2pfl.messages import Form, Mail, Message, PeerId
from p2pfl.transport.forms import Anything, size_bytes
from p2pfl.transport.frames import Beat
from p2pfl.transport.link import Link

BEAT_S = 1.0
FLOOR_S = 3.0
"""No neighbour is given up on sooner: a machine may hiccup."""
START_S = 60.0
"""The bound before anything was learned, unless this peer itself is slow."""
EXCUSE_S = 600.0
"""For how long without progress a neighbour may say that it waits: a liar must not hold everybody for ever."""
PATIENCE = 3.0
"""The bound as a multiple of the slowest round seen."""
STRIKES = 10
"""A neighbour with so many faults is no longer heard."""
AHEAD_MESSAGES = 4
"""How much early mail is kept of one neighbour, in messages of the largest form, and of each kind."""
AHEAD_ROUNDS = 1024
NO_ROUND = 0

Forms = Callable[[int], Mapping[str, Form]]


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
        self._links = {j: Link(clock(), clock()) for j in neighbours}
        self._round, self._since_s, self._own_s = 0, clock(), 0.0
        self._changed = asyncio.Event()
        self._failure: Exception | None = None

    @property
    def round(self) -> int:
        """The round that this peer works on."""
        return self._round

    def at(self, round: int) -> None:
        """This peer works on `round` now: mail for earlier rounds is no longer kept, but for that of none."""
        self._round = round
        for link in self._links.values():
            link.mail = {key: m for key, m in link.mail.items() if key[1] >= round or key[1] == NO_ROUND}
            link.seen = {key for key in link.seen if key[1] >= round or key[1] == NO_ROUND}

    def wanted(self, sender: PeerId, kind: str, round: int) -> Form | None:
        """What such a message must look like; None where it is too late, too early or too much. Raises RemoteError."""
        if round != NO_ROUND and not self._round <= round <= self._round + AHEAD_ROUNDS:
            return None
        forms, link = self._forms(round), self._links[sender]
        if kind not in forms:
            raise RemoteError(f"a {kind!r} message in round {round}: nobody sends that")
        if (kind, round) in link.seen:
            raise RemoteError(f"a second {kind!r} message for round {round}")
        early = [
            sum(t.nbytes for t in m.tensors.values()) for m in link.mail.values()
        ]  # perhaps wider than this round's
        most = max([*early, *(size_bytes(form.tensors) for form in forms.values())])
        held = sum(early) + size_bytes(forms[kind].tensors)
        if round != NO_ROUND and (held > AHEAD_MESSAGES * most or len(link.mail) >= AHEAD_MESSAGES * len(forms)):
            return None
        return forms[kind]

    def deliver(self, sender: PeerId, said: Message | Beat) -> None:
        """A whole message of a wanted form, or a sign of life, has come from `sender`."""
        link, now_s = self._links[sender], self._clock()
        if isinstance(said, Message):
            link.progress(now_s, max(link.round, said.round))
            link.spoke |= said.round == link.round
            if said.round >= self._round or said.round == NO_ROUND:
                link.mail[said.kind, said.round] = said
                link.seen.add((said.kind, said.round))
        else:
            if not link.learning and not said.learning:
                self.arriving(sender)
            link.heard_s, link.learning = now_s, said.learning
            if said.round > link.round:
                link.progress(now_s, said.round)
        self._changed.set()

    def arriving(self, sender: PeerId) -> None:
        """Since it was last heard `sender` was not learning: it waited, or bytes of its mail were on their way."""
        link, now_s = self._links[sender], self._clock()
        link.excused_s += now_s - link.heard_s
        link.heard_s = now_s

    def link(self, sender: PeerId, stands: bool) -> None:
        """The link to `sender` stands (again), or is gone."""
        link, now_s = self._links[sender], self._clock()
        link.closed = not stands or self.struck(sender)
        if stands:
            link.heard_s, link.progress_s, link.excused_s = now_s, now_s, 0.0
        self._changed.set()

    def fault(self, sender: PeerId) -> None:
        """`sender` broke a rule; after some strikes it is no longer heard."""
        self.faults[sender] += 1
        if self.struck(sender):
            self.link(sender, stands=False)

    def struck(self, sender: PeerId) -> bool:
        """Whether `sender` broke so many rules that it is no longer heard."""
        return self.faults[sender] >= STRIKES

    def fail(self, error: Exception) -> None:
        """The bus is broken: whoever collects mail is told."""
        self._failure = error
        self._changed.set()

    async def collect(self, kind: str, round: int, expect: tuple[PeerId, ...]) -> Mail:
        """Wait for the `kind` message of `round` from each of `expect`, as long as each may still send it."""
        self._own_s = max(self._own_s, self._clock() - self._since_s)
        self.waiting = True
        try:
            while missing := [j for j in expect if (kind, round) not in self._links[j].mail]:
                if self._failure is not None:
                    raise LocalError(f"the bus broke: {self._failure}") from self._failure
                patience_s = max(self._patience_s(self._links[j], round) for j in missing)
                if patience_s <= 0:
                    break
                self._changed.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(None if math.isinf(patience_s) else patience_s):
                        await self._changed.wait()
        finally:
            self.waiting, self._since_s = False, self._clock()
        mail = {j: self._links[j].mail.pop((kind, round), None) for j in sorted(expect)}
        return {j: message for j, message in mail.items() if message is not None}

    def take(self, kind: str) -> Mail:
        """What has come of `kind` that belongs to no round, at once; each neighbour may now post its next."""
        if self._failure is not None:
            raise LocalError(f"the bus broke: {self._failure}") from self._failure
        for link in self._links.values():
            link.seen.discard((kind, NO_ROUND))
        mail = {j: self._links[j].mail.pop((kind, NO_ROUND), None) for j in sorted(self._links)}
        return {j: message for j, message in mail.items() if message is not None}

    def _patience_s(self, link: Link, round: int) -> float:
        """For how many seconds to wait for this neighbour yet; 0 or less when it is absent."""
        if link.closed or link.round > round:
            return 0.0
        if not self._learned:
            return math.inf
        unknown_s = max(START_S, PATIENCE * self._own_s)
        bound_s = unknown_s if math.isnan(link.slowest_s) else max(FLOOR_S, PATIENCE * link.slowest_s)
        return min(bound_s - link.blamed_s(self._clock()), EXCUSE_S - link.excused_s)


class Desk:
    """In place of a mailbox where nobody waits: a message is handed to `hear(sender, message)` at once.

    `lost` is told when a link is gone, `alive` of every sign of life.
    """

    def __init__(
        self,
        hear: Callable[[PeerId, Message], None],
        lost: Callable[[PeerId], None],
        limit_bytes: int,
        alive: Callable[[PeerId], None] = lambda peer: None,
    ) -> None:
        self.faults: Counter[PeerId] = Counter()
        self.waiting, self.round = True, 0
        self._hear, self._lost, self._limit_bytes, self._alive = hear, lost, limit_bytes, alive

    def wanted(self, sender: PeerId, kind: str, round: int) -> Anything:
        """Anything of bearable size."""
        return Anything(self._limit_bytes)

    def deliver(self, sender: PeerId, said: Message | Beat) -> None:
        """Hand it over. What the hearer refuses is a fault."""
        self._alive(sender)
        if isinstance(said, Message):
            try:
                self._hear(sender, said)
            except RemoteError:
                self.fault(sender)

    def arriving(self, sender: PeerId) -> None:
        """Nobody waits."""

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

    def fail(self, error: Exception) -> None:
        """Whoever heard a message failed: the loop says so in the log, and the next message is heard."""
        asyncio.get_running_loop().call_exception_handler({"message": "at the desk", "exception": error})
