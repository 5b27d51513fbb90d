"""A matrix is the product of its lists, less what it excludes; each case is what `--set` would make of the scenario."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from p2pfl.cli import main

from p2pfl import scenario, schema, yaml_marks
from p2pfl.errors import ScenarioError
from p2pfl.report.comparison import keys
from p2pfl.report.comparison.groups import Group, grouped
from p2pfl.report.comparison.runs import Case as Run
from p2pfl.runtime.sweeps.ledger import Ledger
from p2pfl.runtime.sweeps.matrix import Sweep, cases, is_sweep, label
from p2pfl.scenario import Scenario

BASE: dict[str, Any] = {"name": "grid", "peers": 3, "rounds": 2, "engine": "simulate"}
LISTS: dict[str, list[Any]] = {
    "training.lr": [0.1, 0.05, 1],
    "seed": [3, 1, 2],
    "sketch": ["dense", {"countsketch": {"ratio": 0.5}}, {"countsketch": 0.25}],
    "model.mlp.hidden": [[8], [8, 8]],
    "algorithm": ["dpsgd", "local_only"],
}
DENSE = {"sketch": "dense", "training.lr": 0.1, "algorithm.fedavg.step": 2.0}
SKETCHED = {"sketch": {"countsketch": {"ratio": 0.5}}, "training.lr": 0.05, "algorithm.fedavg.averaging": 0.5}
PAIRED: dict[str, Any] = {"method": [DENSE, SKETCHED], "seed": [1, 2]}
MEMBERS: dict[str, list[Any]] = {
    **{key: values for key, values in LISTS.items() if key != "seed"},
    "rounds": [1, 2],
    "training.schedule": ["cosine", "constant"],
    "evaluate.target": [None, 0.5],
}


def made(matrix: Mapping[str, Any], **more: Any) -> Sweep:
    sweep = cases({**BASE, "matrix": matrix, **more})
    assert sweep is not None
    return sweep


def refusal(text: str, folder: Path, *sets: str) -> str:
    (folder / "sweep.yaml").write_text(f"name: x\npeers: 3\n{text}\n")
    with pytest.raises(ScenarioError) as caught:
        cases(folder / "sweep.yaml", sets)
    return str(caught.value).replace(f"{folder}/", "")


@st.composite
def matrices(draw: st.DrawFn) -> dict[str, Any]:
    keys = draw(st.lists(st.sampled_from(sorted(LISTS)), min_size=1, max_size=3, unique=True))
    chosen: dict[str, Any] = {key: LISTS[key][: draw(st.integers(1, 3))] for key in keys}
    entry = st.lists(st.sampled_from(keys), min_size=1, unique=True).flatmap(
        lambda some: st.fixed_dictionaries({key: st.sampled_from(chosen[key]) for key in some})
    )
    return chosen | {"exclude": draw(st.lists(entry, max_size=3))}


@settings(max_examples=25, deadline=None)
@given(matrices())
def test_the_cases_are_the_product_less_the_excluded_in_a_fixed_order(matrix: dict[str, Any]) -> None:
    lists = {key: values for key, values in matrix.items() if key != "exclude"}
    order = [key for key in lists if key != "seed"] + (["seed"] if "seed" in lists else [])
    expected = [
        point
        for point in (dict(zip(order, values, strict=True)) for values in itertools.product(*map(lists.get, order)))  # type: ignore[arg-type]
        if not any(all(point[key] == value for key, value in entry.items()) for entry in matrix["exclude"])
    ]
    if not expected:
        with pytest.raises(ScenarioError, match="leaves no case"):
            made(matrix)
        return
    sweep = made(matrix)
    assert [dict(case.settings) for case in sweep.cases] == expected
    assert [list(case.settings) for case in sweep.cases] == [order] * len(expected)
    assert [case.number for case in sweep.cases] == list(range(1, len(expected) + 1))


@settings(max_examples=15, deadline=None)
@given(matrices())
def test_a_case_is_what_set_makes_of_the_scenario(matrix: dict[str, Any]) -> None:
    matrix["exclude"] = []
    for case in made(matrix).cases:
        by_hand = scenario.read(BASE, [f"{key}={json.dumps(value)}" for key, value in case.settings.items()])
        assert case.scenario == by_hand
        assert case.digest == scenario.digest(by_hand)


def test_a_path_through_a_plug_ins_name_promotes_a_bare_name() -> None:
    sweep = made({"sketch.countsketch.ratio": [0.5, 0.25], "algorithm.leasgd.rho": [0.5]}, sketch="dense")
    assert [case.scenario.sketch.value.ratio for case in sweep.cases] == [0.5, 0.25]
    assert {case.scenario.algorithm.name for case in sweep.cases} == {"leasgd"}


def test_folders_are_short_readable_told_apart_and_safe() -> None:
    sweep = made({"training.lr": [0.1, 1e30], "sketch": LISTS["sketch"], "seed": [1]})
    assert sweep.cases[1].folder == f"lr=0.1,sketch=countsketch-ratio=0.5,seed=1-{sweep.cases[1].digest}"
    long = made({"model": [{"mlp": {"hidden": [n] * 30}} for n in (8, 9)]})
    for each in (sweep, long):
        assert len({case.folder for case in each.cases}) == len(each.cases)
        for case in each.cases:
            assert re.fullmatch(r"[A-Za-z0-9=._,-]{1,60}-[0-9a-f]{8}", case.folder)
    assert label({"data": {"npz": {"path": "/a b/../\n\x1b[1mü;$.npz"}}}) == "data=npz-path=_a_b_.._1m_.npz"
    assert label({"algorithm.leasgd.k": 3, "topology.small_world.k": 2, "training.lr": 1e30, "wait": None}) == (
        "algorithm.leasgd.k=3,topology.small_world.k=2,lr=1e30,wait=null"
    )


def test_without_a_matrix_and_without_tune_it_is_no_sweep() -> None:
    for nothing in ({}, {"matrix": {}}, {"matrix": None, "tune": {}}):
        assert not is_sweep({**BASE, **nothing})
        assert cases({**BASE, **nothing}) is None
        assert scenario.read({**BASE, **nothing}) == scenario.read(BASE)
    with pytest.raises(ScenarioError, match=r"matrix makes a sweep of this scenario \(matrix\)"):
        scenario.read({**BASE, "matrix": {"seed": [1]}})


def test_settings_of_the_command_line_reach_every_case_and_may_make_the_matrix(tmp_path: Path) -> None:
    file = tmp_path / "sweep.yaml"
    file.write_text("name: x\nmatrix: {seed: [1, 2]}\n")
    sweep = cases(file, ["peers=4", "matrix.training.lr=[0.1]", "matrix={training.lr: [0.2, 0.1]}"])
    assert sweep is not None
    assert [(case.scenario.peers, case.scenario.training.lr) for case in sweep.cases] == [(4, 0.2), (4, 0.1)]


def test_a_file_and_the_same_mapping_make_the_same_cases(tmp_path: Path) -> None:
    matrix = {"seed": [1, 2], "training.lr": [0.1, 0.5]}
    (tmp_path / "sweep.yaml").write_text(json.dumps({**BASE, "matrix": matrix}))
    written = cases(tmp_path / "sweep.yaml")
    assert written is not None
    assert written.cases == made(matrix).cases
    assert written.digest == made(matrix).digest != made({"seed": [1, 2]}).digest


def test_tuning_tries_every_candidate_once_in_every_setting_with_one_seed_and_blind() -> None:
    matrix = {"sketch": LISTS["sketch"], "seed": [4, 5, 6]}
    sweep = made(matrix, tune={"training.lr": [0.1, 0.2], "training.momentum": [0.0, 0.5]}, evaluate={"split": "test"})
    assert sweep.seed == 4
    assert len(sweep.settings) == 3
    for setting in sweep.settings:
        tried = [dict(candidate.values) for candidate in setting.candidates]
        assert tried == [{"training.lr": a, "training.momentum": b} for a in (0.1, 0.2) for b in (0.0, 0.5)]
        for candidate in setting.candidates:
            assert candidate.trial is not None
            trial = candidate.trial.scenario
            assert (trial.seed, trial.evaluate.test, trial.evaluate.split) == (4, False, "validation")
            assert (trial.training.lr, trial.training.momentum) == tuple(candidate.values.values())
            assert [case.scenario.seed for case in candidate.cases] == [4, 5, 6]
            assert {case.scenario.evaluate.test for case in candidate.cases} == {True}
            assert {case.scenario.training for case in candidate.cases} == {trial.training}
    assert [case.number for case in sweep.cases] == list(range(1, 10))


def test_tune_without_a_matrix_is_one_setting_with_the_seed_of_the_scenario() -> None:
    sweep = cases({**BASE, "seed": 8, "tune": {"training.lr": [0.1, 0.2]}})
    assert sweep is not None
    assert (len(sweep.settings), len(sweep.cases), sweep.seed) == (1, 1, 8)


@st.composite
def pairings(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Values of an axis with a name of its own, no two alike."""
    one = st.lists(st.sampled_from(sorted(MEMBERS)), min_size=1, max_size=4, unique=True).flatmap(
        lambda some: st.fixed_dictionaries({key: st.sampled_from(MEMBERS[key]) for key in some})
    )
    return draw(st.lists(one, min_size=1, max_size=4, unique_by=lambda value: json.dumps(value, sort_keys=True)))


