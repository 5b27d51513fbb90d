"""Membership inference: did the victim learn from this example? Its model's loss is lower on those that it did.

Sources: Yeom, Giacomelli, Fredrikson & Jha 2018, "Privacy Risk in Machine Learning: Analyzing the Connection to
Overfitting" (the loss); Watson, Guo, Cormode & Sablayrolles 2022, "On the Importance of Difficulty Calibration in
Membership Inference Attacks" (less that of a reference model which never saw the victim's examples). The reference is
trained here, on examples of the attacker's own, from where the first model that it knows of began.
The attack finds the two models; whose losses are compared, on which examples, is a matter of judging it after the run.
Shapes: D parameters, N examples of the attacker's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import pydantic
import torch
from torch import Tensor

from p2pfl.attacks._unrolled import formed, gradient
from p2pfl.curiosity import Case, Finding
from p2pfl.evidence import PLAIN, STATEFUL, Part
from p2pfl.messages import HUB, Figure, peer_name

BATCH, RATE = 32, 0.1
"""How a reference is trained where no clue says how the victim was."""


@dataclass(frozen=True)
class MembershipInference:
    """Tells a victim's examples by how well its last known model fits them, less how well a `reference` does.

    The reference is `own`: trained for `epochs` on the attacker's own examples; or `none`: the loss as it is.
    """

    reference: Literal["own", "none"] = "own"
    epochs: Annotated[int, pydantic.Field(gt=0)] = 10
    scores: ClassVar[str] = "membership"

    def spy(self, case: Case) -> Iterator[Finding]:
        """See Attack: one finding, about the last model of the victim that is known up to this round."""
        part, known = steps_of(case, case.round), last_known(case)
        if known is None:
            yield Finding(PLAIN, figures={"why": "no model of the victim's is known"})
            return
        suspect_D, reading, whose = known
        reference_D = None
        if self.reference == "own" and len(case.own.y_N):
            reference_D = trained(case, first_known(case, suspect_D), part, self.epochs)
        batches = () if part is None else tuple((part.peer, part.first + k) for k in range(len(part.batches)))
        figures = {**whose, "calibrated": reference_D is not None}
        yield Finding(reading, batches, suspect_D=suspect_D.cpu(), reference_D=reference_D, figures=figures)


def steps_of(case: Case, r: int) -> Part | None:
    """The victim's steps of round `r`, where they are known by themselves."""
    clue = case.clue if r == case.round else case.clue_of(case.victim, r)
    sights = () if clue is None else clue.sights
    return next((part for sight in sights for part in sight.parts if part.peer == case.victim), None)


def last_known(case: Case) -> tuple[Tensor, str, dict[str, Figure]] | None:
    """The last model that learned from the victim, how it was read, and whose of which round it is.

    It is the victim's as it was heard, or where this round's steps ended, or the hub's, which others taught as well.
    """
    readings = [] if case.clue is None else [sight.reading for sight in case.clue.sights]
    heard_by = PLAIN if PLAIN in readings or not readings else STATEFUL
    if heard := case.heard.get(case.victim):
        return heard[max(heard)].to(case.device), heard_by, {"model_of": peer_name(case.victim), "heard_in": max(heard)}
    for sight in () if case.clue is None else case.clue.sights:
        part = sight.parts[0]
        if len(sight.parts) == 1 and part.peer == case.victim and len(part.at) == len(sight.moved_O):
            ended = part.at.to(case.device) + sight.moved_O.to(case.device) / part.share
            return part.up(ended), sight.reading, {"model_of": peer_name(case.victim), "heard_in": case.round}
    if heard := case.heard.get(HUB):
        return heard[max(heard)].to(case.device), heard_by, {"model_of": peer_name(HUB), "heard_in": max(heard)}
    return None


def first_known(case: Case, otherwise_D: Tensor) -> Tensor:
    """Where the victim's first steps began, if that is known; else its first model that was heard, or this."""
    part, heard = steps_of(case, 1), case.heard.get(case.victim, {})
    if part is not None:
        return part.up(part.at.to(case.device))
    heard = heard or case.heard.get(HUB, {})
    return heard[min(heard)].to(case.device) if heard else otherwise_D


def trained(case: Case, x_D: Tensor, part: Part | None, epochs: int) -> Tensor:
    """`x_D` after so many epochs on the attacker's own examples, by the victim's rate and batch; as far as time is."""
    lr, batch = (RATE, BATCH) if part is None else (part.lrs[0], max(1, *part.batches))
    module = formed(case.network, case.device, torch.float32)
    inputs, labels = case.own.x_NCHW.to(case.device), case.own.y_N.to(case.device)
    one_hot_NC = torch.nn.functional.one_hot(labels, case.network.classes).float()
    x_D, draw = x_D.detach().float().clone(), case.seeds.torch("reference")
    steps = [rows for _ in range(epochs) for rows in torch.split(torch.randperm(len(labels), generator=draw), batch)]
    for done, rows_B in enumerate(steps):
        if not case.watch(done / len(steps), 0.0):
            break
        at_B = rows_B.to(case.device)
        g_D = gradient(case.network, module, x_D.requires_grad_(), inputs[at_B], one_hot_NC[at_B])
        x_D = (x_D - lr * g_D).detach()
    return x_D.cpu()
