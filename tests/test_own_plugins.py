"""Plug-ins of the user's own: one small file each, beside the scenario, that run only where the user says so."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from p2pfl.cli import main

import p2pfl
from p2pfl import own_code, plugins
from p2pfl.errors import ScenarioError

HEAD = "from __future__ import annotations\nfrom dataclasses import dataclass\n"
VECTOR = "import torch\nfrom typing import ClassVar\n"

LADDER = """
import networkx as nx

@dataclass(frozen=True)
class Ladder:
    '''Two rails, and a rung between each two peers that stand side by side.'''

    rungs: int = 1

    def __post_init__(self):
        if self.rungs < 1:
            raise ValueError(f"rungs is {self.rungs}: take one at least")

    def graph(self, nodes, seeds):
        drawn = nx.Graph()
        drawn.add_nodes_from(nodes)
        drawn.add_edges_from(zip(nodes, nodes[2:]))
        drawn.add_edges_from(zip(nodes[::2], nodes[1::2]))
        return drawn
"""
BLOBS = """
import numpy, torch
from p2pfl.learning.data import Data

@dataclass(frozen=True)
class Blobs:
    '''Clouds of points around one corner of a square for each class.'''

    spread: float = 0.5

    def check(self):
        pass

    def load(self):
        draw = numpy.random.RandomState(0)
        labels = numpy.arange(240) % 4
        points = numpy.stack([labels % 2, labels // 2], 1) * 2.0 + self.spread * draw.randn(240, 2)
        x, y = torch.tensor(points, dtype=torch.float32).reshape(-1, 1, 1, 2), torch.tensor(labels)
        return Data(x[:160], y[:160], x[160:200], y[160:200], x[200:], y[200:], classes=4)

    def checksums(self):
        return {}
"""
DEALT = """
import numpy
from p2pfl.errors import ScenarioError

@dataclass(frozen=True)
class Dealt:
    '''Examples are dealt out in the order in which they lie, as cards are.'''

    def split(self, examples, peers, batch, rng):
        if len(examples) < peers:
            raise ScenarioError(f"{len(examples)} examples are too few for {peers} peers", "use fewer peers")
        return [numpy.arange(peer, len(examples), peers) for peer in range(peers)]
"""
HOURGLASS = """
import math
from collections import OrderedDict
from torch import nn
from p2pfl.learning.model import OUTPUT, kaiming_uniform_like_torch, unfilled

@dataclass(frozen=True)
class Hourglass:
    '''A narrow waist between two wider layers.'''

    waist: int = 3

    def build(self, shape, classes):
        sizes = [math.prod(shape), 8, self.waist, 8]
        return unfilled(lambda: self.layers(sizes, classes))

    def layers(self, sizes, classes):
        layers = [("flatten", nn.Flatten())]
        for at, (inputs, outputs) in enumerate(zip(sizes, sizes[1:])):
            layers += [(f"hidden{at}", nn.Linear(inputs, outputs)), (f"tanh{at}", nn.Tanh())]
        return nn.Sequential(OrderedDict([*layers, (OUTPUT, nn.Linear(8, classes))]))

    def draw(self, module, generator):
        kaiming_uniform_like_torch(module, generator)
"""
RELAXATION = """
import torch
from torch import Tensor
from p2pfl.messages import Exchange, Form, Report
from p2pfl.peer import Role

@dataclass(frozen=True, eq=False)
class State:
    x_D: Tensor
    m_D: Tensor | None = None

@dataclass(frozen=True)
class Relaxation:
    '''Train, then go `step` of the way to the average with the neighbours.'''

    step: float = 0.8
    topology = "ring"

    def roles(self, learners):
        return {i: Role(self, (i,)) for i in range(learners)}

    def check(self, training, sketch, links):
        pass

    def vectors(self, links):
        return 2 * len(links)

    def start(self, me):
        return State(me.first_point())

    def forms(self, me, r):
        return {"params": Form({"params": (torch.float32, (me.pair.size,))})}

    def round(self, me, state, r):
        trained = me.steps(state.x_D, state.m_D, r, me.local_steps)
        post = {j: me.say("params", r, trained.x_D, to=j) for j in me.reachable(me.neighbours)}
        mail = yield Exchange("params", r, post, expect=tuple(post))
        x_D = trained.x_D + self.step * me.merge(me.differences(mail, post, r), me.weights)
        yield Report(r, {"loss": trained.loss})
        return State(x_D, trained.m_D)

    def model(self, state):
        return state.x_D
"""
HALF = (
    VECTOR
    + """
import numpy

@dataclass(frozen=True)
class Half:
    '''A random half of all parameters travels, under a key.'''

    keyed: ClassVar[bool] = True
    reach: ClassVar[float] = 1.0

    def bind(self, layout):
        whole = sum(slot.size for slot in layout)
        return Chosen(whole, (whole + 1) // 2)

@dataclass(frozen=True)
class Chosen:
    whole: int
    size: int

    def rows(self, key):
        return torch.from_numpy(numpy.random.default_rng(list(key)).permutation(self.whole)[: self.size])

    def down(self, x_D, key):
        return x_D[self.rows(key)] * (self.whole / self.size) ** 0.5

    def up(self, z_S, key):
        return z_S.new_zeros(self.whole).index_copy(0, self.rows(key), z_S * (self.whole / self.size) ** 0.5)

    def pull(self, z_S, key):
        return self.up(z_S, key) * (self.size / self.whole)
"""
)
CLIPPED = (
    VECTOR
    + """
@dataclass(frozen=True)
class Clipped:
    '''The weighted sum, no row of it longer than `radius`.'''

    radius: float = 1.0

    def merge(self, rows_KD, weights_K):
        shares = [min(1.0, self.radius / max(float(row.norm()), 1e-12)) for row in rows_KD]
        return sum(row * share * weight for row, share, weight in zip(rows_KD, shares, weights_K))
"""
)
HALVING = """
@dataclass(frozen=True)
class Halving:
    '''The rate is halved `times` times, at even distances.'''

    times: int = 2

    def factor(self, done):
        return 0.5 ** int(done * (self.times + 1))
"""
GOOD = {
    **{"topologies/ladder": LADDER, "datasets/blobs": BLOBS, "partitions/dealt": DEALT, "models/hourglass": HOURGLASS},
    **{"algorithms/relaxation": RELAXATION, "sketches/half": HALF, "aggregators/clipped": CLIPPED},
    "schedules/halving": HALVING,
}
ALL_OWN: dict[str, Any] = {
    **{"name": "own", "seed": 3, "peers": 4, "rounds": 2, "topology": "ladder", "data": {"blobs": {"spread": 0.3}}},
    **{"partition": "dealt", "model": {"hourglass": {"waist": 4}}, "algorithm": "relaxation", "sketch": "half"},
    **{"aggregator": {"clipped": {"radius": 5.0}}, "evaluate": {"every": 1}, "engine": "simulate"},
    "training": {"batch": 8, "local_steps": 2, "device": "cpu", "schedule": "halving"},
}
WRONG = {
    "topologies/pairs": LADDER.replace("Ladder", "Pairs").replace("zip(nodes, nodes[2:])", "()"),
    "sketches/lopsided": HALF.replace("Half:", "Lopsided:").replace("z_S * (self", "2 * z_S * (self"),
    "algorithms/wordy": RELAXATION.replace("Relaxation", "Wordy").replace(
        "        mail = yield Exchange(\"params\", r, post",
        "        post = {j: type(m)(m.kind, r, m.tensors, {'loss': trained.loss}) for j, m in post.items()}\n"
        "        mail = yield Exchange(\"params\", r, post",
    ),
    "algorithms/rebuilding": RELAXATION.replace("Relaxation", "Rebuilding").replace(
        "me.merge(me.differences(mail, post, r), me.weights)",
        "sum(me.weights[j] * (me.pair.up(m.tensors['params'], me.key(j, r)) - trained.x_D) for j, m in mail.items())",
    ),
    "algorithms/shrinking": RELAXATION.replace("Relaxation", "Shrinking").replace(
        "me.merge(me.differences(mail, post, r), me.weights)",
        "sum(me.weights[j] * (me.pair.pull(m.tensors['params'], me.key(j, r)) - trained.x_D) for j, m in mail.items())",
    ),
    "aggregators/greedy": CLIPPED.replace("Clipped", "Greedy").replace(
        "return sum(row *", "return sum(row.mul_(0.5) *"
    ),
}  # fmt: skip
CAUGHT = {
    "topologies/pairs": ("is a connected simple graph of the given peers", "parts that cannot reach each other"),
    "sketches/lopsided": ("has an up that is the transpose of its down", "<down(x), z> is"),
    "algorithms/wordy": ("posts messages of the form that the receiver declares", "the receiver's form says {}"),
    "algorithms/rebuilding": ("never drives peers apart", "peers that hardly learn drift apart"),
    "algorithms/shrinking": ("never drives peers apart", "the mean of peers that hardly learn moves by"),
    "aggregators/greedy": ("alters no row and gives none of them back", "it alters the rows that it is given"),
}
SPY = "import pathlib\npathlib.Path({!r}).write_text('it ran')\n"


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    yield
    plugins.adopt(None)


def put(folder: Path, files: Mapping[str, str]) -> Path:
    """Write plug-ins, by room and name; the folder that holds their rooms."""
    for place, text in files.items():
        path = folder / f"{place}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(HEAD + text)
    return folder


def scenario(folder: Path, settings: Mapping[str, Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "mine.yaml"
    path.write_text("".join(f"{key}: {json.dumps(value)}\n" for key, value in settings.items()))
    return path


def say(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words], prog_name="p2pfl")


def refused(result: Result) -> str:
    assert result.exit_code == 2, result.output
    assert len(result.stderr.splitlines()) == 1, result.stderr
    return result.stderr.strip()


def rows(folder: Path) -> list[dict[str, Any]]:
    """The rows of a record, without times and bytes."""
    read = [json.loads(line) for line in (folder / "records.jsonl").read_text().splitlines()]
    kept = [{k: v for k, v in row.items() if not k.endswith(("_s", "_bytes"))} for row in read if "to" not in row]
    return sorted(kept, key=lambda row: (row["round"], str(row["peer"])))


def test_a_scenario_of_nothing_but_own_plugins_runs_in_processes_as_it_does_simulated(tmp_path: Path) -> None:
    put(tmp_path / "lab" / "plugins", GOOD)
    mine = scenario(tmp_path / "lab", ALL_OWN)
    records = {
        engine: p2pfl.launch(mine, tmp_path / engine, [f"engine={engine}"], allow_code=True)
        for engine in ("simulate", "inproc", "local")
    }
    assert all(record.crashed == () for record in records.values())
    assert len(rows(tmp_path / "simulate")) >= 8
    assert rows(tmp_path / "simulate") == rows(tmp_path / "inproc") == rows(tmp_path / "local")
    assert "\n  ladder: {rungs: 1}" in (tmp_path / "local" / "scenario.yaml").read_text().replace("topology:", "\n ")
    assert not list((tmp_path / "lab").rglob("__pycache__"))


def test_the_command_runs_them_with_allow_code_and_a_run_can_be_run_again_from_its_own_folder(tmp_path: Path) -> None:
    folder = put(tmp_path / "plugins", GOOD)
    mine = scenario(tmp_path, ALL_OWN)
    first = say("launch", mine, "--allow-code", "--out", "first")
    assert first.exit_code == 0, first.output
    checksums = json.loads(Path("first/environment.json").read_text())["plugins_sha256"]
    assert checksums == {
        f"plugins/{place}.py": hashlib.sha256((folder / f"{place}.py").read_bytes()).hexdigest() for place in GOOD
    }
    for place in GOOD:
        (folder / f"{place}.py").unlink()
    again = say("launch", "first/scenario.yaml", "--allow-code", "--out", "again")
    assert again.exit_code == 0, again.output
    assert rows(Path("again")) == rows(Path("first"))
    assert json.loads(Path("again/environment.json").read_text())["plugins_sha256"] == checksums


def test_a_run_without_own_plugins_keeps_none(tmp_path: Path) -> None:
    put(tmp_path / "plugins", {"topologies/ladder": LADDER})
    record = p2pfl.launch({"name": "none", "peers": 2, "rounds": 1, "engine": "simulate"}, tmp_path / "out")
    assert not (record.folder / "plugins").exists()
    assert json.loads((record.folder / "environment.json").read_text())["plugins_sha256"] == {}


def test_without_allow_code_it_is_said_which_file_would_run_and_nothing_of_it_does(tmp_path: Path) -> None:
    spy = SPY.format(str(tmp_path / "ran"))
    put(tmp_path / "plugins", {"topologies/ladder": spy + LADDER, "topologies/ring2": spy, "models/__init__": spy})
    (tmp_path / "mine.yaml").write_text("name: mine\npeers: 4\n\ntopology: ladder\n")
    command = [Path(sys.executable).with_name("p2pfl"), "launch", "mine.yaml"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
    assert ended.returncode == 2
    said = (
        "topology 'ladder' is code of your own, plugins/topologies/ladder.py (mine.yaml:4): say --allow-code to run it"
    )
    assert ended.stderr == f"{said}\n"
    assert refused(say("check", "mine.yaml")) == said
    assert not (tmp_path / "ran").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.yaml", "plugins"]


def test_python_needs_allow_code_too_and_for_a_mapping_the_folder_is_where_one_stands(tmp_path: Path) -> None:
    spy = SPY.format(str(tmp_path / "ran"))
    put(tmp_path / "plugins", {"topologies/ladder": spy + LADDER})
    settings = {"name": "mine", "peers": 4, "rounds": 1, "topology": {"ladder": {"rungs": 2}}, "engine": "simulate"}
    with pytest.raises(ScenarioError, match=r"code of your own, plugins/topologies/ladder.py \(topology.ladder\)"):
        p2pfl.launch(settings, tmp_path / "out")
    assert not (tmp_path / "ran").exists()
    assert p2pfl.launch(settings, tmp_path / "out", allow_code=True).crashed == ()
    assert (tmp_path / "ran").exists()
    with pytest.raises(ScenarioError, match="code of your own"):  # what one call allowed, the next does not
        p2pfl.launch(settings, tmp_path / "more")


def test_a_plugin_of_ours_is_taken_whatever_lies_in_a_folder_that_may_not_run(tmp_path: Path) -> None:
    put(tmp_path / "plugins", {"topologies/ring": SPY.format(str(tmp_path / "ran"))})
    (tmp_path / "mine.yaml").write_text("name: mine\ntopology: ring\n")
    assert say("check", "mine.yaml").exit_code == 0
    assert not (tmp_path / "ran").exists()


def test_two_folders_with_plugins_of_one_name_are_kept_apart(tmp_path: Path) -> None:
    star = LADDER.replace("zip(nodes, nodes[2:])", "((nodes[0], node) for node in nodes[1:])").replace(
        "drawn.add_edges_from(zip(nodes[::2], nodes[1::2]))", "pass"
    )
    links = {}
    for name, text in (("one", LADDER), ("two", star), ("one", LADDER)):
        put(tmp_path / name / "plugins", {"topologies/ladder": text})
        mine = scenario(tmp_path / name, {"name": name, "peers": 6, "rounds": 1, "topology": "ladder"})
        out = tmp_path / f"out{len(list(tmp_path.glob('out*')))}"
        p2pfl.launch(mine, out, ["engine=simulate"], allow_code=True)
        links.setdefault(name, []).append(json.loads((out / "graph.json").read_text())["links"])
    assert links["two"] == [[[0, 1], [0, 2], [0, 3], [0, 4], [0, 5]]]
    assert links["one"] == [[[0, 1], [0, 2], [1, 3], [2, 3], [2, 4], [3, 5], [4, 5]]] * 2
    plugins.adopt(None)
    assert "ladder" not in plugins.names("topologies")
    assert "p2pfl.topologies.ladder" not in sys.modules
    assert not hasattr(sys.modules["p2pfl.topologies"], "ladder")


def test_a_file_that_was_mended_is_read_anew_and_one_that_was_not_keeps_its_classes(tmp_path: Path) -> None:
    folder = put(tmp_path / "plugins", {"topologies/ladder": LADDER})
    plugins.adopt(folder)
    first = plugins.find("topologies", "ladder")
    plugins.adopt(folder)
    assert plugins.find("topologies", "ladder") is first
    put(folder, {"topologies/ladder": LADDER.replace("Two rails", "Three rails")})
    plugins.adopt(folder)
    assert str(plugins.find("topologies", "ladder").__doc__).startswith("Three rails")


def test_every_case_of_a_sweep_may_name_them(tmp_path: Path) -> None:
    put(tmp_path / "lab" / "plugins", {"topologies/ladder": LADDER, "schedules/halving": HALVING})
    settings = {"name": "swept", "peers": 4, "rounds": 1, "engine": "simulate", "model": "logistic"}
    mine = scenario(tmp_path / "lab", {**settings, "matrix": {"topology": ["star", "ladder"]}})
    assert "code of your own, plugins/topologies/ladder.py (" in refused(say("launch", mine, "--out", "swept"))
    ended = say("launch", mine, "--out", "swept", "--allow-code")
    assert ended.exit_code == 0, ended.output
    cases = sorted((tmp_path / "swept" / "cases").iterdir())
    assert len(cases) == 2
    assert all((case / "plugins" / "topologies" / "ladder.py").is_file() for case in cases)
    links = {len(json.loads((case / "graph.json").read_text())["links"]) for case in cases}
    assert links == {3, 4}


BROKEN = {
    "no Python": ("class Ladder\n", r"plugins/topologies/ladder.py:3 cannot be imported, SyntaxError: .*: mend"),
    "a missing library": ("import nonesuch_library\n", r"ladder.py:3 cannot be imported, ModuleNotFoundError: No mod"),
    "an error": ("\n\n1 / 0\n", r"ladder.py:5 cannot be imported, ZeroDivisionError: division by zero"),
    "an exit": ("raise SystemExit(0)\n", r"ladder.py:3 cannot be imported, SystemExit: 0"),
    "another class": (LADDER.replace("Ladder", "Stairs"), r"ladder.py:1 holds no dataclass named .*: write .*Ladder:"),
    "no dataclass": ("class Ladder:\n    pass\n", r"ladder.py:1 holds no dataclass named like its file"),
    "not frozen": (LADDER.replace("(frozen=True)", ""), r"ladder.py:6, Ladder is not frozen.*: write '@dataclass"),
    "a list": (LADDER.replace("int = 1", "list = []"), r"ladder.py:6 cannot be imported, ValueError: mutable default"),
    "a made list": (
        "import dataclasses" + LADDER.replace("int = 1", "tuple = dataclasses.field(default_factory=list)"),
        r"ladder.py:6, the default of rungs is \[\], which has no hash",
    ),
    "null bytes": ("\0", r"plugins/topologies/ladder.py:\d cannot be imported, "),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_plugin_is_one_line_with_its_file_and_line(tmp_path: Path, case: str) -> None:
    text, expected = BROKEN[case]
    put(tmp_path / "plugins", {"topologies/ladder": text, "topologies/unused": "1 / 0"})
    (tmp_path / "mine.yaml").write_text("name: mine\npeers: 4\ntopology: ladder\n")
    said = refused(say("check", "mine.yaml", "--allow-code"))
    assert re.search(expected, said), said
    assert "(mine.yaml:3)" in said
    assert say("check", "mine.yaml", "--allow-code", "--set", "topology=ring").exit_code == 0


def test_their_options_are_checked_where_they_stand(tmp_path: Path) -> None:
    put(tmp_path / "plugins", {"topologies/ladder": LADDER})
    (tmp_path / "mine.yaml").write_text("name: mine\ntopology:\n  ladder:\n    rungs: 0\n")
    assert refused(say("check", "mine.yaml", "--allow-code")) == "rungs is 0 (mine.yaml:4): take one at least"
    said = refused(say("check", "mine.yaml", "--allow-code", "--set", "topology.ladder.rugs=3"))
    assert "did you mean 'rungs'?" in said


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ("topologies/ring", "plugins/topologies/ring.py has a name that p2pfl has already: give it another"),
        ("topologies/_generators", "plugins/topologies/_generators.py has a name that p2pfl has already"),
        ("topologies/ladder_graph", "plugins/topologies/ladder_graph.py has a name that p2pfl has already"),
        ("topologies/my-ladder", "plugins/topologies/my-ladder.py cannot be named in a scenario"),
        ("topologies/Ladder", "plugins/topologies/Ladder.py cannot be named in a scenario: call it by small letters"),
        ("ladder", "plugins/ladder.py lies in no room: put it into the folder of its room: topologies, "),
        ("topology/ladder", "plugins/topology lies in no room: put it into the folder of its room: topologies, "),
    ],
)
def test_a_file_that_nothing_could_name_is_refused(tmp_path: Path, place: str, expected: str) -> None:
    put(tmp_path / "plugins", {"models/hourglass": HOURGLASS, place: "1 / 0"})
    (tmp_path / "mine.yaml").write_text("name: mine\n")
    assert refused(say("check", "mine.yaml", "--allow-code")).startswith(expected)
    assert own_code.adopted() is None
    assert "hourglass" not in plugins.names("models")


def test_what_is_no_code_and_what_rooms_share_may_lie_there(tmp_path: Path) -> None:
    shared = {"topologies/_rails": "RAILS = 2\n", "topologies/__init__": "", "topologies/ladder": LADDER}
    shared["topologies/ladder"] = "from p2pfl.topologies._rails import RAILS\n" + LADDER
    folder = put(tmp_path / "plugins", shared)
    (folder / "README.md").write_text("mine\n")
    (folder / "notes").mkdir()
    (folder / "notes" / "a.txt").write_text("mine\n")
    plugins.adopt(folder)
    assert plugins.find("topologies", "ladder")(1).rungs == 1
    assert own_code.named() == (("topologies", "ladder"),)


def test_list_shows_them_as_ones_own(tmp_path: Path) -> None:
    folder = put(tmp_path / "lab", {"topologies/ladder": LADDER})
    said = say("list", "topologies", "--plugins", folder)
    assert said.exit_code == 0, said.output
    assert "  ladder (your own): Two rails, and a rung between" in said.stdout
    assert "    rungs: int = 1" in said.stdout
    assert "  ring: " in said.stdout
    assert "ladder" not in re.sub("_ladder|ladder_", "", say("list").stdout)


def test_good_plugins_of_every_kind_keep_to_the_contracts(tmp_path: Path) -> None:
    folder = put(tmp_path / "plugins", GOOD)
    said = say("check", "--plugins", folder)
    assert said.exit_code == 0, said.output
    lines = [re.split(" {2,}", line) for line in said.stdout.splitlines()]
    assert ["topologies/ladder.py", "is a connected simple graph of the given peers", "ok"] in lines
    assert {line[0] for line in lines[:-1]} == {f"{place}.py" for place in GOOD}
    assert {line[2] for line in lines[:-1]} == {"ok"}
    assert lines[-1] == [f"8 plug-ins, {len(lines) - 1} checks, 0 failed"]


@pytest.mark.parametrize("place", WRONG)
def test_a_plugin_that_breaks_its_contract_is_caught_and_its_line_named(tmp_path: Path, place: str) -> None:
    folder = put(tmp_path / "plugins", {place: WRONG[place]})
    said = say("check", "--plugins", folder)
    assert said.exit_code == 2
    sentence, why = CAUGHT[place]
    line = next(line for line in said.stdout.splitlines() if f"  {sentence}  " in line)
    assert f"{sentence}  failed: " in line
    assert why in line
    assert re.search(rf"\(plugins/{place}.py:\d+\)$", line), line
    assert "  is a frozen dataclass with a docstring  ok" in said.stdout
    assert said.stdout.splitlines()[-1].endswith(" failed")


def test_who_averages_rebuilt_models_is_warned_as_soon_as_peers_drift_apart(tmp_path: Path) -> None:
    put(tmp_path / "plugins", {"algorithms/rebuilding": WRONG["algorithms/rebuilding"]})
    settings = {"name": "mine", "seed": 1, "peers": 4, "rounds": 60, "data": "digits", "engine": "simulate"}
    mine = scenario(tmp_path, {**settings, "algorithm": "rebuilding", "sketch": {"countsketch": {"ratio": 0.125}}})
    said = say("launch", mine, "--allow-code", "--out", "run", "--set", "training.lr=1e-6")
    assert "peers drift apart: in round" in said.output
    assert "what they send sketched must be damped, see a sketch's relaxation" in said.output
    assert Path("run/log.txt").read_text().count("peers drift apart") == 1
    quiet = say(
        "launch", mine, "--allow-code", "--out", "dpsgd", "--set", "training.lr=1e-6", "--set", "algorithm=dpsgd"
    )
    assert "drift apart" not in quiet.output


def test_members_of_a_star_train_under_an_own_sketch_that_has_no_key(tmp_path: Path) -> None:
    unkeyed = HALF.replace("keyed: ClassVar[bool] = True", "keyed: ClassVar[bool] = False")
    put(tmp_path / "plugins", {"sketches/half": unkeyed})
    settings = {"name": "mine", "seed": 1, "peers": 3, "rounds": 3, "data": "digits", "engine": "simulate"}
    record = p2pfl.launch(
        scenario(tmp_path, {**settings, "algorithm": "fedavg", "sketch": "half"}), tmp_path / "run", allow_code=True
    )
    assert record.crashed == ()
    assert record.summary["bytes"]["minimum_per_peer_round"] < 0.6 * 2 * 4 * record.summary["parameters"]


def test_an_error_in_a_plugin_is_shown_with_the_line_that_raised_it(tmp_path: Path) -> None:
    text = HALVING.replace("        return 0.5", "        done / 0\n        return 0.5")
    said = say("check", "--plugins", put(tmp_path / "plugins", {"schedules/halving": text}))
    number = (HEAD + text).splitlines().index("        done / 0") + 1
    assert said.exit_code == 2
    assert f"ZeroDivisionError: float division by zero (plugins/schedules/halving.py:{number})" in said.stdout


def test_options_that_must_be_given_are_taken_from_the_examples_of_the_plugin(tmp_path: Path) -> None:
    needed = HALVING.replace("times: int = 2", "times: int")
    folder = put(tmp_path / "plugins", {"schedules/halving": needed})
    said = say("check", "--plugins", folder)
    assert said.exit_code == 0
    assert "is checked  skipped: times must be given, and it declares no EXAMPLES" in said.stdout
    examples = "from typing import ClassVar\n" + needed + "\n    EXAMPLES: ClassVar = ({'times': 1}, {'times': -5})\n"
    put(folder, {"schedules/halving": examples})
    said = say("check", "--plugins", folder)
    assert said.exit_code == 2
    assert "throughout, as Halving(times=1)  ok" in said.stdout
    assert "throughout, as Halving(times=-5)  failed: factor(0.25) is 2.0" in said.stdout


def test_a_scenario_may_be_checked_with_the_plugins_that_were(tmp_path: Path) -> None:
    folder = put(tmp_path / "elsewhere", {"topologies/ladder": LADDER})
    (tmp_path / "mine.yaml").write_text("name: mine\npeers: 6\ntopology: ladder\n")
    said = say("check", "mine.yaml", "--plugins", folder)
    assert said.exit_code == 0, said.output
    assert "ladder: {rungs: 1}" in said.stdout
    assert "no topology 'ladder'" in refused(say("check", "mine.yaml"))


def test_a_folder_without_plugins_and_no_folder_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "'empty' holds no plug-in (--plugins): put them into" in refused(say("check", "--plugins", "empty"))
    assert "no folder 'none' (--plugins)" in refused(say("check", "--plugins", "none"))
    assert say("check").exit_code == 2


@pytest.mark.parametrize(
    ("room", "name", "code", "said"),
    [
        (
            "topologies",
            "odd",
            "    def graph(self, nodes, seeds):\n        return {}['x']\n",
            "topologies/odd.py:7 raised",
        ),
        ("models", "odd", "    def build(self, shape, classes):\n        return None\n", "model.odd cannot be made"),
    ],
)
def test_whatever_code_of_the_users_own_raises_is_one_line(
    room: str, name: str, code: str, said: str, tmp_path: Path
) -> None:
    (tmp_path / "plugins" / room).mkdir(parents=True)
    (tmp_path / "plugins" / room / f"{name}.py").write_text(f"{HEAD}\n@dataclass(frozen=True)\nclass Odd:\n{code}")
    key = plugins.singular(room)
    (tmp_path / "mine.yaml").write_text(f"name: mine\n{key}: {name}\n")
    result = CliRunner().invoke(main, ["check", str(tmp_path / "mine.yaml"), "--allow-code"])
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 1
    assert said in result.stderr
    assert "mine.yaml:2" in result.stderr


def test_a_sweep_does_not_mix_two_versions_of_the_users_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "plugins" / "topologies" / "ladder.py"
    file.parent.mkdir(parents=True)
    file.write_text(HEAD + LADDER)
    swept = {"name": "s", "peers": 4, "rounds": 1, "engine": "simulate", "topology": "ladder", "matrix": {"seed": [1]}}
    made = tmp_path / "out" / "cases"
    p2pfl.launch(swept, "out", allow_code=True)
    (summary,) = made.glob("*/summary.json")
    before = summary.stat().st_mtime_ns
    p2pfl.launch(swept, "out", allow_code=True)
    assert summary.stat().st_mtime_ns == before
    file.write_text(HEAD + LADDER + "# mended\n")
    p2pfl.launch(swept, "out", allow_code=True)
    assert summary.stat().st_mtime_ns > before
