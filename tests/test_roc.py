"""ROC curves: their areas against every pair and scikit-learn, and how they come from an evaluation to the pages."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as some
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score, roc_curve

import p2pfl
from p2pfl.contracts import Training
from p2pfl.learning.datasets.npz import Npz
from p2pfl.learning.models.mlp import Mlp
from p2pfl.learning.task import SGDTask
from p2pfl.metrics import roc
from p2pfl.report import page as run_page
from p2pfl.report.comparison.page import write
from p2pfl.seeds import Seeds

labelled_scores = some.lists(some.tuples(some.integers(-4, 4), some.booleans()), min_size=2, max_size=40).filter(
    lambda pairs: len({label for _, label in pairs}) == 2
)


def drawn(count: int, seed: int, ties: bool = False) -> tuple[numpy.ndarray, numpy.ndarray]:
    """Scores of two overlapping classes, a quarter of them positive, and labels."""
    stream = numpy.random.default_rng(seed)
    labels_N = (stream.random(count) < 0.25).astype(numpy.int64)
    scores_N = stream.normal(size=count) + 1.5 * labels_N
    return (scores_N.round(1) if ties else scores_N), labels_N


def share_of_ordered_pairs(scores_N: numpy.ndarray, labels_N: numpy.ndarray) -> float:
    pairs = [(a, b) for a in scores_N[labels_N == 1] for b in scores_N[labels_N == 0]]
    return sum((a > b) + 0.5 * (a == b) for a, b in pairs) / len(pairs)


@given(labelled_scores)
def test_the_area_is_the_share_of_pairs_in_the_right_order_ties_counted_half(pairs: list[tuple[int, bool]]) -> None:
    scores_N, labels_N = (numpy.array(column) for column in zip(*pairs, strict=True))
    area = roc.area(roc.curve(scores_N, labels_N))
    assert area == pytest.approx(share_of_ordered_pairs(scores_N, labels_N), abs=1e-12)
    assert area == pytest.approx(roc_auc_score(labels_N, scores_N), abs=1e-12)


@pytest.mark.parametrize("ties", [False, True])
def test_the_curve_is_that_of_scikit_learn(ties: bool) -> None:
    scores_N, labels_N = drawn(500, 1, ties)
    fpr_P, tpr_P = roc.curve(scores_N, labels_N)
    every_fpr, every_tpr, _ = roc_curve(labels_N, scores_N, drop_intermediate=False)
    along = every_fpr + every_tpr
    assert numpy.interp(along, fpr_P + tpr_P, tpr_P) == pytest.approx(every_tpr, abs=1e-12)
    assert (
        {(0.0, 0.0), (1.0, 1.0)} <= set(zip(fpr_P, tpr_P, strict=True)) <= set(zip(every_fpr, every_tpr, strict=True))
    )


def test_a_perfect_score_has_three_corners_and_one_that_says_nothing_has_two() -> None:
    labels_N = numpy.array([0, 0, 1, 1, 1])
    perfect = roc.curve(numpy.array([-2.0, -1, 1, 2, 3]), labels_N)
    assert [rates_P.tolist() for rates_P in perfect] == [[0, 0, 1], [0, 1, 1]]
    silent = roc.curve(numpy.zeros(5), labels_N)
    assert [rates_P.tolist() for rates_P in silent] == [[0, 1], [0, 1]]
    assert (roc.area(perfect), roc.area(silent)) == (1.0, 0.5)


@pytest.mark.parametrize("label", [0, 1])
def test_examples_of_one_class_have_no_curve(label: int) -> None:
    scores_N, labels_N = numpy.arange(3.0), numpy.full(3, label)
    with pytest.raises(ValueError, match="both classes"):
        roc.curve(scores_N, labels_N)
    assert roc.figures(scores_N, labels_N) == {}


@pytest.mark.parametrize(("count", "most"), [(3000, 200), (3000, 20), (100, 200)])
def test_a_thinned_curve_has_few_points_all_of_the_curve_and_shows_the_same(count: int, most: int) -> None:
    whole = roc.curve(*drawn(count, 2))
    thin = roc.thinned(whole, most)
    assert len(thin[0]) <= most
    assert set(zip(*thin, strict=True)) <= set(zip(*whole, strict=True))
    along = whole[0] + whole[1]
    off = numpy.interp(along, thin[0] + thin[1], thin[1] - thin[0]) - (whole[1] - whole[0])
    assert numpy.abs(off).max() <= 2 / (most - 1)
    assert roc.area(thin) == pytest.approx(roc.area(whole), abs=1 / most)
    assert (len(thin[0]) == len(whole[0])) == (len(whole[0]) <= most)


def test_the_area_of_a_mean_is_the_mean_of_the_areas_and_the_mean_of_one_is_itself() -> None:
    curves = [roc.curve(*drawn(count, seed)) for seed, count in enumerate((30, 200, 500))]
    fpr_P, tpr_P = roc.mean(curves)
    assert roc.area((fpr_P, tpr_P)) == pytest.approx(numpy.mean([roc.area(curve) for curve in curves]), abs=1e-12)
    assert (numpy.diff(fpr_P) >= -1e-12).all()
    assert (numpy.diff(tpr_P) >= -1e-12).all()
    for ours, theirs in zip(roc.mean(curves[:1]), curves[0], strict=True):
        assert ours == pytest.approx(theirs, abs=1e-12)


def test_what_is_recorded_can_be_read_and_nonsense_cannot() -> None:
    scores_N, labels_N = drawn(2000, 3)
    figures = roc.figures(scores_N, labels_N)
    assert figures["auc"] == pytest.approx(roc_auc_score(labels_N, scores_N), abs=1e-12)
    read = roc.read(figures["roc"])
    assert read is not None
    assert roc.area(read) == pytest.approx(figures["auc"], abs=0.001)
    line = [0.0, 0.5, 1.0]
    nonsense = [None, 3, "roc", [], [[], []], [line], [line, line, line], [line, line[:2]], [[0, 2, 1], line]]
    nonsense += [
        [line, [0.5, 0.7, 1]],
        [line, [0, float("nan"), 1]],
        [line, [0, 10**400, 1]],
        [line, {}],
        [["a"], ["b"]],
    ]
    assert [roc.read(value) for value in (*nonsense, [[0.0] * 500 + [1.0]] * 2)] == [None] * (len(nonsense) + 1)
    assert roc.read([line, line]) is not None


# From an evaluation to the pages


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Handwritten digits as two classes of unlike sizes: is it more than six?"""
    path = tmp_path_factory.mktemp("data") / "digits.npz"
    images, labels = load_digits(return_X_y=True)
    numpy.savez(path, x=images.reshape(-1, 8, 8).astype(numpy.float32), y=(labels > 6).astype(numpy.int64))
    return path


