"""What a peer's mail tells of a neighbour's steps where peers pull on each other: rounds replayed with what is known.

y_i^r is what peer i posts in round r: its parameters after all but the last of the round's steps. With w_ij^r by which
j pulls on i, and the steps that i takes from there to its next post,
y_i^{r+1} = y_i^r + sum_j w_ij^r (y_j^r - y_i^r) + steps_i^r,
so two successive posts of a neighbour less what its partners pulled are its steps. Partners that nobody here hears are
replayed likewise: their own steps are then unknown parts of what was seen, of which an attack may find out all at once,
and what it has found out is known from then on. Where several follow each other, all but the first are taken from where
their peer would be without the others, which is only roughly so until these are found out. All else is exact without a
sketch; with one it is as good as the estimates that are kept of each sender.

Source: the equations of D-PSGD (Lian et al. 2017) and LEASGD (Cheng et al.), solved for the gradient; what follows from
the graph alone is the subject of El Mrini, Cyffers & Bellet 2024, "Privacy Attacks in Decentralized Learning".
Shapes: D parameters, S numbers of a sketch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import ClassVar

from torch import Tensor

from p2pfl.algorithms import _holdings as holdings
from p2pfl.algorithms import _momentum
from p2pfl.algorithms._known import Known
from p2pfl.algorithms._readings import Letter, expected, read
from p2pfl.evidence import Clue, Notes, Page, Weights
from p2pfl.messages import PeerId
from p2pfl.peer import Peer

MOST_PARTS = 8
"""Unknown parts beyond so many, those of least share, are left out: nobody finds out all of them."""
REPLAYED = 8
"""Of a peer that nobody hears so many rounds are replayed; further back it is guessed to be where its partner is."""


@dataclass(frozen=True, eq=False)
class Replay:
    """The rounds of an algorithm as its notes have them.

    `pulls(r)` says with which weight who pulled on whom in round r; `key` is that of what a peer sent to the owner of a
    page. Made for the clue of round `until`: what it has replayed it keeps.
    """

    notes: Notes
    pulls: Callable[[int], Weights]
    key: Callable[[Page, PeerId], bytes]
    inertia: float = 0.0
    until: int = 0
    _posts: dict[tuple[PeerId, int], Known | None] = field(default_factory=dict)

    def clue(self, victim: PeerId, r: int, threat: str = "neighbour") -> Clue | None:
        """What two successive posts tell of the steps between them, or the first post of those before it."""
        threat = "coalition" if self.notes.collude else threat
        if r == 1 and self.notes.steps(victim) > 1 and self.notes.origin_D is not None:
            return self._first_steps(victim, threat)
        before, after = self.letter(victim, r), self.letter(victim, r + 1)
        if after is None:
            return None
        start, pulled = self.post(victim, r), self.pulled(victim, r)
        if start is None or pulled is None:
            return None
        steps = self.notes.steps(victim)
        own = self.notes.part(victim, 1.0, start.x_D, r * steps - 1, steps, **self._more(victim, r, pulled))
        known = start.plus(pulled, 1.0)
        unseen = [part for name, part in known.parts.items() if name != (victim, own.first)]
        parts = (own, *sorted(unseen, key=lambda part: -abs(part.share))[: MOST_PARTS - 1])
        exact = r == 1 and steps == 1 and self.notes.origin_D is not None
        told = read(before or _letter_of(start.x_D, after), after, start.x_D, pulled.x_D, parts, exact)
        known = replace(known, rough=known.rough or bool(start.parts))
        return Clue(victim, r, threat, holdings.said(self, victim, r, known, len(unseen)), told)

    def _more(self, j: PeerId, r: int, pulled: Known) -> dict[str, Tensor]:
        """What else there is to the steps that `j` took after its post of round r."""
        shift = {} if self.notes.steps(j) == 1 else {"shift_S": pulled.x_D}
        return shift | _momentum.before(self, j, r)

    def _first_steps(self, victim: PeerId, threat: str) -> Clue | None:
        """The first post less the point where all began: all but the last step of the first round, on any graph."""
        letter, origin_D = self.letter(victim, 1), self.notes.origin_D
        if letter is None or origin_D is None:
            return None
        part = self.notes.part(victim, 1.0, origin_D, 0, self.notes.steps(victim) - 1)
        begun = _letter_of(origin_D, letter)
        told = read(begun, letter, origin_D, origin_D.new_zeros(len(origin_D)), (part,), exact=True)
        return Clue(victim, 1, threat, f"where all began, and what peer {victim} first posted", told)

    def letter(self, j: PeerId, r: int) -> Letter | None:
        """What `j` posted in round r, as it came."""
        for page in self.notes.page(r):
            if (message := page.message(j, "params")) is not None:
                z_S = message.tensors["params"].to(page.me.task.device)
                return Letter(z_S, page.me.pair, self.key(page, j), page.me.task.layout)
        return None

    def post(self, j: PeerId, r: int) -> Known | None:
        """y_j^r as far as it is known: heard, one's own, or replayed from the rounds before. None without a clue."""
        if (j, r) not in self._posts:
            self._posts[j, r] = self._post(j, r)
        return self._posts[j, r]

    def _post(self, j: PeerId, r: int) -> Known | None:
        for page in self.notes.page(r):
            if page.me.id == j:
                own_D = own_post(self.notes, page)
                return None if own_D is None else Known(own_D)
        letter = self.letter(j, r)
        if letter is None:
            return self._replayed(j, r)
        estimate_D = self.estimate(j, r) if letter.keyed else letter.z_S
        return None if estimate_D is None else Known(estimate_D)

    def estimate(self, j: PeerId, r: int) -> Tensor | None:
        """The estimate of y_j^r that is kept across rounds: where all began, and what each letter since then added."""
        kept, estimate_D = self.notes.estimates, self.notes.origin_D
        for q in range(1, r + 1):
            if ("post", j, q) not in kept and (letter := self.letter(j, q)) is not None:
                if estimate_D is None:
                    estimate_D = letter.z_S.new_zeros(sum(slot.size for slot in letter.layout))
                kept["post", j, q] = estimate_D + letter.learned(estimate_D)
            estimate_D = kept.get(("post", j, q), estimate_D)
        return estimate_D

    def _replayed(self, j: PeerId, r: int) -> Known | None:
        """y_j^r of a peer that nobody heard in that round."""
        if self.notes.origin_D is None or j not in self.notes.trainings or r < self.until - REPLAYED:
            return None
        steps = self.notes.steps(j)
        if r == 1:
            start = Known(self.notes.origin_D)
            return start if steps == 1 else self._with_steps(start, j, 0, steps - 1)
        before, pulled = self.post(j, r - 1), self.pulled(j, r - 1)
        if before is None or pulled is None:
            return None
        more = self._more(j, r - 1, pulled)
        return self._with_steps(before, j, (r - 1) * steps - 1, steps, **more).plus(pulled, 1.0)

    def _with_steps(self, start: Known, j: PeerId, first: int, count: int, **more: Tensor) -> Known:
        """The same, and what `j` did from there: known where an attack has found it out."""
        if (solved_D := self.notes.solved.get((j, first))) is not None:
            return start.plus(Known(solved_D.to(start.x_D)), 1.0)
        part = self.notes.part(j, 1.0, start.x_D, first, count, **more)
        step = Known(start.x_D.new_zeros(len(start.x_D)), {(j, first): part}, rough=bool(start.parts))
        return start.plus(step, 1.0)

    def pulled(self, i: PeerId, r: int) -> Known | None:
        """What all partners of `i` pulled at it in round r, and what goes on of former pulls."""
        mine = self.post(i, r)
        if mine is None:
            return None
        total = Known(mine.x_D.new_zeros(len(mine.x_D)))
        for j, weight in self.pulls(r).get(i, {}).items():
            if self._absent(j, r):
                continue
            if (theirs := self.post(j, r)) is None:  # as if it were where `i` is: peers are not far from each other
                total = replace(total, guessed=True)
                continue
            difference = theirs.plus(mine, -1.0)
            total = total.plus(replace(difference, x_D=self._sketched(i, j, r, difference.x_D)), weight)
        if self.inertia and r > 1 and (before := self.pulled(i, r - 1)) is not None:
            total = total.plus(before, self.inertia)
        return total

    def _absent(self, j: PeerId, r: int) -> bool:
        """Whether one of us is a partner of `j` in round r, and nobody of us heard it: it is dead, or far behind."""
        pages = [page for page in self.notes.page(r) if page.me.id != j]
        expects = any(j in self.pulls(r).get(page.me.id, {}) for page in pages)
        return expects and len(pages) == len(list(self.notes.page(r))) and self.letter(j, r) is None

    def _sketched(self, i: PeerId, j: PeerId, r: int, difference_D: Tensor) -> Tensor:
        """A difference as `i` has it: exactly so without a sketch or where its key is known, else on the average."""
        pages = list(self.notes.page(r))
        for page in pages:
            if page.me.id == j and page.message(i, "params") is not None and page.me.sketch.keyed:
                key = self.key(page, i)
                return page.me.pair.pull(page.me.pair.down(difference_D, key), key)
        sketched = next((p.me for p in pages if p.me.sketch.keyed or p.me.pair.size < len(difference_D)), None)
        return difference_D if sketched is None else expected(sketched.pair, difference_D)


