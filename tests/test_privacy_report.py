"""What a private run gave away stands in its summary, on its page and on the screen, with what it is worth."""

from __future__ import annotations

import io
import json
import math
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from test_comparison import EVIL
from test_report import Balanced, learning, leave, page_of, ring, summary, titles

import p2pfl
from p2pfl import scenario
from p2pfl.defences._audit import lower_bound
from p2pfl.report import live, pairs
from p2pfl.report.folder import read
from p2pfl.runtime.record import Recorder
from p2pfl.runtime.summary import summarise
from p2pfl.runtime.world import World
from p2pfl.seeds import Seeds

Row = dict[str, Any]
TINY: dict[str, Any] = {"name": "tiny", "seed": 1, "peers": 3, "rounds": 4, "engine": "simulate"}
TINY |= {"training": {"local_steps": 2, "device": "cpu"}, "model": {"mlp": {"hidden": [8]}}}
DP = {"defences": [{"dp": {"noise": 2.0, "delta": 1e-6}}]}


def told(peer: int, round: int, **more: Any) -> Row:
    counts = {"sent_bytes": 100 * round, "vectors": (peer + 1) * round, "tensor_bytes": 90 * round}
    return {"peer": peer, "round": round, "round_s": 0.1, "time_s": 0.1 * round} | counts | more


def summed(folder: Path, rows: Iterable[Row], killed: Iterable[int] = (), **settings: Any) -> Row:
    """The summary of a run that said these rows."""
    world = World(scenario.read(TINY | settings), Seeds.of(1))
    with Recorder(folder, world, lambda row: None, lambda text: None) as recorder:
        recorder.killed |= {*killed}
        for row in rows:
            recorder.add(row)
    return summarise(recorder, 0.0, 1.0)


def test_the_summary_says_what_each_peer_spent_also_one_that_died_and_what_the_figure_is_worth(tmp_path: Path) -> None:
    rows = [told(peer, r, epsilon=0.1 * r + peer, private_steps=r) for r in (1, 2, 3) for peer in (0, 1)]
    rows += [told(2, 1, epsilon=9.0), told(0, 4, epsilon=0.5, epsilon_by="prv"), told(1, 4, epsilon=1.5)]
    found = summed(tmp_path, rows, killed=[2], **DP)["privacy"]
    assert found == {
        "epsilon": {"mean": pytest.approx((0.5 + 1.5 + 9) / 3), "max": 9.0},
        "delta": 1e-6, "unit": "example", "accountant": "prv", "replayable": True,
    }  # fmt: skip
    found = summed(tmp_path, [told(0, 1, epsilon=1.0, epsilon_by="rdp")], seed=None, **DP)["privacy"]
    assert found["replayable"] is False
    assert found["accountant"] == "rdp"


def test_who_stopped_early_is_named_once_in_the_order_of_peers(tmp_path: Path) -> None:
    rows = [told(peer, r, epsilon=1.0) for r in (1, 2) for peer in (0, 1, 2, 10)]
    rows += [told(peer, r, epsilon=1.0, budget_spent=True) for r in (3, 4) for peer in (10, 2)]
    assert summed(tmp_path, rows, peers=11, **DP)["privacy"]["spent_out"] == [2, 10]


def test_epsilon_to_the_target_is_the_largest_by_the_end_of_its_round(tmp_path: Path) -> None:
    rows = [told(0, r, epsilon=0.3 * r, validation_accuracy=0.2 * r) for r in (1, 2, 3, 4)]
    rows += [told(1, r, epsilon=0.2 * r, validation_accuracy=0.2 * r) for r in (1, 2, 3, 4)]
    rows += [told(2, 1, epsilon=0.7)]
    for target, largest in ((0.4, 0.7), (0.6, pytest.approx(0.9)), (0.9, None)):
        found = summed(tmp_path, rows, evaluate={"target": target}, **DP)
        assert found["privacy"].get("to_target") == largest
    assert "to_target" not in summed(tmp_path, rows, **DP)["privacy"]