@settings(max_examples=25, deadline=None)
@given(pairings())
def test_a_value_under_a_name_of_its_own_sets_all_its_keys_as_set_would(method: list[dict[str, Any]]) -> None:
    expected = [{**value, "seed": seed} for value in method for seed in (2, 1)]
    by_hand = [scenario.read(BASE, [f"{key}={json.dumps(part)}" for key, part in each.items()]) for each in expected]
    if len(set(map(scenario.digest, by_hand))) < len(by_hand):
        with pytest.raises(ScenarioError, match="are the same"):
            made({"method": method, "seed": [2, 1]})
        return
    sweep = made({"seed": [2, 1], "method": method})
    assert [dict(case.settings) for case in sweep.cases] == expected
    assert [case.scenario for case in sweep.cases] == by_hand
    assert [case.digest for case in sweep.cases] == list(map(scenario.digest, by_hand))
    assert [len(setting.candidates[0].cases) for setting in sweep.settings] == [2] * len(method)


def test_settings_that_were_paired_by_exclude_keep_their_digests_under_a_name() -> None:
    pairs: list[dict[str, Any]] = [{"sketch": "dense", "training.lr": 0.1}, {"sketch": "countsketch", "training.lr": 1}]
    crossed = {key: [pair[key] for pair in pairs] for key in pairs[0]}
    exclude = [{"sketch": "dense", "training.lr": 1}, {"sketch": "countsketch", "training.lr": 0.1}]
    before, now = made({**crossed, "seed": [1, 2], "exclude": exclude}), made({"method": pairs, "seed": [1, 2]})
    assert [case.digest for case in now.cases] == [case.digest for case in before.cases]
    assert [dict(case.settings) for case in now.cases] == [dict(case.settings) for case in before.cases]


