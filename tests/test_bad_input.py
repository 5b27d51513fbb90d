"""Bad input ends in one line with culprit, place, value and remedy, and exit code 2; nothing starts or is written."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from p2pfl.cli import main

FILE = "bad.yaml"
DEEP = "[" * 40 + "]" * 40

# name of the case: what the file holds after `name: x`, and what the line on the screen must contain
IN_THE_FILE: dict[str, tuple[str, tuple[str, ...]]] = {
    "unknown key": ("peeers: 4", ("unknown key 'peeers' (bad.yaml:2)", "did you mean 'peers'?")),
    "unknown key within": ("training:\n  lrr: 1", ("unknown key 'lrr' (bad.yaml:3)", "did you mean 'lr'?")),
    "unknown topology": ("topology: rign", ("no topology 'rign' (bad.yaml:2)", "did you mean 'ring'?")),
    "unknown generator": (
        "topology: {watts_strogats_graph: {k: 2}}",
        ("no topology 'watts_strogats_graph' (bad.yaml:2)", "did you mean 'watts_strogatz_graph'?"),
    ),
    "unknown data": ("data: mnits", ("no dataset 'mnits' (bad.yaml:2)", "did you mean 'mnist'?")),
    "unknown partition": ("partition: iidd", ("no partition 'iidd' (bad.yaml:2)", "did you mean 'iid'?")),
    "unknown model": ("model: vit", ("no model 'vit' (bad.yaml:2)", "there are", "mlp")),
    "unknown algorithm": ("algorithm: fedavgg", ("no algorithm 'fedavgg' (bad.yaml:2)", "did you mean 'fedavg'?")),
    "unknown sketch": ("sketch: contsketch", ("no sketch 'contsketch' (bad.yaml:2)", "did you mean 'countsketch'?")),
    "unknown aggregator": ("aggregator: maen", ("no aggregator 'maen' (bad.yaml:2)", "did you mean 'mean'?")),
    "unknown engine": ("engine: locl", ("no engine 'locl' (bad.yaml:2)", "did you mean 'local'?")),
    "a Python path": ("model: os.system", ("no model 'os.system' (bad.yaml:2)", "there are")),
    "unknown option": (
        "sketch:\n  countsketch:\n    ratoi: 0.5",
        ("unknown key 'ratoi' (bad.yaml:4)", "did you mean 'ratio'?"),
    ),
    "option of a plug-in without": (
        "sketch: {dense: {ratio: 0.5}}",
        ("unknown key 'ratio' (bad.yaml:2)", "there are none"),
    ),
    "option out of range": (
        "sketch:\n  countsketch: {ratio: 1.5}",
        ("ratio is 1.5 (bad.yaml:3)", "must be above 0 and at most 1"),
    ),
    "option of the wrong type": ("model:\n  mlp: {hidden: 64}", ("hidden is 64 (bad.yaml:3)", "must be a list")),
    "item of the wrong type": (
        "model:\n  mlp:\n    hidden:\n      - 64\n      - wide",
        ("hidden.1 is 'wide' (bad.yaml:6)", "must be an integer"),
    ),
    "option refused by the plug-in": ("model:\n  mlp: {hidden: [0]}", ("hidden", "[0]", "(bad.yaml:3)", "positive")),
    "two plug-ins in one place": (
        "sketch: {dense: {}, countsketch: {}}",
        ("sketch is", "(bad.yaml:2)", "name one sketch"),
    ),
    "a wrong first option alone": ("sketch: {countsketch: 2.5}", ("ratio is 2.5 (bad.yaml:2)", "at most 1")),
    "an option where there is none": ("sketch: {dense: 3}", ("Dense has no options (bad.yaml:2)", "name it alone")),
    "a list of plug-ins": ("algorithm: [dpsgd]", ("algorithm is ['dpsgd'] (bad.yaml:2)", "name one algorithm")),
    "no plug-in": ("model:", ("model is None (bad.yaml:2)", "name one model")),
    "duplicate key": ("peers: 3\npeers: 4", ("'peers' is given twice (bad.yaml:3)", "bad.yaml:2")),
    "duplicate key within": ("training:\n  lr: 1\n  lr: 2", ("'lr' is given twice (bad.yaml:4)", "bad.yaml:3")),
    "wrong type": ("peers: many", ("peers is 'many' (bad.yaml:2)", "must be an integer")),
    "a fraction of a peer": ("peers: 2.5", ("peers is 2.5 (bad.yaml:2)", "must be an integer")),
    "a boolean number": ("rounds: true", ("rounds is True (bad.yaml:2)", "must be an integer")),
    "a quoted number": ("rounds: '30'", ("rounds is '30' (bad.yaml:2)", "must be an integer")),
    "a list where a mapping is meant": ("training: [1, 2]", ("training is [1, 2] (bad.yaml:2)", "must be a mapping")),
    "a mapping where a list is meant": ("churn: {round: 1}", ("churn is", "(bad.yaml:2)", "must be a list")),
    "0 peers": ("peers: 0", ("peers is 0 (bad.yaml:2)", "greater than or equal to 1")),
    "too many peers": ("peers: 1000000", ("peers is 1000000 (bad.yaml:2)", "less than or equal to 10000")),
    "no rounds": ("rounds: -3", ("rounds is -3 (bad.yaml:2)", "greater than or equal to 1")),
    "impossible learning rate": ("training: {lr: -1}", ("training.lr is -1 (bad.yaml:2)", "greater than 0")),
    "nan": ("training: {lr: .nan}", ("training.lr is nan (bad.yaml:2)", "finite number")),
    "infinity": ("training: {lr: .inf}", ("training.lr is inf (bad.yaml:2)", "finite number")),
    "a number beyond floats": ("training: {lr: 1e999}", ("training.lr is inf (bad.yaml:2)", "finite number")),
    "nan in a graph": (
        "topology: {gnp_random_graph: {p: .nan}}",
        ("p is nan (bad.yaml:2)", "must be a finite number"),
    ),
    "momentum of 1": ("training: {momentum: 1.0}", ("training.momentum is 1.0 (bad.yaml:2)", "less than 1")),
    "steps and epochs": (
        "training: {local_steps: 1, local_epochs: 1}",
        ("local_steps and local_epochs exclude each other (bad.yaml:2)", "give one"),
    ),
    "unknown device": ("training: {device: tpu}", ("no device 'tpu' (bad.yaml:2)", "there are auto, cpu")),
    "a device that is not there": ("training: {device: 'cuda:99'}", ("'cuda:99' (bad.yaml:2)", "say 'auto'")),
    "unknown choice": ("wait: forever", ("wait is 'forever' (bad.yaml:2)", "must be 'learned' or 'all'")),
    "unknown transport": ("transport: udp", ("transport is 'udp' (bad.yaml:2)", "must be 'auto', 'ipc' or 'tcp'")),
    "unknown split": ("evaluate: {split: train}", ("evaluate.split is 'train' (bad.yaml:2)", "'validation' or 'test'")),
    "impossible target": ("evaluate: {target: 97}", ("evaluate.target is 97 (bad.yaml:2)", "less than or equal to 1")),
    "never evaluated": ("evaluate:\n  every: 0", ("evaluate.every is 0 (bad.yaml:3)", "greater than or equal to 1")),
    "a YAML tag": ("seed: !!python/object/apply:os.system [ls]", ("YAML tag (bad.yaml:2)", "os.system", "remove it")),
    "a plain YAML tag": ("seed: !!int '7'", ("YAML tag (bad.yaml:2)", "remove it")),
    "an anchor": ("training: &t {lr: 1}", ("'t' is a YAML anchor or alias (bad.yaml:2)", "write the value out")),
    "an alias": ("seed: *t", ("'t' is a YAML anchor or alias (bad.yaml:2)", "write the value out")),
    "a key that is no word": ("8: peers", ("a key is '8' (bad.yaml:2)", "keys must be words")),
    "a key that is a list": ("[a]: peers", ("a key is", "(bad.yaml:2)", "keys must be words")),
    "no YAML": ("peers: [1, 2", ("this is not YAML", "(bad.yaml:2)", "mend the line")),
    "a tab": ("training:\n\tlr: 1", ("this is not YAML", "(bad.yaml:3)", "mend the line")),
    "a control character": ("seed: \x07", ("'\\x07' must not stand in YAML (bad.yaml:2)", "remove the character")),
    "two documents": ("---\nname: y", ("more than one YAML document (bad.yaml:2)", "one scenario a file")),
    "too deep": (f"seed: {DEEP}", ("nested more than 32 deep (bad.yaml:2)", "no key needs that")),
    "half a letter": ('engine: "\\ud800"', ("holds half a letter (bad.yaml:2)", "remove the lone surrogate")),
    "churn in no round": ("churn:\n- {round: 31, kill: [1]}", ("churn.0.round is 31 (bad.yaml:3)", "30 rounds")),
    "churn of nobody": ("churn:\n- round: 3\n  kill: [8]", ("no peer 8 (bad.yaml:4)", "there are 0 to 7")),
    "churn of a name": ("churn: [{round: 3, kill: [bob]}]", ("no group 'bob' (bad.yaml:2)", "there are none")),
    "churn without a round": ("churn:\n- kill: [1]", ("churn.0.round is missing (bad.yaml:3)", "add 'round: ...'")),
    "a mode its graph cannot carry": (
        "algorithm: fedavg\ntopology: ring",
        ("star", "(bad.yaml:2)", "leave topology out"),
    ),
    "a pull that overshoots": (
        "training: {lr: 0.5}\nalgorithm:\n  leasgd:\n    rho: 4.0",
        ("rho times lr must be below 1", "= 2 (bad.yaml:5)", "lower rho"),
    ),
    "a graph that is not connected": (
        "peers: 8\ntopology: {disjoint: {}}",
        ("no topology 'disjoint' (bad.yaml:3)", "there are barbell, complete"),
    ),
    "a graph in two parts": (
        "topology: {circulant_graph: {offsets: [2]}}",
        ("'circulant_graph' is not connected", "[0, 2, 4, 6] and [1, 3, 5, 7] (bad.yaml:2)", "more links"),
    ),
    "a graph of other size": (
        "topology: star_graph",
        ("9 nodes for 8 peers (bad.yaml:2)", "change peers, or its arguments"),
    ),
    "a directed graph": (
        "topology: scale_free_graph",
        ("scale_free_graph is directed (bad.yaml:2)", "another generator"),
    ),
    "a graph that cannot be": (
        "topology: {random_regular_graph: {d: 9}}",
        ("cannot make random_regular_graph(d=9, n=8", "(bad.yaml:2)", "change its arguments"),
    ),
    "a graph without its argument": ("topology: watts_strogatz_graph", ("k is missing (bad.yaml:2)", "add 'k: ...'")),
    "an unknown argument of a graph": (
        "topology:\n  watts_strogatz_graph:\n    kk: 4",
        ("unknown key 'kk' (bad.yaml:4)", "did you mean 'k'?"),
    ),
    "an attack without one": ("attacks: [{peers: [3]}]", ("attack is missing (bad.yaml:2)", "add 'attack: ...'")),
    "attacks that are none": ("attacks: idlg", ("attacks is 'idlg' (bad.yaml:2)", "list of mappings")),
    "unknown attack": (
        "attacks:\n- peers: [3]\n  attack: idgl",
        ("no attack 'idgl' (bad.yaml:4)", "did you mean 'idlg'?"),
    ),
    "option of an attack": (
        "attacks:\n- peers: [3]\n  attack:\n    idlg:\n      victim: 2",
        ("unknown key 'victim' (bad.yaml:6)", "there are"),
    ),
    "unknown key of an attack": (
        "attacks:\n- {peers: [3], attack: idlg}\n- {peers: [3], attack: idlg, victim: 2}",
        ("unknown key 'victim' (bad.yaml:4)", "did you mean 'victims'?"),
    ),
    "an attacker that is not there": (
        "attacks: [{peers: [8], attack: idlg}]",
        ("no peer 8 (bad.yaml:2)", "there are 0 to 7"),
    ),
    "a hub that is not there": ("attacks: [{peers: [hub], attack: idlg}]", ("no group 'hub' (bad.yaml:2)",)),
    "nobody attacks": ("attacks: [{peers: [], attack: idlg}]", ("attacks.0.peers is [] (bad.yaml:2)", "name who")),
    "its own victim": (
        "attacks: [{peers: [3], victims: [2, 3], attack: idlg}]",
        ("peer 3 is its own victim (bad.yaml:2)", "leave it out of victims"),
    ),
    "a round whose steps never show": (
        "rounds: 4\nattacks:\n- peers: [3]\n  rounds: [4]\n  attack: idlg",
        ("attacks.0.rounds names round 4 of 4 (bad.yaml:5)", "tells of rounds 1 to 3"),
    ),
    "rounds that are none": (
        "attacks: [{peers: [3], rounds: {to: 3, step: 2}, attack: idlg}]",
        ("rounds must be numbers from 1 on (bad.yaml:2)", "from: 1, to: 30"),
    ),
    "no rounds at all": (
        "attacks:\n- peers: [3]\n  rounds: []\n  attack: idlg",
        ("rounds is [] (bad.yaml:4)", "list them"),
    ),
    "an algorithm whose mail nobody reads": (
        "algorithm: choco\nattacks: [{peers: [3], attack: idlg}]",
        ("what the mail of choco tells peer 3 is not worked out (bad.yaml:3)", "take dpsgd"),
    ),
    "two defences": (
        "defences: [{dp: 4.0}, {dp: 2.0}]",
        ("dp must come first, it bounds what one example does", "(bad.yaml:2)", "two of its kind do not go together"),
    ),
    "unknown defence": ("defences:\n- dq: {epsilon: 4}", ("no defence 'dq' (bad.yaml:3)", "did you mean 'dp'?")),
    "option of a defence": (
        "defences:\n- dp:\n    epsilon: 4\n    clap: 2",
        ("unknown key 'clap' (bad.yaml:5)", "did you mean 'clip'?"),
    ),
    "mail of nobody there": ("save: {mail: [8]}", ("no peer 8 (bad.yaml:2)", "there are 0 to 7")),
    "more mail than may be kept": (
        "save: {mail: [1], mail_bytes: 1000}",
        ("save.mail would keep up to", "(bad.yaml:2)", "raise save.mail_bytes"),
    ),
    "no reason to stop": ("stop:\n- {}", ("give exactly one of target, seconds", "(bad.yaml:3)")),
    "two reasons in one": ("stop: [{target: true, bytes: 3}]", ("give exactly one of", "(bad.yaml:2)", "one entry")),
    "a stop without its target": ("stop: [{target: true}]", ("no target to stop at (bad.yaml:2)", "evaluate.target")),
    "a plateau of nothing": ("stop: [{plateau: 0}]", ("stop.0.plateau is 0 (bad.yaml:2)", "greater than")),
    "a group of nobody there": (
        "groups:\n  slow: {peers: [1, 8]}",
        ("no peer 8 (bad.yaml:3)", "there are 0 to 7"),
    ),
    "a peer in two groups": (
        "groups:\n  a: {peers: [1]}\n  b: {peers: [2, 1]}",
        ("peer 1 is in the groups a and b (bad.yaml:4)", "one group a peer"),
    ),
    "training of a group": (
        "groups:\n  a:\n    peers: [1]\n    training: {lr: -1}",
        ("groups.a.training.lr is -1 (bad.yaml:5)", "greater than 0"),
    ),
    "a device of a group": (
        "groups: {a: {peers: [1], training: {device: tpu}}}",
        ("no device 'tpu' (bad.yaml:2)", "there are auto, cpu"),
    ),
    "a peer faster than fast": (
        "groups: {a: {peers: [1], speed: 2}}",
        ("groups.a.speed is 2 (bad.yaml:2)", "less than"),
    ),
    "a group of nobody": ("groups: {a: {peers: []}}", ("groups.a.peers is [] (bad.yaml:2)", "at least one")),
    "a group of peers that do nothing": (
        "algorithm: central\ngroups: {a: {peers: [1]}}",
        ("peer 1 has nothing to do in central (bad.yaml:3)", "leave the group out"),
    ),
    "churn of an unknown group": (
        "groups: {slow: {peers: [1]}}\nchurn: [{round: 2, kill: [slwo]}]",
        ("no group 'slwo' (bad.yaml:3)", "did you mean 'slow'?"),
    ),
    "a beginning of its own": ("init: random", ("init is 'random' (bad.yaml:2)", "must be shared, own")),
    "a wrong value of a matrix": (
        "matrix:\n  sketch: [dense, dens]",
        ("no sketch 'dens' (bad.yaml:3)", "did you mean 'dense'?"),
    ),
    "an empty matrix list": (
        "matrix:\n  sketch: []",
        ("matrix.sketch is an empty list (bad.yaml:3)", "at least one value"),
    ),
    "a run to go on from": (
        "init: {run: runs/a}",
        ("runs/a has no checkpoints (bad.yaml:2)", "save: {checkpoints: 1}"),
    ),
    "a pause": ("churn:\n- {round: 1, pause: [1]}", ("churn.0.pause is not built yet (bad.yaml:3)", "remove the key")),
}

WHOLE_FILES: dict[str, tuple[bytes, tuple[str, ...]]] = {
    "an empty file": (b"", ("bad.yaml is empty (bad.yaml:1)", "write at least 'name: ...'")),
    "only a comment": (b"# nothing\n", ("bad.yaml is empty (bad.yaml:1)", "write at least 'name: ...'")),
    "a list": (b"- name: x\n", ("the scenario is a list (bad.yaml:1)", "write a mapping")),
    "a word": (b"quickstart\n", ("the scenario is 'quickstart' (bad.yaml:1)", "write a mapping")),
    "no name": (b"peers: 3\n", ("name is missing (bad.yaml:1)", "add 'name: ...'")),
    "not UTF-8": (b"name: x\nseed: \xff\n", ("byte 0xff is not UTF-8 (bad.yaml:2)", "save it as UTF-8")),
    "not text": (b"\x00\x01\x02", ("'\\x00' must not stand in YAML (bad.yaml:1)", "remove the character")),
    "too large": (b"#" * (1 << 20) + b"\n", ("bad.yaml is larger than 1048576 bytes", "one short YAML file")),
    "a name with a slash": (b"name: ../../etc\n", ("name is '../../etc' (bad.yaml:1)", "letters, digits")),
    "a name with a space": (b"name: my run\n", ("name is 'my run' (bad.yaml:1)", "letters, digits")),
    "a hidden name": (b"name: .x\n", ("name is '.x' (bad.yaml:1)", "not begin with '.'")),
    "an empty name": (b"name: ''\n", ("name is '' (bad.yaml:1)", "letters, digits")),
    "a name with a line": (b'name: "a\\n"\n', ("name is 'a\\n' (bad.yaml:1)", "letters, digits")),
    "a name that is a number": (b"name: 3\n", ("name is 3 (bad.yaml:1)", "must be a word")),
}

SETTINGS: dict[str, tuple[str, tuple[str, ...]]] = {
    "no value": ("peers", ("'peers' sets nothing (--set peers)", "write key=value")),
    "no key": ("=3", ("'=3' sets nothing (--set =3)", "write key=value")),
    "a hole in the key": ("training..lr=1", ("sets nothing (--set training..lr=1)", "write key=value")),
    "wrong type": ("training.lr=x", ("training.lr is 'x' (--set training.lr=x)", "must be a number")),
    "unknown key": ("pears=3", ("unknown key 'pears' (--set pears=3)", "did you mean 'peers'?")),
    "unknown plug-in": ("sketch=dens", ("no sketch 'dens' (--set sketch=dens)", "did you mean 'dense'?")),
    "unknown option": ("sketch.countsketch.ratoi=1", ("unknown key 'ratoi' (--set", "did you mean 'ratio'?")),
    "a key within a number": ("peers.x=3", ("peers is 3 (--set peers.x=3)", "only in a mapping")),
    "an item that is not there": ("churn.1.round=3", ("churn has no item '1' (--set churn.1.round=3)", "it has 1")),
    "no YAML": ("model=[", ("this is not YAML", "(--set model=[)", "mend the line")),
    "a tag": ("seed=!!int 7", ("YAML tag (--set seed=!!int 7)", "remove it")),
    "not built": ("hosts=[a]", ("hosts is not built yet (--set hosts=[a])", "remove the key")),
}


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("P2PFL_DATA", str(tmp_path / "data"))


def check(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["check", *arguments])


def assert_refused(result: Result, expected: tuple[str, ...]) -> None:
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert_one_line(result.stderr, expected)


def assert_one_line(said: str, expected: tuple[str, ...]) -> None:
    assert len(said.splitlines()) == 1
    assert "Traceback" not in said
    for part in expected:
        assert part in said
    assert [path.name for path in Path().iterdir()] in ([FILE], [])


@pytest.mark.parametrize("case", IN_THE_FILE)
def test_a_wrong_line_of_the_file_is_refused_by_its_number(case: str) -> None:
    text, expected = IN_THE_FILE[case]
    Path(FILE).write_text(f"name: x\n{text}\n")
    assert_refused(check(FILE), expected)


@pytest.mark.parametrize("case", WHOLE_FILES)
def test_a_file_that_is_no_scenario_is_refused(case: str) -> None:
    raw, expected = WHOLE_FILES[case]
    Path(FILE).write_bytes(raw)
    assert_refused(check(FILE), expected)


@pytest.mark.parametrize("case", SETTINGS)
def test_a_wrong_setting_is_refused_by_its_own_words(case: str) -> None:
    setting, expected = SETTINGS[case]
    Path(FILE).write_text("name: x\npeers: 3\nchurn: [{round: 1, kill: [1]}]\n")
    assert_refused(check(FILE, "--set", setting), expected)


def test_missing_data_are_named_with_the_folder_that_was_searched() -> None:
    Path(FILE).write_text("name: x\ndata: mnist\n")
    assert_refused(
        check(FILE), ("no file train-images-idx3-ubyte", str(Path("data").resolve()), "(bad.yaml:2)", "P2PFL_DATA")
    )


def test_more_peers_than_examples_are_refused() -> None:
    Path(FILE).write_text("name: x\npeers: 2000\npartition: iid\n")
    assert_refused(check(FILE), ("too few for 2000 peers (bad.yaml:3)", "use fewer peers"))


def test_a_model_beyond_memory_is_refused() -> None:
    Path(FILE).write_text("name: x\nmodel: {mlp: {hidden: [1000000000000]}}\n")
    assert_refused(
        check(FILE), ("model.mlp cannot be made", "256000000000000 bytes", "(bad.yaml:2)", "change its options")
    )


def test_a_missing_file_is_refused_with_the_nearest_scenario_that_ships() -> None:
    assert_refused(check("quickstat"), ("no scenario 'quickstat'", "did you mean 'quickstart'?"))


def test_a_folder_is_refused() -> None:
    assert_refused(check("/"), ("cannot read '/'", "give a YAML file"))


def test_an_unknown_verb_and_an_unknown_room_are_refused_with_the_nearest() -> None:
    assert_refused(CliRunner().invoke(main, ["chekc"]), ("no verb 'chekc'", "did you mean 'check'?"))
    assert_refused(CliRunner().invoke(main, ["list", "sketchs"]), ("no room 'sketchs'", "did you mean 'sketches'?"))


@pytest.mark.parametrize("case", ["unknown topology", "a YAML tag", "a graph in two parts"])
@pytest.mark.parametrize("verb", ["check", "launch"])
def test_the_installed_command_refuses_the_same(case: str, verb: str) -> None:
    text, expected = IN_THE_FILE[case]
    Path(FILE).write_text(f"name: x\n{text}\n")
    command = Path(sys.executable).with_name("p2pfl")
    ended = subprocess.run([command, verb, FILE], capture_output=True, text=True, env=os.environ, check=False)
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert_one_line(ended.stderr, expected)
