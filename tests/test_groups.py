"""Peers that differ: groups have their own training, share of the data and speed, in every engine alike."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

import pytest

from p2pfl import scenario
from p2pfl.runtime import launch
from p2pfl.runtime.launch import Record
from p2pfl.runtime.pace import EXAMPLES_A_SECOND
from p2pfl.runtime.world import World
from p2pfl.seeds import Seeds

SMALL: dict[str, Any] = {
    "name": "groups",
    "seed": 5,
    "peers": 4,
    "rounds": 4,
    "model": {"mlp": {"hidden": [8]}},
    "training": {"batch": 16, "lr": 0.1, "local_steps": 3, "device": "cpu"},
    "evaluate": {"every": 2},
}
SLOW: dict[str, Any] = {"slow": {"peers": [1, 2], "speed": 0.1, "share": 0.25, "training": {"batch": 8, "lr": 0.02}}}


def run(out: Path, **more: Any) -> Record:
    return launch.run(scenario.read({**SMALL, **more}), out)


def rows(record: Record) -> list[dict[str, Any]]:
    lines = (record.folder / "records.jsonl").read_text().splitlines()
    found = [row for row in map(json.loads, lines) if "to" not in row]
    return sorted(found, key=lambda row: (row["round"], str(row["peer"])))


def untimed(record: Record) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if not k.endswith(("_s", "_mb", "_bytes"))} for row in rows(record)]


def test_a_group_says_what_differs_and_takes_the_rest_from_the_scenario() -> None:
    settings = scenario.read({**SMALL, "groups": SLOW})
    slow, other = settings.group(1), settings.group(0)
    assert (slow.training.batch, slow.training.lr, slow.training.local_steps) == (8, 0.02, 3)
    assert (slow.speed, slow.share) == (0.1, 0.25)
    assert (other.training, other.speed, other.share) == (settings.training, 1.0, 1.0)
    assert scenario.parse(scenario.dump(settings)) == settings


def test_epochs_of_a_group_replace_the_steps_of_the_scenario() -> None:
    settings = scenario.read({**SMALL, "groups": {"long": {"peers": [3], "training": {"local_epochs": 2}}}})
    assert (settings.group(3).training.local_epochs, settings.group(3).training.local_steps) == (2, None)
    assert (settings.group(0).training.local_epochs, settings.group(0).training.local_steps) == (None, 3)


def test_a_share_keeps_a_part_of_what_the_partition_gives_and_leaves_the_others_theirs() -> None:
    whole = World(scenario.read(SMALL), Seeds.of(5))
    cut = World(scenario.read({**SMALL, "groups": SLOW}), Seeds.of(5))
    for i in range(4):
        given, kept = set(whole.kept[i].tolist()), set(cut.kept[i].tolist())
        assert kept <= given
        assert len(kept) == (round(len(given) / 4) if i in (1, 2) else len(given))
    assert cut.roster.examples == {i: len(cut.kept[i]) for i in range(4)}
    assert cut.seat(1).me.task.examples == cut.roster.examples[1]


def test_the_smallest_share_is_one_example() -> None:
    world = World(scenario.read({**SMALL, "groups": {"poor": {"peers": [0], "share": 1e-9}}}), Seeds.of(5))
    assert len(world.kept[0]) == 1


@pytest.mark.parametrize("algorithm", ["dpsgd", "fedavg", {"leasgd": {"k": 2}}])
def test_groups_give_the_same_figures_on_every_engine(algorithm: Any, tmp_path: Path) -> None:
    more = {"algorithm": algorithm, "groups": SLOW}
    expected = untimed(run(tmp_path / "simulate", engine="simulate", **more))
    assert expected != untimed(run(tmp_path / "plain", engine="simulate", algorithm=algorithm))
    for engine in ("inproc", "local"):
        assert untimed(run(tmp_path / engine, engine=engine, **more)) == expected


def test_virtual_time_is_what_examples_take_and_a_slow_peer_holds_its_neighbours_up(tmp_path: Path) -> None:
    """On a ring of 4 everybody has a slow neighbour: each round ends when the slow ones have trained."""
    record = run(tmp_path / "ring", engine="simulate", groups={"slow": {"peers": [1, 2], "speed": 0.1}})
    step_s = 16 / EXAMPLES_A_SECOND
    for row in rows(record):
        if "time_s" in row:
            ahead_s = 2 * 10 * step_s + (row["round"] - 1) * 3 * 10 * step_s  # its mail comes after two of three steps
            own_s = (10 if row["peer"] in (1, 2, "all") else 0) * step_s
            assert row["time_s"] == pytest.approx(ahead_s + own_s)


def test_alone_a_slow_peer_takes_as_many_times_longer_as_it_is_slower(tmp_path: Path) -> None:
    record = run(
        tmp_path / "alone", engine="simulate", algorithm="local_only", groups={"slow": {"peers": [1], "speed": 0.1}}
    )
    took_s = {row["peer"]: row["round_s"] for row in rows(record) if row["round"] == 4 and "round_s" in row}
    assert took_s[0] == pytest.approx(3 * 16 / EXAMPLES_A_SECOND)
    assert took_s[1] == pytest.approx(10 * took_s[0])


def test_in_virtual_time_an_epoch_takes_what_its_examples_take_though_its_last_batch_is_short(tmp_path: Path) -> None:
    epochs = {**SMALL["training"], "local_steps": None, "local_epochs": 1}
    record = run(tmp_path / "r", engine="simulate", algorithm="local_only", training=epochs)
    held = World(scenario.read(SMALL), Seeds.of(5)).roster.examples
    assert all(count % 16 for count in held.values())
    for row in rows(record):
        if "round_s" in row:
            assert row["round_s"] == pytest.approx(held[row["peer"]] / EXAMPLES_A_SECOND)


def test_virtual_times_are_the_same_in_every_run(tmp_path: Path) -> None:
    first, second = (rows(run(tmp_path / name, engine="simulate", groups=SLOW)) for name in ("first", "second"))
    assert first == second


def test_in_real_time_a_slow_peer_is_held_up(tmp_path: Path) -> None:
    """Ten times slower shows by far more than any noise: at least three times, in the median round."""
    long = {"training": {**SMALL["training"], "local_steps": 40}, "rounds": 7, "peers": 2}
    slow = {"slow": {"peers": [1], "speed": 0.1}}
    record = run(tmp_path / "r", engine="local", algorithm="local_only", groups=slow, **long)
    took_s = [[row["compute_s"] for row in rows(record) if row["peer"] == i and "compute_s" in row] for i in (0, 1)]
    assert statistics.median(took_s[1]) > 3 * statistics.median(took_s[0])


def test_churn_may_name_a_group(tmp_path: Path) -> None:
    settings = {"groups": {"doomed": {"peers": [1, 2]}}, "churn": [{"round": 3, "kill": ["doomed"]}]}
    record = run(tmp_path / "r", engine="simulate", topology="complete", **settings)
    last = {row["peer"]: row["round"] for row in rows(record) if "round_s" in row}
    assert last == {0: 4, 1: 2, 2: 2, 3: 4}
