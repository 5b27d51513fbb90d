"""What a paper reports stands beside our own figures, changes nothing that runs, and is refused where it is wrong."""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from p2pfl.cli import main
from test_comparison import EVIL, Parsed, grouped, half, launched, page_of, several, summed, written

import p2pfl
from p2pfl import scenario
from p2pfl.errors import ScenarioError
from p2pfl.report.comparison import frontier, published, published_plot, tables
from p2pfl.report.comparison.published import Claim
from p2pfl.report.units import flat
from p2pfl.runtime.sweeps.matrix import cases
from p2pfl.scenario.publication import FIGURES

TINY: dict[str, Any] = {
    "name": "tiny",
    "peers": 3,
    "rounds": 2,
    "engine": "simulate",
    "model": {"mlp": {"hidden": [8]}},
    "training": {"local_steps": 2, "device": "cpu"},
    "evaluate": {"every": 1, "target": 0.05},
}
SWEPT = TINY | {"matrix": {"sketch": ["dense", {"countsketch": {"ratio": 0.5}}], "seed": [1]}}
LINES = """\
name: tiny
seed: 1
published:
  source: Somebody 2026
  figures:
    - {figure: rounds_to_target, value: 96, when: {sketch: dense}}
"""


def entry(value: float = 96, figure: str = "rounds_to_target", **when: Any) -> dict[str, Any]:
    return {"figure": figure, "value": value, "when": {key.replace("__", "."): each for key, each in when.items()}}


def by(*figures: Mapping[str, Any], source: str = "Somebody 2026, Table 1") -> dict[str, Any]:
    return {"source": source, "figures": list(figures)}


def spelled(**when: Any) -> Any:
    found = scenario.published(scenario_document(TINY | {"published": by(entry(**when))}))
    assert found is not None
    return found.figures[0].when


def scenario_document(mapping: Mapping[str, Any]) -> Any:
    with scenario.located(mapping) as document:
        return document


