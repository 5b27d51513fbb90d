"""What a star's mail tells: the hub of each member's steps, a member of the sum of all others'.

Source: Wang & Zhang, "Matrix Sketching for Secure Collaborative Machine Learning" (DBCL), sections 3 and 5.3, for the
hub that holds the true W and `Gamma S^T` and the client that holds `W_t S_t`; see `_readings` for the others.
Shapes: D parameters, S numbers of a sketch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from p2pfl.algorithms._readings import Letter, of_answer, read
from p2pfl.evidence import HEAD, MATCHED, Clue, Notes, Page, Part, Sight, Weights
from p2pfl.messages import HUB, Message, PeerId
from p2pfl.peer import Peer

Chosen = Callable[[Peer, int], tuple[PeerId, ...]]
"""Who takes part in a round, in the eyes of a peer."""


@dataclass(frozen=True)
class OfHub:
    """A Telltale of a hub: it sent each member its model, and hears where that member's steps ended."""

    lag: ClassVar[int] = 0

    def suspects(self, me: Peer) -> tuple[PeerId, ...]:
        """All members."""
        return me.neighbours

    def clue(self, notes: Notes, victim: PeerId, r: int) -> Clue | None:
        """One member's steps of this round; None where it was not chosen, or did not answer."""
        page = notes.pages[HUB].get(r)
        sent = page and page.posted(victim, "model")
        answer = page and page.message(victim, "update")
        if page is None or not sent or not answer:
            return None
        letter, steps, true_D = _letter(page, sent), notes.steps(victim), _model(notes, page)
        if true_D is None:
            return None
        part = notes.part(victim, 1.0, letter.z_S, (r - 1) * steps, steps)
        answer_S = answer.tensors["params"].to(letter.z_S)
        holds = f"its own model, the key, and the update of peer {victim}"
        return Clue(victim, r, "hub", holds, of_answer(letter, answer_S, true_D, part))

    def mixes(self, notes: Notes, r: int) -> Weights:
        """Members pull on nobody."""
        return {}

    def heard(self, notes: Notes, r: int) -> dict[PeerId, Tensor]:
        """Where each member's steps ended, as its answer says it."""
        page, found = notes.pages[HUB][r], {}
        if (true_D := _model(notes, page)) is None:
            return {}
        for i in notes.trainings:
            if (answer := page.message(i, "update")) is not None and (sent := page.posted(i, "model")) is not None:
                letter = _letter(page, sent)
                answer_S = answer.tensors["params"].to(letter.z_S)
                found[i] = true_D + letter.up(answer_S - letter.z_S) if letter.keyed else answer_S
        return found


@dataclass(frozen=True)
class OfMember:
    """A Telltale of a member: from one model of the hub's to the next, less its own part, are all others' steps.

    `step` is the hub's; with `own_keys` each member has another key.
    """

    chosen: Chosen
    step: float
    own_keys: bool
    lag: ClassVar[int] = 1

    def suspects(self, me: Peer) -> tuple[PeerId, ...]:
        """One of the others: what is seen is the sum of all of them, the other's own where there are but two."""
        return tuple(i for i in me.roster.learners if i != me.id)[:1]

    def clue(self, notes: Notes, victim: PeerId, r: int) -> Clue | None:
        """The others' steps of this round, weighed as the hub weighs them; None where it heard no two models."""
        before, after = (next((p for p in notes.page(q) if p.message(HUB, "model")), None) for q in (r, r + 1))
        if before is None or after is None or victim not in self.chosen(before.me, r):
            return None
        old, new = (_letter(page, _heard_model(page)) for page in (before, after))
        estimate_D = self._estimate(notes, r)
        chosen = self.chosen(before.me, r)
        total = sum(notes.examples[i] for i in chosen)
        share = {i: self.step * notes.examples[i] / total for i in chosen}
        known_D = estimate_D.new_zeros(len(estimate_D))
        for page in notes.page(r):
            if (answer := page.posted(HUB, "update")) is not None and page.me.id in share:
                letter = _letter(page, _heard_model(page))
                moved_S = answer.tensors["params"].to(letter.z_S) - letter.z_S
                known_D = known_D + share.pop(page.me.id) * letter.up(moved_S)
        order = (victim, *sorted(i for i in share if i != victim))
        parts = tuple(self._part(notes, i, share[i], estimate_D, r) for i in order)
        exact = r == 1 and notes.origin_D is not None
        told = tuple(self._inside(sight, old) for sight in read(old, new, estimate_D, known_D, parts, exact))
        held = "the other's update" if len(parts) == 1 else f"the sum of the updates of {len(parts)} others"
        threat = "coalition" if notes.collude else "star peer"
        return Clue(victim, r, threat, f"two successive models of the hub and its own update, so {held}", told)

    def mixes(self, notes: Notes, r: int) -> Weights:
        """Members pull on nobody."""
        return {}

    def heard(self, notes: Notes, r: int) -> dict[PeerId, Tensor]:
        """The hub's model."""
        there = any(page.message(HUB, "model") for page in notes.page(r))
        return {HUB: self._estimate(notes, r)} if there else {}

    def _part(self, notes: Notes, i: PeerId, share: float, at_D: Tensor, r: int) -> Part:
        return notes.part(i, share, at_D, (r - 1) * notes.steps(i), notes.steps(i))

    def _inside(self, sight: Sight, old: Letter) -> Sight:
        """The same reading of steps that were taken where everybody knows: in the sketched space of the common key."""
        if not old.keyed or self.own_keys or sight.reading not in (MATCHED, HEAD):
            return sight
        parts = tuple(dataclasses.replace(part, at=old.z_S, up=old.up, down=old.down) for part in sight.parts)
        return dataclasses.replace(sight, parts=parts, seen=_after(sight.seen, old.up))

    def _estimate(self, notes: Notes, r: int) -> Tensor:
        """The hub's model of round r as the members have it: the model itself, or an estimate kept across rounds."""
        kept, estimate_D = notes.estimates, notes.origin_D
        for q in range(1, r + 1):
            page = next((page for page in notes.page(q) if page.message(HUB, "model")), None)
            if ("model", HUB, q) not in kept and page is not None:
                letter = _letter(page, _heard_model(page))
                if estimate_D is None:
                    estimate_D = letter.z_S.new_zeros(sum(slot.size for slot in letter.layout))
                kept["model", HUB, q] = estimate_D + letter.learned(estimate_D)
            estimate_D = kept.get(("model", HUB, q), estimate_D)
        assert estimate_D is not None
        return estimate_D


def _after(second: Callable[[Tensor], Tensor], first: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    return lambda x: second(first(x))


def _heard_model(page: Page) -> Message:
    message = page.message(HUB, "model")
    assert message is not None
    return message


def _letter(page: Page, message: Message) -> Letter:
    z_S = message.tensors["params"].to(page.me.task.device)
    return Letter(z_S, page.me.pair, bytes(message.figures["key"]), page.me.task.layout)  # type: ignore[arg-type]


def _model(notes: Notes, page: Page) -> Tensor | None:
    """The hub's own parameters in a round, as the round before left them; None where that is forgotten."""
    if page.round == 1:
        return notes.starts[HUB]
    before = notes.pages[HUB].get(page.round - 1)
    x_D: Tensor | None = None if before is None else before.state.x_D
    return x_D
