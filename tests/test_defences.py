"""Defences that alter gradients: what each makes of one, what it hides, and how they go together."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from torch import Tensor, nn

from p2pfl import plugins, scenario
from p2pfl.contracts import Layout, Slot, Training
from p2pfl.defences._output import output_of
from p2pfl.defences.dp import DP
from p2pfl.defences.dropout import Dropout
from p2pfl.defences.label_mask import LabelMask
from p2pfl.defences.prune import Prune
from p2pfl.defences.random_mask import RandomMask
from p2pfl.errors import ScenarioError
from p2pfl.learning.datasets.digits import Digits
from p2pfl.learning.model import layout_of
from p2pfl.learning.models.mlp import Mlp
from p2pfl.learning.task import SGDTask
from p2pfl.protection import Chain, Guard, Stake
from p2pfl.runtime import launch
from p2pfl.runtime.launch import Record
from p2pfl.seeds import Seeds
from p2pfl.sketches.countsketch import CountSketch

MODEL, SEEDS, CPU = Mlp((30,)), Seeds.of(3), torch.device("cpu")
DIGITS = Digits().load()
CLASSES, FEATURES = 10, 30
LAYOUT = layout_of(MODEL.build(DIGITS.shape, DIGITS.classes))
STAKE = Stake(len(DIGITS.train_y), 1, steps=100, tellings=0, seeds=SEEDS, layout=LAYOUT)
ALTERING = ("random_mask", "gaussian_noise", "laplace_noise", "prune", "half_precision")
HOOKED = ("dropout", "label_mask")
SMALL: dict[str, Any] = {
    "name": "defended",
    "seed": 7,
    "peers": 3,
    "rounds": 2,
    "topology": "ring",
    "model": {"mlp": {"hidden": [30]}},
    "training": {"batch": 8, "lr": 0.1, "momentum": 0.5, "local_steps": 2, "device": "cpu"},
    "evaluate": {"every": 2},
    "engine": "simulate",
}


def task(guard: Guard | None, batch: int = 1, lr: float = 1.0) -> SGDTask:
    training, rows = Training(batch=batch, lr=lr), numpy.arange(len(DIGITS.train_y))
    return SGDTask(MODEL, DIGITS, rows, training, CPU, Seeds.of(5), guard=guard)


def guard(name: str, stake: Stake = STAKE, **options: Any) -> Guard:
    made: Guard = plugins.build("defences", name, options).guard(stake)
    return made


def gradient(seed: int = 0, count: int = 0) -> Tensor:
    return torch.randn(count or sum(slot.size for slot in LAYOUT), generator=torch.Generator().manual_seed(seed))


def by_hand(at: int, batch: int, loss_of: Any = nn.functional.cross_entropy, around: Any = None) -> Tensor:
    """The gradient of the at-th batch at the first point, in the slow way: `around` takes features to features."""
    plain = task(None, batch)
    module = MODEL.build(DIGITS.shape, DIGITS.classes)
    nn.utils.vector_to_parameters(plain.start(Seeds.of(1)), module.parameters())
    inputs, labels = plain.batch(at)
    features = module[:-1](inputs)  # type: ignore[index]
    logits = module.get_submodule("output")(features if around is None else around(features))
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss_of(logits, labels), list(module.parameters()))])


def stepped(defended: Guard | None, at: int = 3, batch: int = 6) -> Tensor:
    """What a task steps by at the first point."""
    made = task(defended, batch)
    return -made.step(made.start(Seeds.of(1)), None, at).x_D


@pytest.mark.parametrize("entries", [1, 2, 9])
@pytest.mark.parametrize("bias", [False, True])
def test_a_random_mask_lets_few_entries_of_each_column_of_the_output_layer_travel(entries: int, bias: bool) -> None:
    given = gradient()
    made = guard("random_mask", entries=entries, bias=bias).gradient(given.clone(), 4)
    rest = len(given) - CLASSES * (FEATURES + 1)
    assert torch.equal(made[:rest], given[:rest])
    weight_CF, was_CF = (v[rest:-CLASSES].view(CLASSES, FEATURES) for v in (made, given))
    for column, was in zip(weight_CF.T, was_CF.T, strict=True):
        assert int((column != 0).sum()) == entries
        assert all(now in (0, then) for now, then in zip(column.tolist(), was.tolist(), strict=True))
    assert int((made[-CLASSES:] != 0).sum()) == (entries if bias else CLASSES)


def test_a_random_mask_sends_each_entry_as_often_as_any_other() -> None:
    masked, counts_CF = guard("random_mask"), torch.zeros(CLASSES, FEATURES)
    for at in range(200):
        made = masked.gradient(torch.ones(len(gradient())), at)
        counts_CF += output_of(LAYOUT).weight(made)
    assert float(counts_CF.mean()) == pytest.approx(40)
    assert float((counts_CF - 40).abs().max()) < 4.5 * math.sqrt(200 * 0.2 * 0.8)


def test_a_mask_finds_the_output_layer_at_the_end_of_a_sketched_vector_too() -> None:
    pair = CountSketch(ratio=0.25).bind(LAYOUT)
    given_S = pair.down(gradient(), b"k" * 16)
    made_S = guard("random_mask").gradient(given_S.clone(), 4)
    changed = torch.nonzero(made_S != given_S).flatten()
    assert len(given_S) < sum(slot.size for slot in LAYOUT)
    assert int(changed.min()) >= len(given_S) - CLASSES * (FEATURES + 1)
    assert len(changed) == FEATURES * (CLASSES - 2)
    whole = output_of(LAYOUT)
    assert torch.equal(whole.weight(given_S), whole.weight(gradient()))
    assert torch.equal(whole.bias(given_S), whole.bias(gradient()))


@pytest.mark.parametrize("share", [0.3, 0.9, 0.999])
def test_pruning_leaves_the_largest_entries_and_nothing_else(share: float) -> None:
    given = gradient()
    order = sorted(range(len(given)), key=lambda k: abs(float(given[k])))
    expected = given.clone()
    expected[order[: int(share * len(given))]] = 0
    assert torch.equal(guard("prune", share=share).gradient(given, 0), expected)


def test_rounding_to_sixteen_bits_is_that_of_numpy_and_never_infinite() -> None:
    given = gradient() * 10.0 ** torch.arange(-9, 6).repeat(999)[: len(gradient())]
    made = guard("half_precision").gradient(given.clone(), 0)
    expected = given.numpy().clip(-65504, 65504).astype(numpy.float16).astype(numpy.float32)
    assert torch.equal(made, torch.from_numpy(expected))
    brain = guard("half_precision", format="bfloat16").gradient(given.clone(), 0)
    assert not (brain.view(torch.int32) & 0xFFFF).any()
    torch.testing.assert_close(brain, given, rtol=2**-8, atol=0)


@pytest.mark.parametrize(("name", "deviation", "kurtosis"), [("gaussian_noise", 0.2, 3), ("laplace_noise", 0.283, 6)])
def test_noise_has_the_form_and_the_size_that_is_asked_for(name: str, deviation: float, kurtosis: float) -> None:
    noisy, given = guard(name, scale=0.2), gradient(count=200_000)
    added = [noisy.gradient(given.clone(), at) - given for at in (0, 1)]
    assert float(added[0].mean()) == pytest.approx(0, abs=4 * deviation / math.sqrt(200_000))
    assert float(added[0].std()) == pytest.approx(deviation, rel=0.02)
    assert float((added[0] / added[0].std()).pow(4).mean()) == pytest.approx(kurtosis, rel=0.1)
    assert abs(float(torch.corrcoef(torch.stack(added))[0, 1])) < 0.02


@pytest.mark.parametrize("name", [*ALTERING, *HOOKED])
def test_a_defence_is_a_function_of_the_peers_seeds_and_of_the_step(name: str) -> None:
    other = dataclasses.replace(STAKE, seeds=Seeds.of(4))
    here, again = stepped(guard(name)), stepped(guard(name))
    assert torch.equal(here, again)
    assert not torch.equal(here, stepped(None))
    assert torch.equal(here, stepped(guard(name, other))) == (name in ("prune", "half_precision"))


def test_dropout_takes_features_of_each_example_away_and_enlarges_the_others() -> None:
    kept_BF = torch.rand((6, FEATURES), generator=SEEDS.noise("dropout", 3)) >= 0.4
    assert len({tuple(row) for row in kept_BF.tolist()}) == 6
    expected = by_hand(3, 6, around=lambda features_BF: features_BF * kept_BF / 0.6)
    torch.testing.assert_close(stepped(guard("dropout", share=0.4)), expected)


def excluded(labels_B: Tensor, at: int, count: int) -> list[list[int]]:
    """The classes that a label mask takes from each example's set: the first wrong ones in an order that is drawn."""
    order_BC = torch.rand((len(labels_B), CLASSES), generator=SEEDS.noise("labels", at))
    orders = [sorted(range(CLASSES), key=lambda c: -row[c]) for row in order_BC.tolist()]
    return [[c for c in order if c != y][:count] for order, y in zip(orders, labels_B.tolist(), strict=True)]