def test_the_canaries_of_all_peers_together_bound_epsilon_from_below(tmp_path: Path) -> None:
    rows = [told(peer, 1, epsilon=3.0, canaries=50, canaries_guessed=10, canaries_right=1) for peer in range(3)]
    counts = {0: (200, 40, 38), 1: (200, 40, 40), 2: (100, 20, 19)}
    for peer, (canaries, guessed, right) in counts.items():
        rows.append(told(peer, 2, epsilon=4.0, canaries=canaries, canaries_guessed=guessed, canaries_right=right))
    audit = summed(tmp_path, rows, **DP)["privacy"]["audit"]
    assert audit == {"epsilon": lower_bound(500, 100, 97, 1e-6), "right": 97, "guessed": 100, "canaries": 500}
    assert audit["epsilon"] > lower_bound(*counts[0], 1e-6) > 0


def test_a_run_without_a_defence_says_nothing_of_privacy(tmp_path: Path) -> None:
    assert "privacy" not in summed(tmp_path, [told(0, 1, loss=1.0)])
    page = page_of(leave(tmp_path / "plain", learning([0, 1, 2], 4), ring(3), summary("plain", 3, 4)))
    assert "Privacy" not in page
    assert "epsilon" not in page.lower()


def test_the_loss_that_is_waited_for_is_the_mean_over_the_peers_of_a_round(tmp_path: Path) -> None:
    losses = {1: [3.0, 1.0, 2.0], 2: [1.2, 1.1, 1.0], 3: [0.1, None, 1.9], 4: [0.9, 0.8, 0.7]}
    rows = [told(peer, r, loss=loss) for r, each in losses.items() for peer, loss in enumerate(each)]
    for aim, reached in ((2.0, 1), (1.1, 2), (1.0, 3), (0.81, 4), (0.5, None)):
        found = summed(tmp_path, rows, evaluate={"loss": aim})
        assert found.get("rounds_to_loss") == reached
        assert found.get("vectors_to_loss") == (None if reached is None else 6 * reached)


def launched(folder: Path, **settings: Any) -> tuple[Row, list[Row]]:
    record = p2pfl.launch(TINY | settings, folder)
    lines = (folder / "records.jsonl").read_text().splitlines()
    return dict(record.summary), [json.loads(line) for line in lines]  # type: ignore[union-attr]


