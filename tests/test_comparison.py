"""Comparisons: groups, figures, intervals and verdicts, from real runs and from records written by hand."""

from __future__ import annotations

import json
import math
import re
import shutil
import statistics
from collections.abc import Mapping, Sequence
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
import scipy.stats
from click.testing import CliRunner
from p2pfl.cli import main

import p2pfl
from p2pfl.errors import ScenarioError
from p2pfl.report.comparison import curves, edges, groups, keys, tables
from p2pfl.report.comparison.groups import Group, axes
from p2pfl.report.comparison.page import table, write
from p2pfl.report.comparison.runs import case

Settings = Mapping[str, Any]
EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)> $\\frac{ \x1b\u202e"


def launched(folder: Path, **settings: Any) -> Path:
    scenario = {"name": "tiny", "peers": 3, "rounds": 4, "engine": "simulate", "training": {"local_steps": 2}}
    scenario |= {"evaluate": {"every": 2, "target": 0.2}} | settings
    p2pfl.launch(scenario, folder)
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two algorithms, two sketches, three seeds, for real; the last group has a seed less."""
    root = tmp_path_factory.mktemp("runs")
    return [
        launched(root / f"{algorithm}-{at}-{seed}", algorithm=algorithm, sketch=sketch, seed=seed)
        for algorithm in ("dpsgd", "leasgd")
        for at, sketch in enumerate(["dense", {"countsketch": {"ratio": 0.25}}])
        for seed in (1, 2, 3)
        if (algorithm, at, seed) != ("leasgd", 1, 3)
    ]


def written(folder: Path, accuracy: float | None = 0.9, text: str = "", log: str = "", **settings: Any) -> Path:
    """A run's folder by hand: three peers, evaluated every second round of four; without an accuracy, no summary."""
    folder.mkdir(parents=True)
    given = {"name": "hand", "seed": 1, "peers": 3, "rounds": 4} | settings
    text = text or "".join(f"{key}: {json.dumps(value)}\n" for key, value in given.items())
    (folder / "scenario.yaml").write_text(text, errors="replace")
    (folder / "log.txt").write_text(log)
    rows: list[dict[str, Any]] = []
    for peer in range(3):
        for r in (1, 2, 3, 4):
            row = {"peer": peer, "round": r, "time_s": 0.5 * r, "sent_bytes": 100 * r, "loss": 1 / r}
            reached = (accuracy or 0.0) - 0.1 / r
            rows.append(row | ({"validation_accuracy": reached} if r % 2 == 0 else {}))
    (folder / "records.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if accuracy is not None:
        summary: dict[str, Any] = {"name": given["name"], "engine": settings.get("engine", "local"), "peers": 3}
        summary |= {"rounds": 4, "seed": given["seed"], "accuracy": {"mean": accuracy, "min": accuracy - 0.1}}
        summary |= {"loss": {"mean": 0.25}, "bytes": {"sent": 1200}, "round_s": {"median": 0.5}, "wall_s": 3.0}
        (folder / "summary.json").write_text(json.dumps(summary))
    return folder


def summed(folder: Path, **more: Any) -> Path:
    path = folder / "summary.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | more))
    return folder


def several(
    root: Path, accuracies: Mapping[str, Sequence[float]], seeds: Sequence[int] = (1, 2, 3, 4, 5)
) -> list[Path]:
    """Groups told apart by their sketch's ratio or their algorithm, and what each seed came to."""
    return [
        written(root / f"{algorithm}-{seed}", accuracy, algorithm=algorithm, seed=seed)
        for algorithm, figures in accuracies.items()
        for seed, accuracy in zip(seeds, figures, strict=False)
    ]


def page_of(folders: Sequence[Path], tmp_path: Path, **more: Any) -> str:
    return write(folders, tmp_path / "comparison.html", **more).read_text(encoding="utf-8")


def grouped(folders: Sequence[Path]) -> list[Group]:
    return groups.grouped([case(folder) for folder in folders])


def table_of(page: str) -> list[dict[str, str]]:
    """The table of groups: a row a group, by heads; what stands in lines of a cell is told apart by bars."""
    body = page[page.index("<h2>Groups</h2>") :]
    body = body[: body.index("</table>")]
    texts = []
    for row in re.findall(r"<tr>(.*?)</tr>", body, re.DOTALL):
        cells = re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL)
        parts = [re.sub(r"<svg.*?</svg>", "", cell, flags=re.DOTALL).replace("<span", "|<span") for cell in cells]
        texts.append([unescape(re.sub(r"<[^>]*>", "", part)).strip() for part in parts])
    return [dict(zip(texts[0], row, strict=True)) for row in texts[1:]]


class Parsed(HTMLParser):
    """Fails unless every element is closed in order; keeps elements, ids and what is linked or fetched."""

    VOID = frozenset({"meta", "br", "img", "hr", "input", "link"})

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.names: set[str] = set()
        self.ids: list[str] = []
        self.fetched: list[str] = []
        self.linked: list[str] = []
        self.feed(page)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        for key, value in attrs:
            assert not key.startswith("on"), f"{tag} has a handler {key}"
            self.ids += [value or ""] if key == "id" else []
            if key in ("src", "href", "xlink:href"):
                (self.linked if tag == "a" else self.fetched).append(value or "")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def half(figures: Sequence[float]) -> float:
    """Half of Student's 95 % interval, by the book."""
    spread = statistics.stdev(figures) / math.sqrt(len(figures))
    return float(scipy.stats.t.ppf(0.975, len(figures) - 1)) * spread


def test_every_figure_of_the_table_is_that_of_the_summaries(runs: list[Path], tmp_path: Path) -> None:
    rows = table_of(page_of(runs, tmp_path))
    assert [(row["algorithm"], row["sketch"]) for row in rows] == [
        (algorithm, sketch) for algorithm in ("dpsgd", "leasgd") for sketch in ("dense", "countsketch(ratio=0.25)")
    ]
    groups = [runs[0:3], runs[3:6], runs[6:9], runs[9:11]]
    summaries = [[json.loads((run / "summary.json").read_text()) for run in group] for group in groups]
    for row, found in zip(rows, summaries, strict=True):
        for key, title in (("mean", "test accuracy"), ("min", "worst peer")):
            figures = [100 * summary["accuracy"][key] for summary in found]
            mean, spread = re.findall(r"[\d.]+", row[title])
            assert float(mean) == pytest.approx(statistics.fmean(figures), abs=0.00501)
            assert float(spread) == pytest.approx(half(figures), rel=0.06)
        assert float(row["training loss"].split("|")[0]) == pytest.approx(
            statistics.fmean(summary["loss"]["mean"] for summary in found), rel=1e-3
        )
        sent = statistics.fmean(summary["bytes"]["sent"] for summary in found)
        assert row["sent"].split("|")[0].removesuffix("★").strip() == p2pfl_size(sent)
        assert row["seeds"] == ("3 seeds|indicative" if len(found) == 3 else "2 seeds|anecdote")


def p2pfl_size(sent: float) -> str:
    return f"{sent / 1000:.1f} kB" if sent < 100_000 else f"{sent / 1000:.0f} kB"


def test_the_bytes_to_the_target_are_those_of_all_peers_by_its_round(runs: list[Path]) -> None:
    reached = 0
    for run in runs:
        target = json.loads((run / "summary.json").read_text()).get("rounds_to_target")
        rows = [json.loads(line) for line in (run / "records.jsonl").read_text().splitlines()]
        by_hand = sum(row["sent_bytes"] for row in rows if row["round"] == target and "sent_bytes" in row)
        assert case(run).figures.get("bytes.to_target", 0) == by_hand
        reached += target is not None
    assert reached > 0


def test_differences_are_paired_over_the_seeds_that_both_groups_have(runs: list[Path], tmp_path: Path) -> None:
    rows = table_of(page_of(runs, tmp_path))
    accuracy = {run.name: 100 * json.loads((run / "summary.json").read_text())["accuracy"]["mean"] for run in runs}
    assert rows[0]["difference"] == "baseline"
    for row, name, seeds in ((rows[2], "leasgd-0", (1, 2, 3)), (rows[3], "leasgd-1", (1, 2))):
        gaps = [accuracy[f"{name}-{seed}"] - accuracy[f"dpsgd-0-{seed}"] for seed in seeds]
        told, verdict, how = row["difference"].replace("\N{MINUS SIGN}", "-").split("|")
        estimate, spread = map(float, told.split(" ± "))
        assert estimate == pytest.approx(statistics.fmean(gaps), abs=0.00501)
        assert spread == pytest.approx(half(gaps), abs=0.00501)
        assert how == f"paired, {len(seeds)} seeds"
        expected = "better" if estimate > half(gaps) else "worse" if estimate < -half(gaps) else "no difference shown"
        assert verdict == expected


def test_verdicts_are_plain_words_and_only_an_interval_gives_them(tmp_path: Path) -> None:
    base = [0.90, 0.91, 0.92, 0.93, 0.94]
    figures = {
        "dpsgd": base,
        "leasgd": [figure + 0.03 + 0.001 * at for at, figure in enumerate(base)],
        "fedavg": [figure - 0.02 - 0.001 * at for at, figure in enumerate(base)],
        "local_only": [0.94, 0.90, 0.93, 0.91, 0.92],
        "central": [0.99],
    }
    page = page_of(several(tmp_path / "runs", figures), tmp_path)
    rows = {row["algorithm"]: row for row in table_of(page)}
    assert [rows[name]["difference"].split("|")[1] for name in ("leasgd", "fedavg", "local_only", "central")] == [
        "better", "worse", "no difference shown", "no difference shown",
    ]  # fmt: skip
    assert rows["central"]["difference"] == "+9.00|no difference shown|one shared seed"
    assert rows["central"]["test accuracy"] == "99.00 %|one seed"
    assert rows["dpsgd"]["seeds"] == "5 seeds|for a claim"
    assert (
        "21 finished runs in 5 groups. In test accuracy, against dpsgd: 1 better, 1 worse, no difference shown for 1."
        in page
    )


def test_groups_that_share_no_seed_are_compared_by_welch(tmp_path: Path) -> None:
    a, b = [0.90, 0.91, 0.93], [0.80, 0.84, 0.83]
    folders = several(tmp_path / "a", {"dpsgd": a}) + several(tmp_path / "b", {"leasgd": b}, seeds=(7, 8, 9))
    told = table_of(page_of(folders, tmp_path))[1]["difference"].replace("\N{MINUS SIGN}", "-").split("|")
    oracle = scipy.stats.ttest_ind(b, a, equal_var=False).confidence_interval(0.95)
    estimate, spread = map(float, told[0].split(" ± "))
    assert estimate - spread == pytest.approx(100 * oracle.low, abs=0.011)
    assert estimate + spread == pytest.approx(100 * oracle.high, abs=0.011)
    assert told[1:] == ["worse", "Welch, 3 and 3 runs"]


def test_the_best_of_a_column_is_marked_only_when_its_interval_says_so(tmp_path: Path) -> None:
    clear = several(tmp_path / "clear", {"dpsgd": [0.90, 0.91, 0.92], "leasgd": [0.95, 0.961, 0.97]})
    page = page_of(clear, tmp_path)
    assert page.count('<td class="best">') == 2, "accuracy and worst peer; all else is equal"
    assert "The best of all is leasgd" in page
    unclear = several(tmp_path / "unclear", {"dpsgd": [0.90, 0.95, 0.92], "leasgd": [0.95, 0.90, 0.94]})
    lone = several(tmp_path / "lone", {"dpsgd": [0.5], "leasgd": [0.95]})
    for folders in (unclear, lone):
        rows = tables.rows(grouped(folders), engines=False)
        assert not [cell for row in rows for cell in row.figures if cell.mark]
    costly = [summed(folder, bytes={"sent": 1200 + 10 * ("leasgd" in folder.name)}) for folder in clear]
    for engines in (False, True):
        first, _ = tables.rows(grouped(costly), engines)
        assert [cell.text for cell in first.figures if cell.mark == "best"] == ([] if engines else ["1.2 kB"])


def test_a_target_that_not_every_seed_reached_has_no_mean(tmp_path: Path) -> None:
    folders = several(tmp_path / "runs", {"dpsgd": [0.9, 0.9, 0.9], "leasgd": [0.9, 0.9, 0.9]})
    for folder, reached in zip(folders, (2, 4, 2, 2, None, 4), strict=True):
        summed(folder, **({} if reached is None else {"rounds_to_target": reached}))
        summed(folder, **({} if reached is None else {"rounds_to_loss": reached, "vectors_to_loss": 10 * reached}))
    first, second = table_of(page_of(folders, tmp_path))
    assert first["rounds to target"].split("|")[0] == first["rounds to loss"].split("|")[0] == "2.667"
    assert first["sent to target"].split("|")[0] == "800 B"
    assert first["vectors to loss"].split("|")[0] == "26.67"
    heads = ("rounds to target", "sent to target", "rounds to loss", "vectors to loss")
    assert {second[head] for head in heads} == {"–|reached by 2 of 3"}


def untested(folder: Path, **more: Any) -> Path:
    """The same run, had it not read the test set."""
    summary = json.loads((folder / "summary.json").read_text())
    summary["validation_accuracy"] = summary.pop("accuracy")
    (folder / "summary.json").write_text(json.dumps(summary | more))
    return folder


def test_where_no_run_read_the_test_set_groups_are_judged_on_the_validation_set(tmp_path: Path) -> None:
    folders = several(tmp_path / "runs", {"dpsgd": [0.90, 0.91, 0.92], "leasgd": [0.95, 0.961, 0.97]})
    page = page_of([untested(folder) for folder in folders], tmp_path)
    first, second = table_of(page)
    assert first["validation accuracy"].startswith("91.00 %|± 2.5 %")
    assert second["difference"].split("|")[1] == "better"
    assert "In validation accuracy, against dpsgd: 1 better. The best of all is leasgd." in page
    assert "Final validation accuracy of every seed" in page
    assert "test accuracy" not in page


def test_a_target_that_not_every_seed_reached_has_no_mean_without_the_test_set_either(tmp_path: Path) -> None:
    folders = several(tmp_path / "runs", {"dpsgd": [0.9, 0.9, 0.9]})
    for folder, reached in zip(folders, (2, None, 4), strict=True):
        untested(folder, **({} if reached is None else {"rounds_to_target": reached}))
    (row,) = table_of(page_of(folders, tmp_path))
    assert row["rounds to target"] == "–|reached by 2 of 3"


def test_a_group_of_which_no_run_finished_keeps_its_colour_from_the_others(tmp_path: Path) -> None:
    cut = written(tmp_path / "cut", None, algorithm="dpsgd")
    found = grouped([cut, *several(tmp_path / "runs", {"leasgd": [0.9], "local_only": [0.8]})])
    assert curves.drawn(found).legend == [(1, "leasgd"), (2, "local_only")], "that of its line in the table"


def test_only_what_differs_is_a_column_and_a_plug_in_shows_the_options_that_tell(tmp_path: Path) -> None:
    folders = [
        written(tmp_path / "a", sketch={"countsketch": {"ratio": 0.5}}, training={"lr": 0.1}),
        written(tmp_path / "b", sketch={"countsketch": {"ratio": 0.25}}, training={"lr": 0.1}),
        written(tmp_path / "c", sketch="dense", training={"lr": 0.05}),
    ]
    groups = grouped(folders)
    assert list(groups[0].cells) == ["sketch", "training.lr"]
    assert [group.cells["sketch"] for group in groups] == ["countsketch(ratio=0.5)", "countsketch(ratio=0.25)", "dense"]
    assert [group.cells["training.lr"] for group in groups] == ["0.1", "0.1", "0.05"]
    page = page_of(folders[:2], tmp_path)
    assert "<li>training.lr 0.1</li>" in page
    assert "<li>peers 3</li>" in page


def test_a_default_that_is_written_out_is_no_difference(tmp_path: Path) -> None:
    folders = [written(tmp_path / "a"), written(tmp_path / "b", sketch="dense", training={"lr": 0.1}, seed=2)]
    assert len(grouped(folders)) == 1


def test_the_engine_and_the_name_tell_runs_apart_only_where_all_else_is_equal(tmp_path: Path) -> None:
    def heads(*folders: Path) -> list[str]:
        return list(grouped(folders)[0].cells)

    one = written(tmp_path / "1", name="one", engine="local")
    two = written(tmp_path / "2", name="two", engine="simulate")
    assert heads(one, two) == ["engine"]
    assert heads(one, written(tmp_path / "3", name="three", engine="local")) == ["name"]
    assert heads(one, written(tmp_path / "4", name="one", engine="local")) == ["folder"]
    assert heads(one, written(tmp_path / "5", name="five", seed=2)) == []
    page = page_of([one, written(tmp_path / "6", sketch={"countsketch": {"ratio": 0.5}}, engine="simulate")], tmp_path)
    assert "The runs had different engines (local, simulate): their bytes and times do not compare." in page
    assert next(iter(table_of(page)[0])) == "sketch"


def test_a_seed_that_ran_twice_counts_once(tmp_path: Path) -> None:
    folders = several(tmp_path / "runs", {"dpsgd": [0.90, 0.80]})
    page = page_of([*folders, written(tmp_path / "again", 0.94, algorithm="dpsgd", seed=1)], tmp_path)
    (row,) = table_of(page)
    assert row["test accuracy"].startswith("86.00 %"), "the mean of 0.92 and 0.80"
    assert row["seeds"] == "2 seeds|anecdote"
    assert "Some seeds ran more than once" in page


def test_the_same_folder_given_twice_counts_once(tmp_path: Path) -> None:
    folder = written(tmp_path / "a")
    assert "1 finished run in 1 group." in page_of([folder, tmp_path / "." / "a"], tmp_path)


def test_runs_without_a_seed_are_repetitions_that_nothing_pairs_with(tmp_path: Path) -> None:
    folders = [written(tmp_path / f"{name}{at}", 0.9 + at / 100, algorithm=name, seed=None)
               for name in ("dpsgd", "leasgd") for at in range(3)]  # fmt: skip
    rows = tables.rows(grouped(folders), engines=False)
    assert [(row.seeds.text, row.seeds.beside) for row in rows] == [("3 seeds", "indicative")] * 2
    assert rows[1].gap.beside == "Welch, 3 and 3 runs"


def test_failed_and_broken_runs_are_named_with_their_reason_and_count_in_no_mean(tmp_path: Path) -> None:
    folders = several(tmp_path / "runs", {"dpsgd": [0.90, 0.92]})
    stamp = "2026-01-01T00:00:00.000+00:00"
    log = f"{stamp} peer 2: seated on cpu\n{stamp} peer 2: crashed: LocalError: parameters are not finite\n"
    crashed = summed(written(tmp_path / "crashed", 0.1, log=log, algorithm="dpsgd", seed=3), crashed=[2])
    stopped = summed(written(tmp_path / "stopped", 0.1, algorithm="dpsgd", seed=4), stopped=True)
    cut = written(tmp_path / "cut", None, algorithm="dpsgd", seed=5)
    odd = written(tmp_path / "odd", text="name: [unclosed")
    bare = written(tmp_path / "bare", text=" ")
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    page = page_of([*folders, crashed, stopped, cut, odd, bare, foreign], tmp_path)
    (row,) = table_of(page)
    assert row["test accuracy"].startswith("91.00 %")
    assert row["seeds"] == "2 seeds|anecdote|3 left out"
    reasons = {
        Path(where).name: unescape(why) for where, why in re.findall(r"<li><code>(.*?)</code>: (.*?)</li>", page)
    }
    assert reasons["crashed"] == "peer 2 crashed: LocalError: parameters are not finite"
    assert reasons["stopped"] == "stopped before the end"
    assert reasons["cut"] == "did not finish"
    assert reasons["odd"].startswith("this is not YAML")
    assert reasons["bare"] == "it has no scenario.yaml"
    assert "is not a run folder" in reasons["foreign"]


def test_a_run_of_another_version_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    odd = written(tmp_path / "odd", unheard_of={"of": [1, {"b": 2}]}, sketch={"holographic": {"angle": 3}})
    first, _ = grouped([odd, written(tmp_path / "plain")])
    assert first.cells["sketch"] == "holographic(angle=3)"
    assert first.cells["unheard_of.of"] == '[1, {"b": 2}]'


def test_nothing_to_compare_is_an_error_but_a_sweep_that_only_began_has_a_page(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match=r"there is nothing to compare"):
        write([tmp_path], tmp_path / "out.html")
    assert not (tmp_path / "out.html").exists()
    index = {"name": "begun", "cases": [{"number": 1, "folder": None, "state": "failed", "reason": "no room"}]}
    page = page_of([], tmp_path, title="begun", index=index)
    assert "0 of 1 case count here" in page
    assert "<li><code>case 1</code>: no room</li>" in page


def test_whatever_runs_say_is_shown_as_text_and_the_page_fetches_nothing_and_runs_no_script(tmp_path: Path) -> None:
    evil = json.dumps(EVIL)
    text = f"name: {evil}\nseed: 1\nsketch: {{{evil}: {{{evil}: {evil}}}}}\n{evil}: {evil}\n"
    folders = [written(tmp_path / f"evil{at} <b>&", text=text + f"peers: {at}\n") for at in range(2)]
    folders.append(summed(written(tmp_path / "crashed", log=f"x: crashed: {EVIL}\n"), crashed=[EVIL]))
    (tmp_path / EVIL.replace("/", "")).mkdir()
    folders.append(tmp_path / EVIL.replace("/", ""))
    index = {"name": EVIL, "cases": [{"folder": EVIL, "settings": {EVIL: 1}, "state": EVIL, "reason": EVIL}, 7, {}],
             "tuning": [{"setting": {EVIL: EVIL}, "candidate": {EVIL: [EVIL]}, "validation_accuracy": EVIL}, 3],
             }  # fmt: skip
    page = page_of(folders, tmp_path, title=EVIL, index=index)
    parsed = Parsed(page)
    assert {"script", "img", "link", "iframe", "b"} & parsed.names == {"b"}, "the only <b> are figures"
    assert "<script" not in page
    assert page.count("&lt;script&gt;") >= 5
    assert all(link.startswith("#") for link in parsed.fetched)
    assert not [link for link in parsed.linked if ":" in link.split("/")[0]]
    assert len(parsed.ids) == len(set(parsed.ids))


@pytest.mark.parametrize("index", [{}, {"cases": 3, "tuning": {}}, {"cases": [[]], "tuning": [None]}])
def test_an_index_of_nonsense_costs_only_itself(index: dict[str, Any], tmp_path: Path) -> None:
    page = page_of([written(tmp_path / "a", None)], tmp_path, index=index)
    assert "What was tuned" not in page
    assert "not complete" not in page


def test_the_page_of_real_runs_has_every_picture_and_links_to_each_run(runs: list[Path], tmp_path: Path) -> None:
    page = page_of(runs, tmp_path)
    parsed = Parsed(page)
    assert re.findall(r"<h3>([^<]*)</h3>", page) == [
        f"{what}, over {over}"
        for over in ("rounds", "vectors", "bytes", "time")
        for what in ("Accuracy on the validation set", "Training loss", "Consensus distance")
    ]
    assert "Final test accuracy of every seed" in page
    assert len(parsed.linked) == len(runs)
    assert all((tmp_path / link).resolve().is_file() for link in parsed.linked)
    assert page_of(runs[:2], tmp_path) == page_of(runs[:2], tmp_path)


def test_settings_that_vary_together_with_others_are_no_axis_of_the_table_of_settings(
    runs: list[Path], tmp_path: Path
) -> None:
    groups = grouped(runs)
    assert list(groups[0].cells) == ["algorithm", "topology", "sketch"], "leasgd takes the complete graph"
    assert axes(groups) == ["algorithm", "sketch"]
    assert groups[1].label == "dpsgd, countsketch(ratio=0.25)"
    grid = tables.grid(groups)
    assert grid is not None
    assert grid.heads == ["dense", "countsketch(ratio=0.25)"]
    means = [f"{100 * statistics.fmean(group.seeds('accuracy.mean').values()):.2f} %" for group in groups]
    assert [[cell.text for cell in cells] for _, cells in grid.rows] == [means[:2], means[2:]]
    shades = [shade for row in grid.shades for shade in row if shade is not None]
    assert (min(shades), max(shades)) == (0.0, 1.0)


def test_a_curve_is_the_mean_over_seeds_in_the_rounds_that_all_of_them_evaluated(tmp_path: Path) -> None:
    folders = several(tmp_path / "runs", {"dpsgd": [0.90, 0.92, 0.97]})
    lines = (folders[1] / "records.jsonl").read_text().splitlines()
    kept = [line for line in lines if json.loads(line)["round"] < 4]
    (folders[1] / "records.jsonl").write_text("\n".join(kept))
    (group,) = grouped(folders)
    for over, x in (("rounds", [2.0]), ("bytes", [600.0]), ("time", [1.0])):
        found = curves.band(group, "accuracy", over)
        assert found is not None
        assert found.half_R is not None
        assert found.x_R.tolist() == x
        assert found.mean_R.tolist() == pytest.approx([statistics.fmean([0.90, 0.92, 0.97]) - 0.05])
        assert found.half_R.tolist() == pytest.approx([half([0.90, 0.92, 0.97])])
    losses = curves.band(group, "loss", "rounds")
    assert losses is not None
    assert losses.x_R.tolist() == [1.0, 2.0, 3.0]
    assert np.allclose(losses.mean_R, [1, 1 / 2, 1 / 3])


def private(folder: Path, accuracy: float, spent: Mapping[int, Sequence[float]], **settings: Any) -> Path:
    """A run by hand, by whose rounds each peer has sent some vectors, and some have spent so much of their privacy."""
    run = written(folder, accuracy, **settings)
    rows = [json.loads(line) for line in (run / "records.jsonl").read_text().splitlines()]
    for row in rows:
        row["vectors"] = (row["peer"] + 1) * row["round"]
        row |= {"epsilon": spent[row["peer"]][row["round"] - 1]} if row["peer"] in spent else {}
    (run / "records.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    largest = max((figures[-1] for figures in spent.values()), default=None)
    return run if largest is None else summed(run, privacy={"epsilon": {"max": largest, "mean": largest}})


def test_a_curve_is_drawn_over_the_vectors_of_all_peers_and_the_epsilon_of_the_least_private(tmp_path: Path) -> None:
    spent = {0: [0.5, 0.7, 0.8, 0.9], 1: [0.4, 0.6, 0.9, 1.2]}
    (group,) = grouped([private(tmp_path / "a", 0.9, spent), private(tmp_path / "b", 0.8, {2: [1, 2, 3, 4]}, seed=2)])
    for name, rounds in (("loss", [1, 2, 3, 4]), ("accuracy", [2, 4])):
        sent, epsilon = curves.band(group, name, "vectors"), curves.band(group, name, "epsilon")
        assert sent is not None
        assert epsilon is not None
        assert sent.x_R.tolist() == [6.0 * r for r in rounds]
        by_hand = {1: (0.5 + 1) / 2, 2: (0.7 + 2) / 2, 3: (0.9 + 3) / 2, 4: (1.2 + 4) / 2}
        assert epsilon.x_R.tolist() == pytest.approx([by_hand[r] for r in rounds])


def test_groups_without_an_epsilon_are_in_no_picture_over_it(tmp_path: Path) -> None:
    spent = {peer: [1.0, 2.0, 3.0, 4.0] for peer in range(3)}
    folders = [private(tmp_path / "a", 0.9, spent, algorithm="leasgd"), written(tmp_path / "b", 0.95)]
    page = page_of(folders, tmp_path)
    assert "Accuracy on the validation set, over epsilon" in page
    assert "against epsilon" not in page, "of one group alone there is no frontier"
    private_one, public = grouped(folders)
    assert curves.band(private_one, "accuracy", "epsilon") is not None
    assert curves.band(public, "accuracy", "epsilon") is None
    assert "over epsilon" not in page_of(folders[1:], tmp_path)


def test_accuracy_is_drawn_against_epsilon_and_no_group_is_the_best_for_what_it_was_asked(tmp_path: Path) -> None:
    folders = [
        private(tmp_path / f"{epsilon}-{seed}", 0.5 + epsilon / 20 + seed / 1000, {0: [epsilon] * 4}, seed=seed,
                training={"lr": epsilon / 100})
        for epsilon in (2.0, 4.0, 8.0) for seed in (1, 2, 3)
    ]  # fmt: skip
    page = page_of([*folders, written(tmp_path / "plain", 0.97)], tmp_path)
    assert "<h2>Final test accuracy against epsilon</h2>" in page
    told = "training.lr=0.02 (60.20 %, 2); training.lr=0.04 (70.20 %, 4); training.lr=0.08 (90.20 %, 8)"
    assert f"On it, the cheapest first: {told}. 1 of 4 groups without such a figure." in page
    assert [row["epsilon"] for row in table_of(page)] == ["2|± 0", "4|± 0", "8|± 0", "–"]
    marked = [cell.text for row in tables.rows(grouped(folders), engines=False) for cell in row.figures if cell.mark]
    assert marked == ["90.20 %", "80.20 %"], "accuracy and worst peer"


@pytest.mark.parametrize(
    ("defences", "column", "label"),
    [
        ([], "no defence", "no defence"),
        ([{"dp": {"epsilon": 2.0}}], "dp(epsilon=2)", "dp(epsilon=2)"),
        ([{"dp": {"epsilon": 4.0, "clip": 0.5}}], "dp(epsilon=4, clip=0.5)", "dp(epsilon=4, clip=0.5)"),
    ],
)
def test_defences_are_told_as_plug_ins_are(tmp_path: Path, defences: list[Any], column: str, label: str) -> None:
    other = written(tmp_path / "other", defences=[{"dp": {"epsilon": 3.0}}])
    _, group = grouped([other, written(tmp_path / "one", defences=defences)])
    assert group.cells["defences"] == column
    assert group.label == label
    settings = group.cases[0].settings
    assert settings["defences"] == ("dp" if defences else "none")
    assert settings.get("defences.dp.epsilon") == (defences[0]["dp"]["epsilon"] if defences else None)


def test_the_consensus_distance_is_a_curve_in_the_rounds_that_were_evaluated(runs: list[Path]) -> None:
    group = grouped(runs)[0]
    told = []
    for run in runs[:3]:
        rows = [json.loads(line) for line in (run / "records.jsonl").read_text().splitlines()]
        told.append([row["consensus_distance"] for row in rows if "consensus_distance" in row])
    over_rounds, over_bytes = curves.band(group, "consensus", "rounds"), curves.band(group, "consensus", "bytes")
    assert over_rounds is not None
    assert over_bytes is not None
    assert over_rounds.x_R.tolist() == [2.0, 4.0]
    assert over_rounds.mean_R.tolist() == pytest.approx([statistics.fmean(each) for each in zip(*told, strict=True)])
    assert over_bytes.x_R[-1] == pytest.approx(statistics.fmean(group.seeds("bytes.sent").values()))


def test_of_a_single_run_a_curve_has_no_band(tmp_path: Path) -> None:
    (group,) = grouped([written(tmp_path / "a")])
    found = curves.band(group, "accuracy", "rounds")
    assert found is not None
    assert found.half_R is None


def test_more_groups_than_colours_are_drawn_in_panels_of_a_setting(tmp_path: Path) -> None:
    folders = [written(tmp_path / f"{algorithm}-{lr}", 0.5 + lr, algorithm=algorithm, training={"lr": lr})
               for algorithm in ("dpsgd", "fedavg", "local_only") for lr in (0.01, 0.02, 0.03, 0.04)]  # fmt: skip
    groups = grouped(folders)
    shown = curves.drawn(groups)
    assert list(shown.panels) == ["dpsgd", "fedavg", "local_only"]
    assert shown.legend == [(at, f"training.lr=0.0{at + 1}") for at in range(4)]
    assert [hue for hue, _ in shown.panels["fedavg"]] == [0, 1, 2, 3]
    assert "training.lr=0.04" in page_of(folders, tmp_path)


def test_more_groups_than_panels_can_hold_are_the_first_the_best_and_the_worst(tmp_path: Path) -> None:
    folders = [written(tmp_path / str(at), 0.5 + at / 100, training={"lr": at / 100}) for at in range(1, 41)]
    groups = grouped(folders)
    shown = curves.drawn(groups)
    chosen = [groups.index(group) for _, group in shown.panels[""]]
    assert chosen == [0, 1, 2, 3, 36, 37, 38, 39]
    page = page_of(folders, tmp_path)
    assert "Of 40 groups the first is drawn" in page
    assert len(table_of(page)) == 40
    assert len(page) < 1_000_000


def test_what_was_tuned_is_shown_with_its_budget(tmp_path: Path) -> None:
    tuning = [
        {"folder": f"{at}", "setting": {"sketch": sketch}, "candidate": {"training.lr": lr}, "chosen": lr == chosen,
         "validation_accuracy": accuracy}
        for at, (sketch, lr, accuracy, chosen) in enumerate([
            ("dense", 0.05, 0.8, 0.1), ("dense", 0.1, 0.9125, 0.1),
            ({"countsketch": {"ratio": 0.5}}, 0.05, 0.7, 0.05), ({"countsketch": {"ratio": 0.5}}, 0.1, None, 0.05),
        ])
    ]  # fmt: skip
    page = page_of([written(tmp_path / "a")], tmp_path, index={"tuning": tuning})
    said = "Chosen on the validation split, with the same budget for every setting: 2 candidates, one run each."
    assert f"{said} The test set was read once, after the choice." in page
    found = tables.tuning({"tuning": tuning})
    assert found is not None
    assert found[0].heads == ["training.lr=0.05", "training.lr=0.1"]
    assert [(name, [(cell.text, cell.mark) for cell in cells]) for name, cells in found[0].rows] == [
        ("dense", [("80.00 %", ""), ("91.25 %", "chosen")]),
        ("countsketch(ratio=0.5)", [("70.00 %", "chosen"), ("no figure", "")]),
    ]
    at_edges = "training.lr=0.1 (the largest) in 1 of 2 settings; training.lr=0.05 (the smallest) in 1 of 2 settings"
    assert f"At the edge of what was tried: {at_edges}. Try further values." in page


@pytest.mark.parametrize(
    ("grid", "chosen", "edge"),
    [
        ([0.01, 0.1, 1], 0.1, ""),
        ([0.1, 0.01, 1], 0.1, ""),
        ([0.01, 0.1, 1], 1, "k=1 (the largest)"),
        ([0.01, 0.1, 1], 0.01, "k=0.01 (the smallest)"),
        ([0.1, 0.1], 0.1, ""),
        ([0.1], 0.1, ""),
        ([1, "auto"], 1, ""),
        ([False, True], True, ""),
        (["dense", {"countsketch": 0.5}], "dense", ""),
        ([0.1, 0.2], None, ""),
    ],
)
def test_only_a_number_that_was_chosen_with_others_on_one_side_is_at_the_edge(
    grid: list[object], chosen: object, edge: str
) -> None:
    tuning = [{"setting": {}, "candidate": {"k": value, "same": 3}, "chosen": value == chosen} for value in grid]
    assert edges.sentence({"tuning": tuning}) == (
        f"At the edge of what was tried: {edge}. Try further values." if edge else ""
    )


@pytest.mark.parametrize("index", [{}, {"tuning": 3}, {"tuning": [3, {}, {"candidate": [], "chosen": True}]}])
def test_what_says_nothing_of_tuning_has_no_edge(index: dict[str, object]) -> None:
    assert edges.sentence(index) == ""


def test_runs_csv_has_a_row_a_run_and_reads_back_as_it_was(runs: list[Path], tmp_path: Path) -> None:
    broken = written(tmp_path / "broken", text="[")
    unfinished = written(tmp_path / "unfinished", None, algorithm="leasgd", peers=3, rounds=4, seed=9)
    table([*runs, broken, unfinished], tmp_path / "deep" / "runs.csv")
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["runs.csv"]
    frame = pandas.read_csv(tmp_path / "deep" / "runs.csv")
    assert list(frame.folder) == [*map(str, runs), str(unfinished)]
    for (_, row), run in zip(frame.iterrows(), runs, strict=False):
        summary = json.loads((run / "summary.json").read_text())
        assert row["accuracy.mean"] == summary["accuracy"]["mean"]
        assert row["bytes.sent"] == summary["bytes"]["sent"]
        assert row["seed"] == summary["seed"]
        assert row["algorithm"] == run.name.partition("-")[0]
        assert math.isnan(row["sketch.countsketch.ratio"]) == (row["sketch"] == "dense")
    means = frame.groupby(["algorithm", "sketch"])["accuracy.mean"].mean()
    assert means["dpsgd", "dense"] == pytest.approx(statistics.fmean(frame["accuracy.mean"][:3]))


def test_the_columns_of_runs_csv_do_not_hang_on_which_run_has_what(tmp_path: Path) -> None:
    a, b = summed(written(tmp_path / "a", rounds=4)), written(tmp_path / "b", rounds=5)
    summary = json.loads((a / "summary.json").read_text())
    summary = {"name": summary.pop("name"), "parameters": 7} | summary
    (a / "summary.json").write_text(json.dumps(summary))

    def heads(*folders: Path) -> list[str]:
        table(folders, tmp_path / "runs.csv")
        return (tmp_path / "runs.csv").read_text().splitlines()[0].split(",")

    assert heads(a, b) == heads(b, a)
    assert heads(a, b)[:6] == ["folder", "rounds", "seed", "name", "parameters", "engine"]
    assert "summary.rounds" in heads(a, b), "the rounds that were reached, beside those that were asked for"


def test_load_gives_rows_that_pandas_takes_and_groups_by_settings(runs: list[Path]) -> None:
    rows = p2pfl.load(runs[0].parent / "*")
    assert [row["folder"] for row in rows] == sorted(map(str, runs))
    assert rows[0]["accuracy"] == json.loads((runs[0] / "summary.json").read_text())["accuracy"]
    assert len(pandas.DataFrame(rows)) == len(runs)
    frame = pandas.json_normalize(rows)
    means = frame.groupby(["settings.algorithm", "settings.sketch", "settings.training.lr"])["accuracy.mean"].mean()
    by_hand = statistics.fmean(row["accuracy"]["mean"] for row in rows if "leasgd-0" in row["folder"])
    assert means["leasgd", "dense", 0.1] == pytest.approx(by_hand)
    assert set(frame["settings.sketch.countsketch.ratio"].dropna()) == {0.25}
    for key in frame.filter(like="settings."):
        frame.groupby(key, dropna=False).size()


def test_load_takes_a_sweep_for_its_cases_and_warns_of_what_it_cannot_read(runs: list[Path], tmp_path: Path) -> None:
    for at, run in enumerate(runs[:2]):
        shutil.copytree(run, tmp_path / "sweep" / "cases" / f"case{at}")
    summed(written(tmp_path / "sweep" / "cases" / "odd", text="["))
    written(tmp_path / "sweep" / "cases" / "unfinished", None)
    for pattern in (tmp_path / "sweep", tmp_path / "sw*", tmp_path / "sweep" / "cases" / "*"):
        with pytest.warns(UserWarning, match=r"odd' is left out: this is not YAML"):
            assert [Path(row["folder"]).name for row in p2pfl.load(pattern)] == ["case0", "case1"]


def answered(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(main, ["report", *map(str, arguments)], prog_name="p2pfl")
    return result.exit_code, result.output


def test_the_verb_writes_a_run_s_own_page_a_comparison_or_a_sweep_s(
    runs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert answered(runs[0]) == (0, f"{runs[0] / 'report.html'}\n")
    assert "<h2>Groups</h2>" not in (runs[0] / "report.html").read_text()
    assert answered(*runs[:4]) == (0, "comparison.html\nruns.csv\n")
    assert "4 finished runs in 2 groups." in (tmp_path / "comparison.html").read_text()
    assert answered(runs[0], runs[3], "--out", "new/two.html") == (0, "new/two.html\nnew/runs.csv\n")
    sweep = tmp_path / "sweep"
    for at in (3, 0, 1):
        shutil.copytree(runs[at], sweep / "cases" / runs[at].name)
    entries = [{"folder": runs[at].name, "settings": {"sketch": "-"}, "state": "done"} for at in (3, 0, 1, 2)]
    (sweep / "sweep.json").write_text(json.dumps({"name": "three", "cases": entries}))
    assert answered(sweep, "--out", "aside.html") == (0, "aside.html\n")
    assert not (sweep / "runs.csv").exists()
    assert answered(sweep) == (0, f"{sweep / 'report.html'}\n{sweep / 'runs.csv'}\n")
    page = (sweep / "report.html").read_text()
    assert "<h1>three</h1>" in page
    assert "The sweep is not complete: 3 of 4 cases count here." in page
    assert [row["sketch"] for row in table_of(page)] == ["countsketch(ratio=0.25)", "dense"], (
        "in the order of the index"
    )
    assert len(pandas.read_csv(sweep / "runs.csv")) == 3
    assert answered(sweep, runs[6]) == (0, "comparison.html\nruns.csv\n")
    assert "4 finished runs in 3 groups." in (tmp_path / "comparison.html").read_text()


def test_what_the_verb_is_asked_wrongly_is_one_line_and_writes_nothing(runs: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "out.html"
    assert answered(runs[0], tmp_path / "nowhere", "--out", out)[0] == 2
    assert answered(tmp_path, tmp_path, "--out", out)[0] == 2
    code, said = answered(*runs[:2], "--out", tmp_path)
    assert (code, said.partition(" is ")[2]) == (2, "a folder (--out): name the file that the page is to be\n")
    assert not list(tmp_path.iterdir())
    code, said = answered(runs[0], "--out", out)
    assert (code, said) == (2, "the page of one run lies in its folder: leave --out away, or name several runs\n")
    assert not out.exists()


def test_settings_are_flat_by_the_keys_of_set() -> None:
    nested = {"sketch": {"countsketch": {"ratio": 0.5}}, "model": {"mlp": {"hidden": [64, 64]}},
              "training": {"lr": 1.0}, "topology": {"file": "lab.graphml"}, "churn": [], "seed": None,
              "data": "digits"}  # fmt: skip
    assert keys.flat(nested) == {
        "sketch": "countsketch", "sketch.countsketch.ratio": 0.5, "model": "mlp", "model.mlp.hidden": "[64, 64]",
        "training.lr": 1.0, "topology": "file", "topology.file": "lab.graphml", "churn": "[]", "seed": None,
        "data": "digits",
    }  # fmt: skip