@pytest.mark.parametrize("among", [2, 5, 9])
def test_under_a_label_mask_an_example_learns_a_set_of_labels(among: int) -> None:
    def loss(logits_BC: Tensor, labels_B: Tensor) -> Tensor:
        both = zip(logits_BC.softmax(1), excluded(labels_B, 3, CLASSES - among), strict=True)
        within = [p_C[[c for c in range(CLASSES) if c not in out]].sum() for p_C, out in both]
        return -torch.stack(within).log().mean() * (9 / (CLASSES - among))

    torch.testing.assert_close(stepped(guard("label_mask", among=among)), by_hand(3, 6, loss))


def test_the_gradient_of_a_label_mask_is_the_same_for_every_label_of_the_set() -> None:
    """So nobody can tell them apart by it, whatever else they know."""
    module = MODEL.build(DIGITS.shape, DIGITS.classes)
    nn.utils.vector_to_parameters(task(None).start(Seeds.of(1)), module.parameters())
    veiled = guard("label_mask")
    for at in range(5):
        found: dict[int, list[Tensor]] = {}
        for label in range(CLASSES):
            labels_B = torch.tensor([label])
            with veiled.around(module, at):
                loss = nn.functional.cross_entropy(module(DIGITS.train_x[at : at + 1]), labels_B)
                made = torch.autograd.grad(loss, list(module.parameters()))
            (out,) = excluded(labels_B, at, 1)[0]
            found.setdefault(out, []).append(torch.cat([g.flatten() for g in made]))
        alike = max(found.values(), key=len)
        assert len(alike) == CLASSES - 1
        for other in alike[1:]:
            torch.testing.assert_close(other, alike[0], rtol=1e-4, atol=1e-7)


