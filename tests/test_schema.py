"""Editors are told the truth: what is right has the shape of the schema, and whatever has not is refused by `check`."""

from __future__ import annotations

import dataclasses
import importlib
import json
import re
from pathlib import Path
from typing import Annotated, Any

import jsonschema
import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st
from p2pfl.cli import main

from p2pfl import plugins, scenario, schema, yaml_marks
from p2pfl.errors import ScenarioError
from p2pfl.runtime.sweeps import matrix
from p2pfl.runtime.sweeps.matrix import cases

README = (Path(__file__).parent.parent / "README.md").read_text()
DOCUMENT = schema.document()
VALIDATOR = jsonschema.Draft202012Validator(DOCUMENT)
EVERY_PLUGIN = [(slot, name) for slot in scenario.SLOTS.values() for name in plugins.names(slot.room)]


def values_of(text: str) -> Any:
    return yaml_marks.parse(text.encode(), "test").value


def complaints(value: object) -> list[str]:
    return [error.message for error in VALIDATOR.iter_errors(value)]


def plain(value: Any) -> Any:
    return json.loads(json.dumps(value, default=lambda part: getattr(part, "name", None) or str(part)))


def under(path: tuple[str, ...], value: object) -> dict[str, Any]:
    """The mapping that holds the value at that path."""
    return {path[0]: under(path[1:], value) if path[1:] else value}


