"""Reports: the page of a run folder and the live display, from synthetic records."""

from __future__ import annotations

import io
import json
import math
import random
import re
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pytest
from rich.console import Console

from p2pfl import scenario
from p2pfl.errors import ScenarioError
from p2pfl.report import live, peer_graph, units
from p2pfl.report.page import write

Row = dict[str, Any]
RING = "ring"
SCENARIO = """name: {name}
seed: 7
peers: {peers}
rounds: {rounds}
topology: {topology}
data: digits
algorithm:
  {algorithm}:
    some: 1
sketch: {{countsketch: {{ratio: 0.5}}}}
"""


def learning(
    peers: list[Any], rounds: int, every: int = 5, evaluators: list[Any] | None = None, **more: Any
) -> list[Row]:
    """Rows as a run leaves them: losses fall, accuracies rise, bytes add up, peer 2 is slow."""
    stream, rows = random.Random(1), []
    time_s = dict.fromkeys(peers, 0.0)
    for r in range(1, rounds + 1):
        for peer in peers:
            span_s = (0.09 if peer == 2 else 0.04) * stream.uniform(0.9, 1.1)
            time_s[peer] += span_s
            row: Row = {"peer": peer, "round": r, "time_s": time_s[peer], "round_s": span_s, "compute_s": span_s}
            row |= {"loss": 2.3 * math.exp(-3 * r / rounds) * stream.uniform(0.85, 1.15), "sent_bytes": 36_000 * r}
            row |= {"vectors": 2 * r, "tensor_bytes": 35_880 * r} | more
            if (r % every == 0 or r == rounds) and peer in (evaluators or peers):
                row["validation_accuracy"] = 0.95 - 0.8 * math.exp(-5 * r / rounds) + stream.uniform(-0.01, 0.01)
                row["validation_loss"] = 2.3 * math.exp(-2.5 * r / rounds)
                time_s[peer] += 0.01
            if r == rounds and peer in (evaluators or peers):
                row |= {"test_accuracy": 0.94 + stream.uniform(-0.01, 0.01), "test_loss": 0.2}
            rows.append(row)
        if r % every == 0:
            rows.append({"peer": "all", "round": r, "time_s": time_s[peers[0]], "consensus_distance": math.exp(-r / 9)})
    return rows


def links(pairs: list[tuple[int, int]], rounds: int) -> list[Row]:
    named = [(*("hub" if end == -1 else end for end in pair),) for pair in pairs]
    both = [*named, *((b, a) for a, b in named)]
    return [{"peer": a, "round": rounds, "to": b, "link_bytes": 18_000 * rounds} for a, b in both]


def summary(name: str, peers: int, rounds: int) -> Row:
    return {
        "name": name, "engine": "local", "peers": peers, "rounds": rounds, "parameters": 8970, "seed": 7,
        "accuracy": {"mean": 0.9412, "min": 0.931, "max": 0.952, "consensus_model": 0.9466}, "loss": {"mean": 0.2},
        "rounds_to_target": 21, "consensus_distance": 0.08, "spectral_gap": 0.195,
        "bytes": {"sent": 36_000 * peers * rounds, "sent_per_peer_round": 36_000, "minimum_per_peer_round": 35_880},
        "vectors_sent": 2 * peers * rounds, "startup_s": 2.1, "round_s": {"median": 0.043, "p95": 0.06},
        "wall_s": 4.04, "peer_memory_mb": {"median": 20, "max": 30}, "faults": {}, "absent": {},
    }  # fmt: skip


def ring(peers: int) -> list[tuple[int, int]]:
    return sorted({(min(i, (i + 1) % peers), max(i, (i + 1) % peers)) for i in range(peers) if peers > 1})