def read(g_D: Tensor, x_D: Tensor) -> set[int]:
    """The labels one example may have: by the output layer's rows, or those of the logits' gradient solved below it.

    A row below 0 is the label of a plain gradient; behind a mask of labels the one above 0 is none.
    """
    output, sizes = output_of(LAYOUT), [slot.size for slot in LAYOUT]
    *_, hidden_F, _, _ = g_D.split_with_sizes(sizes)
    on_F = hidden_F != 0
    above = output.weight(x_D).T[on_F].double()
    rows = [output.weight(g_D).sum(1), torch.linalg.lstsq(above, hidden_F[on_F].double()).solution]
    below = [{c for c in range(CLASSES) if float(row[c]) < -1e-6} for row in rows]
    for found in below:
        if len(found) == 1:
            return found
    return below[0] or set(range(CLASSES))


def test_a_random_mask_leaves_every_label_readable_and_a_label_mask_none() -> None:
    """One example each, features that are never negative: the argument for the random mask fails."""
    sizes: dict[str, list[int]] = {}
    right: dict[str, int] = {}
    for name, options in (("random_mask", {"bias": True}), ("label_mask", {})):
        made = task(guard(name, **options))
        x_D = made.start(Seeds.of(1))
        found = [(read(-made.step(x_D, None, at).x_D, x_D), int(made.batch(at)[1])) for at in range(60)]
        sizes[name] = [len(labels) for labels, _ in found]
        right[name] = sum(label in labels for labels, label in found)
    assert right == {"random_mask": 60, "label_mask": 60}
    assert set(sizes["random_mask"]) == {1}
    assert set(sizes["label_mask"]) == {9}


