"""A scenario is read strictly, with every default filled in, and written so that it reads back equal."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from p2pfl import scenario, yaml_marks
from p2pfl.contracts import Training
from p2pfl.errors import ScenarioError
from p2pfl.messages import HUB
from p2pfl.plugins import Choice
from p2pfl.runtime.sweeps import matrix
from p2pfl.scenario import Churn, Evaluate, Scenario, digest, dump, graph, read
from p2pfl.seeds import Seeds


def written(folder: Path, text: str) -> Path:
    path = folder / "some.yaml"
    path.write_text(text)
    return path


def test_only_the_name_is_required_and_every_default_is_filled_in() -> None:
    plain = read({"name": "x"})
    assert (plain.seed, plain.peers, plain.rounds, plain.init, plain.churn) == (None, 8, 30, "shared", ())
    assert (plain.wait, plain.transport, plain.evaluate) == ("learned", "auto", Evaluate(every=5, split="validation"))
    assert plain.training == Training(local_steps=5)
    chosen = (plain.topology, plain.data, plain.partition, plain.model, plain.algorithm, plain.sketch, plain.aggregator)
    assert [each.name for each in chosen] == ["ring", "digits", "iid", "mlp", "dpsgd", "dense", "mean"]
    assert plain.engine.name == "local"


@pytest.mark.parametrize(("algorithm", "topology"), [("fedavg", "star"), ("dpsgd", "ring"), ("leasgd", "complete")])
def test_the_algorithm_says_the_topology_when_the_scenario_does_not(algorithm: str, topology: str) -> None:
    assert read({"name": "x", "algorithm": algorithm}).topology.name == topology


def test_local_steps_are_five_unless_steps_or_epochs_are_given() -> None:
    assert read({"name": "x", "training": {"lr": 0.3}}).training.local_steps == 5
    epochs = read({"name": "x", "training": {"local_epochs": 2}}).training
    assert (epochs.local_steps, epochs.local_epochs) == (None, 2)


def test_a_plugin_is_named_alone_or_as_the_one_key_of_its_options() -> None:
    alone, mapped = read({"name": "x", "sketch": "countsketch"}), read({"name": "x", "sketch": {"countsketch": None}})
    assert alone.sketch == mapped.sketch == Choice("countsketch", alone.sketch.value)
    assert read({"name": "x", "sketch": {"countsketch": {"ratio": 0.25}}}).sketch.value.ratio == 0.25


def test_a_file_a_text_and_a_mapping_say_the_same(tmp_path: Path) -> None:
    path = written(tmp_path, "name: x\nmodel: {mlp: {hidden: [64, 32]}}\nchurn: [{round: 5, kill: [3]}]\n")
    from_file = read(path)
    assert from_file == read(str(path))
    assert from_file == read(
        {"name": "x", "model": {"mlp": {"hidden": (64, 32)}}, "churn": [{"round": 5, "kill": [3]}]}
    )
    assert from_file.churn == (Churn(5, (3,)),)
    assert from_file.model.value.hidden == (64, 32)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *(("1e-5", 1e-5), ("1E+3", 1000.0), (".5", 0.5), ("5.", 5.0), ("-2.5e1", -25.0), ("1_000", "1_000")),
        *(("010", 10), ("0o17", 15), ("0x1f", 31), ("+7", 7), ("-7", -7), ("0b11", "0b11"), ("1:30", "1:30")),
        *(("yes", "yes"), ("on", "on"), ("No", "No"), ("true", True), ("False", False), ("~", None), ("", None)),
        *(("2024-01-01", "2024-01-01"), ("'1'", "1"), ('"true"', "true"), ("=", "="), ("<<", "<<")),
    ],
)
def test_scalars_are_those_of_yaml_1_2(text: str, value: object) -> None:
    got = yaml_marks.parse(f"key: {text}\n".encode(), "f").value["key"]
    assert (type(got), got) == (type(value), value)


def test_infinities_and_nan_are_numbers_until_the_schema_refuses_them() -> None:
    assert yaml_marks.scalar(".inf") == float("inf")
    assert yaml_marks.scalar("-.INF") == float("-inf")
    assert str(yaml_marks.scalar(".NaN")) == "nan"


def test_a_byte_order_mark_and_windows_lines_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "dos.yaml"
    path.write_bytes(b"\xef\xbb\xbfname: x\r\npeers: 3\r\n")
    assert read(path).peers == 3


SETTINGS: list[tuple[str, str, object]] = [
    ("algorithm.leasgd.rho=0.5", "dpsgd", ("leasgd", {"rho": 0.5})),
    ("algorithm.leasgd.rho=0.5", "leasgd", ("leasgd", {"rho": 0.5})),
    ("algorithm.leasgd.rho=0.5", "{leasgd: {k: 3}}", ("leasgd", {"rho": 0.5, "k": 3})),
    ("algorithm.leasgd.rho=0.5", "{fedavg: {fraction: 0.1}}", ("leasgd", {"rho": 0.5, "k": 10})),
    ("algorithm=leasgd", "{fedavg: {fraction: 0.1}}", ("leasgd", {"rho": 5.0})),
    ("algorithm={leasgd: {k: 4}}", "dpsgd", ("leasgd", {"k": 4})),
    ("algorithm.leasgd={k: 4}", "{leasgd: {rho: 0.1}}", ("leasgd", {"k": 4, "rho": 5.0})),
]


@pytest.mark.parametrize(("setting", "before", "after"), SETTINGS)
def test_a_setting_chooses_merges_and_promotes_plugins(
    tmp_path: Path, setting: str, before: str, after: tuple[str, dict[str, object]]
) -> None:
    algorithm = read(written(tmp_path, f"name: x\nalgorithm: {before}\n"), [setting]).algorithm
    assert algorithm.name == after[0]
    assert {key: getattr(algorithm.value, key) for key in after[1]} == after[1]


def test_settings_reach_keys_items_and_what_the_file_does_not_have(tmp_path: Path) -> None:
    path = written(tmp_path, "name: x\nchurn: [{round: 1, kill: [1, 2]}]\nmodel: {mlp: {hidden: [8, 8]}}\n")
    sets = [
        "peers=3",
        "training.lr=1e-3",
        "churn.0.kill.1=0",
        "model.mlp.hidden.0=9",
        "sketch.countsketch.ratio=0.1",
        "seed=~",
    ]
    changed = read(path, sets)
    assert (changed.peers, changed.training.lr, changed.seed) == (3, 1e-3, None)
    assert changed.churn == (Churn(1, (1, 0)),)
    assert changed.model.value.hidden == (9, 8)
    assert changed.sketch.value.ratio == 0.1


def test_the_last_of_two_settings_wins() -> None:
    assert read({"name": "x"}, ["peers=3", "peers=4"]).peers == 4


def test_errors_of_a_mapping_are_located_by_the_dotted_key() -> None:
    with pytest.raises(ScenarioError, match=r"no topology 'rign' \(topology\): did you mean 'ring'\?"):
        read({"name": "x", "topology": "rign"})
    with pytest.raises(ScenarioError, match=r"training.lr is -1 \(training.lr\): must be greater than 0"):
        read({"name": "x", "training": {"lr": -1}})
    with pytest.raises(ScenarioError, match=r"a value is <object .* \(seed\)"):
        read({"name": "x", "seed": object()})
    with pytest.raises(ScenarioError, match=r"a key is 3 \(training\)"):
        read({"name": "x", "training": {3: 4}})


def test_a_setting_that_spoils_what_the_file_says_is_named_not_the_file(tmp_path: Path) -> None:
    path = written(tmp_path, "name: x\nsketch:\n  countsketch:\n    ratio: 0.5\n")
    with pytest.raises(ScenarioError) as raised:
        read(path, ["sketch.countsketch.ratio=2"])
    assert raised.value.where == "--set sketch.countsketch.ratio=2"
    with pytest.raises(ScenarioError) as raised:
        read(path, ["sketch.countsketch.balanced=2"])
    assert raised.value.path == ("sketch", "countsketch", "balanced")


def test_keys_that_are_not_built_yet_are_accepted_at_their_empty_default() -> None:
    empty: dict[str, Any] = {key: [] for key in ("defences", "attacks", "stop", "hosts")}
    empty |= {key: {} for key in ("groups", "save", "tune", "matrix")}
    assert read({"name": "x"} | empty) == read({"name": "x"})


def test_other_errors_about_a_source_are_located_too(tmp_path: Path) -> None:
    path = written(tmp_path, "name: x\npartition: iid\n")
    with pytest.raises(ScenarioError, match=r"too few \(.*some.yaml:2\)"), scenario.located(path):
        raise ScenarioError("too few", path=("partition", "iid"))


slots = {
    "topology": some.sampled_from(
        ["ring", "complete", "star", {"watts_strogatz_graph": {"k": 4, "p": 0.0, "seed": 3}}]
    ),
    "data": some.sampled_from(["digits", {"digits": {"normalise": False, "validation": 0.25}}]),
    "partition": some.sampled_from(["iid", {"dirichlet": {"alpha": 0.1}}]),
    "model": some.fixed_dictionaries({"mlp": some.fixed_dictionaries({"hidden": some.lists(some.integers(1, 9))})}),
    "algorithm": some.sampled_from(["dpsgd", "local_only", {"leasgd": {"rho": 1e-5}}]),
    "sketch": some.one_of(
        some.just("dense"),
        some.fixed_dictionaries({"countsketch": some.fixed_dictionaries({"ratio": some.floats(1e-9, 1)})}),
    ),
    "engine": some.sampled_from(["local", "simulate", "inproc"]),
}
scenarios = some.fixed_dictionaries(
    {"name": some.from_regex(r"\A[A-Za-z0-9_-][A-Za-z0-9._-]{0,20}\Z"), "peers": some.integers(5, 12)},
    optional={
        **slots,
        "seed": some.none() | some.integers(),
        "rounds": some.integers(3, 10**30),
        "init": some.sampled_from(["shared", "own"]),
        "training": some.fixed_dictionaries(
            {"lr": some.floats(1e-300, 0.1)},
            optional={
                "batch": some.integers(1, 99),
                "local_epochs": some.integers(1, 9),
                "momentum": some.floats(0, 0.99),
            },
        ),
        "churn": some.lists(
            some.fixed_dictionaries({"round": some.integers(1, 3), "kill": some.lists(some.integers(0, 4))})
        ),
        "evaluate": some.fixed_dictionaries({}, optional={"target": some.none() | some.floats(0, 1)}),
        "wait": some.sampled_from(["learned", "all"]),
        "transport": some.sampled_from(["auto", "ipc", "tcp"]),
    },
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(scenarios)
def test_what_is_dumped_reads_back_equal(given_mapping: dict[str, Any]) -> None:
    original = read(given_mapping)
    again = scenario.parse(dump(original))
    assert again == original
    assert dump(again) == dump(original)
    assert digest(again) == digest(original)


def test_a_dumped_scenario_says_every_default_and_is_itself_a_scenario(tmp_path: Path) -> None:
    original = read({"name": "null", "algorithm": "fedavg"})
    assert read(written(tmp_path, dump(original))) == original
    assert set(yaml_marks.parse(dump(original).encode(), "f").value) == {
        field for field in Scenario.__dataclass_fields__
    }
    assert "fraction: 1.0" in dump(original)


words = some.text(some.characters(codec="utf-8")) | some.text("abc1e5.:#-'\" yn~")
plain_values = some.recursive(
    some.none() | some.booleans() | some.integers() | some.floats(allow_nan=False) | words,
    lambda inner: some.lists(inner, max_size=4) | some.dictionaries(words, inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(plain_values)
def test_any_plain_value_survives_yaml(value: object) -> None:
    assert yaml_marks.parse(yaml_marks.dump({"key": value}).encode(), "f").value == {"key": value}


@settings(max_examples=300, deadline=None)
@given(some.binary(max_size=200) | some.text("ab:- \n\t[]{}'\"&*!|>%@`#,?0.", max_size=80).map(str.encode))
def test_no_bytes_make_the_reader_fail_otherwise_than_by_a_located_scenario_error(raw: bytes) -> None:
    with suppress(ScenarioError), located_in_one_line("f:"):
        yaml_marks.parse(raw, "f")


@contextmanager
def located_in_one_line(place: str) -> Iterator[None]:
    try:
        yield
    except ScenarioError as error:
        if not error.where.startswith(place) or len(str(error).splitlines()) != 1:
            raise AssertionError(str(error)) from error
        raise


def test_the_digest_is_short_and_changes_with_any_value() -> None:
    digests = {digest(read({"name": "x", "seed": seed})) for seed in range(5)}
    assert len(digests) == 5
    assert all(len(each) == 8 and int(each, 16) >= 0 for each in digests)
    assert digest(read({"name": "x"})) == digest(read({"name": "x", "peers": 8}))


def test_a_scenario_can_be_handed_to_another_process() -> None:
    original = read({"name": "x", "topology": {"watts_strogatz_graph": {"k": 4, "p": 0.5}}, "seed": 1})
    again = pickle.loads(pickle.dumps(original))
    assert again == original
    assert sorted(graph(again).edges) == sorted(graph(original).edges)


def test_the_graph_holds_the_peers_of_the_algorithm_and_the_hub_first() -> None:
    star = graph(read({"name": "x", "peers": 3, "algorithm": "fedavg"}))
    assert list(star) == [HUB, 0, 1, 2]
    assert set(star.edges) == {(HUB, 0), (HUB, 1), (HUB, 2)}
    assert list(graph(read({"name": "x", "peers": 3}))) == [0, 1, 2]
    assert list(graph(read({"name": "x", "algorithm": "central"}))) == [HUB]


def test_a_random_graph_follows_the_root_of_the_run() -> None:
    random = read({"name": "x", "peers": 20, "topology": {"random_regular_graph": {"d": 3}}})
    first, second, other = (sorted(graph(random, Seeds.of(seed)).edges) for seed in (1, 1, 2))
    assert first == second != other


def test_one_peer_alone_is_a_scenario() -> None:
    assert list(graph(read({"name": "x", "peers": 1}))) == [0]


def test_scenarios_that_ship_are_found_by_name_and_can_all_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    names = scenario.shipped()
    assert "quickstart" in names
    monkeypatch.setattr("p2pfl.learning.datasets._files.idx_files", lambda name: {})
    for name, path in names.items():
        if not matrix.is_sweep(name):
            assert read(name) == read(path)