def link_key(page: Page, j: PeerId) -> bytes:
    """The key of the link to `j` in the round of a page."""
    return page.me.key(j, page.round)


def own_post(notes: Notes, page: Page) -> Tensor | None:
    """What the owner of a page posted in that round, of D numbers; None where it is forgotten.

    Under a sketch it is taken for where it was after the round before, which it is with one step a round.
    """
    posted = [message for said in page.said.values() for message in said if message.kind == "params"]
    whole = sum(slot.size for slot in page.me.task.layout)
    if posted and len(posted[0].tensors["params"]) == whole and not page.me.sketch.keyed:
        return posted[0].tensors["params"].to(page.me.task.device)
    if page.round == 1:
        return notes.starts[page.me.id]
    before = notes.pages[page.me.id].get(page.round - 1)
    own_D: Tensor | None = None if before is None else before.state.x_D
    return own_D


def _letter_of(x_D: Tensor, like: Letter) -> Letter:
    """What would have been heard of these parameters, under the key of another letter."""
    return Letter(like.down(x_D), like.pair, like.key, like.layout)


@dataclass(frozen=True)
class Gossip:
    """A Telltale of algorithms whose peers post parameters under the kind `params` and pull on each other.

    `weights(notes, r)` says with which weight who pulled on whom in round r, `inertia` how much of a pull goes on in
    the next; `key(page, j)` is the key of what `j` sent to the owner of a page.
    """

    weights: Callable[[Notes, int], Weights]
    inertia: float = 0.0
    key: Callable[[Page, PeerId], bytes] = link_key
    lag: ClassVar[int] = 1

    def suspects(self, me: Peer) -> tuple[PeerId, ...]:
        """Its neighbours, but for a hub, which takes no steps."""
        return tuple(j for j in me.neighbours if j in me.roster.examples)

    def clue(self, notes: Notes, victim: PeerId, r: int) -> Clue | None:
        """A neighbour's steps between its posts of this round and the next."""
        return self._replay(notes, r).clue(victim, r)

    def mixes(self, notes: Notes, r: int) -> Weights:
        """See Telltale; without inertia, of which no weight can tell."""
        return {} if self.inertia else self.weights(notes, r)

    def heard(self, notes: Notes, r: int) -> dict[PeerId, Tensor]:
        """The posts of all who were heard, or are known without an unknown part."""
        replay = self._replay(notes, r)
        for j in notes.trainings:
            if _reached(notes, j, r):
                _momentum.before(replay, j, r)
        found = {j: replay.post(j, r) for j in notes.trainings if _reached(notes, j, r)}
        return {j: known.x_D for j, known in found.items() if known is not None and known.sure}

    def _replay(self, notes: Notes, r: int) -> Replay:
        return Replay(notes, lambda q: self.weights(notes, q), self.key, self.inertia, r)


def _reached(notes: Notes, j: PeerId, r: int) -> bool:
    """Whether `j` is one of those whose notes they are, or heard by one of them in round r."""
    return any(page.me.id == j or page.message(j, "params") is not None for page in notes.page(r))