def leave(
    folder: Path,
    rows: list[Row],
    pairs: list[tuple[int, int]],
    summed: Row | None,
    nodes: list[int] | None = None,
    algorithm: str = "dpsgd",
) -> Path:
    """A run folder with these rows; without a summary the run did not finish."""
    folder.mkdir(parents=True, exist_ok=True)
    nodes = nodes if nodes is not None else sorted({end for pair in pairs for end in pair})
    peers, rounds = sum(node >= 0 for node in nodes), max((row["round"] for row in rows), default=0)
    topology = "star" if -1 in nodes else RING
    text = SCENARIO.format(name=folder.name, peers=peers, rounds=rounds, topology=topology, algorithm=algorithm)
    (folder / "scenario.yaml").write_text(text)
    (folder / "environment.json").write_text(json.dumps({"python": "3.11.7", "torch": "2.13.0", "cores": 2}))
    (folder / "graph.json").write_text(json.dumps({"nodes": nodes, "links": pairs}))
    (folder / "log.txt").write_text("0: started\n1: started\n")
    (folder / "records.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*rows, *links(pairs, rounds)]))
    if summed is not None:
        (folder / "summary.json").write_text(json.dumps(summed))
    return folder


def gossip(folder: Path, peers: int = 8, rounds: int = 30) -> Path:
    return leave(folder, learning([*range(peers)], rounds), ring(peers), summary(folder.name, peers, rounds))


def star(folder: Path, peers: int = 8, rounds: int = 30) -> Path:
    """A hub that alone evaluates, and peers of which half are chosen each round."""
    rows = learning(["hub", *range(peers)], rounds, evaluators=["hub"])
    rows = [row for row in rows if row["peer"] in ("hub", "all") or (row["peer"] + row["round"]) % 2]
    rows = [row for row in rows if row["peer"] != "all"]
    summed = summary(folder.name, peers, rounds)
    summed = {key: value for key, value in summed.items() if key not in ("consensus_distance", "spectral_gap")}
    pairs = [(-1, peer) for peer in range(peers)]
    return leave(folder, rows, pairs, summed, [-1, *range(peers)], "fedavg")


def led(folder: Path, peers: int = 8, rounds: int = 60) -> Path:
    """Leader-follower: roles are dealt anew every ten rounds."""
    rows = learning([*range(peers)], rounds)
    for row in rows:
        if row["peer"] != "all":
            row |= {"leader": bool((row["peer"] * 7 + (row["round"] - 1) // 10 * 3) % 5 < 3), "partner": None}
    pairs = [(a, b) for a in range(peers) for b in range(a + 1, peers)]
    return leave(folder, rows, pairs, summary(folder.name, peers, rounds), algorithm="leasgd")


def churned(folder: Path, peers: int = 8, rounds: int = 30, killed: int = 3) -> Path:
    """A ring in which one peer dies after round 10, and its neighbours miss it from then on."""
    rows = learning([*range(peers)], rounds)
    rows = [row for row in rows if row["peer"] != killed or row["round"] <= 10]
    for row in rows:
        if row["peer"] in (killed - 1, killed + 1) and row["round"] > 10:
            row["absent"] = [killed]
    summed = summary(folder.name, peers, rounds) | {"absent": {str(killed): 40}, "faults": {"1": 2}}
    return leave(folder, rows, ring(peers), summed)


def page_of(folder: Path) -> str:
    return write(folder).read_text(encoding="utf-8")


def titles(page: str) -> list[str]:
    return re.findall(r"<figure[^>]*>\s*<h2>([^<]*)</h2>", page)


class Balanced(HTMLParser):
    """Fails unless every element is closed in order; keeps ids, references and the names of elements."""

    VOID = frozenset({"meta", "br", "link", "img", "hr", "input"})

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.names: set[str] = set()
        self.links: list[str] = []
        self.feed(page)
        assert not self.open

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._note(tag, attrs)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._note(tag, attrs)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def _note(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        for key, value in attrs:
            assert not key.startswith("on"), f"{tag} has a handler {key}"
            if key == "id":
                self.ids.append(value or "")
            if key in ("href", "xlink:href", "src"):
                self.links.append(value or "")


def test_the_page_of_a_gossip_run_shows_every_figure_of_learning(tmp_path: Path) -> None:
    page = page_of(gossip(tmp_path / "quickstart"))
    assert titles(page) == [
        "Accuracy on the validation set, over rounds",
        "Accuracy on the validation set, over bytes",
        "Training loss, over rounds",
        "Training loss, over bytes",
        "Consensus distance, over rounds",
        "Peer graph",
        "Time line of rounds",
    ]
    assert "<h1>quickstart</h1>" in page
    said = "8 peers trained for 30 rounds in 4.0 s; on average a peer&#39;s model came to 94.1 % accuracy"
    assert f"{said}, for 8.6 MB sent by all together." in page
    assert "each of 8 peers" in page
    assert "target reached in round 21" in page
    assert "8 peers, 8 links. A link is as wide as the bytes it carried: 1.1 MB each." in page
    assert "Nobody was absent, and nobody broke a rule." in page


def test_the_header_names_the_plug_ins_that_the_scenario_chose(tmp_path: Path) -> None:
    page = page_of(gossip(tmp_path / "quickstart"))
    assert re.findall(r"<li><span>(\w+)</span> ([\w.-]+)</li>", page) == [
        ("algorithm", "dpsgd"),
        ("topology", "ring"),
        ("data", "digits"),
        ("sketch", "countsketch"),
    ]


def test_the_figures_table_is_the_summary_flattened_in_humane_units(tmp_path: Path) -> None:
    page = page_of(gossip(tmp_path / "quickstart"))
    rows = dict(re.findall(r"<tr><td><code>([^<]+)</code></td><td>([^<]*)</td></tr>", page))
    assert rows["accuracy.mean"] == "94.12 %"
    assert rows["bytes.sent_per_peer_round"] == "36.0 kB"
    assert rows["round_s.median"] == "43 ms"
    assert rows["peer_memory_mb.max"] == "30.0 MB"
    assert rows["parameters"] == "8,970"
    assert "faults" not in rows


def test_the_page_needs_nothing_from_outside_and_runs_no_script(tmp_path: Path) -> None:
    html = Balanced(page_of(led(tmp_path / "led")))
    assert "script" not in html.names
    assert "link" not in html.names
    assert all(link.startswith(("#", "data:image/png;base64,")) for link in html.links)


def test_ids_are_unique_over_all_plots_and_every_reference_is_found(tmp_path: Path) -> None:
    page = page_of(gossip(tmp_path / "quickstart"))
    html = Balanced(page)
    assert len(html.ids) == len(set(html.ids))
    assert set(re.findall(r"url\(#([^)]+)\)", page)) <= set(html.ids)
    assert {link[1:] for link in html.links if link.startswith("#")} <= set(html.ids)


def test_the_same_folder_gives_the_same_page(tmp_path: Path) -> None:
    folder = churned(tmp_path / "churned")
    assert page_of(folder) == page_of(folder)


def test_the_page_of_a_star_is_the_hub_s_and_does_not_call_peers_dead_that_were_not_chosen(tmp_path: Path) -> None:
    page = page_of(star(tmp_path / "star"))
    assert "8 peers and a hub trained for 30 rounds" in page
    assert "the hub&#39;s model came to 94.1 %" in page
    assert '<li><i class="key-mean"></i>the hub</li>' in page
    assert "stopped before the end" not in page
    assert "not evaluated" in page
    assert "Consensus distance, over rounds" not in titles(page)


def test_a_leader_follower_run_shows_who_led_when(tmp_path: Path) -> None:
    page = page_of(led(tmp_path / "led"))
    assert titles(page)[-1] == "Who led when"
    assert "follower" in page


def test_a_killed_peer_is_marked_and_its_absences_and_faults_are_counted(tmp_path: Path) -> None:
    page = page_of(churned(tmp_path / "churned"))
    assert "Stopped before the end: 3 (after round 10). Absent from exchanges: 3 (40). Faults: 1 (2)." in page
    assert "stopped before the end" in page
    assert '<tr class="stopped"><td>3 stopped</td><td>10</td>' in page


def test_a_peer_that_nobody_missed_is_still_marked_when_it_fell_silent_before_the_end(tmp_path: Path) -> None:
    rows = [row for row in learning([0, 1, 2, 3], 10) if row["peer"] != 3 or row["round"] <= 6]
    page = page_of(leave(tmp_path / "silent", rows, ring(4), summary("silent", 4, 10)))
    assert "Stopped before the end: 3 (after round 6)." in page


def test_peers_of_a_run_that_was_stopped_as_a_whole_are_not_called_stopped(tmp_path: Path) -> None:
    rows = [row for row in learning([0, 1, 2, 3], 10) if row["round"] <= (7 if row["peer"] == 3 else 8)]
    page = page_of(
        leave(tmp_path / "interrupted", rows, ring(4), summary("interrupted", 4, 10) | {"rounds_to_target": None})
    )
    assert "Nobody was absent" in page
    assert "<b>8</b><span>of 10</span>" in page


def crash(folder: Path, peers: int = 6, fallen: tuple[Any, ...] = (0, 1, 2, 3, 4, 5), rounds: int = 0) -> Path:
    """A run of 10 rounds planned in which some crashed, all of them after so many rounds."""
    rows = [row for row in learning([*range(peers)], 10) if row["round"] <= rounds or row["peer"] not in fallen]
    rows = [row for row in rows if row["peer"] != "all"]
    summed = summary(folder.name, peers, rounds) | {"crashed": list(fallen), "rounds_to_target": None}
    if not rows:
        summed = {key: summed[key] for key in ("name", "peers", "rounds", "crashed", "wall_s", "faults", "absent")}
    leave(folder, rows, ring(peers), summed)
    text = (folder / "scenario.yaml").read_text()
    (folder / "scenario.yaml").write_text(re.sub(r"rounds: \d+", "rounds: 10", text))
    return folder


def test_a_run_in_which_everybody_crashed_says_so_wherever_it_is_summed_up(tmp_path: Path) -> None:
    page = page_of(crash(tmp_path / "crash"))
    assert '<p class="result">All 6 peers crashed before any had finished a round.</p>' in page
    assert '<p class="notice">Peers 0, 1, 2, 3, 4 and 5 crashed: the log, below, ends with why' in page
    assert "<b>0</b><span>of 10, every peer crashed</span>" in page
    assert "Crashed: 0 (after round 0), 1 (after round 0)," in page
    assert page.count('<tr class="stopped">') == 6
    assert "Nobody was absent" not in page
    page = page_of(crash(tmp_path / "later", rounds=4))
    assert "6 peers trained for 4 of 10 rounds" in page
    assert "All of them crashed." in page


def test_a_peer_that_crashed_is_told_from_those_that_came_to_the_end(tmp_path: Path) -> None:
    page = page_of(crash(tmp_path / "one", fallen=(4,), rounds=3))
    assert "sent by all together. 1 of them crashed.</p>" in page
    assert "Peer 4 crashed: the log, below, ends with why" in page
    assert '<tr class="stopped"><td>4 crashed</td><td>3</td>' in page
    assert '<i class="key-bad"></i>crashed</li>' in page
    assert "Crashed: 4 (after round 3)." in page
    assert "Stopped before the end" not in page


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"stopped": True}, "it was stopped"),
        ({"ended_by": "target"}, "the target was reached"),
        ({"ended_by": "seconds"}, "its time was up"),
        ({"ended_by": "bytes"}, "its bytes were spent"),
        ({"ended_by": "plateau"}, "accuracy rose no more"),
    ],
)
def test_a_run_that_ended_before_its_last_round_says_why(tmp_path: Path, more: Row, why: str) -> None:
    folder = gossip(tmp_path / "early", rounds=8)
    summed = json.loads((folder / "summary.json").read_text()) | more
    del summed["rounds_to_target"]
    (folder / "summary.json").write_text(json.dumps(summed))
    assert why not in page_of(folder)
    text = (folder / "scenario.yaml").read_text()
    (folder / "scenario.yaml").write_text(text.replace("rounds: 8", "rounds: 40"))
    page = page_of(folder)
    assert "8 peers trained for 8 of 40 rounds in 4.0 s" in page
    assert f"It ended early: {why}.</p>" in page
    assert f"<b>8</b><span>of 40, {why}</span>" in page
    assert re.search(r'<p class="notice">This run (was stopped|ended) after 8 rounds of 40[.:]', page)


def settled(folder: Path, **more: Any) -> Path:
    """Give the run a scenario with these keys that can be read as one."""
    chosen = {"name": folder.name, "seed": 7, "peers": 8, "rounds": 30} | more
    (folder / "scenario.yaml").write_text(scenario.dump(scenario.read(chosen)))
    return folder


def test_times_are_called_virtual_where_they_are(tmp_path: Path) -> None:
    folder = settled(gossip(tmp_path / "run"), engine="local")
    page = page_of(folder)
    assert not any(words in page for words in ("virtual time", "virtual seconds", ", virtual<", "(virtual)"))
    assert "<li><span>engine</span> local</li>" in page
    page = page_of(settled(folder, engine="simulate"))
    assert "<li><span>engine</span> simulate</li>" in page
    assert "<b>4.0 s</b><span>43 ms a round, in virtual time</span>" in page
    assert "Time line of rounds, in virtual time" in titles(page)
    assert "virtual seconds since round 1 began" in page
    assert "<td>43 ms, virtual</td>" in page
    assert "<th>a round (virtual)</th>" in page


def test_where_links_change_the_spectral_gap_is_called_a_contraction_over_the_first_rounds(tmp_path: Path) -> None:
    folder = settled(gossip(tmp_path / "run"), topology="ring")
    page = page_of(folder)
    assert "<span>spectral gap 0.195</span>" in page
    assert "<td><code>spectral_gap</code></td><td>0.195</td>" in page
    page = page_of(settled(folder, topology="random_matching"))
    assert "<span>contraction 0.195 a round, over the first 20 rounds</span>" in page
    assert "<td>0.195, the contraction a round, over the first 20 rounds</td>" in page
    assert "8 peers, 8 links in all rounds together." in page


def test_the_legend_shows_marks_as_they_are_drawn_and_names_the_target(tmp_path: Path) -> None:
    page = page_of(settled(gossip(tmp_path / "run"), evaluate={"target": 0.92}))
    assert '<i class="key-other diamond"></i>test set, at the end: 94.1 %</li>' in page
    assert '<i class="key-muted dotted"></i>target of 92 % reached in round 21</li>' in page
    assert '<i class="key-other dashed"></i>validation loss</li>' in page


def plot(page: str, title: str) -> str:
    """What stands between the title of a plot and the end of its figure."""
    return page.split(f"<h2>{title}</h2>")[1].split("</figure>")[0]


def words(svg: str) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]+)</text>", svg)