@pytest.fixture(scope="module")
def private(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A private run for real, that spends its budget: LEASGD, with canaries."""
    folder = tmp_path_factory.mktemp("private") / "run"
    dp = {"epsilon": 3.0, "noise": 1.0, "canaries": 40}
    algorithm = {"leasgd": {"rho": 4.0, "k": 3}}
    evaluate = {"every": 2, "target": 0.01, "loss": 2.4}
    launched(folder, algorithm=algorithm, defences=[{"dp": dp}], rounds=8, peers=4, evaluate=evaluate)
    return folder


def test_a_private_run_comes_with_epsilon_in_every_row_summary_and_page(private: Path) -> None:
    rows = [json.loads(line) for line in (private / "records.jsonl").read_text().splitlines()]
    rows = [row for row in rows if "epsilon" in row]
    found = json.loads((private / "summary.json").read_text())
    last = {row["peer"]: row for row in rows}
    assert len(rows) == 4 * 8
    assert found["privacy"]["epsilon"]["max"] == max(row["epsilon"] for row in last.values()) <= 3.0
    assert found["privacy"]["to_target"] == max(row["epsilon"] for row in rows if row["round"] == 2)
    assert found["privacy"]["audit"]["canaries"] == 4 * 40
    assert (
        found["privacy"]["spent_out"] == [peer for peer in range(4) if last[peer].get("budget_spent")] == [0, 1, 2, 3]
    )
    means = {r: [row["loss"] for row in rows if row["round"] == r and row["loss"] is not None] for r in range(1, 9)}
    reached = next(r for r, each in means.items() if each and math.fsum(each) / len(each) <= 2.4)
    assert found["rounds_to_loss"] == reached
    assert found["vectors_to_loss"] == sum(row["vectors"] for row in rows if row["round"] == reached)


def test_the_page_says_what_epsilon_is_worth_what_it_covers_and_what_not(private: Path) -> None:
    page = page_of(private)
    html = Balanced(page)
    assert len(html.ids) == len(set(html.ids))
    assert "Epsilon, over rounds" in titles(page)
    found = json.loads((private / "summary.json").read_text())["privacy"]
    rows = dict(re.findall(r"<tr><td>([^<]+)</td><td>([^<]*)</td></tr>", page))
    assert rows["epsilon, the largest of any peer"] == f"{found['epsilon']['max']:.4g}"
    assert rows["delta"] == "1e-5"
    assert rows["unit"] == "one example of one peer, added or removed"
    assert rows["audit: guesses that were right"] == f"{found['audit']['right']} of 32, of 160 canaries"
    assert "Replayable, not for release" in page
    assert "budget of 3<" in page
    assert "Peers 0, 1, 2 and 3 stopped training in round" in page
    for words in ("Everything that a peer ever sends", "That a peer took part", "validation split", "run&#39;s folder"):
        assert words in page
    assert page.count(", spent</td>") == 4, "in the table of peers"
    assert "<span>defences</span> dp" in page


def test_a_private_run_that_did_not_finish_says_what_was_spent_so_far(tmp_path: Path) -> None:
    rows = learning([0, 1, 2], 6)
    for row in rows:
        row |= {"epsilon": 0.25 * row["round"] + (row["peer"] == 1)} if row["peer"] != "all" else {}
    page = page_of(leave(tmp_path / "cut", rows, ring(3), None))
    assert "<td>epsilon, the largest of any peer</td><td>2.5 so far</td>" in page
    assert "Replayable" not in page
    assert "each of 3 peers" in page


def test_whatever_a_record_says_of_privacy_and_pairs_is_shown_as_text(tmp_path: Path) -> None:
    rows = learning([0, 1], 2)
    odd: list[Any] = [EVIL, {"a": EVIL}, [EVIL], 10**400, -1, True, None]
    for row, value in zip(rows, odd, strict=False):
        row |= {
            "epsilon": value,
            "budget_spent": value,
            "partner": value,
            "partners": [value, [value], 1],
            "leader": EVIL,
        }
    folder = leave(tmp_path / "evil", rows, ring(2), summary("evil", 2, 2))
    for privacy in (
        EVIL,
        {"epsilon": EVIL},
        {
            "epsilon": {"max": 1, "mean": EVIL},
            "unit": EVIL,
            "delta": EVIL,
            "accountant": EVIL,
            "audit": {"epsilon": 1, "right": EVIL},
            "spent_out": EVIL,
            "replayable": EVIL,
        },
    ):
        (folder / "summary.json").write_text(json.dumps(summary("evil", 2, 2) | {"privacy": privacy}))
        html = Balanced(page_of(folder))
        assert "script" not in html.names
        Console(file=io.StringIO()).print(live.table(summary("evil", 2, 2) | {"privacy": privacy}))


def paired(folder: Path, rounds: list[dict[int, Any]], links: list[tuple[int, int]], column: str = "partner") -> Path:
    """A run in whose rounds each peer names a partner, or several."""
    peers = sorted({end for link in links for end in link})
    rows = [row for row in learning(peers, len(rounds)) if row["peer"] != "all"]
    for row in rows:
        row |= {"leader": row["peer"] % 2 == 0, column: rounds[row["round"] - 1].get(row["peer"])}
    return leave(folder, rows, links, summary(folder.name, len(peers), len(rounds)), algorithm="leasgd")


def squares(page: str) -> Counter[str]:
    """How many squares there are of each look in the picture of pairs."""
    svg = page[page.index("Who paired with whom") :]
    drawn = re.findall(r'<path d="([^"]*)"[^>]*style="([^"]*)"', svg[: svg.index("</svg>")])
    return Counter({style: d.count("M ") for d, style in drawn if d.count("z") or d.count("M ") > 1})


def test_who_paired_with_whom_is_counted_and_a_link_that_never_did_is_told_from_no_link(tmp_path: Path) -> None:
    one, two = {0: 1, 1: 0, 2: 3, 3: 2}, {0: 3, 3: 0, 1: None, 2: None}
    folder = paired(tmp_path / "pairs", [one, one, two, one], [(0, 1), (1, 2), (2, 3), (0, 3)])
    counts = pairs.counted(read(folder))
    assert {pair: times for pair, times in counts.items() if times} == {
        ("0", "1"): 3, ("1", "0"): 3, ("2", "3"): 3, ("3", "2"): 3, ("0", "3"): 1, ("3", "0"): 1,
    }  # fmt: skip
    page = page_of(folder)
    assert titles(page)[-3:] == ["Who paired with whom", "Time line of rounds", "Who led when"]
    assert "paired in 3 rounds, the most" in page
    assert "linked, never paired" in page
    found = squares(page)
    assert sorted(count for style, count in found.items() if "fill: none" not in style) == [2, 4]
    assert [count for style, count in found.items() if "fill: none; stroke" in style] == [2], "that of 1 and 2, twice"
    assert "How often two peers were partners." in page


def test_several_partners_and_pulls_of_one_side_are_counted_by_who_names_them(tmp_path: Path) -> None:
    links = [(0, 1), (0, 2), (0, 3)]
    folder = paired(tmp_path / "pull", [{0: [1, 2], 1: [0], 2: [0]}, {0: [1], 1: [0]}], links, "partners")
    assert pairs.counted(read(folder)) == {("0", "1"): 2, ("0", "2"): 1, ("1", "0"): 2, ("2", "0"): 1}
    page = page_of(paired(tmp_path / "async", [{1: 0, 2: 0}, {1: 0, 3: 0}], links))
    assert "How often the peer of a row named that of a column." in page
    assert "linked, never paired" in page, "0 named nobody"


def test_of_many_peers_the_pairs_of_some_are_drawn_and_of_none_nothing(tmp_path: Path) -> None:
    links = [(i, i + 1) for i in range(99)]
    both = {i: i + 1 if i % 2 == 0 else i - 1 for i in range(100)}
    page = page_of(paired(tmp_path / "many", [both, both], links))
    assert "32 of 100 peers, evenly chosen." in page
    assert len(page) < 3_000_000
    assert "Who paired with whom" not in page_of(paired(tmp_path / "none", [{}, {}], links[:3]))


def test_epsilon_is_a_figure_and_a_column_of_the_screen_where_there_is_one() -> None:
    for private in (True, False):
        text = io.StringIO()
        console = Console(file=text, width=120, force_terminal=True, color_system=None)
        with live.Live(console, "quick", ["0", "1"], 3, None) as shown:
            for peer in (0, 1):
                row = {"peer": peer, "round": 3, "round_s": 0.1, "loss": 1.0, "validation_accuracy": 0.5}
                shown.hear(str(peer), row | ({"epsilon": 2.5 + peer, "budget_spent": peer == 1} if private else {}))
            line = shown.line()
        last = text.getvalue().split("quick")[-1]
        assert ("epsilon" in last) == private
        if private:
            assert "epsilon 3.500" in line
            assert line.endswith("budget spent: 1")
            assert "budget spent: 1" in last
            assert re.search(r"^ ?0 +3 +1 +0\.500 +2\.500 *$", last, re.MULTILINE)
            assert re.search(r"^ ?1 +3 +1 +0\.500 +3\.500, spent *$", last, re.MULTILINE)


def test_the_table_at_the_end_says_what_was_given_away_and_who_had_spent_it() -> None:
    privacy = {"epsilon": {"mean": 3.9, "max": 4.1}, "delta": 1e-5, "audit": {"epsilon": 0.5}, "replayable": True}
    text = io.StringIO()
    told = summary("quick", 8, 30) | {"privacy": privacy | {"spent_out": [1, 4]}}
    Console(file=text, width=140).print(live.table(told))
    assert "epsilon 4.1   mean 3.9   delta 1e-5   audit, at least 0.5   replayable, not for release" in text.getvalue()
    assert re.search(r"budget spent +1, 4", text.getvalue())


def test_the_loss_that_was_waited_for_is_marked_where_it_was_reached(tmp_path: Path) -> None:
    folder = leave(tmp_path / "loss", learning([0, 1, 2], 6), ring(3), summary("loss", 3, 6) | {"rounds_to_loss": 4})
    text = (folder / "scenario.yaml").read_text().replace("dpsgd:\n    some: 1", "dpsgd") + "evaluate: {loss: 0.75}\n"
    (folder / "scenario.yaml").write_text(text)
    page = page_of(folder)
    assert "target of 0.75 reached in round 4" in page
    assert "loss reached in round 4" in page
