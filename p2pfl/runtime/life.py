"""The whole life of one peer as a generator: meet the neighbours, learn round by round, measure, report.

Every driver runs this same generator, so what they do not share is only how messages travel.
"""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from p2pfl.errors import LocalError
from p2pfl.messages import Exchange, Figure, Mail, Report, Step
from p2pfl.runtime.world import Seat


@dataclass(frozen=True)
class Course:
    """What is asked of a peer beyond its algorithm; `killed` is the round at whose start it is killed, if any."""

    rounds: int
    every: int
    split: str
    share_model: bool
    killed: int | None = None


@dataclass(frozen=True)
class Now:
    """The peer enters a round, or measures in it (`learning` false)."""

    round: int
    learning: bool = True


@dataclass(frozen=True)
class Killed:
    """The scenario kills this peer here, without warning to anybody."""


@dataclass
class Tally:
    """What a peer's flow has said so far; its steps, its computing and whom it missed since the last row."""

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


Life = Generator[Step | Now | Killed, Mail, None]


def life(seat: Seat, course: Course) -> Life:
    """Live through all rounds. Raises LocalError when the parameters diverge."""
    tally = Tally()
    yield Now(0)
    me = yield from _observed(seat.me.meet(), tally, {}, {})
    state = seat.flow.start(me)
    for r in range(1, course.rounds + 1):
        yield Now(r)
        if r == course.killed:
            yield Killed()
        began_s = time.perf_counter()
        figures: dict[str, Figure] = {}
        tensors: dict[str, Tensor] = {}
        state = yield from _observed(seat.flow.round(me, state, r), tally, figures, tensors)
        if tally.steps:  # who is not chosen skips the round
            figures |= {"round_s": time.perf_counter() - began_s, "compute_s": tally.compute_s}
        if seat.evaluated and (r % course.every == 0 or r == course.rounds):
            yield Now(r, learning=False)
            model = seat.flow.model(state)
            figures |= _measured(seat, model, course.split)
            if r == course.rounds:
                figures |= _measured(seat, model, "test")
            if course.share_model:
                tensors["model"] = model.cpu()
        figures |= {"vectors": tally.vectors, "tensor_bytes": tally.tensor_bytes}
        if tally.absent:
            figures["absent"] = sorted(tally.absent)
        tally = Tally(tally.vectors, tally.tensor_bytes)
        yield Report(r, figures, tensors)


def _observed(
    flow: Generator[Step, Mail, Any], tally: Tally, figures: dict[str, Figure], tensors: dict[str, Tensor]
) -> Generator[Step, Mail, Any]:
    """Pass a flow's exchanges on, counting them, and gather its reports into the row of the round."""
    mail: Mail | None = None
    while True:
        since_s = time.perf_counter()
        try:
            step = next(flow) if mail is None else flow.send(mail)
        except StopIteration as end:
            return end.value
        finally:
            tally.compute_s += time.perf_counter() - since_s
        tally.steps += 1
        if isinstance(step, Report):
            figures.update(step.figures)
            tensors.update(step.tensors)
            mail = {}
        else:
            tally.count(step)
            mail = yield step
            tally.absent |= set(step.expect) - set(mail)


def _measured(seat: Seat, model_D: Tensor, split: str) -> Mapping[str, Figure]:
    measured = seat.me.task.evaluate(model_D, split)
    if not all(math.isfinite(value) for value in measured.values()):
        lr = seat.me.training.lr
        raise LocalError(f"the model's {split} loss is not finite: lower training.lr, which is {lr:g}")
    return {f"{split}_{name}": value for name, value in measured.items()}