def test_what_is_set_together_is_excluded_whole_or_by_any_of_its_keys() -> None:
    def left(*exclude: dict[str, Any]) -> list[tuple[str, int]]:
        sweep = made(PAIRED | {"exclude": list(exclude)}, algorithm="fedavg")
        return [(case.scenario.sketch.name, case.scenario.seed or 0) for case in sweep.cases]

    assert left({"method": DENSE, "seed": 2}) == [("dense", 1), ("countsketch", 1), ("countsketch", 2)]
    assert left({"sketch": "dense", "seed": 2}) == [("dense", 1), ("countsketch", 1), ("countsketch", 2)]
    assert left({"algorithm.fedavg.averaging": 0.5}) == [("dense", 1), ("dense", 2)]
    assert len(left({"method": SKETCHED, "training.lr": 0.1})) == 4, "no case is both"


def test_a_case_is_called_by_the_first_keys_that_tell_it_from_the_others() -> None:
    def called(*method: dict[str, Any]) -> list[str]:
        return [case.label for case in made({"method": list(method)}, algorithm="fedavg").cases]

    assert called(DENSE, SKETCHED) == ["sketch=dense", "sketch=countsketch-ratio=0.5"]
    assert called(DENSE, SKETCHED, SKETCHED | {"training.lr": 0.2}) == [
        "sketch=dense,lr=0.1",
        "sketch=countsketch-ratio=0.5,lr=0.05",
        "sketch=countsketch-ratio=0.5,lr=0.2",
    ]
    assert called({"rounds": 3, "sketch": "dense"}, {"sketch": "countsketch"}) == ["sketch=dense", "sketch=countsketch"]
    assert called({"rounds": 3, "peers": 4}, {"rounds": 3}) == ["peers=4", "rounds=3"]
    assert called({"evaluate.target": None, "rounds": 1}, {"rounds": 1, "sketch": "countsketch"}) == [
        "target=null",
        "sketch=countsketch",
    ]
    assert called(SKETCHED) == ["sketch=countsketch-ratio=0.5"]
    assert made(PAIRED, algorithm="fedavg").cases[3].folder.startswith("sketch=countsketch-ratio=0.5,seed=2-")