def launched(folder: Path, digits: Path, **settings: Any) -> list[dict[str, Any]]:
    """The rows of a run in which two peers tell the classes apart."""
    scenario = {"name": "two", "seed": 3, "peers": 2, "rounds": 6, "engine": "simulate", "data": {"npz": str(digits)}}
    scenario |= {"training": {"local_steps": 5}, "evaluate": {"every": 2}}
    p2pfl.launch(scenario | settings, folder)
    return [json.loads(line) for line in (folder / "records.jsonl").read_text().splitlines()]


def summary(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return found


def test_of_two_classes_an_evaluation_tells_the_area_under_the_curve(digits: Path) -> None:
    data = Npz(digits).load()
    task = SGDTask(Mlp((8,)), data, numpy.arange(200), Training(lr=0.05), torch.device("cpu"), Seeds.of(1))
    x_D = task.steps(task.start(Seeds.of(1)), None, 0, 10).x_D
    for split, inputs, labels in (
        ("test", data.test_x, data.test_y),
        ("validation", data.validation_x, data.validation_y),
    ):
        figures = task.evaluate(x_D, split)
        with torch.no_grad():
            share = task.module(inputs).double().softmax(1)[:, 1]
        assert figures["auc"] == pytest.approx(roc_auc_score(labels.numpy(), share.numpy()), abs=1e-5)
        assert 0.6 < figures["auc"] < 1
        curve = roc.read(figures["roc"])
        assert curve is not None
        assert roc.area(curve) == pytest.approx(figures["auc"], abs=1e-4)


def test_the_area_is_in_every_evaluation_and_the_curve_in_the_last_words_only(digits: Path, tmp_path: Path) -> None:
    for split in ("validation", "test"):
        rows = launched(tmp_path / split, digits, evaluate={"every": 2, "split": split})
        measured = [row for row in rows if f"{split}_auc" in row]
        assert [(row["peer"], row["round"]) for row in measured] == [(i, r) for r in (2, 4, 6) for i in (0, 1)]
        drawn = [row for row in rows if any(key.endswith("roc") for key in row)]
        assert [(row["peer"], row["round"]) for row in drawn] == [(0, 6), (1, 6)]
        assert all(roc.read(row["test_roc"]) is not None for row in drawn)
        areas = [row["test_auc"] for row in drawn]
        told = summary(tmp_path / split)["auc"]
        assert (told["min"], told["max"]) == (min(areas), max(areas))
        assert told["mean"] == pytest.approx(sum(areas) / 2)
        assert 0.5 < told["consensus_model"] <= 1
        accuracy = summary(tmp_path / split)["accuracy"]
        assert accuracy["mean"] == pytest.approx(sum(row["test_accuracy"] for row in drawn) / 2)
        assert accuracy.keys() == told.keys()


def test_a_run_that_stops_early_has_its_curve_too(digits: Path, tmp_path: Path) -> None:
    stops = {"evaluate": {"every": 2, "target": 0.1}, "stop": [{"target": True}]}
    rows = launched(tmp_path / "run", digits, **stops)
    assert [(row["peer"], row["round"]) for row in rows if "test_roc" in row] == [(0, 2), (1, 2)]
    assert summary(tmp_path / "run")["auc"]["mean"] > 0.5


def test_in_a_star_the_curve_is_the_hubs_and_comes_whole_out_of_its_process(digits: Path, tmp_path: Path) -> None:
    drawn = []
    for engine in ("simulate", "local"):
        rows = launched(tmp_path / engine, digits, engine=engine, algorithm="fedavg")
        drawn.append(
            [(row["peer"], row["round"], row["test_auc"], row["test_roc"]) for row in rows if "test_roc" in row]
        )
        assert [told[:2] for told in drawn[-1]] == [("hub", 6)]
        told = summary(tmp_path / engine)["auc"]
        assert told == dict.fromkeys(("mean", "min", "max", "consensus_model"), drawn[-1][0][2])
    assert drawn[0] == drawn[1]


def test_data_of_ten_classes_have_no_curve(tmp_path: Path) -> None:
    p2pfl.launch({"name": "ten", "peers": 2, "rounds": 1, "engine": "simulate", "data": "digits"}, tmp_path / "run")
    assert "auc" not in summary(tmp_path / "run")
    assert "roc" not in (tmp_path / "run" / "records.jsonl").read_text()
    assert "ROC" not in (tmp_path / "run" / "report.html").read_text()


def test_the_report_of_a_run_draws_each_peers_curve_their_mean_and_chance(digits: Path, tmp_path: Path) -> None:
    launched(tmp_path / "run", digits, peers=3)
    page = (tmp_path / "run" / "report.html").read_text()
    figure = page[page.index('<figure class="card roc') :]
    figure = figure[: figure.index("</figure>")]
    keys = re.findall(r"<li><i[^>]*></i>([^<]*)</li>", figure)
    mean = summary(tmp_path / "run")["auc"]["mean"]
    assert keys == ["each of 3 peers", f"mean of the peers, area {mean:.4f}", "chance, area 0.5"]
    assert f"<b>{mean:.4f}</b>" in page


def test_a_record_with_nonsense_for_a_curve_has_a_page_without_it(digits: Path, tmp_path: Path) -> None:
    launched(tmp_path / "run", digits)
    record = tmp_path / "run" / "records.jsonl"
    record.write_text(re.sub(r'"test_roc": \[\[.*?\]\]', '"test_roc": [[0, 1], ["<b>", {}]]', record.read_text()))
    page = run_page.write(tmp_path / "run").read_text()
    assert "ROC curve" not in page
    assert "area under ROC" in page


def test_a_comparison_draws_a_mean_curve_for_each_group_and_tells_its_area(digits: Path, tmp_path: Path) -> None:
    folders = [tmp_path / f"{algorithm}-{seed}" for algorithm in ("dpsgd", "fedavg", "local_only") for seed in (1, 2)]
    for folder in folders:
        algorithm, _, seed = folder.name.partition("-")
        launched(folder, digits, algorithm=algorithm, seed=int(seed))
    page = write(folders, tmp_path / "comparison.html").read_text()
    drawing = page[page.index('aria-label="ROC curve on the test set"') :]
    drawing = drawing[: drawing.index("</svg>")]
    bold, thin = (
        len(re.findall(rf'stroke: var\(--hue\d\);[^"]*stroke-width: {width}', drawing)) for width in (1.8, 0.8)
    )
    assert (bold, thin) == (3, 6)
    assert "<th>AUC</th>" in page
