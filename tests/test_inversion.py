"""Gradient inversion: what it says of examples, against the examples whose real steps it was shown."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, partial
from typing import Any

import numpy
import pytest
import torch
from torch import Tensor, nn

from p2pfl import plugins
from p2pfl.attacks._first_order import mean_gradient, pushed, shortest, still
from p2pfl.attacks._labels import counts, dealt, expected, whole
from p2pfl.attacks._target import examples_of, target
from p2pfl.attacks._trail import Ended, Stumbled, Trail
from p2pfl.attacks._unrolled import formed, unrolled
from p2pfl.attacks.analytic import Analytic
from p2pfl.attacks.dlg import Dlg
from p2pfl.attacks.idlg import Idlg
from p2pfl.attacks.inverting_gradients import InvertingGradients, total_variation
from p2pfl.contracts import Pair, Training
from p2pfl.curiosity import Attack, Case, Finding, Known, Network
from p2pfl.evidence import Clue, Part, Sight, same
from p2pfl.learning.data import Data
from p2pfl.learning.datasets.digits import Digits
from p2pfl.learning.model import Model, layout_of
from p2pfl.learning.models.lenet import Lenet
from p2pfl.learning.models.mlp import Mlp
from p2pfl.learning.task import SGDTask
from p2pfl.seeds import Seeds
from p2pfl.sketches.countsketch import CountSketch

CPU = torch.device("cpu")
KEY = b"a key of 16 byte"
SIGMOID, RELU = Mlp((24,), "sigmoid"), Mlp((48,))
HEAVY = {"momentum": 0.9, "weight_decay": 0.01}
SKETCHES = [name for name in plugins.names("sketches") if plugins.build("sketches", name, {}).keyed]
NO_EXAMPLES = Known(torch.empty(0, 1, 8, 8), torch.empty(0, dtype=torch.int64))


pytestmark = pytest.mark.usefixtures("one_thread")


@cache
def digits() -> Data:
    return Digits(normalise=False).load()


def network_of(model: Model) -> Network:
    data = digits()
    make = partial(model.build, data.shape, data.classes)
    return Network(make, layout_of(make()), data.shape, data.classes)


def task_of(model: Model, rows: Sequence[int], data: Data | None = None, **training: Any) -> SGDTask:
    """A peer that holds these digits; a batch of all of them unless the training says otherwise."""
    options = Training(**{"batch": max(1, len(rows)), "lr": 0.1, **training})
    return SGDTask(model, data or digits(), numpy.array(rows, dtype=numpy.int64), options, CPU, Seeds.of(3))


def seen_of(task: SGDTask, steps: int = 1, peer: int = 0, share: float = 1.0, pair: Pair | None = None) -> Sight:
    """What really came of some steps of a peer: float32, the difference of two points."""
    x = task.start(Seeds.of(10 + peer))
    x = x if pair is None else pair.down(x, KEY)
    moved = task.steps(x, None, 0, steps, pair, KEY).x_D - x
    lrs = tuple(task.lr(at) for at in range(steps))
    sizes = tuple(task.training.batch_size(task.examples, at) for at in range(steps))
    up, down = (same, same) if pair is None else (lambda z: pair.up(z, KEY), lambda g: pair.down(g, KEY))
    heavy = (task.training.momentum, task.training.weight_decay)
    part = Part(peer, share, x, 0, lrs, sizes, *heavy, up=up, down=down)
    return Sight("plain" if pair is None else "matched", share * moved, (part,))


def case_of(model: Model, *sights: Sight, masks: bool = False, watch: Callable[..., bool] | None = None) -> Case:
    clue = Clue(0, 1, "neighbour", "two models", sights)
    network, watch = network_of(model), watch or (lambda done, loss: True)
    graph: tuple[Any, Any] = ((), lambda r: {})
    return Case((1,), 0, 1, clue, lambda j, r: None, {}, *graph, network, NO_EXAMPLES, masks, CPU, Seeds.of(4), watch)


def only(attack: Attack, case: Case) -> Finding:
    (finding,) = attack.spy(case)
    return finding


def worst(finding: Finding, truth_BCHW: Tensor) -> float:
    """The largest mean squared error of an example, in the order that makes it smallest."""
    assert finding.inputs_BCHW is not None
    orders = itertools.permutations(range(len(truth_BCHW)))
    found = [finding.inputs_BCHW[list(order)] for order in orders]
    return min(float((x_BCHW - truth_BCHW).square().mean((1, 2, 3)).max()) for x_BCHW in found)


# The steps of a victim, run again


@pytest.mark.parametrize("training", [{}, HEAVY, {"momentum": 0.5}, {"weight_decay": 0.1}], ids=str)
@pytest.mark.parametrize("steps", [1, 4])
@pytest.mark.parametrize("sketch", [None, *SKETCHES])
def test_unrolled_steps_come_to_what_the_steps_of_a_task_do(
    training: dict[str, float], steps: int, sketch: str | None
) -> None:
    model, network = Lenet(), network_of(Lenet())
    pair = None if sketch is None else plugins.build("sketches", sketch, {}).bind(network.layout)
    task = task_of(model, range(7), batch=3, **training)
    sight = seen_of(task, steps, pair=pair)
    (part,) = sight.parts
    assert part.batches == (3, 3, 1, 3)[:steps]
    batches = [task.batch(at) for at in range(steps)]
    known = [(x.double(), nn.functional.one_hot(y, 10).double()) for x, y in batches]
    moved = unrolled(network, formed(network, CPU, torch.float64), part)(known).detach()
    assert float((moved - sight.moved_O).norm() / moved.norm()) < 1e-5


def test_unrolled_steps_go_on_with_a_momentum() -> None:
    network, task = network_of(SIGMOID), task_of(SIGMOID, [5], momentum=0.9)
    x_D = task.start(Seeds.of(1))
    first = task.steps(x_D, None, 0, 1)
    second = task.steps(first.x_D, first.m_D, 1, 1)
    part = Part(0, 1.0, first.x_D, 1, (0.1,), (1,), 0.9, 0.0, first.m_D)
    x, y = task.batch(1)
    known = [(x.double(), nn.functional.one_hot(y, 10).double())]
    moved_D = unrolled(network, formed(network, CPU, torch.float64), part)(known)
    torch.testing.assert_close(moved_D.detach().float(), second.x_D - first.x_D, rtol=1e-4, atol=1e-6)


def test_unrolled_steps_are_shifted_after_the_first() -> None:
    network, task = network_of(SIGMOID), task_of(SIGMOID, [5, 6, 7], batch=1, **HEAVY)
    x_D = task.start(Seeds.of(1))
    shift_D = torch.randn(len(x_D), generator=torch.Generator().manual_seed(1))
    first = task.steps(x_D, None, 0, 1)
    others = task.steps(first.x_D + shift_D, first.m_D, 1, 2)
    part = Part(0, 1.0, x_D, 0, (0.1,) * 3, (1,) * 3, 0.9, 0.01, shift_S=shift_D)
    known = [(x.double(), nn.functional.one_hot(y, 10).double()) for x, y in map(task.batch, range(3))]
    moved_D = unrolled(network, formed(network, CPU, torch.float64), part)(known)
    torch.testing.assert_close(moved_D.detach().float(), others.x_D - shift_D - x_D, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("sketch", [None, *SKETCHES])
def test_what_is_compared_has_the_gradient_of_finite_differences(sketch: str | None) -> None:
    pair = None if sketch is None else plugins.build("sketches", sketch, {}).bind(network_of(SIGMOID).layout)
    sight = seen_of(task_of(SIGMOID, [3, 4], batch=1, momentum=0.9), 2, pair=pair)
    goal = target(case_of(SIGMOID, sight), sight)
    shares = torch.full((2, 10), 0.1, dtype=torch.float64)
    x = torch.rand(2, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    way = torch.randn(x.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    (slope,) = torch.autograd.grad(goal.mismatch(x, shares), x)
    ahead, behind = (goal.mismatch(x + step * way, shares).detach() for step in (1e-5, -1e-5))
    assert float((slope * way).sum()) == pytest.approx(float(ahead - behind) / 2e-5, rel=1e-4)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("shifted", [False, True])
def test_what_moves_without_a_gradient_is_what_steps_on_no_example_do(momentum: float, shifted: bool) -> None:
    network, draw = network_of(SIGMOID), torch.Generator().manual_seed(2)
    x_D = task_of(SIGMOID, [1]).start(Seeds.of(1))
    m_D, shift_D = (torch.randn(len(x_D), generator=draw) for _ in range(2))
    part = Part(0, 1.0, x_D, 0, (0.3, 0.2, 0.1), (0,) * 3, momentum, 0.1, m_D, shift_D if shifted else None)
    none = (torch.zeros(0, 1, 8, 8, dtype=torch.float64), torch.zeros(0, 10, dtype=torch.float64))
    moved_D = unrolled(network, formed(network, CPU, torch.float64), part)([none] * 3)
    torch.testing.assert_close(still(part), moved_D.detach(), rtol=1e-12, atol=1e-12)


# What a displacement says at once


def test_the_mean_gradient_of_one_step_is_that_gradient_without_momentum_and_decay() -> None:
    task = task_of(SIGMOID, [8, 9], **HEAVY)
    x_D = task.start(Seeds.of(1))
    m_D = torch.randn(len(x_D), generator=torch.Generator().manual_seed(1))
    sight = Sight("plain", task.steps(x_D, m_D, 0, 1).x_D - x_D, (Part(0, 1.0, x_D, 0, (0.1,), (2,), 0.9, 0.01, m_D),))
    plain = task_of(SIGMOID, [8, 9], lr=1.0).step(x_D, None, 0)
    torch.testing.assert_close(mean_gradient(sight, len(x_D)).float(), -plain.x_D, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("sketch", SKETCHES)
def test_the_mean_gradient_of_a_sketched_step_is_the_shortest_that_shows_it(sketch: str) -> None:
    network = network_of(SIGMOID)
    pair = plugins.build("sketches", sketch, {}).bind(network.layout)
    sight = seen_of(task_of(SIGMOID, [8]), pair=pair)
    parameters = sum(slot.size for slot in network.layout)
    a_SD = torch.stack([pair.down(row, KEY) for row in torch.eye(parameters, dtype=torch.float64)], 1)
    shortest_D = torch.linalg.lstsq(a_SD, sight.moved_O.double() / -0.1, driver="gelsd").solution
    torch.testing.assert_close(mean_gradient(sight, parameters), shortest_D, rtol=1e-5, atol=1e-7)


def test_what_no_gradient_shows_is_left_as_it_is() -> None:
    twice = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 0.0]], dtype=torch.float64)
    found = shortest(lambda g: twice @ g, torch.tensor([2.0, 4.0, 7.0], dtype=torch.float64), 2)
    assert found.tolist() == pytest.approx([3.0, 0.0])


@pytest.mark.parametrize("model", [Lenet(), RELU, Mlp((24,), "tanh"), Mlp(())], ids=str)
@pytest.mark.parametrize("sketch", [False, True])
def test_the_label_of_one_example_is_read_off(model: Model, sketch: bool) -> None:
    pair = CountSketch(0.5).bind(network_of(model).layout) if sketch else None
    for row in range(8):
        sight = seen_of(task_of(model, [row], lr=0.01), peer=row, pair=pair)
        counts_C = counts(case_of(model, sight), sight, network_of(model))
        assert counts_C.argmax() == digits().train_y[row]
        assert counts_C.sum() == 1


def test_numbers_of_examples_by_label_are_those_of_the_batch() -> None:
    wrong, rows = 0, numpy.random.default_rng(0)
    for trial in range(20):
        batch = rows.choice(200, 8, replace=False).tolist()
        sight = seen_of(task_of(SIGMOID, batch), peer=trial)
        counts_C = counts(case_of(SIGMOID, sight), sight, network_of(SIGMOID))
        assert counts_C.sum() == 8
        wrong += int((counts_C - torch.bincount(digits().train_y[batch], minlength=10)).abs().sum()) // 2
    assert wrong <= 3  # of 160


def test_where_the_output_layer_is_not_seen_nothing_is_counted() -> None:
    sight = seen_of(task_of(SIGMOID, [1]))
    first = replace(sight, moved_O=sight.moved_O[:100], seen=lambda moved_D: moved_D[:100])
    assert not counts(case_of(SIGMOID, first), first, network_of(SIGMOID)).any()


def test_wanted_numbers_become_whole_ones_of_their_sum() -> None:
    nan, far = float("nan"), 1e30
    for wanted, least, total in [
        ([0.4, 2.7, 0.9], [0, 0, 0], 4),
        ([0.1, 3.9], [1, 0], 4),
        ([-1.0, 9.0], [0, 0], 2),
        ([far, nan, -far], [0, 0, 0], 5),
    ]:
        counts_C = whole(torch.tensor(wanted), torch.tensor(least), total)
        assert counts_C.sum() == total
        assert bool((counts_C >= torch.tensor(least)).all())
    assert whole(torch.tensor([0.4, 2.7, 0.9]), torch.zeros(3, dtype=torch.int64), 4).tolist() == [0, 3, 1]


def test_labels_are_dealt_out_in_every_way_or_not_at_all() -> None:
    part = Part(0, 1.0, torch.zeros(1), 0, (0.1, 0.1), (2, 1))
    sight, counts_C = Sight("plain", torch.ones(1), (part,)), torch.tensor([1, 0, 2])
    ways = {tuple(way.tolist()) for way in dealt(counts_C, sight, 4)}
    every = {(*sorted(way[:2]), way[2]) for way in itertools.permutations([0, 2, 2])}
    assert ways == every
    assert dealt(counts_C, sight, 1) == []
    assert dealt(torch.zeros(3, dtype=torch.int64), sight, 4) == []


# Examples


@pytest.mark.parametrize("attack", [Idlg(), Dlg()], ids=repr)
@pytest.mark.parametrize("lr", [0.1, 0.01])
def test_a_digit_and_its_label_come_out_of_one_real_step(attack: Attack, lr: float) -> None:
    task = task_of(Lenet(), [17], lr=lr)
    sight = seen_of(task)
    finding = only(attack, case_of(Lenet(), sight))
    x, y = task.batch(0)
    assert worst(finding, x) < 1e-4
    assert finding.labels_B is not None
    assert finding.labels_B.tolist() == y.tolist()
    assert finding.batches == ((0, 0),)
    moved_D = finding.displacements[0, 0]
    assert moved_D.dtype == torch.float32
    assert float((moved_D - sight.moved_O).norm() / sight.moved_O.norm()) < 1e-3


def test_two_digits_of_one_batch_are_told_apart() -> None:
    rows = [0, 1]
    finding = only(Idlg(), case_of(Lenet(), seen_of(task_of(Lenet(), rows))))
    assert worst(finding, digits().train_x[rows]) < 1e-3


def test_digits_of_two_peers_come_out_of_the_sum_of_their_steps() -> None:
    one, other = (task_of(Lenet(), [row]) for row in (4, 9))
    here, there = seen_of(one, peer=0, share=0.5), seen_of(other, peer=5, share=0.25)
    both = Sight("plain", here.moved_O + there.moved_O, (*here.parts, *there.parts))
    finding = only(Idlg(restarts=2), case_of(Lenet(), both))
    assert finding.batches == ((0, 0), (5, 0))
    assert finding.inputs_BCHW is not None
    for found, row in zip(finding.inputs_BCHW, (4, 9), strict=True):
        assert float((found - digits().train_x[row]).square().mean()) < 1e-3
    for peer, sight, share in ((0, here, 0.5), (5, there, 0.25)):
        torch.testing.assert_close(finding.displacements[peer, 0], sight.moved_O / share, rtol=0.05, atol=1e-3)


def test_several_steps_with_momentum_give_up_the_example_of_each() -> None:
    task = task_of(Lenet(), [2, 3], batch=1, lr=0.05, **HEAVY)
    finding = only(Idlg(), case_of(Lenet(), seen_of(task, steps=2)))
    truth = torch.cat([task.batch(at)[0] for at in range(2)])
    assert finding.batches == ((0, 0), (0, 1))
    assert finding.inputs_BCHW is not None
    assert float((finding.inputs_BCHW - truth).square().mean((1, 2, 3)).max()) < 1e-3


@pytest.mark.parametrize("sketch", SKETCHES)
def test_with_the_key_a_sketched_step_is_matched_in_the_sketched_space(sketch: str) -> None:
    pair = plugins.build("sketches", sketch, {}).bind(network_of(Lenet()).layout)
    task = task_of(Lenet(), [17])
    finding = only(Idlg(), case_of(Lenet(), seen_of(task, pair=pair)))
    assert finding.reading == "matched"
    lost = 0.05 if sketch == "sampling" else 0.0  # pixels that no column it sends comes upon
    assert worst(finding, task.batch(0)[0]) < 1e-3 + lost
    assert finding.displacements[0, 0].shape == (pair.size,)


def pruned(sight: Sight, share: float) -> Sight:
    least = sight.moved_O.abs().kthvalue(int(share * len(sight.moved_O))).values
    return replace(sight, moved_O=torch.where(sight.moved_O.abs() > least, sight.moved_O, 0.0))


def test_what_a_mask_left_out_is_not_compared() -> None:
    task = task_of(Lenet(), [17])
    sight = pruned(seen_of(task), 0.7)
    aware, unaware = (only(Idlg(), case_of(Lenet(), sight, masks=masks)) for masks in (True, False))
    assert worst(aware, task.batch(0)[0]) < 1e-4
    assert worst(unaware, task.batch(0)[0]) > 1e-3


def decayed(sight: Sight, weight_decay: float) -> Sight:
    """The same step with weight decay, which no mask holds back, as the difference of two points of float32."""
    (part,) = sight.parts
    ended = (part.at.double() * (1 - part.lrs[0] * weight_decay) + sight.moved_O.double()).float()
    mean = (0.3 * part.at + 0.7 * ended) - 0.3 * part.at
    return replace(sight, moved_O=(mean / 0.7) - part.at, parts=(replace(part, weight_decay=weight_decay),))


@pytest.mark.parametrize("weight_decay", [0.0, 0.01])
def test_rounding_and_weight_decay_are_not_taken_for_what_a_mask_sent(weight_decay: float) -> None:
    task = task_of(Lenet(), [17])
    clear = pruned(seen_of(task), 0.7)
    sight = decayed(clear, weight_decay)
    assert int((sight.moved_O != 0).sum()) > 1.2 * int((clear.moved_O != 0).sum())
    sent_O, found_O = clear.moved_O != 0, pushed(sight, True) != 0
    large_O = clear.moved_O.abs() > 1e-5
    assert not bool((found_O & ~sent_O).any())
    assert bool(found_O[large_O].all())
    assert worst(only(Idlg(), case_of(Lenet(), sight, masks=True)), task.batch(0)[0]) < 1e-4
    assert torch.equal(pushed(sight, True)[found_O], pushed(sight, False)[found_O])


def test_of_a_mask_that_sent_nothing_nothing_is_made() -> None:
    sight = seen_of(task_of(SIGMOID, [6]))
    idle = decayed(replace(sight, moved_O=torch.zeros_like(sight.moved_O)), 0.01)
    for attack in (Idlg(), Analytic(), InvertingGradients()):
        assert "nothing moved" in str(only(attack, case_of(SIGMOID, idle, masks=True)).figures["why"])


@pytest.mark.parametrize("attack", [Idlg(), InvertingGradients(300, tv=1e-3, restarts=1)], ids=repr)
def test_a_mismatch_is_the_squared_distance_to_what_was_seen_of_its_squared_length(attack: Attack) -> None:
    sight = seen_of(task_of(Lenet(), [17]))
    finding = only(attack, case_of(Lenet(), sight))
    away_D = finding.displacements[0, 0] - sight.moved_O
    squared = float(away_D.double().square().sum() / sight.moved_O.double().square().sum())
    assert finding.figures["mismatch"] == pytest.approx(squared, rel=0.01, abs=1e-10)


def test_cosines_and_signs_find_a_digit_too() -> None:
    task = task_of(Lenet(), [17])
    finding = only(InvertingGradients(600, tv=0.0, restarts=1), case_of(Lenet(), seen_of(task)))
    assert worst(finding, task.batch(0)[0]) < 0.02
    assert finding.labels_B is not None
    assert finding.labels_B.tolist() == task.batch(0)[1].tolist()


def test_total_variation_is_the_mean_distance_of_neighbours() -> None:
    x = torch.tensor([[[[0.0, 1.0], [0.0, 3.0]]]])
    assert float(total_variation(x)) == (0 + 2) / 2 + (1 + 3) / 2
    assert float(total_variation(x[..., :1, :1])) == 0


def test_the_published_recipe_is_run_in_float32_without_a_line_search() -> None:
    sight = seen_of(task_of(Lenet(), [17]))
    finding = only(Dlg("published"), case_of(Lenet(), sight, watch=lambda done, loss: done < 0.02))
    assert finding.figures["starts"] == 1
    assert finding.inputs_BCHW is not None
    assert bool(finding.inputs_BCHW.isfinite().all())


def test_the_same_seeds_give_the_same_finding_and_leave_torch_as_it_was() -> None:
    case = case_of(SIGMOID, seen_of(task_of(SIGMOID, [6])))
    before = torch.get_rng_state()
    one, other = only(Idlg(iterations=30), case), only(Idlg(iterations=30), case)
    assert torch.get_default_dtype() == torch.float32
    assert torch.equal(torch.get_rng_state(), before)
    assert one.inputs_BCHW is not None
    assert other.inputs_BCHW is not None
    assert torch.equal(one.inputs_BCHW, other.inputs_BCHW)


def test_frames_lead_from_the_start_to_what_was_found() -> None:
    finding = only(Idlg(), case_of(Lenet(), seen_of(task_of(Lenet(), [17]))))
    frames_FCHW, at = finding.frames_FCHW, finding.frames_at
    assert frames_FCHW is not None
    assert finding.inputs_BCHW is not None
    assert len(frames_FCHW) == len(at) == 8
    assert at[0] == 0
    assert list(at) == sorted(set(at))
    torch.testing.assert_close(frames_FCHW[-1], finding.inputs_BCHW[0])
    errors = (frames_FCHW - digits().train_x[17]).square().mean((1, 2, 3))
    assert errors[-1] < 1e-3 < errors[0]
    assert 0 <= float(frames_FCHW.min()) <= float(frames_FCHW.max()) <= 1


# Ends


def test_who_is_told_that_time_is_up_gives_the_best_so_far_of_each_reading() -> None:
    heard: list[float] = []

    def watch(done: float, loss: float) -> bool:
        heard.append(done)
        return len(heard) < 25

    sight = seen_of(task_of(Lenet(), [17]))
    first, second = Idlg().spy(case_of(Lenet(), sight, sight, watch=watch))
    assert heard == sorted(heard)
    assert heard[24] <= 0.5 <= heard[25]
    assert first.figures["evaluations"] == 25
    assert second.figures["evaluations"] == len(heard) - 25 <= 2
    assert first.inputs_BCHW is not None
    assert second.inputs_BCHW is not None


@pytest.mark.parametrize("attack", [Idlg(), Dlg(), InvertingGradients(), Analytic()], ids=repr)
def test_a_reading_that_shows_nothing_says_so(attack: Attack) -> None:
    sight = seen_of(task_of(SIGMOID, [6]))
    nothing = replace(sight, moved_O=torch.zeros_like(sight.moved_O))
    broken = replace(sight, moved_O=torch.full_like(sight.moved_O, torch.nan))
    empty = replace(sight, parts=(replace(sight.parts[0], batches=(0,)),))
    lost = replace(sight, parts=(replace(sight.parts[0], at=torch.full_like(sight.parts[0].at, torch.nan)),))
    findings = list(attack.spy(case_of(SIGMOID, nothing, broken, empty, lost)))
    assert len(findings) == 4
    assert all(finding.inputs_BCHW is None and finding.figures["why"] for finding in findings)
    assert list(attack.spy(replace(case_of(SIGMOID), clue=None))) == []


class Logarithm(nn.Module):
    """What no number is beyond: torch wants a module with a function in it to be a class."""

    def forward(self, x: Tensor) -> Tensor:
        return (x + 0.02).log()


class Fragile:
    """A model that bears no input below -0.02."""

    def build(self, shape: tuple[int, int, int], classes: int) -> nn.Module:
        stack = nn.Sequential(Logarithm(), nn.Flatten(), nn.Linear(64, 24), nn.Sigmoid())
        stack.add_module("output", nn.Linear(24, classes))
        return stack

    def draw(self, module: nn.Module, generator: torch.Generator) -> None:
        SIGMOID.draw(module, generator)


def test_a_search_that_meets_what_is_no_number_goes_back_to_its_best_point() -> None:
    task = task_of(Fragile(), [17])
    case = case_of(Fragile(), seen_of(task))
    finding = only(Idlg(restarts=2), case)
    assert finding.inputs_BCHW is not None
    assert bool(finding.inputs_BCHW.isfinite().all())
    started = only(Idlg(iterations=1, restarts=1), case)
    assert worst(finding, task.batch(0)[0]) < worst(started, task.batch(0)[0]) / 4


def test_where_a_model_gives_no_number_at_all_that_is_said() -> None:
    sight = seen_of(task_of(RELU, [6]))
    huge = replace(sight, parts=(replace(sight.parts[0], at=torch.full_like(sight.parts[0].at, 3e38)),))
    finding = only(Dlg("published"), case_of(RELU, huge))
    assert finding.inputs_BCHW is None
    assert "no number" in str(finding.figures["why"])


def test_a_trail_ends_where_it_stands_still_or_has_enough_and_stumbles_over_what_is_no_number() -> None:
    calm, point = (lambda done, loss: True), [torch.zeros(1, 1, 2, 2)]

    def ended(trail: Trail) -> int:
        try:
            while True:
                trail.note(1.0, point)
        except Ended:
            return trail.evaluations

    assert ended(Trail(calm, 1000)) == 200
    assert ended(Trail(calm, 300, patient=True)) == 300
    assert ended(Trail(calm, 1000, enough=1.5)) == 1
    assert ended(Trail(lambda done, loss: done < 0.01, 1000)) == 10
    with pytest.raises(Stumbled):
        Trail(calm, 1000).note(float("nan"), point)


@cache
def standardised() -> tuple[Data, tuple[float, float]]:
    data = Digits().load()
    return data, (float(data.test_x.min()), float(data.test_x.max()))


STANDARDISED = [
    (Idlg(), Lenet(), 1e-4),
    (Dlg(), Lenet(), 1e-4),
    (Analytic(), SIGMOID, 1e-8),
    (InvertingGradients(400, tv=0.0, restarts=1), Lenet(), 0.2),
]


@pytest.mark.parametrize(("attack", "model", "most"), STANDARDISED, ids=str)
def test_who_holds_no_example_finds_inputs_beyond_one_by_the_box_that_is_known(
    attack: Attack, model: Model, most: float
) -> None:
    data, box = standardised()
    assert box[0] < 0 < 1 < box[1]
    task = task_of(model, [17], data)
    case = case_of(model, seen_of(task))
    case = replace(case, network=replace(case.network, box=box))
    assert worst(only(attack, case), task.batch(0)[0]) < most
    assert worst(only(attack, case_of(model, seen_of(task))), task.batch(0)[0]) > 0.25


def test_who_holds_no_example_asks_the_model_about_noise_of_the_box() -> None:
    case, network = case_of(SIGMOID), replace(network_of(SIGMOID), box=(5.0, 5.001))
    task = task_of(SIGMOID, [1])
    sight, module = seen_of(task), network.make()
    nn.utils.vector_to_parameters(task.start(Seeds.of(10)), module.parameters())
    with torch.no_grad():
        there_C = module(torch.full((1, 1, 8, 8), 5.0005)).softmax(1)[0]
    torch.testing.assert_close(expected(case, sight, network).float(), there_C, rtol=1e-3, atol=1e-5)


# By division


@pytest.mark.parametrize("model", [SIGMOID, RELU], ids=repr)
@pytest.mark.parametrize("training", [{}, HEAVY], ids=str)
def test_behind_a_linear_layer_one_example_is_found_by_division(model: Model, training: dict[str, float]) -> None:
    task = task_of(model, [17], **training)
    finding = only(Analytic(), case_of(model, seen_of(task)))
    assert worst(finding, task.batch(0)[0]) < 1e-8
    assert finding.figures["exact"] == 1
    assert finding.labels_B is not None
    assert finding.labels_B.tolist() == task.batch(0)[1].tolist()


def test_what_noise_or_a_sketch_blurs_is_not_said_to_be_exact() -> None:
    sight = seen_of(task_of(SIGMOID, [17]))
    noise_D = 1e-4 * torch.randn(len(sight.moved_O), generator=torch.Generator().manual_seed(1))
    pair = CountSketch(0.5).bind(network_of(SIGMOID).layout)
    sketched = seen_of(task_of(SIGMOID, [17]), pair=pair)
    folded_D = pair.pull(sketched.moved_O, KEY)
    part = replace(sketched.parts[0], at=pair.up(sketched.parts[0].at, KEY), up=same, down=same)
    noised = replace(sight, moved_O=sight.moved_O + noise_D)
    for each in (noised, sketched, Sight("server", folded_D, (part,))):
        finding = only(Analytic(), case_of(SIGMOID, each))
        assert finding.inputs_BCHW is not None
        assert finding.figures["exact"] == 0


def test_rows_that_a_mask_thinned_out_agree_as_far_as_they_were_sent() -> None:
    data, box = standardised()
    task = task_of(SIGMOID, [17], data)
    whole_sight = seen_of(task)
    order_O = torch.rand(len(whole_sight.moved_O), generator=torch.Generator().manual_seed(1))
    case = case_of(SIGMOID, masks=True)
    case = replace(case, network=replace(case.network, box=box))
    for share, exact in ((0.4, 1), (0.8, 0)):
        masked = replace(whole_sight, moved_O=torch.where(order_O >= share, whole_sight.moved_O, 0.0))
        clue = Clue(0, 1, "neighbour", "two models", (decayed(masked, 0.01),))
        finding = only(Analytic(), replace(case, clue=clue))
        assert finding.figures["exact"] == exact
        assert finding.inputs_BCHW is not None
        came_D = (order_O >= share)[: 24 * 64].view(24, 64)[(order_O >= share)[24 * 64 :][:24]].any(0)
        apart = (finding.inputs_BCHW[0] - task.batch(0)[0][0]).flatten()[came_D]
        assert float(apart.abs().max()) < 1e-2


def test_division_under_a_sketch_gives_what_the_sketch_kept_of_the_example() -> None:
    pair = CountSketch(0.5).bind(network_of(SIGMOID).layout)
    task = task_of(SIGMOID, [17])
    finding = only(Analytic(), case_of(SIGMOID, seen_of(task, pair=pair)))
    w_D = torch.zeros(sum(slot.size for slot in network_of(SIGMOID).layout))
    w_D[:64] = task.batch(0)[0].flatten()
    kept = CountSketch(0.5, relaxation=1.0).bind(network_of(SIGMOID).layout)
    projected = kept.pull(kept.down(w_D, KEY), KEY)[:64].view(1, 1, 8, 8).clamp(0, 1)
    assert worst(finding, projected) < 1e-6


def test_rows_of_a_batch_that_agree_are_examples() -> None:
    rows = [0, 1, 2]
    finding = only(Analytic(), case_of(RELU, seen_of(task_of(RELU, rows))))
    assert finding.inputs_BCHW is not None
    assert finding.counts is not None
    assert finding.counts.sum() == examples_of(seen_of(task_of(RELU, rows))) == 3
    exact = finding.figures["exact"]
    assert isinstance(exact, int)
    assert exact >= 1
    apart = (finding.inputs_BCHW[:exact, None] - digits().train_x[rows]).square().mean((2, 3, 4)).amin(1)
    assert float(apart.max()) < 1e-4


def test_division_says_where_it_cannot_work() -> None:
    convolved = only(Analytic(), case_of(Lenet(), seen_of(task_of(Lenet(), [17]))))
    assert "does not begin with a linear layer" in str(convolved.figures["why"])
    here, there = seen_of(task_of(SIGMOID, [4]), peer=0), seen_of(task_of(SIGMOID, [5]), peer=5)
    both = Sight("plain", here.moved_O + there.moved_O, (*here.parts, *there.parts))
    assert "several" in str(only(Analytic(), case_of(SIGMOID, both)).figures["why"])
    fragile = only(Analytic(), case_of(Fragile(), seen_of(task_of(Fragile(), [17]))))
    assert "does not begin with a linear layer" in str(fragile.figures["why"])