@settings(max_examples=40, deadline=None)
@given(pairings())
def test_no_two_values_under_a_name_are_called_the_same(method: list[dict[str, Any]]) -> None:
    try:
        sweep = made({"method": method})
    except ScenarioError:
        return
    assert len({case.label for case in sweep.cases}) == len(method)


def test_what_is_tuned_may_be_set_together_too() -> None:
    candidates = [{"training.lr": 0.1, "training.momentum": 0.9}, {"training.lr": 0.5, "training.weight_decay": 0.1}]
    sweep = made({"sketch": LISTS["sketch"], "seed": [4, 5]}, tune={"how": candidates})
    assert sweep.tuned == ("training.lr", "training.momentum", "training.weight_decay")
    for setting in sweep.settings:
        assert [dict(candidate.values) for candidate in setting.candidates] == candidates
        assert [candidate.cases[1].label.split(",")[1:] for candidate in setting.candidates] == [
            ["lr=0.1", "seed=5"],
            ["lr=0.5", "seed=5"],
        ]


def test_check_lists_all_that_a_case_sets(tmp_path: Path) -> None:
    (tmp_path / "sweep.yaml").write_text(json.dumps({**BASE, "algorithm": "fedavg", "matrix": PAIRED}))
    told = CliRunner().invoke(main, ["check", str(tmp_path / "sweep.yaml")], prog_name="p2pfl").stdout
    assert "1  sketch=dense,lr=0.1,step=2.0,seed=1\n" in told
    assert "4  sketch=countsketch-ratio=0.5,lr=0.05,averaging=0.5,seed=2\n" in told


def compared(several: Sequence[Scenario], first: Sequence[str]) -> list[Group]:
    """The groups of runs of these scenarios; no figure of theirs matters."""
    return grouped([Run(Path(str(at)), keys.read(scenario.dump(one)), {}, {}) for at, one in enumerate(several)], first)


def test_groups_of_paired_settings_are_called_by_the_first_key_and_the_other_axes(tmp_path: Path) -> None:
    sweep = made({**PAIRED, "algorithm.fedavg.fraction": [0.5, 1.0]}, algorithm="fedavg")
    index = Ledger.of(sweep, tmp_path / "out").index()
    assert index["cases"][0]["settings"] == {**DENSE, "algorithm.fedavg.fraction": 0.5, "seed": 1}
    groups = compared([case.scenario for case in sweep.cases], list(index["cases"][0]["settings"]))
    assert [(group.label, len(group.cases)) for group in groups] == [
        (f"{sketch}, fedavg(fraction={share})", 2) for sketch in ("dense", "countsketch") for share in ("0.5", "1")
    ]
    assert groups[0].cells == {
        "sketch": "dense",
        "training.lr": "0.1",
        "algorithm": "fedavg(fraction=0.5, step=2, averaging=null)",
    }, "the table says all of it"


@settings(max_examples=40, deadline=None)
@given(pairings(), st.permutations(sorted(MEMBERS)))
def test_groups_that_differ_are_called_differently(method: list[dict[str, Any]], first: list[str]) -> None:
    several = [scenario.read(BASE, [f"{key}={json.dumps(part)}" for key, part in one.items()]) for one in method]
    groups = compared(several, first)
    assert len({group.label for group in groups}) == len(groups) == len(set(map(scenario.digest, several)))