def verb(*arguments: object) -> tuple[int, str]:
    ended = CliRunner().invoke(main, [str(each) for each in arguments], prog_name="p2pfl")
    return ended.exit_code, ended.output


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("rounds_to_target", "rounds_to_targt", "did you mean 'rounds_to_target'?"),
        ("rounds_to_target", "bytes", "did you mean 'bytes.sent'?"),
        ("value: 96", "value: many", "value is 'many' (bad.yaml:6): must be a number"),
        ("value: 96", "value: true", "must be a number"),
        ("value: 96", "value: .nan", "must be a finite number"),
        (" value: 96,", "", "add 'value: ...'"),
        ("sketch: dense", "sketch: dens", "no sketch 'dens' (bad.yaml:6): did you mean 'dense'?"),
        ("sketch: dense", "sketch.countsketch.ratoi: 0.5", "did you mean 'ratio'?"),
        ("sketch: dense", "training.lrr: 0.1", "unknown key 'lrr' (bad.yaml:6): did you mean 'lr'?"),
        ("sketch: dense", "training.lr: -0.1", "training.lr is -0.1 (bad.yaml:6): must be greater than 0"),
        ("sketch: dense", "peers.x: 3", "peers is {'x': 3} (bad.yaml:6): must be an integer"),
        ("sketch: dense", "seed: 1", "published.figures.0.when names 'seed' (bad.yaml:6): leave it out"),
        ("sketch: dense", "published.source: x", "names 'published.source'"),
        ("sketch: dense", "matrix: {peers: [1]}", "matrix makes a sweep of this scenario (bad.yaml:6)"),
        ("{sketch: dense}", "3", "when is 3 (bad.yaml:6): must be a mapping"),
        ("when:", "wen:", "unknown key 'wen' (bad.yaml:6): did you mean 'when'?"),
        ("source: Somebody 2026", "figure: 3", "unknown key 'figure' (bad.yaml:4)"),
    ],
)
@pytest.mark.parametrize("matrix", ["", "matrix: {sketch: [{countsketch: {ratio: 0.5}}, dense]}\n"])
def test_what_is_wrong_is_refused_by_its_line_before_anything_is_written(
    old: str, new: str, said: str, matrix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert old in LINES
    (tmp_path / "bad.yaml").write_text(LINES.replace(old, new) + matrix)
    for arguments in (("check", "bad.yaml"), ("launch", "bad.yaml", "--engine", "simulate")):
        code, output = verb(*arguments)
        assert (code, len(output.splitlines())) == (2, 1), output
        assert said in output
        assert "(bad.yaml:" in output
    assert [path.name for path in tmp_path.iterdir()] == ["bad.yaml"]


def test_no_matrix_varies_it() -> None:
    with pytest.raises(ScenarioError, match="matrix must not vary 'published'"):
        cases(TINY | {"matrix": {"published.source": ["a", "b"]}})


@pytest.mark.parametrize("given", [by(entry(sketch="dense")), by(), {}, None])
def test_it_changes_no_scenario_no_case_and_no_digest(given: Any) -> None:
    plain, told = scenario.read(TINY), scenario.read(TINY | {"published": given})
    assert told == plain
    assert scenario.dump(told) == scenario.dump(plain)
    assert scenario.digest(told) == scenario.digest(plain)
    silent, swept = cases(SWEPT), cases(SWEPT | {"published": given})
    assert silent is not None
    assert swept is not None
    assert swept.digest == silent.digest
    assert [case.folder for case in swept.cases] == [case.folder for case in silent.cases]


def test_settings_may_be_written_in_every_form_that_a_matrix_takes() -> None:
    half_sketch = {"sketch": {"countsketch": {"ratio": 0.5}}}
    assert spelled(sketch={"countsketch": {"ratio": 0.5}}) == half_sketch
    assert spelled(sketch={"countsketch": 0.5}) == half_sketch
    assert spelled(sketch__countsketch__ratio=0.5) == half_sketch
    assert spelled(sketch__countsketch=0.5) == half_sketch
    assert spelled(sketch="countsketch") == {"sketch": "countsketch"}, "whatever its options"
    assert spelled(sketch={"dense": None}) == {"sketch": "dense"}
    assert spelled(training__lr=1) == {"training": {"lr": 1.0}}
    assert spelled(model={"mlp": [64]}) == {"model": {"mlp": {"hidden": [64]}}}
    assert spelled(defences=[{"dp": 2}]) == {"defences": [{"dp": {"epsilon": 2.0}}]}
    assert spelled(defences=[{"dp": {"noise": 2, "clip": 1}}]) == {"defences": [{"dp": {"noise": 2.0, "clip": 1.0}}]}
    assert spelled(defences=[]) == {"defences": []}
    assert len(spelled(stop=[{"seconds": 5}])["stop"][0]) > 1, "what is no plug-in is whole"
    assert spelled(training={"schedule": "cosine"}, peers=5) == {"training": {"schedule": "cosine"}, "peers": 5}


def test_every_figure_of_a_summary_may_be_published(tmp_path: Path) -> None:
    members = launched(tmp_path / "star", algorithm={"fedavg": {"fraction": 0.5}}, seed=1)
    evaluate = {"every": 2, "target": 0.2, "test": False}
    blind = launched(tmp_path / "blind", seed=1, evaluate=evaluate, engine="local", peers=2)
    draw = numpy.random.default_rng(1)
    numpy.savez(tmp_path / "two.npz", x=draw.normal(size=(200, 6)).astype("float32"), y=numpy.arange(200) % 2)
    two = launched(tmp_path / "two", seed=1, data={"npz": str(tmp_path / "two.npz")})
    evaluate = {"every": 2, "target": 0.01, "loss": 100.0}
    private = [
        launched(tmp_path / name, seed=1, evaluate=evaluate, defences=[{name: options}])
        for name, options in (("dp", {"noise": 2.0, "canaries": 40}), ("batch_clip", {"noise": 4.0}))
    ]
    found: set[str] = set()
    for folder in (members, blind, two, *private):
        summary = json.loads((folder / "summary.json").read_text())
        summary = {key: value for key, value in summary.items() if key not in ("seed", "peers", "faults", "absent")}
        found |= {key for key, value in flat(summary) if type(value) in (int, float)}
    leaks = {figure for figure in FIGURES if figure.startswith("leak.")}  # see test_findings
    assert found == set(FIGURES) - leaks


def test_the_bytes_to_the_target_count_members_that_were_silent_in_its_round(tmp_path: Path) -> None:
    run = launched(tmp_path / "star", algorithm={"fedavg": {"fraction": 0.4}}, seed=1, peers=6)
    summary = json.loads((run / "summary.json").read_text())
    rows = [json.loads(line) for line in (run / "records.jsonl").read_text().splitlines()]
    rows = [row for row in rows if "sent_bytes" in row and row["round"] <= summary["rounds_to_target"]]
    last = {row["peer"]: max(other["sent_bytes"] for other in rows if other["peer"] == row["peer"]) for row in rows}
    assert summary["bytes"]["to_target"] == sum(last.values()) > 0
    assert len({row["round"] for row in rows}) > 1


def test_a_sweep_carries_it_and_shows_it_again_and_a_new_figure_runs_nothing_again(tmp_path: Path) -> None:
    out = tmp_path / "out"
    told = by(entry(4, sketch="dense"), entry(8, sketch={"countsketch": 0.5}), entry(9, sketch={"sampling": 0.5}))
    record = p2pfl.launch(SWEPT | {"published": told}, out)
    assert len(record.cases) == 2  # type: ignore[union-attr]
    index = json.loads((out / "sweep.json").read_text())
    assert index["published"]["source"] == "Somebody 2026, Table 1"
    assert index["published"]["figures"][1]["when"] == {"sketch": {"countsketch": {"ratio": 0.5}}}
    assert verb("report", out)[0] == 0
    rows = table_of((out / "report.html").read_text())
    assert [(row["sketch"], row["published"], row["ours"] != "–|no run") for row in rows] == [
        ("dense", "4", True), ("countsketch(ratio=0.5)", "8", True), ("sampling(ratio=0.5)", "9", False),
    ]  # fmt: skip
    before = {path: path.stat().st_mtime_ns for path in out.rglob("records.jsonl")}
    p2pfl.launch(SWEPT | {"published": by(entry(5, sketch="dense"), source="Another")}, out)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("records.jsonl")} == before
    page = (out / "report.html").read_text()
    assert "<h2>Published: Another</h2>" in page
    assert [row["published"] for row in table_of(page)] == ["5"]


