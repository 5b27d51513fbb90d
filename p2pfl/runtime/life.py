"""The whole life of one peer as a generator: meet the neighbours, learn round by round, measure, report.

Every driver runs this same generator, so what they do not share is only how messages travel.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from p2pfl.errors import LocalError
from p2pfl.messages import Aside, Collect, Exchange, Figure, Mail, Pause, Report, Step
from p2pfl.peer import Flow, Peer
from p2pfl.runtime.spying import Noted
from p2pfl.runtime.world import Seat


@dataclass(frozen=True)
class Course:
    """What is asked of a peer beyond its algorithm.

    `killed` is the round at whose start it is killed, if any; `keep_every` says after which rounds its model is kept.
    In rounds that are `logged` it says which examples it holds. With `gated` it asks, whenever models are evaluated,
    whether that was the last round. Whose clock has come to `seconds` ends with the round it is in, whatever the
    others do.
    """

    rounds: int
    every: int
    split: str
    share_model: bool
    killed: int | None = None
    test: bool = True
    gated: bool = False
    keep_every: int | None = None
    seconds: float = math.inf
    logged: frozenset[int] = frozenset()

    def ends(self, r: int, clock_s: float) -> bool:
        """Whether this round is known to be the last, now that it took until `clock_s`."""
        return r == self.rounds or clock_s >= self.seconds

    def evaluates(self, r: int) -> bool:
        """Whether models are evaluated after this round, be it the last or not."""
        return r % self.every == 0 or r == self.rounds

    def keeps(self, r: int) -> bool:
        """Whether models are kept after this round, be it the last or not."""
        return self.keep_every is not None and (r % self.keep_every == 0 or r == self.rounds)


@dataclass(frozen=True)
class Now:
    """The peer enters a round, or measures in it (`learning` false)."""

    round: int
    learning: bool = True


@dataclass(frozen=True)
class Killed:
    """The scenario kills this peer here, without warning to anybody."""


@dataclass(frozen=True)
class Gate:
    """The peer is through a round, and is to be told whether it was the last: the answer is true or false."""

    round: int


@dataclass(frozen=True, eq=False)
class Keep:
    """The model after a round, to be kept on disk."""

    round: int
    x_D: Tensor


@dataclass
class Tally:
    """What a peer's flow has said so far; its steps, its computing and whom it missed since the last row."""

    clock: Callable[[], float]
    vectors: int = 0
    tensor_bytes: int = 0
    steps: int = 0
    compute_s: float = 0.0
    absent: set[int] = field(default_factory=set)

    def count(self, step: Exchange) -> None:
        """Count what is posted."""
        for message in step.post.values():
            self.vectors += "params" in message.tensors
            self.tensor_bytes += sum(t.nbytes for t in message.tensors.values())

    def said(self) -> dict[str, Figure]:
        """The columns of a row that tell of it."""
        missed = {"absent": sorted(self.absent)} if self.absent else {}
        return {"vectors": self.vectors, "tensor_bytes": self.tensor_bytes, **missed}

    def anew(self) -> Tally:
        """For the next row: what was sent is counted on."""
        return Tally(self.clock, self.vectors, self.tensor_bytes)


Ask = Step | Now | Killed | Gate | Keep | Noted
Asked = Exchange | Pause | Collect | Killed | Gate
"""What a life goes on from only with an answer; an exchange that expects nobody needs none."""
Life = Generator[Ask, Mail | bool, None]