SHAPES = {
    "matrix: {method: [{sketch: dense, training.lr: 0.1}, {sketch.countsketch.ratio: 0.5, rounds: 2}]}": True,
    "tune: {how: [{training.lr: 0.1, training.momentum: 0.5}]}": True,
    "matrix: {sketch: [{countsketch: {ratio: 0.5}}]}": True,
    "matrix: {method: []}": False,
    "matrix: {method: [{}]}": False,
    "matrix: {method: [dense]}": False,
    "matrix: {method: [{trainin.lr: 0.1}]}": False,
    "matrix: {method: [{training.lr: fast}]}": False,
    "matrix: {method: [{sketch: dens}]}": False,
    "matrix: {method: [{seed: 1}]}": False,
    "matrix: {method: [{matrix: {seed: [1]}}]}": False,
    "matrix: {my.method: [{sketch: dense}]}": False,
    "tune: {how: [0.1]}": False,
}


@pytest.mark.parametrize("text", SHAPES)
def test_editors_know_what_may_be_set_together_and_what_they_reject_is_refused(text: str) -> None:
    value = yaml_marks.parse(f"name: x\n{text}".encode(), "test").value
    assert jsonschema.Draft202012Validator(schema.document()).is_valid(value) is SHAPES[text]
    if SHAPES[text]:
        assert cases(value) is not None
    else:
        with pytest.raises(ScenarioError):
            cases(value)