def table_of(page: str) -> list[dict[str, str]]:
    """The table of published figures: a row a line, by heads; what stands in lines of a cell is told apart by bars."""
    body = page[page.index("<h2>Published") :]
    texts = []
    for row in re.findall(r"<tr>(.*?)</tr>", body[: body.index("</table>")], re.DOTALL):
        cells = re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL)
        texts.append([re.sub(r"<[^>]*>", "", cell.replace("<span", "|<span")).strip() for cell in cells])
    return [dict(zip(texts[0], row, strict=True)) for row in texts[1:]]


def indexed(*figures: Mapping[str, Any], source: str = "Somebody") -> dict[str, Any]:
    """sweep.json, of which the settings are written as in a scenario."""
    return {"published": by(*figures, source=source)}


def test_a_line_says_the_published_figure_ours_with_its_interval_and_how_they_compare(tmp_path: Path) -> None:
    reached, accuracies = [100, 120, 140], [0.90, 0.92, 0.97]
    folders = several(tmp_path, {"dpsgd": accuracies, "leasgd": [0.8, 0.81, 0.82]})
    for folder, rounds in zip(folders[:3], reached, strict=True):
        summed(folder, rounds_to_target=rounds)
    index = indexed(
        entry(96, algorithm="dpsgd"),
        entry(0.95, "accuracy.mean", algorithm="dpsgd"),
        entry(0, "consensus_distance", algorithm="dpsgd"),
        entry(50, algorithm="leasgd"),
        entry(60, algorithm="dpsgd", peers=15),
    )
    rows = table_of(page_of(folders, tmp_path, index=index))
    assert [row["figure"] for row in rows] == [
        "rounds to target", "test accuracy", "consensus_distance", "rounds to target", "rounds to target",
    ]  # fmt: skip
    assert (rows[0]["published"], rows[1]["published"]) == ("96", "95.00 %")
    assert rows[0]["ours"] == f"120|± {float(f'{half(reached):.2g}'):g}"
    times, spread = rows[0]["ours against it"].split(" ×|± ")
    assert float(times) == pytest.approx(120 / 96, abs=0.005)
    assert float(spread) == pytest.approx(half(reached) / 96, abs=0.005)
    points, spread = rows[1]["ours against it"].split(" points|± ")
    assert float(points.replace("\N{MINUS SIGN}", "-")) == pytest.approx(
        100 * (statistics.fmean(accuracies) - 0.95), abs=0.005
    )
    assert float(spread) == pytest.approx(100 * half(accuracies), abs=0.005)
    assert [row["ours"] for row in rows[2:]] == ["–", "–", "–|no run"]
    assert [row["ours against it"] for row in rows[2:]] == ["–"] * 3
    assert [row["peers"] for row in rows] == ["–", "–", "–", "–", "15"]