def life(seat: Seat, course: Course, clock: Callable[[], float] = time.perf_counter) -> Life:
    """Live through all rounds, or to the one that the gate says is the last; `clock` tells seconds.

    Raises LocalError when the parameters diverge.
    """
    tally, born_s = Tally(clock), clock()
    yield Now(0)
    me = yield from _observed(seat.me.meet(), tally, {}, {})
    state = seat.flow.start(me)
    for r in range(1, course.rounds + 1):
        yield Now(r)
        if r == course.killed:
            yield Killed()
        began_s = clock()
        figures: dict[str, Figure] = {}
        tensors: dict[str, Tensor] = {}
        state = yield from _observed(seat.flow.round(seat.in_round(me, r), state, r), tally, figures, tensors)
        if tally.steps:  # who is not chosen skips the round
            figures |= {"round_s": clock() - began_s, "compute_s": tally.compute_s}
        if r in course.logged and me.task.examples:
            figures["held"] = _held(me, r)
        last = course.ends(r, clock() - born_s)
        if seat.evaluated:
            yield from _looked_at(seat, state, course, r, last, figures, tensors)
        yield Report(r, {**figures, **seat.me.task.spent(), **tally.said()}, tensors)
        if last:
            return
        tally = tally.anew()
        if course.gated and course.evaluates(r):
            yield Now(r, learning=False)
            if (yield Gate(r)):
                yield from _last_words(seat, seat.flow.model(state), course, r, tally)
                return


def _held(me: Peer, r: int) -> dict[str, Figure]:
    """Which examples each batch of round `r` holds, by the number of the batch."""
    return {str(b): list(me.task.held(b)) for b in range((r - 1) * me.local_steps, r * me.local_steps)}


def asynchronous(flow: Flow) -> bool:
    """Whether peers of this flow have no rounds in common: a round is what one does between two rests."""
    return bool(getattr(flow, "asynchronous", False))


def _looked_at(
    seat: Seat, state: Any, course: Course, r: int, last: bool, figures: dict[str, Figure], tensors: dict[str, Tensor]
) -> Life:
    """Measure the model after round `r` and keep it, where that is asked for; the row's figures and tensors grow."""
    if last or course.evaluates(r):
        yield Now(r, learning=False)
        model_D = seat.flow.model(state)
        figures.update(_measured(seat, model_D, course.split))
        if last and course.test:
            figures.update(_measured(seat, model_D, "test", with_curve=True))
        if course.share_model:
            tensors["model"] = model_D.cpu()
    if course.keeps(r) or (last and course.keep_every is not None):
        yield Keep(r, seat.flow.model(state))


def _last_words(seat: Seat, model_D: Tensor, course: Course, r: int, tally: Tally) -> Life:
    """What is still to do when round `r`, already reported, turns out to have been the last."""
    if seat.evaluated and course.keep_every is not None and not course.keeps(r):
        yield Keep(r, model_D)
    if seat.evaluated and course.test:
        yield Report(r, {**_measured(seat, model_D, "test", with_curve=True), **tally.said()})


def _observed(
    flow: Generator[Step, Mail, Any], tally: Tally, figures: dict[str, Figure], tensors: dict[str, Tensor]
) -> Generator[Step, Mail | bool, Any]:
    """Pass a flow's exchanges on, counting them, and gather its reports into the row of the round."""
    mail: Mail | None = None
    while True:
        since_s = tally.clock()
        try:
            step = next(flow) if mail is None else flow.send(mail)
        except StopIteration as end:
            return end.value
        finally:
            tally.compute_s += tally.clock() - since_s
        if isinstance(step, Aside | Noted):  # beside the round
            yield step
            mail = {}
            continue
        tally.steps += 1
        if isinstance(step, Report):
            figures.update(step.figures)
            tensors.update(step.tensors)
            mail = {}
            continue
        came = yield step
        assert not isinstance(came, bool)
        mail = came
        if isinstance(step, Exchange):
            tally.count(step)
            tally.absent |= set(step.expect) - set(mail)


def _measured(seat: Seat, model_D: Tensor, split: str, with_curve: bool = False) -> Mapping[str, Figure]:
    """Columns of the row; a curve among them makes it long, so only the last word of a peer has one."""
    measured = seat.me.task.evaluate(model_D, split)
    if not all(math.isfinite(value) for value in measured.values() if isinstance(value, float)):
        lr = seat.me.training.lr
        raise LocalError(f"the model's {split} loss is not finite: lower training.lr, which is {lr:g}")
    return {f"{split}_{name}": value for name, value in measured.items() if with_curve or isinstance(value, float)}
