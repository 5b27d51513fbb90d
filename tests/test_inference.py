"""What an attacker infers from real gradients of small models: labels, a property of a batch, who was a member."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy
import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from p2pfl import plugins
from p2pfl.attacks._features import displacement, features, picked
from p2pfl.attacks._judges import forest, matched, odds
from p2pfl.attacks._labels import Head, paired, single
from p2pfl.attacks.label_leakage import LabelLeakage
from p2pfl.attacks.membership_inference import MembershipInference
from p2pfl.attacks.property_inference import PropertyInference
from p2pfl.contracts import Training
from p2pfl.curiosity import Case, Finding, Known, Network
from p2pfl.errors import ScenarioError
from p2pfl.evidence import PLAIN, Clue, Part, Sight
from p2pfl.learning.data import Data, Examples
from p2pfl.learning.model import Model, layout_of
from p2pfl.learning.models.lenet import Lenet
from p2pfl.learning.models.mlp import Mlp
from p2pfl.learning.partitions.by_value import ByValue
from p2pfl.learning.task import SGDTask
from p2pfl.messages import HUB
from p2pfl.metrics import membership
from p2pfl.seeds import Seeds
from p2pfl.sketches.countsketch import CountSketch

pytestmark = pytest.mark.usefixtures("one_thread")
CPU = torch.device("cpu")
ATTACKER, VICTIM = 0, 1


def digits() -> Data:
    x, y = load_digits(return_X_y=True)
    x_NCHW, y_N = torch.tensor(x / 16, dtype=torch.float32).view(-1, 1, 8, 8), torch.tensor(y)
    return Data(x_NCHW[:1500], y_N[:1500], x_NCHW[:0], y_N[:0], x_NCHW[1500:], y_N[1500:], 10)


DIGITS = digits()


def network(model: Model, data: Data = DIGITS) -> Network:
    make = partial(model.build, data.shape, data.classes)
    return Network(make, layout_of(make()), data.shape, data.classes)


def task(model: Model, rows: Sequence[int], data: Data = DIGITS, **training: Any) -> SGDTask:
    return SGDTask(model, data, numpy.array(rows), Training(**training), CPU, Seeds.of(3))


def case_of(
    sights: Sequence[Sight],
    network: Network,
    own: Known | None = None,
    masks: bool = False,
    heard: Mapping[int, Mapping[int, Tensor]] | None = None,
    watch: Callable[[float, float], bool] = lambda done, loss: True,
    seed: int = 0,
) -> Case:
    clue = Clue(VICTIM, 1, "hub", "its update", tuple(sights))
    own = own or Known(DIGITS.train_x[1000:], DIGITS.train_y[1000:])
    nobody = {} if heard is None else heard
    links, weights = ((ATTACKER, VICTIM),), {ATTACKER: {VICTIM: 0.5}}
    told = clue if sights else None
    return Case(
        (ATTACKER,),
        VICTIM,
        1,
        told,
        lambda victim, r: told if r == 1 else None,
        nobody,
        links,
        lambda r: weights,
        network,
        own,
        masks,
        CPU,
        Seeds.of(seed),
        watch,
    )


def sight_of(task: SGDTask, x_D: Tensor, steps: int = 1, first: int = 0) -> tuple[Sight, Tensor]:
    """What these steps of a real task show to who sees them plainly, and the labels of their examples."""
    training = task.training
    sizes = tuple(len(task.batch(first + k)[1]) for k in range(steps))
    lrs = (training.lr,) * steps
    moved_D = task.steps(x_D, None, first, steps).x_D - x_D
    part = Part(VICTIM, 1.0, x_D, first, lrs, sizes, training.momentum, training.weight_decay)
    labels = torch.cat([task.batch(first + k)[1] for k in range(steps)])
    return Sight(PLAIN, moved_D, (part,)), labels


def only(findings: Any) -> Finding:
    (finding,) = findings
    assert isinstance(finding, Finding)
    return finding


def gradient_rows(moved_D: Tensor, network: Network) -> tuple[Tensor, Tensor]:
    """Views of the output layer's weight and bias within a displacement."""
    weight, bias = network.layout[-2:]
    assert weight.output
    assert bias.output
    return moved_D[-weight.size - bias.size : -bias.size].view(weight.shape), moved_D[-bias.size :]


# Labels


