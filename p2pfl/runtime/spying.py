"""A curious peer: a generator around its flow that notes what it says and hears, and has an attack work on the notes.

The flow goes on as if nobody watched.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from p2pfl.evidence import Notes, Page, Telltale, Weights
from p2pfl.messages import Exchange, Form, Mail, Message, PeerId, Step
from p2pfl.peer import Flow, Peer
from p2pfl.runtime.insight import Place, aside, attackers_of, bare, blank, common_start, place, victims
from p2pfl.scenario import Malice, Scenario, varies

if TYPE_CHECKING:
    from p2pfl.runtime.world import World


MOST_BYTES, FEWEST = 1 << 30, 10
"""Of the mail that notes hold in memory; and pages that they hold at least."""
EARLIER = 3
"""Steps of so many rounds before may be found out along with those of an attacked one."""


@dataclass(frozen=True, eq=False)
class Noted:
    """A page of a curious peer's notes, to be kept on disk, and where the peer began."""

    page: Page
    start_D: torch.Tensor


@dataclass(frozen=True)
class Curious:
    """A Flow that another is hidden in; `malices` are the attacks that its peer makes by itself.

    With `keeps` each page of its notes goes to disk.
    """

    flow: Flow
    settings: Scenario
    malices: tuple[Malice, ...]
    keeps: bool
    place: Place
    notes: Notes = field(compare=False)
    shared_start: bool
    around: Callable[[int], Weights] | None = None
    """The weights of a round, where links change."""

    def start(self, me: Peer) -> Any:
        """As the flow does."""
        state = self.flow.start(me)
        self.notes.starts[me.id] = self.flow.model(state)
        self.notes.origin_D = self.notes.starts[me.id] if self.shared_start else None
        return state

    def forms(self, me: Peer, r: int) -> Mapping[str, Form]:
        """As the flow does."""
        return self.flow.forms(me, r)

    def model(self, state: Any) -> torch.Tensor:
        """As the flow does."""
        return self.flow.model(state)

    def round(self, me: Peer, state: Any, r: int) -> Generator[Step, Mail, Any]:
        """The flow's round, looked on; then what it lets be worked out, beside the rounds to come."""
        said: dict[PeerId, list[Message]] = {}
        heard: dict[PeerId, list[Message]] = {}

        def see(step: Step) -> None:
            for j, message in step.post.items() if isinstance(step, Exchange) else ():
                said.setdefault(j, []).append(message)

        def let_in(mail: Mail) -> Mail:
            for j, message in mail.items():
                heard.setdefault(j, []).append(message)
            return mail

        state = yield from relayed(self.flow.round(me, state, r), see, let_in)
        if self.around is not None:
            self.notes.graphs[r] = self.around(r)
        page = Page(r, bare(me), _settled(said), _settled(heard), state)
        if self.keeps:
            yield Noted(page, self.notes.starts[me.id])  # type: ignore[misc]  # no flow says that, and it is no flow's business
        attacked = r - self.place.telltale.lag
        if any(attacked <= malice.rounds[-1] for malice in self.malices):
            note(self.place.telltale, self.notes, page)
        for malice in self.malices:
            if attacked in malice.rounds:
                for victim in victims(self.settings, malice, self.place, me):
                    yield aside(self.place, self.notes, malice, victim, attacked)
        return state


def note(telltale: Telltale, notes: Notes, page: Page, most_bytes: int = MOST_BYTES) -> None:
    """Add a page to the notes; where they grow too large, forget the oldest that no attack waits for."""
    pages = notes.pages[page.me.id]
    pages[page.round] = page
    awaited = min(list(notes.awaited.values()), default=page.round)
    most = max(FEWEST, most_bytes // max(1, _size(page)))
    while len(pages) > most and (oldest := min(pages)) < awaited - FEWEST:
        telltale.heard(notes, oldest + 2)  # keeps between clues what can be told of the steps since the oldest page
        del pages[oldest]
        latest: dict[tuple[str, PeerId], int] = {}
        for kind, j, q in sorted(list(notes.estimates), key=lambda name: name[2]):
            if q < oldest and (before := latest.get((kind, j))) is not None:
                notes.estimates.pop((kind, j, before), None)
            latest[kind, j] = q


def _size(page: Page) -> int:
    """Bytes of the mail on a page."""
    mail = (message for side in (page.said, page.heard) for messages in side.values() for message in messages)
    return sum(tensor.nbytes for message in mail for tensor in message.tensors.values())


def relayed(
    flow: Generator[Step, Mail, Any], see: Callable[[Step], None], let_in: Callable[[Mail], Mail]
) -> Generator[Step, Mail, Any]:
    """Pass on what a flow says as it is, once seen, and what it is sent as it is let in."""
    mail: Mail | None = None
    while True:
        try:
            step = next(flow) if mail is None else flow.send(mail)
        except StopIteration as end:
            return end.value
        see(step)
        mail = let_in((yield step))


def _settled(messages: Mapping[PeerId, list[Message]]) -> dict[PeerId, tuple[Message, ...]]:
    return {j: tuple(each) for j, each in messages.items()}


def hidden(world: World, peer: PeerId, flow: Flow, me: Peer) -> Flow:
    """The flow of a peer, looked on if it is curious, or its mail is to be kept; else as it is."""
    settings = world.settings
    own = [malice for malice in settings.attacks if peer in attackers_of(settings, malice)]
    keeps = peer in settings.named(settings.save.mail) or any(malice.collude for malice in own)
    alone = tuple(malice for malice in own if not malice.collude)
    if not keeps and not alone:
        return flow
    at, notes = place(world, (peer,), me.private), blank(world, (peer,))
    around = (lambda r: world.around(r)[0]) if varies(settings) else None
    return Curious(flow, settings, alone, keeps, at, notes, common_start(world), around)


def logged(settings: Scenario, peer: PeerId, rounds: int) -> frozenset[int]:
    """The rounds in which a peer says which examples it holds, for the judgement of attacks after the run."""
    if settings.save.mail:
        return frozenset(range(1, rounds + 1))
    found: set[int] = set()
    for malice in settings.attacks:
        if malice.score and peer not in attackers_of(settings, malice):
            for r in malice.rounds:
                found.update(range(max(1, r - EARLIER), r + 2))
    return frozenset(found)