def test_rounds_are_whole_on_the_axis_of_a_short_run(tmp_path: Path) -> None:
    shown = plot(page_of(gossip(tmp_path / "short", rounds=3)), "Training loss, over rounds")
    along = shown[shown.index('matplotlib.axis_1"') : shown.index('matplotlib.axis_2"')]
    assert words(along) == ["0", "1", "2", "3", "round"]


@pytest.mark.parametrize(
    ("distances", "log"),
    [([0.0, 0.0], False), ([1.2, 1.207], False), ([0.9, 1.3], False), ([0.5, 0.0], False), ([2.0, 0.1], True)]
    + [([top, 1.0], True) for top in (11.0, 99.0, 310.0, 900.0, 1990.0, 40_000.0)],
)
def test_consensus_distance_has_a_log_scale_only_where_it_spans_decades_and_three_ticks_at_least(
    tmp_path: Path, distances: list[float], log: bool
) -> None:
    rows = [row for row in learning([0, 1, 2], 10) if row["peer"] != "all"]
    rows += [{"peer": "all", "round": 5 * k, "consensus_distance": far} for k, far in enumerate(distances, 1)]
    page = page_of(leave(tmp_path / "run", rows, ring(3), summary("run", 3, 10)))
    shown = plot(page, "Consensus distance, over rounds")
    assert ("from their mean, on a log scale; 0 where" if log else "from their mean; 0 where") in shown
    assert "falls" not in shown
    ticks = [float(word) for word in words(shown[shown.index('matplotlib.axis_2"') :])]
    assert len(ticks) >= 3
    assert (min(ticks) > 0) == log