def test_of_a_single_run_nothing_is_said_of_how_sure_it_is_and_of_nothing_no_ratio(tmp_path: Path) -> None:
    (group,) = grouped([summed(written(tmp_path / "a"), rounds_to_target=48, consensus_distance=0.25)])
    assert published.gap(Claim("rounds_to_target", 96.0, {}), group) == tables.Cell("0.50 ×")
    assert published.gap(Claim("consensus_distance", 0.0, {}), group) == tables.Cell("+0.25")


def test_a_target_that_not_every_seed_reached_compares_with_nothing(tmp_path: Path) -> None:
    folders = several(tmp_path, {"dpsgd": [0.9, 0.9]})
    summed(folders[0], rounds_to_target=4)
    (row,) = table_of(page_of(folders, tmp_path, index=indexed(entry(4, algorithm="dpsgd"))))
    assert (row["ours"], row["ours against it"]) == ("–|reached by 1 of 2", "–")


def test_a_figure_that_several_groups_share_stands_beside_each_by_name(tmp_path: Path) -> None:
    sketches = ["dense", {"countsketch": {"ratio": 0.5}}, {"countsketch": {"ratio": 0.25}}]
    folders = [written(tmp_path / str(at), 0.9 - at / 10, sketch=sketch) for at, sketch in enumerate(sketches)]
    index = indexed(entry(0.85, "accuracy.mean", sketch="countsketch"), entry(0.9, "accuracy.mean", sketch="dense"))
    rows = table_of(page_of(folders, tmp_path, index=index))
    assert [(row["sketch"], row["group"], row["ours"].split("|")[0]) for row in rows] == [
        ("countsketch", "countsketch(ratio=0.5)", "80.00 %"),
        ("countsketch", "countsketch(ratio=0.25)", "70.00 %"),
        ("dense", "", "90.00 %"),
    ]


def test_what_was_published_of_a_defence_stands_beside_the_runs_that_had_it(tmp_path: Path) -> None:
    folders = [
        summed(written(tmp_path / f"{epsilon}", reached, defences=[{"dp": {"epsilon": epsilon}}] if epsilon else []),
               **({"privacy": {"epsilon": {"max": epsilon - 0.01}}} if epsilon else {}))
        for epsilon, reached in ((0, 0.9), (2.0, 0.7), (8.0, 0.8))
    ]  # fmt: skip
    figures = [entry(0.97, "accuracy.mean"), entry(4.2, "privacy.epsilon.max")]
    for each, epsilon in zip(figures, (2.0, 8.0), strict=True):
        each["when"] = {"defences": [{"dp": {"epsilon": epsilon}}]}
    rows = table_of(page_of(folders, tmp_path, index=indexed(*figures)))
    assert [(row["defences"], row["figure"], row["published"], row["ours"].split("|")[0]) for row in rows] == [
        ("dp(epsilon=2)", "test accuracy", "97.00 %", "70.00 %"), ("dp(epsilon=8)", "epsilon", "4.2", "7.99"),
    ]  # fmt: skip


def test_numbers_agree_however_they_are_written(tmp_path: Path) -> None:
    (group,) = grouped([written(tmp_path / "a", training={"lr": 1.0})])
    for value, holds in ((1, True), (1.0, True), (2, False), ("1.0", False)):
        assert Claim("accuracy.mean", 1.0, {"training.lr": value}).holds(group) is holds
    assert Claim("accuracy.mean", 1.0, {}).holds(group)
    assert not Claim("accuracy.mean", 1.0, {"sketch.countsketch.ratio": 0.5}).holds(group)


def test_figures_that_differ_in_one_number_are_drawn_over_it(tmp_path: Path) -> None:
    told = [
        {"figure": "rounds_to_target", "value": value, "when": {"sketch": sketch, "training": {"lr": lr}}}
        for sketch, values in (("dense", (222, 96, 84)), ({"countsketch": {"ratio": 0.5}}, (828, 429, 416)))
        for lr, value in zip((0.2, 0.02, 0.002), values, strict=True)
    ]
    told.append({"figure": "accuracy.mean", "value": 0.9, "when": {"training": {"lr": 0.2}}})
    claims = published.claims(indexed(*told))
    (plot,) = published_plot.plots(claims)
    assert (plot.figure, plot.key) == ("rounds_to_target", "training.lr")
    assert {rest: [(x, claim.value) for x, claim in row] for rest, row in plot.rows.items()} == {
        "dense": [(0.002, 84), (0.02, 96), (0.2, 222)],
        "countsketch(ratio=0.5)": [(0.002, 416), (0.02, 429), (0.2, 828)],
    }
    folders = [summed(written(tmp_path / "a", training={"lr": 0.02}), rounds_to_target=90)]
    page = page_of(folders, tmp_path, index=indexed(*told))
    assert "<h3>Rounds to target, over training.lr</h3>" in page
    assert "In the plots hollow is as published" in page
    alone = page_of(folders, tmp_path, index=indexed(told[0], told[3]))
    assert "Rounds to target, over" not in alone