@pytest.mark.parametrize("model", [Lenet(), Mlp((32,))])
def test_the_label_of_a_single_example_is_read_exactly(model: Model) -> None:
    form = network(model)
    for row in range(10):
        victim = task(model, [row], batch=1, lr=0.1)
        sight, labels_B = sight_of(victim, victim.start(Seeds.of(row)))
        found = only(LabelLeakage().spy(case_of([sight], form)))
        assert found.labels_B is not None
        assert found.labels_B.tolist() == labels_B.tolist()
        assert found.batches == ((VICTIM, 0),)
        assert found.reading == PLAIN


def test_momentum_and_several_steps_on_one_example_do_not_hide_its_label() -> None:
    model = Lenet()
    victim = task(model, [7], batch=1, lr=0.01, momentum=0.9, weight_decay=0.01)
    sight, labels = sight_of(victim, victim.start(Seeds.of(1)), steps=3)
    found = only(LabelLeakage().spy(case_of([sight], network(model))))
    assert found.counts is not None
    assert int(found.counts[labels[0]]) >= 2
    assert int(found.counts.sum()) == 3


@pytest.mark.parametrize("size", [2, 8, 32])
def test_labels_of_a_batch_are_counted_in_an_untrained_model(size: int) -> None:
    model, right = Lenet(), 0
    for start in range(3):
        rows = list(range(40 * start, 40 * start + size))
        victim = task(model, rows, batch=size, lr=0.1)
        sight, labels_B = sight_of(victim, victim.start(Seeds.of(start)))
        found = only(LabelLeakage().spy(case_of([sight], network(model))))
        assert found.counts is not None
        assert found.labels_B is None
        assert int(found.counts.sum()) == size
        right += int(torch.minimum(found.counts, torch.bincount(labels_B, minlength=10)).sum())
    assert right >= 0.95 * 3 * size


def masked(entries_CF: Tensor, keep: int, seed: int) -> Tensor:
    """Of each column `keep` random entries, the others 0."""
    order = torch.rand(entries_CF.shape, generator=Seeds.of(seed).torch("mask")).argsort(0)
    return entries_CF * (order < keep)


@pytest.mark.parametrize("model", [Lenet(), Mlp((32,))])
def test_a_random_mask_of_two_entries_a_column_does_not_hide_a_label(model: Model) -> None:
    form = network(model)
    for row in range(10):
        victim = task(model, [row], batch=1, lr=0.1)
        sight, labels_B = sight_of(victim, victim.start(Seeds.of(row)))
        weight_CF, bias_C = gradient_rows(sight.moved_O, form)
        weight_CF.copy_(masked(weight_CF, 2, row))
        bias_C.copy_(masked(bias_C[:, None], 2, row + 1)[:, 0])
        found = only(LabelLeakage().spy(case_of([sight], form, masks=True)))
        assert found.labels_B is not None
        assert found.labels_B.tolist() == labels_B.tolist()


@pytest.mark.parametrize("signed", [False, True])
def test_pairs_within_columns_name_the_label_whatever_the_signs_of_the_features(signed: bool) -> None:
    draw = Seeds.of(5).torch("features")
    for label in range(10):
        p_C, h_F = torch.rand(10, generator=draw).softmax(0), torch.randn(64, generator=draw)
        gradient_CF = (p_C - torch.eye(10)[label])[:, None] * (h_F if signed else h_F.abs())
        assert paired(Head(masked(gradient_CF, 2, label), None)) == label
        if not signed:
            assert paired(Head(masked(gradient_CF, 1, label), None)) == label


@pytest.mark.parametrize("classes", [2, 10])
@pytest.mark.parametrize("sent", ["all", "a masked weight", "a masked weight and bias"])
def test_one_label_is_read_whatever_the_signs_of_the_features(classes: int, sent: str) -> None:
    draw = Seeds.of(6).torch("features")
    for label in [*range(classes)] * 5:
        p_C, h_F = torch.rand(classes, generator=draw).softmax(0), torch.randn(64, generator=draw) - 0.3
        bias_C = p_C - torch.eye(classes)[label]
        weight_CF, keep = bias_C[:, None] * h_F, max(1, min(2, classes - 1))
        weight_CF = weight_CF if sent == "all" else masked(weight_CF, keep, label)
        bias_C = masked(bias_C[:, None], keep, label)[:, 0] if "bias" in sent else bias_C
        assert single(Head(weight_CF, bias_C), sent != "all") == label