def test_one_accuracy_for_all_has_no_scale_of_colours_but_words(tmp_path: Path) -> None:
    page = page_of(star(tmp_path / "star"))
    accuracy = re.search(r"The hub came to (\d\d\.\d %) test accuracy\.", plot(page, "Peer graph"))
    assert accuracy is not None
    assert f"<td>{accuracy[1]}</td>" in page
    assert not any(word.endswith("%") for word in words(plot(page, "Peer graph")))
    shown = plot(page_of(gossip(tmp_path / "gossip")), "Peer graph")
    assert "test" in " ".join(words(shown))
    assert any(word.endswith("%") for word in words(shown))


def test_five_hundred_peers_hide_neither_each_other_nor_are_hidden_by_their_links(tmp_path: Path) -> None:
    pairs = sorted({(min(i, j), max(i, j)) for i in range(500) for j in ((7 * i + 3) % 500, (i + 31) % 500) if i != j})
    nodes = [str(i) for i in range(500)]
    graph: nx.Graph[str] = nx.Graph((str(i), str(j)) for i, j in pairs)
    places = peer_graph.layout(graph)
    points = np.array([places[node] for node in nodes])
    area, outline = peer_graph.dots(points, peer_graph.SIDE_PT)
    apart = np.linalg.norm(points[:, None] - points[None], axis=2) + 9 * np.eye(500)
    apart_pt = apart.min(axis=1) * peer_graph.SIDE_PT / np.ptp(points, axis=0).max()
    assert outline == 0
    assert 5 < math.sqrt(area) < np.median(apart_pt)
    assert peer_graph.faintness(len(pairs)) < 0.3
    assert peer_graph.faintness(12) == 1
    page = page_of(leave(tmp_path / "many", learning([*range(500)], 2), pairs, summary("many", 500, 2)))
    assert f"500 peers, {len(pairs):,} links." in page