def test_who_learns_under_a_label_mask_learns_still() -> None:
    made = task(guard("label_mask"), batch=32, lr=0.1)
    trained = made.steps(made.start(Seeds.of(1)), None, 0, 800)
    assert made.evaluate(trained.x_D, "validation")["accuracy"] > 0.85


@pytest.mark.parametrize("name", ["prune", "half_precision", "random_mask"])
def test_what_follows_dp_is_computed_from_what_that_gives_away_and_costs_nothing_more(name: str) -> None:
    stake = dataclasses.replace(STAKE, batch=6)
    alone, first = DP(noise=1.1).guard(stake), DP(noise=1.1).guard(stake)
    after = guard(name, stake)
    private_D, both_D = stepped(alone), stepped(Chain((first, after)))
    assert torch.equal(both_D, -(after.gradient(private_D.clone(), 3) * -1.0))
    assert not torch.equal(both_D, private_D)
    assert alone.spent() == first.spent()


def test_dropout_under_dp_is_clipped_as_it_is_dropped() -> None:
    clip, noise = 0.05, 1e-6
    whole = dataclasses.replace(STAKE, examples=6, batch=6)
    made = SGDTask(
        *(MODEL, DIGITS, numpy.arange(6), Training(batch=6, lr=1.0), CPU, Seeds.of(5)),
        guard=Chain((DP(noise=0.01, clip=clip).guard(whole), Dropout(0.4).guard(whole))),
    )
    kept_BF = torch.rand((6, FEATURES), generator=SEEDS.noise("dropout", 3)) >= 0.4
    module = MODEL.build(DIGITS.shape, DIGITS.classes)
    x_D = made.start(Seeds.of(1))
    nn.utils.vector_to_parameters(x_D.clone(), module.parameters())
    total = torch.zeros_like(x_D)
    for b in range(6):
        features = module[:-1](DIGITS.train_x[b : b + 1]) * kept_BF[b] / 0.6  # type: ignore[index]
        loss = nn.functional.cross_entropy(module.get_submodule("output")(features), DIGITS.train_y[b : b + 1])
        g_D = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(module.parameters()))])
        total += g_D / max(1.0, float(g_D.norm()) / clip)
    noise_D = torch.randn(len(x_D), generator=SEEDS.noise("noise", 3))
    expected = (total + 0.01 * clip * noise_D) / 6
    torch.testing.assert_close(-made.step(x_D, None, 3).x_D, expected, rtol=1e-4, atol=noise)


def run(out: Path, **more: Any) -> Record:
    return launch.run(scenario.read({**SMALL, **more}), out)


def learned(record: Record) -> list[str]:
    """What does not hang on the clock, of every row."""
    rows = map(json.loads, (record.folder / "records.jsonl").read_text().splitlines())
    timeless = ("peer", "round", "loss", "accuracy", "epsilon")
    return sorted(json.dumps({name: row.get(name) for name in timeless}) for row in rows)