REFUSED: dict[str, tuple[str, tuple[str, ...]]] = {
    "an unknown plug-in": (
        "matrix:\n  seed: [1]\n  sketch:\n    - dense\n    - dens",
        ("no sketch 'dens' (sweep.yaml:7)", "did you mean 'dense'?"),
    ),
    "a wrong option": (
        "matrix:\n  sketch:\n    - dense\n    - countsketch:\n        ratio: 2.0",
        ("ratio is 2.0 (sweep.yaml:7)", "at most 1"),
    ),
    "an unknown key": ("matrix: {trainin.lr: [1]}", ("unknown key 'trainin' (sweep.yaml:3)", "'training'")),
    "a key within a number": (
        "matrix:\n  peers.x: [1]",
        ("peers is 3 (sweep.yaml:4)", "in a mapping, so set peers itself"),
    ),
    "a wrong value": ("matrix:\n  seed: [1]\n  training.lr: [0.1,\n    -1]", ("lr is -1 (sweep.yaml:6)", "than 0")),
    "what all cases share": ("matrix: {seed: [1]}\nrounds: 0", ("rounds is 0 (sweep.yaml:4)",)),
    "a case that cannot be": (
        "matrix:\n  training.lr: [0.1, 0.5]\n  algorithm:\n    - leasgd: {rho: 4.0}",
        ("in case 2 (lr=0.5,algorithm=leasgd-rho=4.0) rho times lr must be below 1", "4 x 0.5", "(sweep.yaml:6)"),
    ),
    "a candidate that cannot be": (
        "matrix: {algorithm: [dpsgd, {leasgd: {rho: 4.0}}], seed: [7]}\ntune: {training.lr: [0.1, 0.5]}",
        ("in tuning 4 (algorithm=leasgd-rho=4.0,lr=0.5,seed=7) rho times lr must be", "(sweep.yaml:3)"),
    ),
    "a case of many letters": (
        f"matrix:\n  seed: [1]\n  model:\n    - mlp: {{hidden: [{'8, ' * 99}-1]}}",
        ("in case 1 (model=mlp-hidden=8-8-", "...) ", "(sweep.yaml:6)"),
    ),
    "no list": ("matrix: {sketch: dense}", ("matrix.sketch is 'dense' (sweep.yaml:3)", "must be a list")),
    "an empty list": ("matrix:\n  sketch: []", ("matrix.sketch is an empty list (sweep.yaml:4)", "at least one")),
    "an empty list of tune": ("tune:\n  sketch: []", ("tune.sketch is an empty list (sweep.yaml:4)", "at least one")),
    "a list of cases": ("matrix: [1]", ("matrix is [1] (sweep.yaml:3)", "give keys")),
    "only what is excluded": ("matrix: {exclude: []}", ("matrix is", "(sweep.yaml:3)", "give keys")),
    "the name": ("matrix: {name: [a, b]}", ("matrix must not vary 'name' (sweep.yaml:3)",)),
    "itself": ("matrix: {matrix: [a]}", ("matrix must not vary 'matrix' (sweep.yaml:3)",)),
    "what tune tries": ("matrix: {tune.seed: [[1]]}", ("matrix must not vary 'tune' (sweep.yaml:3)",)),
    "a tuned seed": ("tune: {seed: [1]}", ("tune must not vary 'seed' (sweep.yaml:3)",)),
    "tuned and listed": (
        "matrix: {training.lr: [1]}\ntune: {training.lr: [2]}",
        ("training.lr is in matrix and in tune (sweep.yaml:4)",),
    ),
    "a hole in a key": ("matrix: {training..lr: [1]}", ("a key 'training..lr' (sweep.yaml:3)",)),
    "an unknown excluded key": (
        "matrix:\n  sketch: [dense]\n  exclude:\n    - {sketc: dense}",
        ("no 'sketc' in the matrix (sweep.yaml:6)", "did you mean 'sketch'?"),
    ),
    "an unknown excluded value": (
        "matrix:\n  sketch: [dense]\n  exclude:\n    - {sketch: dens}",
        ("no sketch 'dens' in the matrix (sweep.yaml:6)", "there are 'dense'"),
    ),
    "an exclusion that is no mapping": ("matrix: {seed: [1], exclude: [1]}", ("matrix.exclude.0 is 1", "give keys")),
    "exclusions that are no list": ("matrix: {seed: [1], exclude: {seed: 1}}", ("matrix.exclude is", "a list")),
    "all excluded": ("matrix: {seed: [1], exclude: [{seed: 1}]}", ("exclude leaves no case (sweep.yaml:3)",)),
    "a value twice": ("matrix:\n  seed: [1,\n    1]", ("seed=1 and seed=1 are the same (sweep.yaml:5)",)),
    "a case twice": (
        "matrix:\n  sketch:\n    - countsketch\n    - countsketch: {ratio: 0.5}",
        ("sketch=countsketch and sketch=countsketch-ratio=0.5 are the same (sweep.yaml:6)",),
    ),
    "a misspelled key": (
        "matrix:\n  seeed: [1, 2]",
        ("unknown key 'seeed' (sweep.yaml:4)", "did you mean 'seed'? (or list mappings of dotted keys"),
    ),
    "a name of its own whose values set nothing": (
        "matrix:\n  method:\n    - {sketch: dense}\n    - sketched",
        ("unknown key 'method' (sweep.yaml:4)", "(or list mappings of dotted keys"),
    ),
    "a misspelled key of a plug-in with options": (
        "matrix:\n  sketc:\n    - countsketch: {ratio: 0.5}",
        ("unknown key 'countsketch', set by 'sketc', which is no key itself (sweep.yaml:5)", "did you mean 'sketch'?"),
    ),
    "an unknown key among several": (
        "matrix:\n  method:\n    - sketch: dense\n      trainin.lr: 0.1",
        ("unknown key 'trainin', set by 'method'", "(sweep.yaml:6)", "did you mean 'training'?"),
    ),
    "an unknown option among several": (
        "matrix:\n  method:\n    - sketch: dense\n      training.lrr: 0.1",
        ("in case 1 (sketch=dense) unknown key 'lrr' (sweep.yaml:6)", "did you mean 'lr'?"),
    ),
    "a wrong value among several": (
        "matrix:\n  method:\n    - sketch: dense\n      training.lr: -1",
        ("in case 1 (sketch=dense) ", "lr is -1 (sweep.yaml:6)", "than 0"),
    ),
    "a key within a number among several": (
        "matrix:\n  method:\n    - sketch: dense\n      peers.x: 1",
        ("peers is 3 (sweep.yaml:6)", "in a mapping, so set peers itself"),
    ),
    "a hole in a key among several": (
        "matrix: {method: [{training..lr: 1}]}",
        ("a key 'training..lr' (sweep.yaml:3)",),
    ),
    "nothing under a name": ("matrix:\n  method:\n    - {}", ("matrix.method.0 is {} (sweep.yaml:5)", "dotted keys")),
    "the seed among several": (
        "matrix:\n  method:\n    - {sketch: dense,\n       seed: 1}",
        ("matrix.method sets the seed (sweep.yaml:6)", "list the seeds alone, as in seed: [1, 2]"),
    ),
    "the name among several": ("matrix: {method: [{name: a}]}", ("matrix must not vary 'name' (sweep.yaml:3)",)),
    "a key of two axes": (
        "matrix:\n  training.lr: [1, 2]\n  method:\n    - sketch: dense\n    - sketch: sampling\n      training.lr: 3",
        ("training.lr is in matrix and in matrix.method (sweep.yaml:8)", "leave one of them"),
    ),
    "a key of two names": (
        "matrix:\n  one: [{rounds: 1}]\n  two: [{rounds: 2}]",
        ("rounds is in matrix.one and in matrix.two (sweep.yaml:5)", "leave one of them"),
    ),
    "a key of a name that is tuned": (
        "matrix: {method: [{training.lr: 1}]}\ntune:\n  training.lr: [2]",
        ("training.lr is in matrix.method and in tune (sweep.yaml:5)", "leave one of them"),
    ),
    "what is excluded of what is tuned": (
        "tune: {exclude: [{rounds: 1}], wait: [all]}",
        ("unknown key 'exclude' (sweep.yaml:3)",),
    ),
    "a value of a name twice": (
        "matrix:\n  method:\n    - {sketch: dense}\n    - {sketch: dense}",
        ("sketch=dense and sketch=dense are the same (sweep.yaml:6)",),
    ),
    "an unknown excluded value of a key among several": (
        "matrix:\n  method: [{sketch: dense}, {sketch: sampling}]\n  exclude:\n    - {sketch: dens}",
        ("no sketch 'dens' in the matrix (sweep.yaml:6)", "there are 'dense', 'sampling'"),
    ),
    "too many": (f"matrix:\n  seed: {list(range(101))}\n  rounds: {list(range(1, 101))}", ("10,100 cases", "10,000")),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_wrong_is_refused_by_the_line_of_the_matrix(case: str, tmp_path: Path) -> None:
    text, expected = REFUSED[case]
    said = refusal(text, tmp_path)
    assert len(said.splitlines()) == 1
    for part in expected:
        assert part in said


def test_what_is_wrong_in_a_mapping_is_refused_by_its_key() -> None:
    with pytest.raises(ScenarioError, match=r"no sketch 'dens' \(matrix\.sketch\.1\)"):
        made({"sketch": ["dense", "dens"]})


def test_what_is_wrong_in_a_setting_is_refused_by_its_own_words(tmp_path: Path) -> None:
    said = refusal("seed: 1", tmp_path, "matrix={sketch: [dens]}")
    assert "no sketch 'dens' (--set matrix={sketch: [dens]})" in said


@pytest.mark.parametrize("way", ["--set", "matrix"])
def test_an_option_beside_the_first_one_written_alone_says_what_to_write_which_then_works(way: str) -> None:
    before = {**BASE, "partition": {"by_column": "writer"}}
    listed: dict[str, Any] = {"matrix": {"partition.by_column.one": [True]}} if way == "matrix" else {}
    with pytest.raises(ScenarioError) as caught:
        cases({**before, **listed}, [] if listed else ["partition.by_column.one=true"])
    said = str(caught.value)
    assert said.startswith("partition.by_column is 'writer' (")
    assert said.endswith(""": 'one' can be set only in a mapping, so give all options of by_column, as in """
                         """--set "partition={by_column: {...}}\"""")  # fmt: skip
    whole = "partition={by_column: {column: writer, one: true}}"
    with scenario.located(before, [whole, "partition.by_column.one=false"]) as document:
        assert document.value["partition"] == {"by_column": {"column": "writer", "one": False}}


def test_a_deeper_key_of_a_schedule_is_answered_by_the_whole_schedule() -> None:
    with pytest.raises(ScenarioError, match=r'--set "training\.schedule={step: {\.\.\.}}"'):
        scenario.read({**BASE, "training": {"schedule": {"step": 0.5}}}, ["training.schedule.step.at=[0.5]"])