def test_of_many_peers_the_time_line_shows_two_dozen_and_says_which(tmp_path: Path) -> None:
    def shown(slow: int) -> str:
        rows = learning([*range(100)], 4)
        for row in rows:
            if row["peer"] != "all":
                row |= {"time_s": row["round"] * (0.5 if row["peer"] < slow else 0.1), "round_s": 0.1, "compute_s": 0.1}
        page = page_of(leave(tmp_path / f"{slow}", rows, ring(100), summary("slow", 100, 4)))
        return plot(page, "Time line of rounds")

    said = {
        0: "24 of 100 peers, evenly chosen: all of these took about as long.",
        60: "24 of the 60 that took longest, evenly chosen: all of these took about as long.",
        10: "The 24 of 100 peers that took longest.",
    }
    for slow, which in said.items():
        drawn = shown(slow)
        assert which in drawn
        named = [int(word) for word in words(drawn[drawn.index('matplotlib.axis_2"') :])]
        assert len(named) == 24
        assert sum(peer < slow for peer in named) == min(slow, 24)


def test_every_figure_is_on_the_page_without_scrolling_and_in_print(tmp_path: Path) -> None:
    page = page_of(gossip(tmp_path / "run"))
    assert "wide" in page[: page.index("<h2>Figures</h2>")].rpartition("<section")[2]
    assert "scroll" not in page[page.index("<h2>Figures</h2>") :].split("</section>")[0]
    printed = page[page.index("@media print") :].split("</style>")[0]
    assert re.search(r"\.scroll[^{]*\{ max-height: none; overflow: visible", printed)