@pytest.fixture(scope="module")
def undefended(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """What is learned without a defence, by sketch."""
    folder = tmp_path_factory.mktemp("undefended")
    return {name: learned(run(folder / name, sketch=name)) for name in ("dense", "countsketch")}


@pytest.mark.parametrize("sketch", ["dense", "countsketch"])
@pytest.mark.parametrize("name", [*ALTERING, *HOOKED])
def test_peers_learn_under_each_defence_and_a_seed_repeats_it(
    name: str, sketch: str, tmp_path: Path, undefended: dict[str, list[str]]
) -> None:
    records = [run(tmp_path / which, sketch=sketch, defences=[name]) for which in ("one", "two")]
    assert [record.crashed for record in records] == [(), ()]
    assert learned(records[0]) == learned(records[1]) != undefended[sketch]
    assert "privacy" not in records[0].summary


def test_defences_go_together_in_processes_as_they_do_in_one_thread(tmp_path: Path) -> None:
    several = [{"dp": {"noise": 1.1}}, "label_mask", "dropout", {"prune": 0.5}]
    both = [run(tmp_path / engine, engine=engine, defences=several) for engine in ("simulate", "local")]
    assert learned(both[0]) == learned(both[1])
    alone = run(tmp_path / "alone", defences=several[:1])
    assert both[0].summary["privacy"]["epsilon"] == alone.summary["privacy"]["epsilon"]


WEIGHT, BIAS = Slot("output.weight", (4, 5), True), Slot("output.bias", (4,), True)
ODD: dict[str, tuple[Layout, str]] = {
    "none": ((Slot("hidden.weight", (4, 5)),), "not the model's last"),
    "first": ((WEIGHT, BIAS, Slot("hidden.weight", (4, 5))), "not the model's last"),
    "apart": ((WEIGHT, Slot("hidden.weight", (4, 5)), BIAS), "not the model's last"),
    "two weights": ((WEIGHT, dataclasses.replace(WEIGHT, name="output.more")), "not a weight and a bias"),
    "a norm": ((dataclasses.replace(BIAS, name="output.weight"), BIAS), "not a weight and a bias"),
}


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("plugin", [RandomMask(), Dropout(), LabelMask()], ids=lambda plugin: type(plugin).__name__)
def test_who_masks_the_output_layer_refuses_a_model_where_it_is_not_found(odd: str, plugin: Any) -> None:
    layout, problem = ODD[odd]
    with pytest.raises(ValueError, match=rf"the output layer.* {problem}.*: \w+"):
        plugin.guard(dataclasses.replace(STAKE, layout=layout))


def test_an_output_layer_without_a_bias_ends_with_its_weight() -> None:
    output = output_of((Slot("hidden.weight", (3, 2)), WEIGHT))
    numbers = torch.arange(26.0)
    assert output.weight(numbers).tolist() == numbers[6:].view(4, 5).tolist()
    assert len(output.bias(numbers)) == 0
    assert output.path == "output"


MISTAKES: dict[str, tuple[list[Any], str, str]] = {
    "all travels": ([{"random_mask": 10}], "entries must be below 10", "lower it"),
    "tells the label": ([{"label_mask": 10}], "among must be from 2 to 9", "set it"),
    "no format": ([{"half_precision": "int8"}], "format is 'int8'", "must be 'float16' or 'bfloat16'"),
    "all is pruned": ([{"prune": 1.0}], "share is 1.0", "less than 1"),
    "dp comes late": ([{"prune": 0.5}, {"dp": {"noise": 1.0}}], "dp must come first", "put it first"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_defence_that_cannot_be_is_refused_with_its_place(mistake: str, tmp_path: Path) -> None:
    defences, problem, remedy = MISTAKES[mistake]
    with pytest.raises(ScenarioError) as caught:
        run(tmp_path / "run", defences=defences)
    assert problem in str(caught.value)
    assert remedy in str(caught.value).partition(problem)[2]
    assert caught.value.path[0] == "defences"
    assert not (tmp_path / "run").exists()


def test_masks_say_that_they_mask() -> None:
    saying = {n for n in plugins.names("defences") if getattr(plugins.find("defences", n), "masks", False)}
    assert saying == {"random_mask", "prune"}
    assert Prune.masks