def test_a_mask_of_which_rounding_and_decay_are_seen_as_well_does_not_hide_a_label() -> None:
    model = Lenet()
    form = network(model)
    for row in range(10):
        victim = task(model, [row], batch=1, lr=0.05)
        sight, labels_B = sight_of(victim, victim.start(Seeds.of(row)))
        (part,) = sight.parts
        weight_CF, bias_C = gradient_rows(sight.moved_O, form)
        weight_CF.copy_(masked(weight_CF, 2, row))
        bias_C.copy_(masked(bias_C[:, None], 2, row + 1)[:, 0])
        ended = part.at * (1 - 0.05 * 0.01) + sight.moved_O
        worn = Sight(PLAIN, ended - part.at, (replace(part, weight_decay=0.01),))
        found = only(LabelLeakage().spy(case_of([worn], form, masks=True)))
        assert found.labels_B is not None
        assert found.labels_B.tolist() == labels_B.tolist()


def test_where_nothing_of_the_output_layer_came_no_label_is_claimed() -> None:
    model = Mlp((32,))
    victim = task(model, [3], batch=1, lr=0.1)
    sight, _ = sight_of(victim, victim.start(Seeds.of(1)))
    for part in gradient_rows(sight.moved_O, network(model)):
        part.zero_()
    found = only(LabelLeakage().spy(case_of([sight], network(model))))
    assert found.counts is None
    assert found.labels_B is None
    assert "output layer" in str(found.figures["why"])


# Properties


def planted(strength: float, count: int = 900) -> tuple[Data, numpy.ndarray]:
    """Digits of which a quarter bear a mark that the labels know nothing of."""
    has_N = numpy.random.default_rng(7).random(count) < 0.25
    x_NCHW = DIGITS.train_x[:count].clone()
    x_NCHW[torch.as_tensor(has_N), :, 0, :] += strength
    y_N = DIGITS.train_y[:count] % 2
    return Data(x_NCHW, y_N, x_NCHW[:0], y_N[:0], x_NCHW[:1], y_N[:1], 2), has_N