def test_a_straggler_s_rounds_are_marked_in_the_time_line(tmp_path: Path) -> None:
    assert "a round of more than 1.5 times the median" in page_of(gossip(tmp_path / "slow"))


def test_whatever_the_records_say_is_shown_as_text(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)> $\\frac{ \ud800"
    folder = gossip(tmp_path / "evil")
    summed = summary(evil, 8, 30) | {evil: evil, "accuracy": {"mean": 0.9, evil: evil}, "absent": {evil: 3}}
    summed["attacks"] = [{"attacker": evil, evil: 1, "seconds": 2.0}]
    (folder / "summary.json").write_text(json.dumps(summed))
    (folder / "environment.json").write_text(json.dumps({evil: [evil]}))
    (folder / "scenario.yaml").write_text(f"name: {evil}\nalgorithm: {evil}\n", errors="replace")
    (folder / "log.txt").write_text(evil, errors="replace")
    rows = [{"peer": 0, "round": 31, "loss": evil, evil: evil, "absent": [evil, [evil]], "leader": evil}]
    rows += [{"peer": evil, "round": 1, "loss": 1.0}, {"peer": "all", "round": 5, "consensus_distance": evil}]
    with (folder / "records.jsonl").open("a") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    page = page_of(folder)
    html = Balanced(page)
    assert {"script", "img"}.isdisjoint(html.names)
    assert "<script" not in page
    assert page.count("&lt;script&gt;") >= 6


def test_the_command_to_run_it_again_is_quoted_for_a_shell(tmp_path: Path) -> None:
    page = page_of(gossip(tmp_path / "two words; rm"))
    assert "two words; rm/scenario.yaml&#39;</pre>" in page
    assert "<pre>p2pfl launch &#39;" in page


def test_the_command_to_run_it_again_allows_the_plug_ins_that_the_run_has_kept(tmp_path: Path) -> None:
    folder = gossip(tmp_path / "own")
    assert "own/scenario.yaml</pre>" in page_of(folder)
    (folder / "plugins").mkdir()
    assert "own/scenario.yaml --allow-code</pre>" in page_of(folder)


def test_a_run_that_stopped_before_its_first_round_says_so(tmp_path: Path) -> None:
    page = page_of(leave(tmp_path / "none", [], ring(8), None))
    assert "The run stopped before any peer had finished a round." in page
    assert "This run did not finish" in page
    assert titles(page) == ["Peer graph"]


def test_accuracy_on_the_validation_set_is_never_called_that_on_the_test_set(tmp_path: Path) -> None:
    folder = gossip(tmp_path / "untested")
    summary = json.loads((folder / "summary.json").read_text())
    summary["validation_accuracy"] = {"mean": 0.875, "min": 0.75, "max": 1.0}
    del summary["accuracy"]
    (folder / "summary.json").write_text(json.dumps(summary))
    page = page_of(folder)
    assert "<span>validation accuracy</span><b>87.5 %</b>" in page
    assert "test accuracy" not in page


def test_an_unfinished_run_is_told_from_its_rows(tmp_path: Path) -> None:
    folder = gossip(tmp_path / "cut")
    (folder / "summary.json").unlink()
    lines = (folder / "records.jsonl").read_text().splitlines()
    (folder / "records.jsonl").write_text("\n".join(lines[:101]) + '\n{"peer": 3, "rou')
    page = page_of(folder)
    assert "This run did not finish: it left no summary." in page
    assert "1 line of records.jsonl could not be read" in page
    assert re.search(
        r"8 peers trained for 13 of 30 rounds; on average a peer&#39;s model came to \d\d\.\d % accuracy so far", page
    )
    assert "stopped before the end" not in page
    assert "Time line of rounds" in titles(page)


def test_a_lone_peer_has_a_page(tmp_path: Path) -> None:
    rows = [row for row in learning([0], 3, every=1) if row["peer"] != "all"]
    page = page_of(leave(tmp_path / "alone", rows, [], summary("alone", 1, 3), nodes=[0]))
    assert "1 peer trained for 3 rounds" in page
    assert "1 peers" not in page
    assert "Accuracy on the validation set, over rounds" in titles(page)


@pytest.mark.parametrize("missing", ["time_s", "round_s", "loss", "sent_bytes", "validation_accuracy", "test_accuracy"])
def test_a_figure_that_was_not_recorded_costs_only_its_plots(tmp_path: Path, missing: str) -> None:
    whole, less = (page_of(gossip(tmp_path / name, rounds=10)) for name in ("whole", "less"))
    folder = tmp_path / "less"
    rows = [json.loads(line) for line in (folder / "records.jsonl").read_text().splitlines()]
    stripped = [{key: value for key, value in row.items() if key != missing} for row in rows]
    (folder / "records.jsonl").write_text("".join(json.dumps(row) + "\n" for row in stripped))
    less = page_of(folder)
    gone = {
        "time_s": {"Time line of rounds"},
        "sent_bytes": {"Accuracy on the validation set, over bytes", "Training loss, over bytes"},
        "loss": {"Training loss, over rounds", "Training loss, over bytes"},
        "validation_accuracy": {
            "Accuracy on the validation set, over rounds",
            "Accuracy on the validation set, over bytes",
        },
    }
    assert set(titles(whole)) - set(titles(less)) == gone.get(missing, set())


def test_rows_of_nonsense_are_counted_or_passed_over(tmp_path: Path) -> None:
    folder = gossip(tmp_path / "odd", rounds=6)
    nonsense = [
        "[1, 2]", "null", '{"peer": 0}', '{"round": 3}', '{"peer": 0, "round": "3"}', '{"peer": 1.5, "round": 3}',
        '{"peer": 0, "round": -4}', "[" * 100_000, '{"peer": 9999999999999, "round": 3}',
    ]  # fmt: skip
    tame = [
        '{"peer": 0, "round": 7, "loss": NaN, "time_s": Infinity, "sent_bytes": 1e400, "absent": 4}',
        '{"peer": 0, "round": 8, "loss": 1e308, "round_s": -4, "time_s": {}, "leader": 3}',
        '{"peer": 0, "round": 8, "to": [1], "link_bytes": "many"}',
        f'{{"peer": 0, "round": 9, "loss": 1{"0" * 400}}}',
    ]
    with (folder / "records.jsonl").open("ab") as file:
        file.write("\n".join([*nonsense, *tame]).encode() + b"\n\xff\xfe\n")
    (folder / "graph.json").write_text('{"nodes": [0, "x", null], "links": [[0, 0], [0, "y"], [0, 1, 2], 7, [0, 1]]}')
    assert f"{len(nonsense) + 1} lines of records.jsonl could not be read" in page_of(folder)


@pytest.mark.parametrize("broken", ["", "{", "[]", "7"])
def test_a_broken_summary_is_no_summary(tmp_path: Path, broken: str) -> None:
    folder = gossip(tmp_path / "broken", rounds=6)
    (folder / "summary.json").write_text(broken)
    assert "This run did not finish" in page_of(folder)


def test_a_folder_that_is_not_there_or_no_run_is_refused_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match=r"no folder '.*nowhere': give the folder that `p2pfl launch` wrote"):
        write(tmp_path / "nowhere")
    with pytest.raises(ScenarioError, match=r"is not a run folder: it has no records\.jsonl"):
        write(tmp_path)


