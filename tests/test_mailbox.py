"""Absence is normal, being behind is not absence: who is waited for, for how long, and what early mail is kept."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch

from p2pfl.errors import LocalError, RemoteError
from p2pfl.messages import Form, Mail, Message, PeerId
from p2pfl.transport.frames import Beat
from p2pfl.transport.mailbox import AHEAD_MESSAGES, BEAT_S, EXCUSE_S, FLOOR_S, PATIENCE, START_S, STRIKES, Mailbox

A, B, WITNESS = 1, 2, 9
FORM = Form({"w": (torch.float32, (4,))})


@dataclass
class Stage:
    """A mailbox on a clock that stands still unless `pass_s` moves it, and what it collects meanwhile."""

    learned: bool = True
    now_s: float = 0.0
    box: Mailbox = field(init=False)
    mail: asyncio.Task[Mail] | None = None

    def __post_init__(self) -> None:
        self.box = Mailbox((A, B, WITNESS), lambda r: {"m": FORM}, self.learned, lambda: self.now_s)

    async def collects(self, round: int, expect: tuple[PeerId, ...] = (A,)) -> None:
        self.mail = asyncio.ensure_future(self.box.collect("m", round, expect))
        await self.settles()

    async def settles(self) -> None:
        """The mailbox looks again (the witness says something), and does what it has to do."""
        self.box.deliver(WITNESS, Beat(0, learning=False))
        for _ in range(5):
            await asyncio.sleep(0)

    async def passes_s(self, seconds: float, *beating: tuple[PeerId, Beat]) -> None:
        """Time goes by, while these neighbours give signs of life."""
        until_s = self.now_s + seconds
        while self.now_s < until_s:
            self.now_s = min(until_s, self.now_s + BEAT_S)
            for peer, beat in beating:
                self.box.deliver(peer, beat)
        await self.settles()

    def says(self, peer: PeerId, round: int) -> None:
        self.box.deliver(peer, Message("m", round, {"w": torch.ones(4)}))

    @property
    def waits(self) -> bool:
        assert self.mail is not None
        return not self.mail.done()

    async def got(self) -> list[PeerId]:
        assert self.mail is not None
        assert self.mail.done(), "the mailbox still waits"
        return list(self.mail.result())

    async def knows(self, peer: PeerId, round_s: float) -> None:
        """`peer` has spoken in rounds 1 and 2, and took so long for one."""
        self.says(peer, 1)
        await self.passes_s(round_s, (peer, Beat(1, learning=True)))
        self.says(peer, 2)
        self.box.deliver(peer, Beat(3, learning=True))
        self.box.at(3)


def played(scene: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(scene(), 10))


def test_mail_comes_in_the_order_of_peer_ids() -> None:
    async def scene() -> None:
        stage = Stage()
        await stage.collects(1, (B, A))
        stage.says(B, 1)
        await stage.settles()
        assert stage.waits
        stage.says(A, 1)
        await stage.settles()
        assert await stage.got() == [A, B]

    played(scene)


def test_a_closed_link_is_absent_at_once_and_its_last_mail_counts() -> None:
    async def scene() -> None:
        stage = Stage()
        await stage.collects(1, (A, B))
        stage.says(B, 1)
        stage.box.link(B, stands=False)
        stage.box.link(A, stands=False)
        await stage.settles()
        assert await stage.got() == [B]

    played(scene)


@pytest.mark.parametrize("learned", [True, False])
def test_who_is_past_the_round_is_absent_at_once(learned: bool) -> None:
    async def scene() -> None:
        stage = Stage(learned)
        await stage.collects(5)
        stage.box.deliver(A, Beat(6, learning=True))
        await stage.settles()
        assert await stage.got() == []

    played(scene)


def test_who_claims_a_far_round_harms_only_himself() -> None:
    async def scene() -> None:
        stage = Stage()
        stage.box.deliver(A, Beat(2**61, learning=True))
        assert stage.box.wanted(A, "m", 2**61) is None
        await stage.collects(1, (A, B))
        stage.says(B, 1)
        await stage.settles()
        assert await stage.got() == [B]

    played(scene)


def test_mail_of_one_merely_ahead_is_there_when_its_round_comes() -> None:
    async def scene() -> None:
        stage = Stage()
        for r in (1, 2, 3):
            stage.says(A, r)
        for r in (1, 2, 3):
            stage.box.at(r)
            await stage.passes_s(1000)
            await stage.collects(r)
            assert await stage.got() == [A]

    played(scene)


def test_before_anything_is_learned_a_neighbour_has_a_minute() -> None:
    async def scene() -> None:
        stage = Stage()
        stage.box.link(A, stands=True)
        await stage.collects(1)
        await stage.passes_s(START_S - 1, (A, Beat(0, learning=True)))
        assert stage.waits
        await stage.passes_s(2, (A, Beat(0, learning=True)))
        assert await stage.got() == []

    played(scene)


def test_who_is_slow_himself_expects_no_more_of_others() -> None:
    async def scene() -> None:
        stage = Stage()
        await stage.passes_s(100, (A, Beat(0, learning=True)))
        await stage.collects(1)
        await stage.passes_s(150, (A, Beat(0, learning=True)))
        assert stage.waits
        await stage.passes_s(100, (A, Beat(0, learning=True)))
        assert await stage.got() == []

    played(scene)


def test_a_slow_learner_is_waited_for_by_the_bound_learned_from_its_slowest_round() -> None:
    async def scene() -> None:
        stage = Stage()
        await stage.knows(A, round_s=10)
        await stage.collects(3)
        await stage.passes_s(PATIENCE * 10 - 1, (A, Beat(3, learning=True)))
        assert stage.waits
        await stage.passes_s(2, (A, Beat(3, learning=True)))
        assert await stage.got() == []

    played(scene)


def test_once_given_up_it_costs_nothing_until_it_shows_progress() -> None:
    async def scene() -> None:
        stage = Stage()
        await stage.knows(A, round_s=10)
        await stage.passes_s(PATIENCE * 10 + 1, (A, Beat(3, learning=True)))
        for r in (3, 4, 5):
            stage.box.at(r)
            await stage.collects(r)
            assert await stage.got() == []
            stage.box.deliver(A, Beat(3, learning=r % 2 == 0))
        stage.box.deliver(A, Beat(4, learning=True))
        await stage.collects(5)
        assert stage.waits
        stage.says(A, 5)
        await stage.settles()
        assert await stage.got() == [A]

    played(scene)


def test_a_machine_may_hiccup_for_some_seconds() -> None:
    async def scene() -> None:
        stage = Stage()
        await stage.knows(A, round_s=0.001)
        await stage.collects(3)
        await stage.passes_s(FLOOR_S - 0.1)
        assert stage.waits
        await stage.passes_s(0.2)
        assert await stage.got() == []

    played(scene)


def test_a_round_with_several_messages_is_learned_as_one() -> None:
    async def scene() -> None:
        stage = Stage()
        stage.says(A, 1)
        stage.box.deliver(A, Beat(2, learning=True))
        stage.says(A, 2)  # a table, soon; then it trains, and speaks again
        await stage.passes_s(20, (A, Beat(2, learning=True)))
        stage.box.deliver(A, Message("late", 2))
        stage.box.deliver(A, Beat(3, learning=True))
        await stage.collects(3)
        await stage.passes_s(PATIENCE * 20 - 1, (A, Beat(3, learning=True)))
        assert stage.waits
        stage.box.link(A, stands=False)

    played(scene)


def test_rounds_in_which_it_did_not_speak_teach_nothing() -> None:
    async def scene() -> None:
        stage = Stage()
        for r in range(1, 9):  # a member that is not chosen passes through
            stage.box.deliver(A, Beat(r, learning=True))
        stage.box.at(8)
        await stage.collects(8)
        await stage.passes_s(START_S - 1, (A, Beat(8, learning=True)))
        assert stage.waits
        stage.box.link(A, stands=False)

    played(scene)


def test_one_that_waits_itself_is_excused_while_it_beats() -> None:
    async def scene() -> None:
        stage = Stage()
        await stage.knows(A, round_s=1)
        stage.box.deliver(A, Beat(3, learning=False))
        await stage.collects(3)
        await stage.passes_s(EXCUSE_S / 2, (A, Beat(3, learning=False)))
        assert stage.waits
        await stage.passes_s(FLOOR_S + 0.1)  # and then it falls silent
        assert await stage.got() == []

    played(scene)


def test_one_that_only_ever_says_that_it_waits_is_given_up_at_last() -> None:
    async def scene() -> None:
        stage = Stage()
        await stage.knows(A, round_s=1)
        stage.box.deliver(A, Beat(3, learning=False))
        await stage.collects(3)
        await stage.passes_s(EXCUSE_S + BEAT_S, (A, Beat(3, learning=False)))
        assert await stage.got() == []

    played(scene)


def test_changing_one_s_word_is_no_progress() -> None:
    async def scene() -> None:
        stage = Stage()
        await stage.knows(A, round_s=1)
        await stage.collects(3)
        for _ in range(int(FLOOR_S / BEAT_S) + 1):
            await stage.passes_s(BEAT_S / 2, (A, Beat(3, learning=False)))
            await stage.passes_s(BEAT_S / 2, (A, Beat(3, learning=True)))
        assert await stage.got() == []

    played(scene)


def test_bytes_on_their_way_excuse_a_slow_link() -> None:
    async def scene() -> None:
        stage = Stage()
        await stage.knows(A, round_s=1)
        await stage.collects(3)
        for _ in range(20):
            await stage.passes_s(1)
            stage.box.arriving(A)
        assert stage.waits
        stage.says(A, 3)
        await stage.settles()
        assert await stage.got() == [A]

    played(scene)


def test_when_nobody_is_given_up_on_only_a_closed_link_is_absent() -> None:
    async def scene() -> None:
        stage = Stage(learned=False)
        await stage.knows(A, round_s=1)
        await stage.collects(3)
        await stage.passes_s(100_000)
        assert stage.waits
        stage.box.link(A, stands=False)
        await stage.settles()
        assert await stage.got() == []

    played(scene)


def test_a_link_that_stands_again_is_waited_for_again() -> None:
    async def scene() -> None:
        stage = Stage()
        await stage.knows(A, round_s=1)
        stage.box.link(A, stands=False)
        await stage.passes_s(100)
        stage.box.link(A, stands=True)
        await stage.collects(3)
        assert stage.waits
        stage.says(A, 3)
        await stage.settles()
        assert await stage.got() == [A]

    played(scene)


def test_after_some_strikes_a_neighbour_is_absent_for_good() -> None:
    async def scene() -> None:
        stage = Stage()
        await stage.collects(1)
        for _ in range(STRIKES):
            assert not stage.box.struck(A)
            stage.box.fault(A)
        assert stage.box.struck(A)
        await stage.settles()
        assert await stage.got() == []
        stage.box.link(A, stands=True)
        await stage.collects(1)
        assert await stage.got() == []
        assert stage.box.faults == {A: STRIKES}

    played(scene)


def test_a_broken_bus_is_told_to_whoever_collects() -> None:
    async def scene() -> None:
        stage = Stage()
        await stage.collects(1)
        stage.box.fail(ValueError("defect"))
        assert stage.mail is not None
        with pytest.raises(LocalError, match="defect") as caught:
            await stage.mail
        assert isinstance(caught.value.__cause__, ValueError)

    played(scene)


def test_early_mail_is_kept_within_bounds_and_old_mail_not_at_all() -> None:
    async def scene() -> None:
        box = Stage().box
        box.at(3)
        assert box.wanted(A, "m", 2) is None
        for r in range(3, 3 + AHEAD_MESSAGES):
            assert box.wanted(A, "m", r) == FORM
            box.deliver(A, Message("m", r, {"w": torch.ones(4)}))
        assert box.wanted(A, "m", 3 + AHEAD_MESSAGES) is None
        assert box.wanted(B, "m", 3 + AHEAD_MESSAGES) == FORM, "one neighbour does not take another's room"
        box.at(4)
        assert box.wanted(A, "m", 3 + AHEAD_MESSAGES) == FORM

    played(scene)


def test_messages_without_tensors_are_kept_within_bounds_too() -> None:
    async def scene() -> None:
        box = Mailbox((A,), lambda r: {"word": Form(figures={"text": str})}, True)
        kept = 0
        for r in range(1000):
            if box.wanted(A, "word", r) is not None:
                box.deliver(A, Message("word", r, figures={"text": "x"}))
                kept += 1
        assert kept == AHEAD_MESSAGES

    played(scene)


def test_a_message_said_twice_or_that_nobody_sends_is_a_fault() -> None:
    async def scene() -> None:
        stage = Stage()
        stage.says(A, 1)
        with pytest.raises(RemoteError, match="second"):
            stage.box.wanted(A, "m", 1)
        with pytest.raises(RemoteError, match="nobody sends"):
            stage.box.wanted(A, "rumour", 1)

    played(scene)


def test_early_mail_of_a_wider_round_leaves_room_for_that_of_a_narrower_one() -> None:
    widths = {1: 1000, 2: 100, 3: 900}
    box = Mailbox((A,), lambda r: {"m": Form({"w": (torch.float32, (widths[r],))})}, True)
    box.at(1)
    for r, width in widths.items():
        assert box.wanted(A, "m", r) is not None
        box.deliver(A, Message("m", r, {"w": torch.zeros(width)}))