def property_auc(
    attack: PropertyInference, strength: float, batch: int, steps: int = 1, sketched: bool = False, rounds: int = 10
) -> float:
    """The AUC over batches of the victim's, half of them with the property."""
    data, has_N = planted(strength)
    model, rng = Mlp((16,)), numpy.random.default_rng(1)
    form = network(model, data)
    columns = {"mark": numpy.where(has_N[:450], "yes", "no")}
    own = Known(data.train_x[:450], data.train_y[:450], columns)
    scores, truths = [], []
    for r in range(rounds):
        truth = r % 2 == 0
        pool = numpy.flatnonzero(~has_N[450:]) + 450
        rows = rng.choice(pool, batch * steps, replace=False)
        if truth:
            rows[: max(1, batch * steps // 2)] = rng.choice(
                numpy.flatnonzero(has_N[450:]) + 450, max(1, batch * steps // 2)
            )
        victim = task(model, rows.tolist(), data, batch=batch, lr=0.1)
        x_D = victim.start(Seeds.of(r // 4))
        sight, _ = sight_of(victim, x_D, steps)
        if sketched:
            sight = in_sketched_space(victim, x_D)
        found = only(attack.spy(case_of([sight], form, own, seed=r)))
        assert found.score is not None
        assert found.batches[0] == (VICTIM, 0)
        scores.append(found.score)
        truths.append(truth)
    positive, negative = (numpy.array(scores)[numpy.array(truths) == which] for which in (True, False))
    return membership.auc(positive, negative)


def in_sketched_space(victim: SGDTask, x_D: Tensor) -> Sight:
    """A step as it is taken under a sketch, to who holds the key."""
    pair, key = CountSketch(0.5).bind(victim.layout), b"k" * 16
    z_S = pair.down(x_D, key)
    moved_S = victim.steps(z_S, None, 0, 1, pair, key).x_D - z_S
    up, down = (partial(each, key=key) for each in (pair.up, pair.down))
    part = Part(VICTIM, 1.0, z_S, 0, (0.1,), (victim.examples,), up=up, down=down)
    return Sight("matched", moved_S, (part,))


QUICK = {"batches": 30, "examples": 120, "share": 0.5}


@pytest.mark.parametrize("method", ["matched", "forest"])
def test_a_planted_property_is_found_in_gradients_of_another_task(method: str) -> None:
    attack = plugins.build(
        "attacks", "property_inference", {"column": "mark", "value": "yes", "method": method, **QUICK}
    )
    assert property_auc(attack, 4.0, batch=8) > 0.9


def test_what_the_data_do_not_have_is_not_found() -> None:
    attack = PropertyInference("mark", "yes", batches=20, examples=80)
    assert 0.25 < property_auc(attack, 0.0, batch=8, rounds=24) < 0.75


def test_whoever_holds_the_key_finds_it_in_the_sketched_space_as_well() -> None:
    assert property_auc(PropertyInference("mark", "yes", **QUICK), 4.0, batch=8, sketched=True) > 0.9


def test_it_is_found_in_what_several_steps_came_to() -> None:
    attack = PropertyInference("mark", "yes", batches=12, examples=120, share=0.5)
    assert property_auc(attack, 4.0, batch=4, steps=3) > 0.9


def attacker_of_properties(columns: Mapping[str, Any], **case: Any) -> Finding:
    data, _ = planted(1.0)
    victim = task(Mlp((16,)), list(range(450, 458)), data, batch=8, lr=0.1)
    sight, _ = sight_of(victim, victim.start(Seeds.of(1)))
    own = Known(data.train_x[:60], data.train_y[:60], columns)
    return only(PropertyInference("mark", "yes").spy(case_of([sight], network(Mlp((16,)), data), own, **case)))


def test_an_attacker_without_such_examples_says_so_and_gives_no_score() -> None:
    none = attacker_of_properties({})
    few = attacker_of_properties({"mark": numpy.array(["yes"] + ["no"] * 59)})
    assert none.score is None
    assert "no column 'mark'" in str(none.figures["why"])
    assert few.score is None
    assert "holds 1 examples" in str(few.figures["why"])


def test_it_stops_when_time_is_up() -> None:
    asked: list[float] = []

    def watch(done: float, loss: float) -> bool:
        asked.append(done)
        return len(asked) < 20

    found = attacker_of_properties({"mark": numpy.array(["yes", "no"] * 30)}, watch=watch)
    assert found.score is None
    assert found.figures["why"] == "time was up"
    assert len(asked) == 20


@pytest.mark.parametrize(("weight_decay", "momentum"), [(0.0, 0.0), (0.1, 0.9)])
def test_displacements_of_the_attackers_batches_are_those_that_a_task_would_take(
    weight_decay: float, momentum: float
) -> None:
    model, rows = Lenet(), list(range(1000, 1012))
    victim = task(model, rows, batch=4, lr=0.1, momentum=momentum, weight_decay=weight_decay)
    sight, _ = sight_of(victim, victim.start(Seeds.of(2)), steps=3)
    case = case_of([sight], network(model))
    batches = []
    for k in range(3):
        inputs, _ = victim.batch(k)
        batches.append([next(n for n in range(500) if torch.equal(case.own.x_NCHW[n], one)) for one in inputs])
    moved_S = displacement(case, sight.parts[0])(batches)
    assert torch.allclose(moved_S, sight.moved_O, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_mixed_single_examples_make_the_features_of_whole_batches(weight_decay: float) -> None:
    model = Mlp((16,))
    victim = task(model, list(range(6)), batch=6, lr=0.1, weight_decay=weight_decay)
    sight, _ = sight_of(victim, victim.start(Seeds.of(2)))
    case = case_of([sight], network(model), Known(DIGITS.train_x[:60], DIGITS.train_y[:60]))
    drawn = (numpy.array([list(range(6)), list(range(10, 16))]),)
    found = features(case, sight, [drawn, drawn], case.watch)
    assert found is not None
    seen_1K, one_nK, other_nK = found
    assert (seen_1K[0] - one_nK[0]).norm() < 1e-3 * seen_1K.norm()
    assert torch.equal(one_nK, other_nK)
    assert (seen_1K[0] - one_nK[1]).norm() > 0.1 * seen_1K.norm()


def test_no_example_is_twice_in_a_batch_as_long_as_there_are_enough() -> None:
    rng = numpy.random.default_rng(1)
    assert all(len(set(rows)) == 5 for rows in picked(numpy.arange(5), 50, 5, rng))
    assert sorted(picked(numpy.arange(3), 1, 6, rng)[0]) == [0, 0, 1, 1, 2, 2]


def test_of_noisy_numbers_the_filter_is_fishers_discriminant_solved_the_long_way() -> None:
    draw, noise = Seeds.of(8).torch("rows"), 60.0
    rows_2nK = torch.randn(12, 30, generator=draw) * torch.arange(1.0, 31)
    rows_2nK[:6] += 5
    seen_1K = rows_2nK.mean(0, keepdim=True) + (rows_2nK.var(0).mean() + noise**2).sqrt()
    with_nK, without_nK = rows_2nK.double()[:6], rows_2nK.double()[6:]
    within = torch.cat([with_nK - with_nK.mean(0), without_nK - without_nK.mean(0)])
    shrunk_KK = within.T @ within + (within.square().sum(1).mean() + 12 * noise**2) * torch.eye(30, dtype=torch.float64)
    long_K = torch.linalg.inv(shrunk_KK) @ (with_nK.mean(0) - without_nK.mean(0))
    judge, added = matched(rows_2nK, seen_1K, 0)
    assert numpy.corrcoef(judge(rows_2nK), rows_2nK.double() @ long_K)[0, 1] == pytest.approx(1, abs=1e-6)
    assert added > 0


def test_noise_in_what_was_seen_makes_the_filter_less_sure_and_not_wrong() -> None:
    draw, right, sure = Seeds.of(10).torch("rows"), [], []
    kinds = torch.tensor([1.0, 0.0]).repeat_interleave(40)[:, None]
    one, other = (torch.randn(80, 50, generator=draw) + kinds for _ in range(2))
    for _ in range(40):
        noise = 3 * torch.randn(1, 50, generator=draw)
        yes, no = (odds(matched, torch.full((1, 50), kind) + noise, one, other, 1)[0] for kind in (1.0, 0.0))
        right.append(yes > no)
        sure.append(max(abs(yes), abs(no)))
    clear = abs(odds(matched, torch.ones(1, 50), one, other, 1)[0])
    assert all(right)
    assert max(sure) < clear


@pytest.mark.parametrize("method", [matched, forest])
def test_odds_are_even_where_kinds_do_not_differ_and_grow_with_how_far_they_do(method: Any) -> None:
    draw = Seeds.of(9).torch("rows")

    def groups(apart: float) -> list[Tensor]:
        rows = [torch.randn(81, 8, generator=draw) for _ in range(2)]
        for each in rows:
            each[:40, :4] += apart
        return [each[:80] for each in rows]

    one, other = groups(6.0)
    like, unlike = torch.tensor([[6.0] * 4 + [0.5] * 4]), torch.full((1, 8), 0.5)
    (yes, auc), (no, _) = (odds(method, seen, one, other, 1) for seen in (like, unlike))
    assert auc > 0.99
    assert yes > 2
    assert no < -2
    one, other = groups(0.0)
    even, auc = odds(method, like, one, other, 1)
    assert 0.3 < auc < 0.7
    assert abs(even) < 2


# Members


def losses(form: Network, x_D: Tensor, rows: Sequence[int]) -> numpy.ndarray:
    """The loss of each of these training examples."""
    module = form.make()
    nn.utils.vector_to_parameters(x_D, module.parameters())
    with torch.no_grad():
        logits = module(DIGITS.train_x[list(rows)])
    return nn.functional.cross_entropy(logits, DIGITS.train_y[list(rows)], reduction="none").numpy()


def overfitted() -> tuple[Network, Tensor, Tensor]:
    """A model that knows thirty examples by heart, and where it began."""
    model = Mlp((64,))
    victim = task(model, list(range(30)), batch=30, lr=0.5)
    first_D = victim.start(Seeds.of(1))
    return network(model), first_D, victim.steps(first_D, None, 0, 150).x_D


def membership_auc(form: Network, found: Finding) -> float:
    def scores(rows: Sequence[int]) -> numpy.ndarray:
        assert found.suspect_D is not None
        reference = None if found.reference_D is None else losses(form, found.reference_D, rows)
        return membership.scores(losses(form, found.suspect_D, rows), reference)

    return membership.auc(scores(range(30)), scores(range(500, 900)))


def test_members_of_an_overfitted_model_are_known_with_a_reference_and_without() -> None:
    form, first_D, last_D = overfitted()
    sight = Sight(PLAIN, last_D - first_D, (Part(VICTIM, 1.0, first_D, 0, (0.5,), (30,)),))
    own = Known(DIGITS.train_x[1000:1100], DIGITS.train_y[1000:1100])
    case = case_of([sight], form, own, heard={VICTIM: {1: last_D}})
    plain, calibrated = (only(MembershipInference(kind, 20).spy(case)) for kind in ("none", "own"))
    assert plain.reference_D is None
    assert calibrated.reference_D is not None
    assert torch.equal(plain.suspect_D, last_D)  # type: ignore[arg-type]
    assert not torch.equal(calibrated.reference_D, first_D)
    assert membership_auc(form, plain) > 0.75
    assert membership_auc(form, calibrated) > 0.65


def test_a_model_that_learned_from_nobody_gives_no_member_away() -> None:
    form, first_D, _ = overfitted()
    found = only(MembershipInference("none").spy(case_of([], form, heard={VICTIM: {1: first_D}})))
    assert 0.35 < membership_auc(form, found) < 0.65


def test_the_model_is_the_last_heard_else_where_the_steps_ended_else_the_hubs() -> None:
    form, first_D, last_D = overfitted()
    sight = Sight(PLAIN, (last_D - first_D) / 2, (Part(VICTIM, 0.5, first_D, 0, (0.5,), (30,)),))
    attack = MembershipInference("none")
    heard = only(attack.spy(case_of([sight], form, heard={VICTIM: {1: first_D, 2: last_D}})))
    ended = only(attack.spy(case_of([sight], form, heard={HUB: {1: first_D}})))
    hubs = only(attack.spy(case_of([], form, heard={HUB: {1: first_D, 3: last_D}})))
    assert all(torch.allclose(each.suspect_D, last_D) for each in (heard, ended, hubs))  # type: ignore[arg-type]
    assert [each.figures["model_of"] for each in (heard, ended, hubs)] == ["1", "1", "hub"]
    nothing = only(attack.spy(case_of([], form)))
    assert nothing.suspect_D is None
    assert "no model" in str(nothing.figures["why"])


def test_a_reference_takes_away_what_is_hard_for_every_model() -> None:
    rng = numpy.random.default_rng(3)
    hard_N, member_N = rng.exponential(5, size=400), numpy.arange(400) < 200
    suspect_N, reference_N = hard_N - 0.5 * member_N + 1, hard_N + 1 + rng.normal(0, 0.1, 400)
    alone, calibrated = membership.scores(suspect_N), membership.scores(suspect_N, reference_N)
    assert membership.auc(alone[member_N], alone[~member_N]) < 0.65
    assert membership.auc(calibrated[member_N], calibrated[~member_N]) > 0.95


def test_scores_and_areas_are_what_their_definitions_say() -> None:
    rng = numpy.random.default_rng(2)
    suspect, reference = rng.exponential(size=40).round(1), rng.exponential(size=40).round(1)
    assert membership.scores(suspect).tolist() == (-suspect).tolist()
    scores = membership.scores(suspect, reference)
    assert scores.tolist() == (reference - suspect).tolist()
    members, others = scores[:15], scores[15:]
    pairs = [(a > b) + 0.5 * (a == b) for a in members for b in others]
    assert membership.auc(members, others) == pytest.approx(sum(pairs) / len(pairs), abs=1e-12)
    assert (
        membership.scores(numpy.array([numpy.nan, numpy.inf]), numpy.array([1, numpy.inf])).tolist() == [-numpy.inf] * 2
    )
    with pytest.raises(ValueError, match="both classes"):
        membership.auc(members, others[:0])


# Who holds what


def test_a_peer_can_hold_only_examples_of_a_kind_or_none_of_them() -> None:
    kind_N = numpy.array(["a", "b", "b", "b"] * 50)
    rows = ByValue("kind", "a", only=(1,), without=(2, 3)).split(
        Examples(numpy.zeros(200, numpy.int64), {"kind": kind_N}), 4, 1, numpy.random.default_rng(1)
    )
    assert sorted(numpy.concatenate(rows)) == list(range(200))
    assert [sorted(set(kind_N[each])) for each in rows] == [["a", "b"], ["a"], ["b"], ["b"]]
    assert [len(each) for each in rows] == [25 + 50, 25, 50, 50]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"only": (4,)}, "no peer 4"),
        ({"without": (0, 1, 2, 3)}, "nobody"),
        ({"only": (0,), "value": "c"}, "none is left"),
    ],
)
def test_who_cannot_hold_such_examples_is_named(options: Mapping[str, Any], said: str) -> None:
    examples = Examples(numpy.zeros(20, numpy.int64), {"kind": numpy.array(["a", "b"] * 10)})
    with pytest.raises(ScenarioError, match=said):
        ByValue(**{"column": "kind", "value": "a", **options}).split(examples, 4, 1, numpy.random.default_rng(1))
    with pytest.raises(ScenarioError, match="only and without both name peer 1: name each peer once"):
        plugins.build("partitions", "by_value", {"column": "k", "value": "a", "only": [1], "without": [1]})