def test_many_peers_and_rounds_make_a_page_of_bounded_size(tmp_path: Path) -> None:
    page = page_of(gossip(tmp_path / "big", peers=64, rounds=300))
    assert len(page) < 6_000_000
    assert "each 5 rounds" in page
    assert len(Balanced(page).ids) < 5_000


def spoken(**more: Any) -> tuple[live.Live, io.StringIO]:
    text = io.StringIO()
    console = Console(file=text, width=100, **more)
    return live.Live(console, "quickstart", [str(peer) for peer in range(8)], 30, 0.97), text


def test_away_from_a_terminal_evaluated_rounds_are_plain_lines_and_first_and_last_are_said() -> None:
    shown, text = spoken()
    with shown:
        for row in learning([*range(8)], 30, every=10):
            shown.hear(str(row["peer"]), row)
    lines = text.getvalue().splitlines()
    assert lines[0] == "quickstart: 8 peers, 30 rounds, target accuracy 0.97"
    assert [line.split("  ")[0] for line in lines[1:]] == ["round 10/30", "round 20/30", "round 30/30"]
    form = r"round 10/30  loss 0\.\d+  accuracy 0\.\d{3} \(0\.\d{3}-0\.\d{3}\)  2\.9 MB sent"
    form += r"  slow: 2 \(\d+ ms a round\)"
    assert re.fullmatch(form, lines[1])
    assert "\x1b" not in text.getvalue()


def test_a_dead_peer_does_not_hold_back_the_lines_of_the_others() -> None:
    shown, text = spoken()
    with shown:
        for row in learning([*range(8)], 30, every=10):
            if row["peer"] != 3 or row["round"] <= 5:
                told = row | {"absent": [3]} if row["peer"] in (2, 4) and row["round"] > 5 else row
                shown.hear(str(row["peer"]), told)
    assert [line.split("  ")[0] for line in text.getvalue().splitlines()[1:]] == [
        "round 10/30",
        "round 20/30",
        "round 30/30",
    ]


