"""What every attack keeps to: it works on what its place lets it know, alters none of it, and ends when it is told to.

Shapes: D parameters, B examples, C x H x W an input.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy
import torch
from torch import Tensor

from p2pfl.conformance import _randomness
from p2pfl.contracts import Training
from p2pfl.curiosity import Case, Finding, Known, Network
from p2pfl.evidence import Clue, Part, Sight
from p2pfl.learning.data import Data
from p2pfl.learning.model import layout_of
from p2pfl.learning.models.mlp import Mlp
from p2pfl.learning.task import SGDTask
from p2pfl.seeds import Seeds

SHAPE, CLASSES, BATCH, LR = (1, 4, 4), 3, 2, 0.1
ATTACKER, VICTIM = 0, 1
TURNS = 120
"""Times that an attack is told that there is time left."""
PATIENCE = 3
"""Times that an attack is told that its time is up, for each reading, before it must have ended."""


def makes_nothing_of_a_peer_that_was_not_heard(plugin: Any) -> None:
    """Without a clue, and of a clue without a reading, it tells of no examples, and does not fail."""
    for clue in (None, Clue(VICTIM, 1, "neighbour", "nothing", ())):
        for finding in plugin.spy(_case(clue, plugin)):
            assert finding.inputs_BCHW is None, "of a peer that was not heard it makes up examples"
            assert finding.labels_B is None, "of a peer that was not heard it makes up labels"


def makes_at_most_one_finding_of_a_reading(plugin: Any) -> None:
    """Of readings that there are, or of one of its own making."""
    readings = [finding.reading for finding in plugin.spy(_case(_clue(), plugin))]
    assert len(readings) == len(set(readings)), f"it tells of the readings {readings}"
    assert all(isinstance(reading, str) and reading for reading in readings), f"it tells of the readings {readings}"


def shows_examples_of_the_form_that_the_model_takes(plugin: Any) -> None:
    """As many as the batches that it says they are of, with labels that there are, all of finite numbers."""
    for finding in plugin.spy(_case(_clue(), plugin)):
        for name in ("inputs_BCHW", "labels_B", "counts", "frames_FCHW", "suspect_D", "reference_D"):
            tensor = getattr(finding, name)
            assert tensor is None or bool(tensor.isfinite().all()), f"its {name} are not finite"
        if finding.inputs_BCHW is not None:
            form = tuple(finding.inputs_BCHW.shape)
            assert form == (BATCH, *SHAPE), f"of {BATCH} inputs of {SHAPE} it shows {form}"
            assert finding.batches == ((VICTIM, 0),), f"of peer {VICTIM}'s first batch it tells of {finding.batches}"
        if finding.labels_B is not None:
            assert set(finding.labels_B.tolist()) <= set(range(CLASSES)), f"it tells the labels {finding.labels_B}"
        if finding.counts is not None:
            assert tuple(finding.counts.shape) == (CLASSES,), f"of {CLASSES} classes it counts {finding.counts}"


def bears_whatever_was_seen(plugin: Any) -> None:
    """Numbers that are not finite, that are all zero, or huge, end in no exception and no example of such numbers."""
    clue = _clue()
    for factor in (math.nan, math.inf, 0.0, 1e30):
        sights = tuple(dataclasses.replace(sight, moved_O=sight.moved_O * factor) for sight in clue.sights)
        for finding in plugin.spy(_case(dataclasses.replace(clue, sights=sights), plugin)):
            shown = finding.inputs_BCHW
            assert shown is None or bool(shown.isfinite().all()), f"of what was seen times {factor} it makes {shown}"


def ends_when_its_time_is_up(plugin: Any) -> None:
    """With what it has, and without asking again and again."""
    asked = 0

    def over(done: float, loss: float) -> bool:
        nonlocal asked
        asked += 1
        return False

    clue = _clue()
    found = list(plugin.spy(dataclasses.replace(_case(clue, plugin), watch=over)))
    assert asked <= PATIENCE * len(clue.sights), f"its time was up, and it asked {asked} times whether it is"
    assert all(isinstance(finding, Finding) for finding in found)


def alters_nothing_that_it_is_given(plugin: Any) -> None:
    """What was heard, what is its own, and the parts of a clue stay as they were."""
    case = _case(_clue(), plugin)
    held = {name: tensor.clone() for name, tensor in _tensors(case).items()}
    list(plugin.spy(case))
    for name, tensor in _tensors(case).items():
        assert torch.equal(tensor, held[name]), f"it alters {name}"
        assert not tensor.requires_grad, f"it leaves {name} wanting a gradient"


def is_a_function_of_its_case(plugin: Any) -> None:
    """So that an attack can be repeated on mail that was kept."""
    with _randomness.left_alone("draw from case.seeds"):
        once, again = ([_seen(finding) for finding in plugin.spy(_case(_clue(), plugin))] for _ in range(2))
    assert len(once) == len(again), "of the same case it finds something else the second time"
    for first, second in zip(once, again, strict=True):
        assert all(map(torch.equal, first, second)), "of the same case it finds something else the second time"


def says_by_what_it_is_judged(plugin: Any) -> None:
    """One of what there is a judgement for."""
    known = ("images", "labels", "property", "membership")
    scores = getattr(plugin, "scores", None)
    assert scores in known, f"scores is {scores!r}, not one of {known}"


def _clue() -> Clue:
    """One step of a small network on two examples, read as it is and by its output layer alone."""
    task, x_D = _task(), _start()
    moved_D = task.step(x_D, None, 0).x_D
    part = Part(VICTIM, 1.0, x_D, 0, (LR,), (BATCH,))
    head = torch.cat([torch.full((slot.size,), slot.output) for slot in task.layout]).nonzero().flatten()
    taken: Callable[[Tensor], Tensor] = partial(_taken, head)
    sights = Sight("plain", moved_D, (part,)), Sight("head", taken(moved_D), (part,), taken)
    return Clue(VICTIM, 1, "neighbour", "two successive posts", sights)


def _taken(index_O: Tensor, x_D: Tensor) -> Tensor:
    return x_D.index_select(0, index_O)


def _case(clue: Clue | None, plugin: Any) -> Case:
    draw = torch.Generator().manual_seed(3)
    module = Mlp((6,)).build(SHAPE, CLASSES)
    x_D = _start()
    moved_D = _task().step(x_D, None, 0).x_D
    return Case(
        (ATTACKER,),
        VICTIM,
        1,
        clue,
        lambda victim, r: clue if (victim, r) == (VICTIM, 1) else None,
        {} if clue is None or not clue.sights else {VICTIM: {1: x_D, 2: x_D + moved_D}, ATTACKER: {1: x_D}},
        ((ATTACKER, VICTIM),),
        lambda r: {ATTACKER: {VICTIM: 0.5}, VICTIM: {ATTACKER: 0.5}},
        Network(partial(Mlp((6,)).build, SHAPE, CLASSES), layout_of(module), SHAPE, CLASSES),
        Known(torch.rand(24, *SHAPE, generator=draw), torch.arange(24) % CLASSES, _columns(plugin)),
        False,
        torch.device("cpu"),
        Seeds(bytes(32)),
        _enough(),
    )


def _enough() -> Callable[[float, float], bool]:
    """A watch that gives an attack so long that it shows what it does; by turns, so that it is always as long."""
    turns = iter(range(TURNS))
    return lambda done, loss: next(turns, None) is not None


def _columns(plugin: Any) -> Mapping[str, Any]:
    """Of every second example the column that the attack asks for, if it does, has the value that it asks for."""
    named, value = getattr(plugin, "column", "kind"), getattr(plugin, "value", "this")
    return {named: numpy.asarray([value, f"not {value}"] * 12)}


def _task() -> SGDTask:
    draw = torch.Generator().manual_seed(1)
    x_NCHW, y_N = torch.rand(BATCH, *SHAPE, generator=draw), torch.tensor([0, 2])
    data = Data(x_NCHW, y_N, x_NCHW, y_N, x_NCHW, y_N, classes=CLASSES)
    training = Training(batch=BATCH, lr=LR, local_steps=1, device="cpu")
    return SGDTask(Mlp((6,)), data, numpy.arange(BATCH), training, torch.device("cpu"), Seeds(bytes(32)))


def _start() -> Tensor:
    return _task().start(Seeds(bytes(32)))


def _tensors(case: Case) -> dict[str, Tensor]:
    found = {"its own examples": case.own.x_NCHW, "its own labels": case.own.y_N}
    for peer, by_round in case.heard.items():
        found |= {f"what peer {peer} sent in round {r}": x_D for r, x_D in by_round.items()}
    for sight in () if case.clue is None else case.clue.sights:
        found[f"what was seen ({sight.reading})"] = sight.moved_O
        found |= {f"the point of part {at} ({sight.reading})": part.at for at, part in enumerate(sight.parts)}
    return found


def _seen(finding: Finding) -> list[Tensor]:
    score = torch.tensor(-1.0 if finding.score is None else finding.score)
    shown = (finding.inputs_BCHW, finding.labels_B, finding.counts, finding.suspect_D, finding.reference_D)
    return [score, *(torch.zeros(0) if tensor is None else tensor for tensor in shown)]