def test_nothing_is_drawn_of_settings_that_are_words_or_vary_together() -> None:
    together = [{"figure": "loss.mean", "value": 1, "when": {"peers": n, "rounds": n}} for n in (5, 15)]
    words = [{"figure": "loss.mean", "value": 1, "when": {"data": name}} for name in ("digits", "mnist")]
    twice = [{"figure": "loss.mean", "value": value, "when": {"peers": 3}} for value in (1, 2)]
    for told in (together, words, twice):
        assert list(published_plot.plots(published.claims(indexed(*told)))) == []


@pytest.mark.parametrize(
    "told", [3, {}, {"figures": 3}, {"figures": [3, {}, {"figure": "x", "value": "y"}, {"value": None}]}]
)
def test_nonsense_costs_only_itself(told: object, tmp_path: Path) -> None:
    assert "Published" not in page_of([written(tmp_path / "a")], tmp_path, index={"published": told})


def test_whatever_was_published_is_shown_as_text(tmp_path: Path) -> None:
    told = [{"figure": EVIL, "value": n, "when": {EVIL: EVIL, "sketch": {EVIL: {EVIL: n}}}} for n in (1.0, 2.0)]
    page = page_of([written(tmp_path / "a")], tmp_path, index=indexed(*told, source=EVIL))
    parsed = Parsed(page)
    assert "<script" not in page
    assert "published-0" in " ".join(parsed.ids)
    assert all(link.startswith("#") for link in parsed.fetched)
    assert len(parsed.ids) == len(set(parsed.ids))


def paid(folder: Path, costs: Sequence[tuple[float, float]]) -> list[Path]:
    """Runs that sent and reached these, each a group of its own."""
    return [
        summed(written(folder / str(at), reached, training={"lr": (at + 1) / 100}), bytes={"sent": sent})
        for at, (sent, reached) in enumerate(costs)
    ]


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=8))
def test_the_frontier_is_who_nobody_beats(costs: list[tuple[int, int]]) -> None:
    known = [frontier.Point(at, None, sent, reached, None) for at, (sent, reached) in enumerate(costs)]  # type: ignore[arg-type]
    found = [(point.cost, point.accuracy) for point in frontier.frontier(known)]
    unbeaten = {
        (sent, reached)
        for sent, reached in costs
        if not any(a <= sent and b >= reached and (a, b) != (sent, reached) for a, b in costs)
    }
    assert found == sorted(unbeaten)


def test_accuracy_is_drawn_against_bytes_where_groups_differ_in_them(tmp_path: Path) -> None:
    folders = paid(tmp_path / "a", [(8e6, 0.95), (4e6, 0.93), (6e6, 0.90), (0, 0.5)])
    page = page_of(folders, tmp_path)
    assert "<h2>Final test accuracy against bytes sent</h2>" in page
    cheapest = "training.lr=0.04 (50.00 %, 0 B); training.lr=0.02 (93.00 %, 4.0 MB); training.lr=0.01 (95.00 %, 8.0 MB)"
    assert f"On it, the cheapest first: {cheapest}." in page
    assert "Who pays nothing stands at the left edge." in page
    for alike in ([(8e6, 0.9), (8.01e6, 0.8)], [(0, 0.9), (0, 0.8)], [(8e6, 0.9)]):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        assert "against bytes sent" not in page_of(paid(folder, alike), tmp_path)
    mixed = [summed(folder) for folder in paid(tmp_path / "b", [(8e6, 0.95), (4e6, 0.93)])]
    (mixed[0] / "scenario.yaml").write_text((mixed[0] / "scenario.yaml").read_text() + "engine: simulate\n")
    assert "against bytes sent" not in page_of(mixed, tmp_path), "bytes of different engines do not compare"


def test_more_groups_than_colours_have_a_frontier_too(tmp_path: Path) -> None:
    folders = paid(tmp_path / "runs", [(1e6 * (at + 1), 0.5 + at / 100) for at in range(12)])
    found = frontier.picture(grouped(folders), frontier.COSTS[0])
    assert found is not None
    assert found.keys == ()
    assert found.caption.count("MB)") == 12