def test_in_a_star_the_hub_speaks_for_all() -> None:
    text = io.StringIO()
    shown = live.Live(Console(file=text, width=100), "star", ["hub", "0", "1"], 4, None)
    with shown:
        for row in learning(["hub", 0, 1], 4, every=2, evaluators=["hub"]):
            shown.hear(str(row["peer"]), row)
    assert [line.split("  ")[0] for line in text.getvalue().splitlines()] == [
        "star: 3 peers, 4 rounds",
        "round 2/4",
        "round 4/4",
        "round 4/4",
    ]


def test_a_terminal_shows_rounds_figures_stragglers_and_a_line_for_each_peer() -> None:
    shown, text = spoken(force_terminal=True, color_system=None)
    with shown:
        for row in learning([*range(8)], 30):
            shown.hear(str(row["peer"]), row)
    last = text.getvalue().split("quickstart")[-1]
    assert "round 30/30" in last
    assert "target 0.97" in last
    assert re.search(r"slow: 2 \(\d+ ms a round\)", last)
    assert len(re.findall(r"^ ?\d  +30  +0\.\d+  +0\.\d{3}  +1\.1 MB", last, re.MULTILINE)) == 8


def test_of_many_peers_a_terminal_shows_the_slowest_eight() -> None:
    text = io.StringIO()
    console = Console(file=text, width=100, height=50, force_terminal=True, color_system=None)
    with live.Live(console, "many", [str(peer) for peer in range(64)], 9, None) as shown:
        for peer in range(64):
            shown.hear(str(peer), {"peer": peer, "round": 9 if peer > 4 else 2, "loss": 1.0})
    last = text.getvalue().split("many")[-1]
    assert "and 56 others, further on" in last
    assert "round 2/9, fastest 9" in last


def test_notes_and_names_are_text_to_a_terminal_never_markup_or_control() -> None:
    text = io.StringIO()
    console = Console(file=text, width=100)
    with live.Live(console, "[red]x\x1b]0;owned\x07", ["0"], 1, None) as shown:
        shown.note("peer 3 crashed: [/] [bold]no\x1b[2J")
    assert "[red]x\N{REPLACEMENT CHARACTER}]0;owned" in text.getvalue()
    assert "peer 3 crashed: [/] [bold]no\N{REPLACEMENT CHARACTER}[2J" in text.getvalue()
    assert "\x1b" not in text.getvalue()


def test_a_terminal_is_drawn_to_four_times_a_second_at_most_however_many_rows_come() -> None:
    shown, text = spoken(force_terminal=True, color_system=None)
    row = learning([0], 1, every=9)[0]
    began_s = time.monotonic()
    with shown:
        for _ in range(20_000):
            shown.hear("0", row)
        took_s = time.monotonic() - began_s
        drawn = text.getvalue().count("quickstart")
    assert drawn <= 2 + took_s / live.REFRESH_S


def test_the_final_table_is_short_and_leaves_out_what_does_not_apply() -> None:
    text = io.StringIO()
    Console(file=text, width=100).print(live.table(summary("quickstart", 8, 30) | {"absent": {"3": 2}}))
    lines = [line.split(maxsplit=1) for line in text.getvalue().splitlines()]
    told = {line[0]: line[1].strip() for line in lines}
    assert told["accuracy"] == "mean 94.12 %   min 93.10 %   max 95.20 %   consensus model 94.66 %"
    assert told["wall"] == "4.0 s"
    assert told["absent"] == "3 (2)"
    assert "faults" not in told


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (1_234_567, "1.2 MB"), (4.2e17, "420 PB")]
)
def test_bytes_are_written_in_decimal_units(count: float, text: str) -> None:
    assert units.size(count) == text


@pytest.mark.parametrize(
    ("time_s", "text"),
    [(0.0, "0 ms"), (0.00042, "0.42 ms"), (0.043, "43 ms"), (4.04, "4.0 s"), (200, "3 min 20 s"), (7500, "2 h 05 min")],
)
def test_durations_are_written_in_the_unit_that_reads_best(time_s: float, text: str) -> None:
    assert units.duration(time_s) == text


def test_the_accuracy_shown_is_of_a_round_that_all_have_come_to_and_never_of_the_test_set() -> None:
    shown = live.Live(Console(file=io.StringIO(), width=100), "many", ["0", "1"], 9, None)
    with shown:
        shown.hear("0", {"round": 1, "round_s": 0.1, "validation_accuracy": 0.4})
        shown.hear("1", {"round": 1, "round_s": 0.1, "validation_accuracy": 0.6})
        shown.hear("0", {"round": 2, "round_s": 0.1, "validation_accuracy": 0.9})
        assert "accuracy 0.500 (0.400-0.600)" in shown.line()
        shown.hear("1", {"round": 2, "round_s": 0.1, "validation_accuracy": 0.7})
        shown.hear("1", {"round": 2, "test_accuracy": 0.1})
        assert "accuracy 0.800 (0.700-0.900)" in shown.line()