def test_it_is_a_json_schema_of_2020() -> None:
    assert DOCUMENT["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    jsonschema.Draft202012Validator.check_schema(DOCUMENT)


def test_every_reference_leads_somewhere() -> None:
    for found in re.findall(r'"\$ref": "#/([^"]+)"', json.dumps(DOCUMENT)):
        at: Any = DOCUMENT
        for part in found.split("/"):
            at = at[part]
        assert isinstance(at, dict)


@pytest.mark.parametrize("name", scenario.shipped())
def test_a_shipped_scenario_and_what_it_resolves_to_have_the_shape(name: str) -> None:
    text = scenario.shipped()[name].read_text()
    assert complaints(values_of(text)) == []
    try:
        sweep = matrix.cases(name)
    except ScenarioError as error:
        if "P2PFL_DATA" not in str(error):
            raise
        pytest.skip(f"needs data: {error}")
    for resolved in [scenario.parse(text)] if sweep is None else [case.scenario for case in sweep.cases]:
        assert complaints(values_of(scenario.dump(resolved))) == []


def test_the_scenario_that_the_readme_explains_has_the_shape() -> None:
    (explained,) = re.findall(r"^```yaml\n(name: explained(?:.*\n)*?)```$", README, re.MULTILINE)
    assert complaints(values_of(explained)) == []
    assert complaints(values_of(scenario.dump(scenario.parse(explained)))) == []


@pytest.mark.parametrize(("slot", "name"), EVERY_PLUGIN)
def test_every_plugin_may_be_written_in_every_form_that_check_takes(slot: plugins.Slot, name: str) -> None:
    options = plugins.options_of(plugins.find(slot.room, name))
    defaults = {option.name: plugins.default_of(option) for option in options}
    forms = [
        name,
        {name: None},
        {name: {}},
        {name: plain(defaults)},
        {name: plain(next(iter(defaults.values()), None))},
    ]
    for form in forms if dataclasses.MISSING not in defaults.values() else []:
        try:
            slot.choose(form)
        except ScenarioError:
            continue  # a plug-in may refuse even its own default alone
        assert complaints({"name": "x"} | under(slot.path, form)) == [], form


@pytest.mark.parametrize(
    "text",
    [
        "topology: {watts_strogatz_graph: {k: 4, p: 0.2}}",
        "topology: {circulant_graph: {offsets: [1, 2]}}",
        "topology: cycle_graph",
        "init: {run: runs/first, round: 4}",
        "churn: [{round: 5, kill: [3]}]",
        "groups: {slow: {peers: [6, 7], speed: 0.1, training: {batch: 8}}}",
        "stop: [{target: true}, {seconds: 600}]",
        "evaluate: {every: 2, target: 0.9, loss: 0.1}",
        "save: {checkpoints: 2}",
        "defences: []",
        "matrix: {sketch: [dense, {countsketch: {ratio: 0.5}}], training.lr: [0.1, 0.05], seed: [1, 2]}",
        "matrix: {sketch.countsketch.ratio: [0.5, 0.25], exclude: [{sketch.countsketch.ratio: 0.5, seed: 1}]}",
        "tune: {training.lr: [0.05, 0.1], algorithm.leasgd.rho: [1.0, 2.0]}",
        "published: {source: x, figures: [{figure: accuracy.mean, value: 1, when: {sketch.countsketch.ratio: 0.5}}]}",
        "published:",
    ],
)
def test_what_may_be_written_has_the_shape(text: str) -> None:
    assert complaints(values_of(f"name: x\n{text}")) == []


@pytest.mark.parametrize(
    "text",
    [
        "peeers: 4",
        "training: {lrr: 1}",
        "topology: rign",
        "topology: {watts_strogats_graph: {k: 2}}",
        "topology: watts_strogatz_graph",
        "topology: {watts_strogatz_graph: {kk: 4}}",
        "model: os.system",
        "sketch: {countsketch: {ratoi: 0.5}}",
        "sketch: {countsketch: {ratio: 1.5}}",
        "sketch: {countsketch: 2.5}",
        "sketch: {dense: {ratio: 0.5}}",
        "sketch: {dense: 3}",
        "sketch: {dense: {}, countsketch: {}}",
        "sketch: {}",
        "model: {mlp: {hidden: 64}}",
        "model: {mlp: {hidden: [64, wide]}}",
        "model: {mlp: [wide]}",
        "algorithm: [dpsgd]",
        "model:",
        "peers: many",
        "peers: 2.5",
        "peers: '8'",
        "peers: 0",
        "peers: 1000000",
        "rounds: true",
        "rounds: -3",
        "training: [1, 2]",
        "training: {lr: -1}",
        "training: {momentum: 1.0}",
        "churn: {round: 1}",
        "churn: [{kill: [1]}]",
        "churn: [{round: 1, pause: [1]}]",
        "wait: forever",
        "transport: udp",
        "engine: locl",
        "evaluate: {split: train}",
        "evaluate: {target: 97}",
        "evaluate: {loss: 0}",
        "evaluate: {loss: low}",
        "evaluate: {every: 0}",
        "attacks: [{peers: [3]}]",
        "groups: {slow: {speed: 0.1}}",
        "groups: {slow: {peers: [1], speed: 2.0}}",
        "init: {round: 3}",
        "published: {figures: []}",
        "published: {source: x, figures: [{figure: accuracy, value: 1}]}",
        "published: {source: x, figures: [{figure: accuracy.mean, value: one}]}",
        "published: {source: x, figures: [{figure: accuracy.mean, value: 1, when: {seeed: 1}}]}",
        "published: {source: x, figures: [{figure: accuracy.mean, value: 1, when: {seed: 1}}]}",
        "published: {source: x, figures: [{figure: accuracy.mean, value: 1, when: {training.lr: fast}}]}",
    ],
)
def test_a_wrong_shape_is_rejected_and_refused(text: str) -> None:
    wrong = values_of(f"name: x\n{text}")
    assert complaints(wrong)
    with pytest.raises(ScenarioError):
        scenario.read(wrong)


@pytest.mark.parametrize("value", [[], "quickstart", {}, {"peers": 3}, {"name": 3}, {"name": "my run"}, {"name": ".x"}])
def test_a_scenario_is_a_mapping_with_a_good_name(value: object) -> None:
    assert complaints(value)


@pytest.mark.parametrize(
    "text",
    [
        "matrix: {seeed: [1]}",
        "matrix: {seed: []}",
        "matrix: {sketch: [dens]}",
        "matrix: {training.lr: 0.1}",
        "matrix: {matrix.seed: [1]}",
        "matrix: {published.source: [x]}",
        "matrix: {seed: [1], exclude: [{}]}",
        "tune: {training.lr: [x]}",
    ],
)
def test_a_sweep_is_of_keys_that_there_are_and_of_values_that_they_may_have(text: str) -> None:
    wrong = values_of(f"name: x\n{text}")
    assert complaints(wrong)
    with pytest.raises(ScenarioError):
        cases(wrong, ())


def test_every_key_of_a_scenario_says_what_it_means() -> None:
    for key, found in DOCUMENT["properties"].items():
        assert len(found.get("description", "")) > 10, f"{key} needs a sentence in MEANINGS"


def test_options_have_type_bounds_default_and_what_their_docstring_says() -> None:
    ratio = DOCUMENT["$defs"]["sketches.countsketch"]["properties"]["ratio"]
    assert ratio["default"] == 0.5
    assert {"type": "number", "exclusiveMinimum": 0, "maximum": 1} in ratio["anyOf"]
    assert "`alpha`" in DOCUMENT["$defs"]["partitions.dirichlet"]["properties"]["alpha"]["description"]
    assert DOCUMENT["properties"]["engine"]["default"] == "local"
    assert DOCUMENT["required"] == ["name"]


@dataclasses.dataclass(frozen=True)
class Thinned:
    """A graph with fewer links: `of` is the one that it thins out."""

    of: Annotated[plugins.Choice, plugins.Slot("of", "topologies", "complete")]


def test_a_plugin_within_a_plugin_is_any_of_its_room(monkeypatch: pytest.MonkeyPatch) -> None:
    package = importlib.import_module(plugins.ROOMS["topologies"])
    monkeypatch.setattr(package, "elsewhere", lambda name: Thinned if name == "thinned" else None)
    monkeypatch.setattr(package, "elsewhere_names", lambda: ("thinned",))
    made = schema.document.__wrapped__()
    assert made["$defs"]["topologies.thinned"]["properties"]["of"] == {
        "$ref": "#/$defs/topologies",
        "default": "complete",
        "description": "A graph with fewer links: `of` is the one that it thins out.",
    }
    validator = jsonschema.Draft202012Validator(made)
    for inner, fits in (("ring", True), ({"thinned": None}, True), ("rign", False), ({"thinned": {"off": 1}}, False)):
        assert validator.is_valid({"name": "x", "topology": {"thinned": {"of": inner}}}) is fits, inner


KEYS = [key for key in DOCUMENT["properties"] if key not in ("matrix", "tune")]
NAMES = [name for _, name in EVERY_PLUGIN]
SCALARS = st.sampled_from(
    [None, True, 0, 1, 2, -1, 0.5, 2.5, 97, "", "own", "all", "tcp", "cpu", *NAMES, "wheel_graph"]
)
OPTIONS = [
    "lr",
    "batch",
    "every",
    "target",
    "split",
    "round",
    "kill",
    "peers",
    "speed",
    "run",
    "seconds",
    "ratio",
    "hidden",
]
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from([*OPTIONS, *NAMES]), inner, max_size=2),
    max_leaves=4,
)
MAPPINGS = st.dictionaries(st.sampled_from([*KEYS, "peeers"]), VALUES, min_size=1, max_size=2)


@settings(max_examples=150, deadline=None)
@given(MAPPINGS)
def test_whatever_it_rejects_the_door_refuses(written: dict[str, Any]) -> None:
    value = {"name": "x"} | written
    if complaints(value):
        with pytest.raises(ScenarioError):
            scenario.read(value)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["schema", *arguments], prog_name="p2pfl")


def test_the_command_prints_it() -> None:
    ended = run()
    assert ended.exit_code == 0
    assert json.loads(ended.stdout) == DOCUMENT


def test_the_command_writes_a_file_and_says_how_an_editor_finds_it(tmp_path: Path) -> None:
    ended = run("--out", str(tmp_path / "scenario.json"))
    assert ended.exit_code == 0
    assert json.loads((tmp_path / "scenario.json").read_text()) == DOCUMENT
    assert "# yaml-language-server: $schema=scenario.json" in ended.stdout


def test_a_file_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    ended = run("--out", str(tmp_path / "nowhere" / "scenario.json"))
    assert ended.exit_code == 2
    assert len(ended.stderr.splitlines()) == 1
    assert "nowhere" in ended.stderr
    assert "name another file" in ended.stderr
