"""What curious peers found is kept whole, and judged by the truth that only victims and the launcher know."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy
import pytest
import torch
from scipy import stats
from sklearn.datasets import load_digits
from torch import Tensor, nn

from p2pfl import scenario
from p2pfl.errors import RemoteError, ScenarioError
from p2pfl.messages import Message
from p2pfl.metrics import images
from p2pfl.runtime import control, findings, judging
from p2pfl.runtime.leak import leak
from p2pfl.runtime.record import Recorder
from p2pfl.runtime.summary import summarise
from p2pfl.runtime.world import World
from p2pfl.scenario.publication import FIGURES, LEAKED, READINGS, written
from p2pfl.seeds import Seeds
from p2pfl.yaml_marks import Document

skimage = pytest.importorskip("skimage.metrics")
Held = dict[tuple[int, int], tuple[int, ...]]


def world(**settings: Any) -> World:
    given: dict[str, Any] = {"name": "spied", "seed": 1, "peers": 3, "data": {"digits": {"normalise": False}}}
    given |= {"model": {"mlp": {"hidden": [8]}}, "training": {"batch": 4, "local_steps": 2, "device": "cpu"}}
    return World(scenario.read(given | settings), Seeds.of(1))


@pytest.fixture(scope="module")
def digits() -> World:
    return world()


def told(**more: Any) -> dict[str, Any]:
    said = {"attacker": "1", "victim": "0", "round": 1, "method": "idlg", "options": {}, "reading": "plain"}
    said |= {"threat": "neighbour", "holds": "its model", "knowledge": "own", "seconds": 2.0, "engine": "local"}
    return said | {"untrained": False, "batches": [[0, 0]]} | more


def saved(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def noisy(inputs: Tensor, scale: float, seed: int = 0) -> Tensor:
    return inputs + scale * torch.randn(inputs.shape, generator=torch.Generator().manual_seed(seed))


# How they are kept


def test_findings_are_numbered_by_attacker_and_a_hub_and_those_who_collude_go_by_name(tmp_path: Path) -> None:
    paths = [findings.write(tmp_path, told(attacker=who), {}) for who in ("1", 1, "hub", -1, [1, 2], "1+2", "hub+2")]
    names = [path.relative_to(tmp_path / "attacks").as_posix() for path in paths]
    one, two = "0001.json", "0002.json"
    assert names == [
        *(f"peer-1/{one}", f"peer-1/{two}", f"peer-hub/{one}", f"peer-hub/{two}"),
        *(f"peer-1+2/{one}", f"peer-1+2/{two}", f"peer-hub+2/{one}"),
    ]
    read = findings.read(tmp_path)
    assert sorted(str(found.attacker) for found in read) == ["1", "1", "1+2", "1+2", "hub", "hub", "hub+2"]
    assert {type(found.attacker) for found in read if found.attacker not in ("1+2", "hub", "hub+2")} == {int}
    for nobody in ("../up", "", None, "1+", -2, True, "hub/3"):
        with pytest.raises(ValueError, match="attacker is"):
            findings.write(tmp_path, told(attacker=nobody), {})


def test_what_was_found_is_read_as_it_was_written_but_for_what_json_does_not_know(tmp_path: Path) -> None:
    tensors = {
        "inputs_BCHW": torch.randn(6, 4).t().reshape(4, 1, 2, 3).transpose(2, 3),
        "labels_B": torch.tensor([3, 1, 2, 0], dtype=torch.int32),
        "suspect_D": torch.randn(5, dtype=torch.float64),
    }
    path = findings.write(tmp_path, told(loss=math.nan, key=b"\x01\xff", at=(1, 2), ratio=0.5, most=10**30), tensors)
    (found,) = findings.read(tmp_path)
    assert (found.attacker, found.victim, found.round, found.method) == (1, 0, 1, "idlg")
    assert (found.reading, found.batches) == ("plain", ((0, 0),))
    assert [found.told[key] for key in ("loss", "key", "at", "ratio", "most")] == [None, "01ff", [1, 2], 0.5, None]
    read = findings.tensors(found)
    assert read.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert torch.equal(read[name], tensor.to(torch.float32 if tensor.is_floating_point() else torch.int64))
    assert sorted(file.name for file in path.parent.iterdir()) == ["0001.json", "0001.safetensors"]


def test_a_finding_of_which_only_the_tensors_were_written_is_none_and_its_number_is_free(tmp_path: Path) -> None:
    findings.write(tmp_path, told(), {"labels_B": torch.tensor([1])})
    (tmp_path / "attacks" / "peer-1" / "0001.json").unlink()
    assert findings.read(tmp_path) == []
    assert findings.write(tmp_path, told(), {}).name == "0001.json"


BROKEN = [
    *(b"", b"{", b"[]", b"7", b"null", b"\xff\xfe", b"[" * 100_000, b"{}", b'"told"', b"1" * 5000),
    json.dumps(told(attacker="../1")).encode(),
    json.dumps(told(victim=None)).encode(),
    json.dumps(told(victim=1.5)).encode(),
    json.dumps(told(round=-1)).encode(),
    json.dumps(told(round=True)).encode(),
    json.dumps(told(round=10**60)).encode(),
    json.dumps(told(method="<script>")).encode(),
    json.dumps(told(method=["idlg"])).encode(),
]
ODD = [
    *({"batches": 3}, {"batches": [[0]]}, {"batches": [["x", 0]]}, {"batches": [[0, 0.5]]}, {"batches": {}}),
    *({"batches": [[0, 10**9]]}, {"reading": {"a": 1}}, {"reading": "<b>"}, {"seconds": "1", "engine": 7}),
    *({"score": 10**400, "column": [1], "value": {}}, {"knowledge": [], "threat": None}),
]


def test_broken_files_cost_only_themselves(digits: World, tmp_path: Path) -> None:
    home = tmp_path / "attacks" / "peer-1"
    good = findings.write(tmp_path, told(), {"labels_B": digits.data.train_y[:4]})
    for at, content in enumerate(BROKEN, 2):
        (home / f"{at:04}.json").write_bytes(content)
    (home / "0999.json").mkdir()
    (home / "notes.json").write_text("{}")
    (tmp_path / "attacks" / "peer-9").write_text("a file")
    assert [found.path for found in findings.read(tmp_path)] == [good]
    (entry,) = judging.score(tmp_path, digits, {(0, 0): (0, 1, 2, 3)})
    assert entry["label_accuracy"] == 1


def test_what_is_odd_is_not_judged_and_hinders_nothing(digits: World, tmp_path: Path) -> None:
    for more in ODD:
        findings.write(tmp_path, told() | more, {"labels_B": digits.data.train_y[:4]})
    tensors = {
        "inputs_BCHW": torch.tensor(math.nan),
        "labels_B": torch.tensor([math.nan, 1e30]),
        "counts": torch.tensor([10**18] * 10),
        "suspect_D": torch.zeros(3),
    }
    for name, tensor in tensors.items():
        findings.write(tmp_path, told(), {name: tensor})
    for content in (b"", b"\xff" * 100, (10**15).to_bytes(8, "little") + b"{}"):
        findings.write(tmp_path, told(), {}).with_suffix(".safetensors").write_bytes(content)
    entries = judging.score(tmp_path, digits, {(0, 0): (0, 1, 2, 10**12)})
    assert len(entries) == len(ODD) + len(tensors) + 3
    json.dumps(entries, allow_nan=False)
    judged = [entry for entry in entries if entry.keys() & set(judging.FIGURES)]
    assert {round(entry.get("label_accuracy", 0), 6) for entry in judged} == {0.75, 0.0}, "of three rows that there are"
    assert {entry["recovered"] for entry in judged} == {0}


def test_what_victims_held_is_read_with_suspicion() -> None:
    rows = [
        {"peer": 0, "round": 1, "held": {"0": [3, 1], "1": [2]}},
        {"peer": 2, "round": 1, "held": {"4": [], "x": [1], "-1": [1], "5": "12", "6": [1.5], "7": [-1], "8": [True]}},
        {"peer": "all", "held": {"0": [1]}},
        {"peer": None, "held": {"0": [1]}},
        {"peer": 1, "held": [[0, [1]]]},
        {"held": {"0": [1]}},
        {"peer": 1, "round": 3},
    ]
    assert findings.held(rows) == {(0, 0): (3, 1), (0, 1): (2,), (2, 4): ()}


# Images


def test_the_assignment_is_the_best_of_all(one_thread: None) -> None:
    for seed, (made, true) in enumerate(itertools.product((1, 3, 5), (1, 2, 5))):
        errors = torch.rand(made, true, generator=torch.Generator().manual_seed(seed))
        found = images.assignment(errors)
        assert len(found) == len(set(found.values())) == min(made, true)
        best = min(
            sum(float(errors[row, column]) for row, column in zip(rows, columns, strict=True))
            for rows in itertools.permutations(range(made), min(made, true))
            for columns in itertools.combinations(range(true), min(made, true))
        )
        assert sum(float(errors[row, column]) for column, row in found.items()) == pytest.approx(best)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 30), (1, 28, 28), (2, 5, 6), (1, 3, 3)])
def test_figures_of_images_are_those_of_scikit_image(shape: tuple[int, int, int]) -> None:
    a = torch.rand(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    b = noisy(a, 0.1).clamp(0, 1)
    mse = float(images.errors(a[None], b[None])[0, 0])
    assert mse == pytest.approx(fmean(((a - b) ** 2).flatten().tolist()))
    assert images.psnr_db(mse) == pytest.approx(skimage.peak_signal_noise_ratio(a.numpy(), b.numpy(), data_range=1.0))
    window = {8: 7, 30: 7, 28: 7, 5: 5, 3: 3}[min(shape[1:])]
    channels = [
        skimage.structural_similarity(x.numpy(), y.numpy(), win_size=window, data_range=1.0)
        for x, y in zip(a, b, strict=True)
    ]
    assert images.ssim(a, b) == pytest.approx(fmean(channels))
    assert images.ssim(a, a) == pytest.approx(1)


def test_equal_images_have_a_finite_psnr_and_features_no_ssim() -> None:
    assert images.psnr_db(0.0) == 120
    assert images.ssim(torch.rand(1, 1, 20), torch.rand(1, 1, 20)) is None
    assert images.ssim(torch.rand(1, 2, 20), torch.rand(1, 2, 20)) is None


def test_values_are_brought_to_where_all_of_the_data_lie() -> None:
    inside = torch.tensor([[[[0.2, 0.7]]], [[[0.3, 0.9]]]])
    assert torch.equal(images.to_unit(inside, images.span(inside)), inside.double())
    outside = torch.tensor([[[[-1.0, 3.0], [1.0, 1.0]], [[5.0, 5.0], [5.0, 5.0]]]])
    found = images.to_unit(outside, images.span(outside))
    assert found.tolist() == [[[[0.0, 1.0], [0.5, 0.5]], [[0.0, 0.0], [0.0, 0.0]]]]
    wild = torch.tensor([[[[math.nan, math.inf], [-math.inf, 9.0]], [[4.0, 5.5], [6.0, 7.0]]]])
    assert images.to_unit(wild, images.span(outside))[0, 0].tolist() == [[0.0, 1.0], [0.0, 1.0]]
    features = torch.tensor([[[[0.0, -5.0]]], [[[10.0, 5.0]]], [[[5.0, 0.0]]]])
    assert images.to_unit(features, images.span(features)).flatten(1).tolist() == [[0, 0], [1, 1], [0.5, 0.5]]


def test_recovered_images_are_matched_with_the_true_ones_and_measured(digits: World, tmp_path: Path) -> None:
    rows, order = (7, 20, 33, 41), [2, 0, 3, 1]
    x, y = digits.data.train_x[list(rows)], digits.data.train_y[list(rows)]
    made = noisy(x[order], 0.15).clamp(0, 1)
    made[3] = noisy(x[1], 0.01).clamp(0, 1)
    guessed = y[order].clone()
    guessed[0] = (guessed[0] + 1) % 10
    path = findings.write(tmp_path, told(), {"inputs_BCHW": made, "labels_B": guessed})
    (entry,) = judging.score(tmp_path, digits, {(0, 0): rows})
    truth = findings.load(path.with_suffix(".truth.safetensors"))
    assert torch.equal(truth["originals_BCHW"], x[order])
    assert torch.equal(truth["labels_B"], y[order])
    assert truth["inputs_B"].tolist() == [0, 1, 2, 3]
    shown = saved(path)["images"]
    for image, a, b in zip(shown, made.double(), x[order].double(), strict=True):
        mse = float(((a - b) ** 2).mean())
        assert image["mse"] == pytest.approx(mse, rel=1e-5)
        psnr = skimage.peak_signal_noise_ratio(b.numpy(), a.numpy(), data_range=1)
        assert image["psnr_db"] == pytest.approx(psnr, rel=1e-5)
        ssim = skimage.structural_similarity(b[0].numpy(), a[0].numpy(), data_range=1, win_size=7)
        assert image["ssim"] == pytest.approx(ssim, rel=1e-5)
    assert [image["label"] for image in shown] == y[order].tolist()
    assert [image["guessed"] for image in shown] == guessed.tolist()
    assert [image["mse"] < 1e-3 for image in shown] == [False, False, False, True]
    assert entry == {
        "attacker": 1, "victim": 0, "round": 1, "method": "idlg", "reading": "plain", "knowledge": "own",
        "threat": "neighbour", "engine": "local", "seconds": 2.0, "recovered": 0.25, "label_accuracy": 0.75,
        **{key: pytest.approx(fmean(image[key] for image in shown), rel=1e-5) for key in ("mse", "psnr_db", "ssim")},
    }  # fmt: skip
    assert saved(path) == told(attacker=1, victim=0, examples=4, images=shown) | {
        key: entry[key] for key in ("mse", "psnr_db", "ssim", "recovered", "label_accuracy")
    }


def test_an_image_is_judged_the_same_whether_data_are_normalised_or_not(digits: World, tmp_path: Path) -> None:
    found = []
    for name, judged_in in (("plain", digits), ("normalised", world(data="digits"))):
        x = judged_in.data.train_x
        low, high = (0.0, 1.0) if name == "plain" else (float(x.min()), float(x.max()))
        made = noisy(x[[5]], 0.02 * (high - low)).clamp(low, high)
        findings.write(tmp_path / name, told(), {"inputs_BCHW": made})
        found += judging.score(tmp_path / name, judged_in, {(0, 0): (5,)})
    assert found[0]["mse"] == pytest.approx(found[1]["mse"], rel=1e-3)
    assert found[0]["ssim"] == pytest.approx(found[1]["ssim"], rel=1e-3)


def test_more_guesses_than_examples_do_not_pay(digits: World, tmp_path: Path) -> None:
    x = digits.data.train_x
    findings.write(tmp_path, told(), {"inputs_BCHW": torch.cat([torch.zeros(1, 1, 8, 8), x[:1]])})
    findings.write(tmp_path, told(method="labels"), {"counts": torch.tensor([100] * 10)})
    first, second = judging.score(tmp_path, digits, {(0, 0): (0,)})
    assert first["recovered"] == 0
    assert second["label_accuracy"] == pytest.approx(1 / 1000)


def test_an_example_for_which_there_is_no_image_is_not_recovered(digits: World, tmp_path: Path) -> None:
    x = digits.data.train_x
    path = findings.write(tmp_path, told(), {"inputs_BCHW": x[[3, 1]]})
    (entry,) = judging.score(tmp_path, digits, {(0, 0): (1, 2, 3, 4)})
    assert entry["recovered"] == 0.5
    assert entry["mse"] == 0
    shown = saved(path)["images"]
    assert ["mse" in image for image in shown] == [True, True, False, False]
    truth = findings.load(path.with_suffix(".truth.safetensors"))
    assert torch.equal(truth["originals_BCHW"], x[[3, 1, 2, 4]])
    assert truth["inputs_B"].tolist() == [0, 1, -1, -1]


def test_who_comes_back_with_nothing_recovered_nothing(digits: World, tmp_path: Path) -> None:
    x, y = digits.data.train_x, digits.data.train_y
    empty = told(round=2, batches=[], why="nothing moved in what was seen")
    path = findings.write(tmp_path, empty, {})
    findings.write(tmp_path, empty | {"method": "label_leakage"}, {})
    findings.write(tmp_path, empty | {"method": "property_inference"}, {})
    findings.write(tmp_path, told(round=1, batches=[[0, 0]], reading="head"), {"inputs_BCHW": x[:1]})
    findings.write(tmp_path, told(round=1, batches=[[0, 0]]), {"counts": torch.bincount(y[:1])})
    held: Held = {(0, 0): (0,), (0, 1): (9,), (0, 2): (1, 2), (0, 3): (3, 4), (0, 4): (6,), (2, 2): (8,)}
    images_, labels, other, whole, counted = judging.score(tmp_path, digits, held)  # two batches a round
    assert (images_["recovered"], labels["label_accuracy"], whole["recovered"]) == (0, 0, 1)
    assert not images_.keys() & {"mse", "psnr_db", "ssim", "label_accuracy"}
    assert not other.keys() & set(judging.FIGURES)
    assert (counted["recovered"], counted["label_accuracy"]) == (0, 1)
    assert [image["label"] for image in saved(path)["images"]] == y[1:5].tolist()
    truth = findings.load(path.with_suffix(".truth.safetensors"))
    assert torch.equal(truth["originals_BCHW"], x[1:5])
    assert truth["inputs_B"].tolist() == [-1] * 4
    leaked = judging.summed(tmp_path, digits, held)["leak"]
    assert (leaked["images"], leaked["recovered"], leaked["plain"]["recovered"]) == (5, 0.2, 0)
    assert leaked["head"]["recovered"] == 1


def test_batches_of_several_whose_sum_was_seen_are_matched_together_and_the_figures_are_the_victims(
    digits: World, tmp_path: Path
) -> None:
    x = digits.data.train_x
    made = torch.cat([x[[11, 12]], torch.zeros(1, 1, 8, 8), x[[10]]])  # of peer 2 both, of peer 0 one
    path = findings.write(tmp_path, told(batches=[[0, 4], [2, 4]]), {"inputs_BCHW": made})
    held: Held = {(0, 4): (9, 10), (2, 4): (11, 12)}
    (entry,) = judging.score(tmp_path, digits, held)
    shown = saved(path)["images"]
    assert [image["peer"] for image in shown] == [2, 2, 0, 0]
    assert [image["mse"] < 1e-6 for image in shown] == [True, True, False, True]
    assert entry["recovered"] == 0.5
    findings.write(tmp_path, told(victim=2, batches=[[0, 4], [2, 4]]), {"inputs_BCHW": made})
    findings.write(tmp_path, told(victim="hub", batches=[[0, 4], [2, 4]]), {"inputs_BCHW": made})
    recovered = {entry["victim"]: entry["recovered"] for entry in judging.score(tmp_path, digits, held)}
    assert recovered == {0: 0.5, 2: 1.0, "hub": 0.75}


def test_where_only_a_part_of_what_was_seen_is_known_that_part_is_judged(digits: World, tmp_path: Path) -> None:
    x, y = digits.data.train_x, digits.data.train_y
    tensors = {"inputs_BCHW": x[[8, 50, 9, 51]], "labels_B": y[[8, 50, 9, 51]]}
    path = findings.write(tmp_path, told(batches=[[0, 4], [5, 3]]), tensors)
    counts = {"counts": torch.ones(10, dtype=torch.int64)}
    findings.write(tmp_path, told(method="label_leakage", batches=[[0, 4], [5, 3]]), counts)
    first, second = judging.score(tmp_path, digits, {(0, 4): (8, 9)})
    assert (first["recovered"], first["label_accuracy"]) == (1, 1)
    assert "label_accuracy" not in second, "how many of the counts are the victim's nobody knows"
    truth = findings.load(path.with_suffix(".truth.safetensors"))
    assert truth["inputs_B"].tolist() == [0, 2]
    assert torch.equal(truth["originals_BCHW"], x[[8, 9]])


def test_what_no_victim_logged_is_not_judged_and_what_was_not_read_is_a_result(digits: World, tmp_path: Path) -> None:
    findings.write(tmp_path, told(untrained=True), {"inputs_BCHW": digits.data.train_x[:1]})
    nothing = {key: value for key, value in told(threat="none").items() if key not in ("reading", "batches", "holds")}
    findings.write(tmp_path, nothing, {})
    findings.write(tmp_path, nothing | {"threat": "hub", "failed": "ValueError: no"}, {})
    first, second, third = judging.score(tmp_path, digits, {})
    about = {"attacker": 1, "victim": 0, "round": 1, "method": "idlg", "knowledge": "own", "seconds": 2.0}
    about |= {"engine": "local"}
    assert first == about | {"reading": "plain", "threat": "neighbour", "upper_bound": True}
    assert second == about | {"threat": "none"}
    assert third == about | {"threat": "hub", "failed": "ValueError: no"}
    assert "leak" not in judging.summed(tmp_path, digits, {})
    assert not [*tmp_path.rglob("*.truth.safetensors")]


def test_an_attack_is_not_believed_what_it_says_of_its_own_worth(digits: World, tmp_path: Path) -> None:
    boast = {"mse": 0.0, "psnr_db": 99.0, "recovered": 1.0, "auc": 1.0, "label_accuracy": 1.0, "images": [{}]}
    path = findings.write(tmp_path, told(**boast, examples=5), {"inputs_BCHW": torch.zeros(1, 1, 8, 8)})
    (entry,) = judging.score(tmp_path, digits, {})
    assert not entry.keys() & boast.keys()
    assert not saved(path).keys() & boast.keys()
    assert judging.score(tmp_path, digits, {(0, 0): (3,)})[0]["recovered"] == 0


def test_judging_twice_says_the_same(digits: World, tmp_path: Path) -> None:
    path = findings.write(tmp_path, told(), {"inputs_BCHW": noisy(digits.data.train_x[:2], 0.1)})
    held: Held = {(0, 0): (0, 1)}
    once = judging.summed(tmp_path, digits, held), saved(path)
    assert (judging.summed(tmp_path, digits, held), saved(path)) == once


# Labels, properties, membership


def test_counts_of_labels_overlap_with_those_that_were_there(digits: World, tmp_path: Path) -> None:
    rows = tuple(range(12))
    true = digits.data.train_y[:12].tolist()
    counts = torch.bincount(digits.data.train_y[:12], minlength=10)
    wrong = counts.clone()
    absent = int((counts == 0).nonzero()[0, 0]) if (counts == 0).any() else int(counts.argmin())
    wrong[true[0]] -= 1
    wrong[absent] += 1
    findings.write(tmp_path, told(), {"counts": counts})
    findings.write(tmp_path, told(), {"counts": wrong})
    path = findings.write(tmp_path, told(), {"labels_B": torch.tensor(true[::-1])})
    entries = judging.score(tmp_path, digits, {(0, 0): rows})
    assert [entry["label_accuracy"] for entry in entries] == [1, pytest.approx(11 / 12, rel=1e-5), 1]
    assert findings.load(path.with_suffix(".truth.safetensors"))["labels_B"].tolist() == true


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> World:
    path = tmp_path_factory.mktemp("data") / "people.npz"
    x, y = load_digits(return_X_y=True)
    groups = numpy.where(numpy.arange(len(y)) % 7 == 0, "rare", "common")
    numpy.savez(path, x=x.reshape(-1, 8, 8).astype(numpy.float32), y=y, group=groups, code=numpy.arange(len(y)) % 7)
    return world(data={"npz": str(path)})


@pytest.mark.parametrize(("column", "value"), [("group", "rare"), ("code", 0)])
def test_how_well_a_property_is_told_is_the_share_of_rounds_in_the_right_order(
    column: str, value: str | int, people: World, tmp_path: Path
) -> None:
    draw = numpy.random.default_rng(4)
    held = {(peer, b): tuple(draw.integers(0, 1000, 4).tolist()) for peer in (0, 2) for b in range(8)}
    scores = {(reading, batch): round(float(draw.random()), 1) for reading in ("plain", "head") for batch in held}
    kind = {"method": "property", "column": column, "value": value}
    for (reading, (peer, b)), score in scores.items():
        about = told(victim=str(peer), round=b, batches=[[peer, b]], reading=reading, score=score, **kind)
        findings.write(tmp_path, about, {})
    findings.write(tmp_path, told(victim="0", batches=[[0, 99]], score=0.5, **kind), {})
    entries = judging.score(tmp_path, people, held)
    assert "auc" not in entries[-1]
    rare = {batch: any(people.data.columns["group"][row] == "rare" for row in rows) for batch, rows in held.items()}
    assert 0 < sum(rare.values()) < len(rare)
    for reading in ("plain", "head"):
        pairs = [
            (scores[reading, a] > scores[reading, b]) + (scores[reading, a] == scores[reading, b]) / 2
            for a in held
            for b in held
            if rare[a] and not rare[b]
        ]
        expected = sum(pairs) / len(pairs)
        found = [entry["auc"] for entry in entries[:-1] if entry["reading"] == reading]
        assert found == [pytest.approx(expected, rel=1e-5)] * 16
    leaked = judging.summed(tmp_path, people, held)["leak"]
    assert leaked["head"]["property_auc"] == pytest.approx(found[0])
    assert "property_auc" not in leaked, "which reading to trust only the truth could tell"


def test_a_property_that_all_or_no_batches_have_or_that_no_column_tells_has_no_area(
    people: World, tmp_path: Path
) -> None:
    for b, (column, value) in enumerate([("group", "rare"), ("group", "nobody"), ("size", 3), (None, None)] * 2):
        about = told(batches=[[0, b]], score=0.1 * b, column=column, value=value)
        findings.write(tmp_path, about, {})
    held: Held = {(0, b): (0, 1) for b in range(8)}
    assert not any("auc" in entry for entry in judging.score(tmp_path, people, held))


def fitted(judged_in: World, rows: tuple[int, ...]) -> Tensor:
    """Parameters that know these examples by heart."""
    data, generator = judged_in.data, torch.Generator().manual_seed(2)
    module = judged_in.settings.model.value.build(data.shape, data.classes)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    optimiser = torch.optim.Adam(module.parameters(), lr=0.05)
    for _ in range(200):
        optimiser.zero_grad()
        nn.functional.cross_entropy(module(data.train_x[list(rows)]), data.train_y[list(rows)]).backward()
        optimiser.step()
    return torch.cat([parameter.detach().flatten() for parameter in module.parameters()])


def losses(judged_in: World, x_D: Tensor, inputs: Tensor, labels: Tensor) -> list[float]:
    module = judged_in.settings.model.value.build(judged_in.data.shape, judged_in.data.classes)
    nn.utils.vector_to_parameters(x_D, module.parameters())
    with torch.no_grad():
        found = [
            float(nn.functional.cross_entropy(module(x[None]), y[None])) for x, y in zip(inputs, labels, strict=True)
        ]
    return found


def test_members_are_told_by_their_losses_from_as_many_test_examples(
    digits: World, one_thread: None, tmp_path: Path
) -> None:
    held: Held = {(0, b): tuple(range(4 * b, 4 * b + 4)) for b in range(10)}
    held[0, 5] += (0, 1)  # which it had before
    seen = tuple(range(24))
    x_D, other_D = fitted(digits, seen), fitted(digits, tuple(range(100, 160)))
    both = {"suspect_D": x_D, "reference_D": other_D}
    for more, tensors in (
        ({"round": 3}, {"suspect_D": x_D}),
        ({"round": 9, "batches": [[0, 4], [0, 5]]}, both),
        ({"round": 3, "batches": [[0, 5]]}, {name: other_D for name in both}),
        ({"victim": 2}, {"suspect_D": x_D}),
        ({"victim": "hub"}, {"suspect_D": x_D}),
        ({"batches": [[0, 5]]}, {"suspect_D": x_D[1:]}),
    ):
        findings.write(tmp_path, told(batches=[], method="membership_inference") | more, tensors)
    entries = judging.score(tmp_path, digits, held)
    data, rows = digits.data, list(seen)
    others = numpy.random.RandomState(0).permutation(len(data.test_y))[:24]
    ours = losses(digits, x_D, data.train_x[rows], data.train_y[rows])
    theirs = losses(digits, x_D, data.test_x[others], data.test_y[others])
    less = [a - b for a, b in zip(ours, losses(digits, other_D, data.train_x[rows], data.train_y[rows]), strict=True)]
    more = [
        a - b for a, b in zip(theirs, losses(digits, other_D, data.test_x[others], data.test_y[others]), strict=True)
    ]
    for entry, members, strangers in ((entries[0], ours, theirs), (entries[1], less, more)):
        right = [(a < b) + (a == b) / 2 for a in members for b in strangers]
        assert entry["auc"] == pytest.approx(fmean(right), rel=1e-3)
        assert 0.7 < entry["auc"] <= 1
    assert entries[2]["auc"] == 0.5, "of two models that are one nothing is to be seen"
    assert not any("auc" in entry for entry in entries[3:])


# What a peer may say of it


SPIED = {"time_s": 1.0, "sent_bytes": 1}


@pytest.fixture(scope="module")
def spied() -> World:
    attacks = [
        {"peers": [1], "attack": "label_leakage", "rounds": [1, 2], "victims": [0]},
        {"peers": [0, 2], "attack": "label_leakage", "rounds": [1], "collude": True},
    ]
    return world(attacks=attacks, rounds=3)


def found_by(round: int = 1, **more: Any) -> Message:
    said = {"attacker": "1", "victim": "0", "round": round, "method": "label_leakage", "reading": "plain"}
    return Message("found", round, figures={**SPIED, "spied": said | more})


def hear(spies: control.Spies, peer: int, message: Message) -> None:
    control.check(message, 5)
    spies.check(peer, message)


def nested(depth: int) -> Any:
    return [nested(depth - 1)] if depth else 1


LIES: dict[str, tuple[int, Message]] = {
    "by who does not attack": (2, found_by()),
    "of an attack after the run": (2, found_by(attacker="2")),
    "in the name of another": (1, found_by(attacker="0")),
    "in the name of several": (1, found_by(attacker="1+2")),
    "that say nothing": (1, Message("found", 1, figures={**SPIED, "spied": {}})),
    "of no round": (1, found_by(round=3)),
    "of another round than theirs": (1, Message("found", 2, figures=found_by().figures)),
    "of half a round": (1, found_by(round=1.0)),  # type: ignore[arg-type]
    "by another method": (1, found_by(method="idlg")),
    "by no method": (1, found_by(method=["label_leakage"])),
    "on nobody": (1, found_by(victim="9")),
    "on no peer at all": (1, found_by(victim=math.nan)),
    "that are endless": (1, found_by(holds="x" * 1001)),
    "of endless words": (1, found_by(**{"x" * 1001: 1})),
    "without a bottom": (1, found_by(options=nested(300))),
    "how far, endlessly": (1, Message("spying", 1, figures={"about": "x" * 10**7, "done": 0.5})),
    "how far, of who does not attack": (2, Message("spying", 1, figures={"about": "it", "done": 0.5})),
    "in a row": (1, Message("row", 1, figures={**SPIED, "vectors": 1, "tensor_bytes": 1, "spied": {}})),
}


@pytest.mark.parametrize("lie", LIES)
def test_findings_that_a_peer_cannot_have_are_refused(lie: str, spied: World) -> None:
    spies = control.Spies(spied)
    hear(spies, 1, found_by())
    with pytest.raises(RemoteError):
        hear(spies, *LIES[lie])


def test_a_peer_tells_no_more_findings_than_its_attacks_can_have(spied: World) -> None:
    spies, most = control.Spies(spied), 2 * 3 * control.READINGS
    for _ in range(most):
        hear(spies, 1, found_by())
    with pytest.raises(RemoteError, match="more findings than"):
        hear(spies, 1, found_by())
    hear(spies, 1, Message("spying", 1, figures={"about": "it", "done": 0.5}))


def test_whatever_a_row_holds_that_is_no_number_is_recorded_as_none(spied: World, tmp_path: Path) -> None:
    with Recorder(tmp_path, spied, lambda row: None, lambda text: None) as recorder:
        recorder.add({"peer": 1, "round": 1, "held": {"0": [math.nan, 1], "1": {"x": math.inf}}})
    assert json.loads((tmp_path / "records.jsonl").read_text())["held"] == {"0": [None, 1], "1": {"x": None}}


def test_no_link_leads_what_is_written_or_read_out_of_the_folder(digits: World, tmp_path: Path) -> None:
    elsewhere, run = tmp_path / "elsewhere", tmp_path / "run"
    path = findings.write(elsewhere, told(), {"labels_B": digits.data.train_y[:4]})
    (run / "attacks").mkdir(parents=True)
    (run / "attacks" / "peer-1").symlink_to(path.parent)
    before = {file: file.read_bytes() for file in path.parent.iterdir()}
    assert findings.read(run) == []
    with pytest.raises(OSError, match="peer-1"):
        findings.write(run, told(), {})
    home = run / "attacks" / "peer-2"
    home.mkdir()
    (home / "0001.json").symlink_to(path)
    (home / "0002.json.part").symlink_to(path)
    assert findings.read(run) == []
    assert findings.write(run, told(attacker="2"), {}).name == "0002.json"
    assert {file: file.read_bytes() for file in path.parent.iterdir()} == before


# What leaked in all


def judged(mse: float | Iterable[float], **more: Any) -> dict[str, Any]:
    errors = [mse] if isinstance(mse, float) else [*mse]
    shown = [{"peer": 0, "mse": e, "psnr_db": -10 * math.log10(e), "ssim": 1 - e, "label": 1} for e in errors]
    share = sum(e < 1e-3 for e in errors) / len(errors)
    means = {"mse": fmean(errors), "recovered": share, "examples": len(errors), "images": shown}
    return told(attacker=1, victim=0, **means) | more


def test_of_a_victims_round_the_strongest_reading_counts_and_each_reading_stands_below(tmp_path: Path) -> None:
    tolds = [
        judged(0.2, round=1, reading="memoryless", label_accuracy=1.0),
        judged(1e-6, round=1, reading="stateful", label_accuracy=0.0, seconds=5.0),
        judged([1e-4, 0.3], round=2, reading="memoryless", label_accuracy=0.5),
        judged([1e-5, 0.1], round=2, reading="stateful", method="dlg", label_accuracy=0.5, seconds=1.0),
        judged(0.5, round=2, victim=2, reading="memoryless"),
        told(attacker=1, victim=2, round=3, reading="stateful", auc=0.8, inferred="property"),
        told(attacker=1, victim=2, round=3, reading="stateful", auc=0.7, inferred="property", method="other"),
        told(attacker=1, victim=2, round=3, reading="memoryless", auc=0.6, inferred="property"),
        told(attacker=1, victim=2, round=3, reading="memoryless", auc=0.9, inferred="membership"),
        told(attacker=1, victim=2, round=4, reading="memoryless"),
    ]
    found = leak(tolds)
    errors = [1e-6, 1e-5, 0.1, 0.5]
    low, high = stats.binomtest(2, 4).proportion_ci(0.95, method="wilson")
    assert {key: found[key] for key in found if key in LEAKED} == {
        "images": 4, "recovered": 0.5,
        "recovered_low": pytest.approx(low, rel=1e-5), "recovered_high": pytest.approx(high, rel=1e-5),
        "mse": pytest.approx(median(errors)), "psnr_db": pytest.approx(fmean(-10 * math.log10(e) for e in errors)),
        "ssim": pytest.approx(1 - fmean(errors)), "label_accuracy": pytest.approx((1 + 2 * 0.5) / 3, rel=1e-5),
        "membership_auc": 0.9, "seconds": 2.0,
    }  # fmt: skip
    assert found["memoryless"]["images"] == 4
    assert found["memoryless"]["recovered"] == 0.25
    assert found["memoryless"] == found["memoryless"] | {"property_auc": 0.6, "membership_auc": 0.9}
    assert found["stateful"]["property_auc"] == 0.75, "the mean, not the best"
    assert "membership_auc" not in found["stateful"]
    assert found["stateful"]["images"] == 3
    assert found["stateful"]["seconds"] == pytest.approx(median([5.0, 0.5]))
    assert found.keys() - set(LEAKED) == {"memoryless", "stateful"}
    assert leak([]) == leak(tolds[-1:]) == {}


def test_every_figure_of_what_leaked_may_be_published() -> None:
    whole = judged([1e-6, 0.1], label_accuracy=0.5, auc=0.7)
    each = [whole | {"reading": reading, "inferred": of} for reading in READINGS for of in ("property", "membership")]
    found = leak(each) | {key: value for key, value in leak(each[:2]).items() if key.endswith("_auc")}
    numbers = {f"leak.{key}" for key, value in found.items() if not isinstance(value, Mapping)}
    numbers |= {f"leak.{key}.{name}" for key, value in found.items() if isinstance(value, Mapping) for name in value}
    assert numbers == {figure for figure in FIGURES if figure.startswith("leak.")}


def test_the_summary_of_a_run_says_what_its_attacks_came_to(digits: World, tmp_path: Path) -> None:
    def summary(folder: Path) -> dict[str, Any]:
        with Recorder(folder, digits, lambda row: None, lambda text: None) as recorder:
            for peer in range(3):
                counts = {"sent_bytes": 9, "vectors": 1, "tensor_bytes": 8, "round_s": 0.1, "time_s": 0.1}
                recorder.add({"peer": peer, "round": 1, "held": {"0": [peer, peer + 3], "1": [9]}, **counts})
            return summarise(recorder, 0.0, 1.0)

    assert not summary(tmp_path).keys() & {"attacks", "leak"}
    x = digits.data.train_x
    findings.write(tmp_path, told(attacker="hub", victim="2", batches=[[2, 0]]), {"inputs_BCHW": x[[5, 2]]})
    found = summary(tmp_path)
    (entry,) = found["attacks"]
    assert (entry["attacker"], entry["victim"], entry["recovered"], entry["psnr_db"]) == ("hub", 2, 1, 120)
    assert found["leak"] == found["leak"] | {"images": 2, "recovered": 1, "mse": 0, "seconds": 1}
    assert found["leak"]["plain"] == {key: value for key, value in found["leak"].items() if key != "plain"}
    json.dumps(found, allow_nan=False)


def test_a_misspelt_figure_of_a_leak_is_corrected_and_not_all_of_them_are_listed() -> None:
    def refused(figure: str) -> str:
        published = {"source": "somebody", "figures": [{"figure": figure, "value": 1.0}]}
        with pytest.raises(ScenarioError) as raised:
            written(Document({"published": published}, {}))
        return str(raised.value)

    assert "did you mean 'leak.matched.recovered'?" in refused("leak.matched.recoverd")
    listed = refused("???")
    assert "leak.recovered" in listed
    assert "leak.matched" not in listed
