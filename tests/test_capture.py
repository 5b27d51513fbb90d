"""Mail that a run kept can be attacked at any time after it, with what the peer would have found itself."""

from __future__ import annotations

import json
import shutil
import stat
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy
import pytest
import safetensors.torch
import torch
from click.testing import CliRunner, Result
from p2pfl.cli import main
from torch import Tensor

from p2pfl import scenario
from p2pfl.errors import LocalError, ScenarioError
from p2pfl.evidence import Page
from p2pfl.messages import PeerId
from p2pfl.runtime import afterwards, asked, bundle, capture, launch, recall
from p2pfl.runtime.world import World
from p2pfl.seeds import Seeds

SMALL: dict[str, Any] = {
    "name": "kept",
    "seed": 4,
    "peers": 3,
    "rounds": 4,
    "engine": "simulate",
    "topology": "complete",
    "data": {"digits": {"normalise": False}},
    "model": {"mlp": {"hidden": [16]}},
    "training": {"batch": 1, "lr": 0.1, "local_steps": 1, "device": "cpu"},
    "evaluate": {"every": 4, "test": False},
}
IDLG: dict[str, Any] = {"idlg": {"iterations": 30, "restarts": 1}}
ANALYTIC: dict[str, Any] = {"attack": "analytic", "rounds": [1], "victims": [0]}
STAR: dict[str, Any] = {"algorithm": "fedavg", "topology": "star", "sketch": {"countsketch": {"ratio": 0.5}}}
MODES: dict[str, tuple[int | str, dict[str, Any]]] = {
    "gossip": (2, {}),
    "gossip, sketched": (2, {"sketch": {"countsketch": {"ratio": 0.5}}, "training": {"momentum": 0.5}}),
    "leader-follower": (2, {"algorithm": {"leasgd": {"k": 2, "rho": 2.0}}}),
    "hub": ("hub", STAR),
    "member": (1, STAR),
    "hub, of its own start": ("hub", {**STAR, "init": "own"}),
    "gossip, each of its own start": (2, {"init": "own"}),
}


def settings_of(**more: Any) -> scenario.Scenario:
    training = {**SMALL["training"], **more.pop("training", {})}
    return scenario.read({**SMALL, **more, "training": training})


def run(out: Path, **more: Any) -> Path:
    return launch.run(settings_of(**more), out).folder


def world_of(folder: Path) -> World:
    settings = scenario.parse((folder / "scenario.yaml").read_text())
    return World(settings, Seeds.of(settings.seed))


def attack(folder: Path, *peers: int | str, **entry: Any) -> tuple[Mapping[str, Any], ...]:
    return asked.prepared(folder, peers, entry, (), "cpu").run(lambda peer, message: None).entries


def pages_of(folder: Path, peer: PeerId, until: int = 99) -> dict[int, Page]:
    world = world_of(folder)
    holder = recall.holder(folder, world, peer, "cpu", scenario.digest(world.settings))
    return recall.notes(folder, world, [holder], until).pages[peer]


def found(folder: Path) -> list[tuple[dict[str, Any], dict[str, Tensor]]]:
    """All findings of a run: what they say but for the time they took, and their tensors."""
    told = [(path, json.loads(path.read_text())) for path in sorted((folder / "attacks").glob("*/*.json"))]
    kept = [path.with_suffix(".safetensors") for path, _ in told]
    tensors = [safetensors.torch.load_file(path) if path.is_file() else {} for path in kept]
    return [({**say, "seconds": 0, "engine": ""}, made) for (_, say), made in zip(told, tensors, strict=True)]


def assert_same(ours: list[Any], theirs: list[Any]) -> None:
    assert len(ours) == len(theirs) > 0
    for (said, made), (say, make) in zip(ours, theirs, strict=True):
        assert said == say
        assert made.keys() == make.keys()
        assert all(torch.equal(made[name], make[name]) for name in made)


@pytest.fixture(scope="module")
def former(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that kept the mail of two of its peers."""
    return run(tmp_path_factory.mktemp("runs") / "former", save={"mail": [2, 1], "checkpoints": 4, "every": 1})


@pytest.fixture
def copy(former: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(former, tmp_path / "copy"))


def edit(path: Path, **changes: Any) -> None:
    """Write a file of mail anew, with other values in it."""
    bundle.write(path, {**bundle.read(path, 1 << 30), **changes})


@pytest.mark.parametrize("mode", MODES)
def test_an_attack_afterwards_finds_bit_for_bit_what_the_peer_found_during_the_run(mode: str, tmp_path: Path) -> None:
    peer, more = MODES[mode]
    entry = {"attack": IDLG, "rounds": [1, 3]}
    live = run(tmp_path / "live", attacks=[{"peers": [peer], **entry}], save={"mail": [peer]}, **more)
    entries = attack(later := run(tmp_path / "later", save={"mail": [peer]}, **more), peer, **entry)
    assert_same(found(live), found(later))
    summaries = [json.loads((folder / "summary.json").read_text()) for folder in (live, later)]
    assert (
        [{**each, "seconds": 0} for each in summaries[0]["attacks"]]
        == [{**each, "seconds": 0} for each in summaries[1]["attacks"]]
        == [{**each, "seconds": 0} for each in entries]
    )


def test_real_processes_keep_the_same_mail_and_find_the_same_in_it(former: Path, tmp_path: Path) -> None:
    entry = {"attack": IDLG, "rounds": [1, 3], "victims": [0]}
    local = run(tmp_path / "local", engine="local", attacks=[{"peers": [2], **entry}], save={"mail": [2]})
    for ours, theirs in zip(pages_of(local, 2).values(), pages_of(former, 2).values(), strict=True):
        assert ours.heard.keys() == theirs.heard.keys() == {0, 1}
        for j in ours.heard:
            assert torch.equal(ours.heard[j][0].tensors["params"], theirs.heard[j][0].tensors["params"])
    live = found(local)
    attack(local, 2, **entry)
    assert len(live) == 2
    assert_same(live, found(local)[2:])


def test_what_one_peer_kept_as_said_the_other_kept_as_heard_and_its_own_is_its_model(former: Path) -> None:
    ones, twos = pages_of(former, 1), pages_of(former, 2)
    assert list(ones) == list(twos) == [1, 2, 3, 4]
    for r in ones:
        said, heard = ones[r].said[2], twos[r].heard[1]
        assert [(m.kind, m.round, dict(m.figures)) for m in said] == [(m.kind, m.round, dict(m.figures)) for m in heard]
        assert all(
            torch.equal(a.tensors[name], b.tensors[name])
            for a, b in zip(said, heard, strict=True)
            for name in a.tensors
        )
        model = safetensors.torch.load_file(former / "checkpoints" / "peer-1" / f"round-{r:06}.safetensors")
        names = [slot.name for slot in world_of(former).layout]
        assert torch.equal(ones[r].state.x_D, torch.cat([model[name].reshape(-1) for name in names]))


def test_mail_is_for_its_owners_eyes_and_does_not_hold_the_root_of_the_peers_randomness(tmp_path: Path) -> None:
    folder = run(tmp_path / "r", save={"mail": [2]}, sketch={"countsketch": {"ratio": 0.5}})
    files = [path for path in (folder / "mail").rglob("*") if path.is_file()]
    assert len(files) == 5
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in files)
    assert all(stat.S_IMODE(path.parent.stat().st_mode) == 0o700 for path in files)
    private = World(settings_of(), Seeds.of(4)).seat(2).me.private
    held = b"".join(path.read_bytes() for path in files)
    assert private.root not in held
    assert private.root.hex().encode() not in held
    secrets = bundle.read(folder / "mail" / "peer-2" / capture.ORIGIN, 1 << 30)["secrets"]
    assert {j: len(secret) for j, secret in secrets.items()} == {0: 16, 1: 16}


@pytest.mark.parametrize(
    "more", [{}, {"topology": {"random_regular": {"degree": 2}}}, {"partition": {"dirichlet": 0.5}}]
)
def test_a_run_without_a_seed_can_be_attacked_too(more: dict[str, Any], tmp_path: Path) -> None:
    folder = run(tmp_path / "r", seed=None, save={"mail": [2]}, **more)
    (entry,) = attack(folder, 2, **ANALYTIC)
    assert entry["mse"] < 1e-6
    assert entry["recovered"] == 1.0


def test_the_graph_of_each_round_is_kept_where_links_change(tmp_path: Path) -> None:
    more = {"topology": "one_peer_exponential", "peers": 4, "seed": None}
    folder = run(tmp_path / "r", save={"mail": [2]}, **more)
    assert {len(page.heard) for page in pages_of(folder, 2).values()} == {1}
    assert len({tuple(page.me.neighbours) for page in pages_of(folder, 2).values()}) > 1


def test_colluders_know_what_either_heard_and_attack_after_the_run_as_during_it(tmp_path: Path) -> None:
    ring: dict[str, Any] = {"topology": "ring", "peers": 4}
    entry = {"attack": IDLG, "rounds": [1, 2], "victims": [0]}
    later = run(tmp_path / "later", save={"mail": [1, 3]}, **ring)
    alone, together = attack(later, 1, **entry), attack(later, 3, 1, **entry)
    assert {each["attacker"] for each in alone} == {1}
    assert {each["attacker"] for each in together} == {"1+3"}
    assert {(each["knowledge"], each["threat"]) for each in together} == {("colluders", "coalition")}
    live = run(tmp_path / "live", attacks=[{"peers": [1, 3], "collude": True, **entry}], **ring)
    assert_same(found(live), [each for each in found(later) if each[0]["attacker"] == "1+3"])
    assert not list((live / "mail").glob("peer-*"))


def test_the_report_and_the_summary_of_the_run_tell_of_it(copy: Path) -> None:
    before = json.loads((copy / "summary.json").read_text())
    said = invoke("attack", copy, write(copy.parent, ANALYTIC), "--as", 2, "--set", "rounds=[1, 2]")
    assert said.exit_code == 0, said.output
    after = json.loads((copy / "summary.json").read_text())
    assert [(each["attacker"], each["victim"], each["round"]) for each in after["attacks"]] == [(2, 0, 1), (2, 0, 2)]
    assert {key: after[key] for key in before} == before
    assert after["leak"]["images"] == 2
    assert "analytic" in (copy / "report.html").read_text()
    assert "analytic on peer 0, round 2: plain" in said.output


def write(folder: Path, entry: Mapping[str, Any]) -> Path:
    path = folder / "attack.yaml"
    path.write_text(json.dumps(entry))
    return path


def invoke(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


@pytest.mark.parametrize(
    ("words", "entry", "complaint"),
    [
        (("--as", 0), {"attack": "analytic"}, "keeps no mail of peer 0: launch with 'save: {mail: [0]}'"),
        (("--as", 9), ANALYTIC, "no peer 9 (--as): there are 0 to 2"),
        (("--as", "hub"), ANALYTIC, "no group 'hub' (--as): there are none"),
        (("--as", 2), {**ANALYTIC, "rounds": [4]}, "rounds names round 4 of 4 (FILE:1): what peer 2 hears tells of"),
        (("--as", 2), {**ANALYTIC, "peers": [2]}, "peers is given in the attack (FILE:1): leave it out, --as says"),
        (("--as", 2), {**ANALYTIC, "victims": [2]}, "peer 2 is its own victim (FILE:1): leave it out of victims"),
        (("--as", 2), {"attack": "analytical"}, "no attack 'analytical' (FILE:1): did you mean 'analytic'?"),
        (("--as", 2), {"rounds": [1]}, "attack is missing (FILE:1): add 'attack: ...'"),
        (("--as", 2, "--set", "round=3"), ANALYTIC, "unknown key 'round' (--set round=3): did you mean 'rounds'?"),
        (("--as", 2, "--device", "cuda:77"), ANALYTIC, "this machine has"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(
    words: tuple[Any, ...], entry: dict[str, Any], complaint: str, former: Path, tmp_path: Path
) -> None:
    file = write(tmp_path, entry)
    said = invoke("attack", former, file, *words)
    assert said.exit_code == 2
    assert complaint.replace("FILE", str(file)) in said.output
    assert said.output.count("\n") == 1
    assert not (former / "attacks").exists()


def test_what_is_no_run_folder_is_said_to_be_none(tmp_path: Path) -> None:
    said = invoke("attack", tmp_path, write(tmp_path, ANALYTIC), "--as", 2)
    assert (said.exit_code, said.output.count("\n")) == (2, 1)
    assert "give the folder that `p2pfl launch` wrote" in said.output


def test_rounds_that_a_run_did_not_come_to_cannot_be_attacked(copy: Path) -> None:
    for r in (3, 4):
        (copy / "mail" / "peer-2" / f"round-{r:06}.safetensors").unlink()
    assert attack(copy, 2, **ANALYTIC)
    with pytest.raises(ScenarioError, match=r"rounds names round 2: the mail in .* tells of rounds 1 to 1"):
        attack(copy, 2, **{**ANALYTIC, "rounds": [1, 2]})


BROKEN: dict[str, dict[str, Any]] = {
    "of another round": {"round": 3},
    "not finite": {"own": torch.full((1210,), torch.nan)},
    "too few numbers": {"own": torch.zeros(3)},
    "of another type": {"own": torch.zeros(1210, dtype=torch.float64)},
    "from strangers": {"heard": {7: []}},
    "of no form": {"heard": {0: [{"kind": "params"}]}},
    "no mapping": {"said": 3},
    "no state": {"state": None},
    "another state": {"state": {"x_D": torch.zeros(1210)}},
    "state of too few numbers": {"state": SimpleNamespace(x_D=torch.zeros(1210), m_D=torch.zeros(3), pulled_D=0.0)},
    "state not finite": {
        "state": SimpleNamespace(x_D=torch.zeros(1210), m_D=None, pulled_D=torch.full((1210,), torch.inf))
    },
}


@pytest.mark.parametrize("change", BROKEN)
def test_a_page_that_is_not_what_it_should_be_is_refused_by_its_name(change: str, copy: Path) -> None:
    path = copy / "mail" / "peer-2" / "round-000002.safetensors"
    edit(path, **BROKEN[change])
    with pytest.raises(ScenarioError, match="round-000002"):
        attack(copy, 2, **ANALYTIC)


@pytest.mark.parametrize(
    "change",
    [
        {"peer": 1},
        {"scenario": "00000000"},
        {"rows": torch.tensor([10**9])},
        {"rows": torch.tensor([0.5])},
        {"shared": b"short"},
        {"secrets": {0: b"short"}},
        {"weights": {}},
        {"links": [[0, 9]]},
        {"learners": [0, 1, 9]},
        {"origin": torch.zeros(3)},
        {"start": torch.zeros(3)},
        {"start": None},
    ],
)
def test_a_peer_that_is_not_what_it_should_be_is_refused_by_its_name(change: dict[str, Any], copy: Path) -> None:
    path = copy / "mail" / "peer-2" / capture.ORIGIN
    edit(path, **change)
    with pytest.raises(ScenarioError, match=r"peer-2/origin\.safetensors"):
        attack(copy, 2, **ANALYTIC)


def test_files_that_are_cut_off_altered_or_swollen_are_refused_or_read_but_nothing_else_happens(copy: Path) -> None:
    path = copy / "mail" / "peer-2" / "round-000001.safetensors"
    whole, rng = path.read_bytes(), numpy.random.default_rng(7)
    refused = []
    for _ in range(60):
        raw = bytearray(whole)
        raw[int(rng.integers(1200))] = int(rng.integers(256))
        path.write_bytes(raw if rng.random() < 0.8 else raw[: int(rng.integers(len(raw)))])
        try:
            pages_of(copy, 2, until=1)
        except ScenarioError as error:
            refused.append(str(error))
    assert len(refused) > 30
    assert all(path.name in error for error in refused)
    path.write_bytes(whole + bytes(2 << 20))
    with pytest.raises(ScenarioError, match="at most"):
        pages_of(copy, 2)


KINDS_OF_RUN: dict[str, dict[str, Any]] = {
    "dense": {},
    "momentum": {"training": {"momentum": 0.9}, "algorithm": {"dpsgd": {"inertia": 0.2}}},
    "sketched": {"sketch": {"countsketch": {"ratio": 0.25}}},
    "leasgd": {"algorithm": {"leasgd": {"k": 1, "rho": 2.0}}},
    "star": {**STAR, "algorithm": {"fedavg": {"averaging": 0.5}}},
    "elastic": {"algorithm": "easgd", "topology": "star"},
    "changing links": {"topology": "one_peer_exponential", "peers": 4},
}


@pytest.mark.parametrize("kind", KINDS_OF_RUN)
def test_the_mail_takes_no_more_than_was_said_beforehand_and_not_much_less(kind: str, tmp_path: Path) -> None:
    more = {"model": {"mlp": {"hidden": [400]}}, "rounds": 3, **KINDS_OF_RUN[kind]}
    hub: list[int | str] = ["hub"] if more.get("topology") == "star" else []
    folder = run(tmp_path / "r", save={"mail": hub if kind == "elastic" else [1, *hub]}, **more)
    world = World(settings_of(**more), Seeds.of(4))
    for place in (folder / "mail").iterdir():
        name = place.name.removeprefix("peer-")
        took = sum(path.stat().st_size for path in place.iterdir())
        bound = capture.estimate(world, -1 if name == "hub" else int(name))
        assert took <= bound <= 5 * took


def test_more_mail_than_the_scenario_allows_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    file.write_text(json.dumps({**SMALL, "save": {"mail": [1, 2], "mail_bytes": 1e5}}))
    said = invoke("launch", file, "--out", tmp_path / "out")
    assert said.exit_code == 2
    assert said.output.startswith("save.mail would keep up to ")
    assert "raise save.mail_bytes above that" in said.output
    assert not (tmp_path / "out").exists()
    checked = invoke("check", file, "--set", "save.mail_bytes=1e9")
    assert "mail kept" in checked.output
    assert "kB of peers 1, 2" in checked.output
    assert "of records, of which examples each batch of all peers held" in " ".join(checked.output.split())


def test_it_is_said_about_how_long_the_record_grows_by_what_batches_held(former: Path) -> None:
    rows = [json.loads(line) for line in (former / "records.jsonl").read_text().splitlines()]
    took = sum(len(json.dumps([*row["held"].values()])) for row in rows if "held" in row)
    assert took / 3 < capture.logged_bytes(world_of(former)) < 3 * took


COLLUDE: dict[str, Any] = {"collude": True, "attack": "analytic", "rounds": [1, 2], "victims": [0]}


def test_colluders_who_kept_nonsense_have_failed_and_the_run_is_summed_up(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def broken(run: Path, world: World, page: Page, start_D: Tensor) -> None:
        written(run, world, page, start_D)
        if page.round == 2 and page.me.id == 3:
            edit(capture.place(run, 3) / "round-000002.safetensors", round="2")

    written = capture.write
    monkeypatch.setattr(capture, "write", broken)
    folder = run(tmp_path / "r", peers=4, attacks=[{"peers": [1, 3], **COLLUDE}])
    summary = json.loads((folder / "summary.json").read_text())
    (entry,) = summary["attacks"]
    assert (entry["attacker"], entry["victim"], entry["round"]) == ("1+3", 0, 1)
    assert "round-000002" in entry["failed"]
    assert summary["rounds"] == 4
    assert not (folder / "mail").exists()


def test_no_mail_is_read_when_there_is_no_more_time(copy: Path) -> None:
    for path in (copy / "mail" / "peer-2").glob("round-*"):
        path.write_bytes(b"nonsense")
    settings = settings_of(attacks=[{"peers": [1, 2], **COLLUDE}])
    heard: list[Any] = []
    afterwards.coalitions(copy, World(settings, Seeds.of(4)), lambda *said: heard.append(said), lambda: True)
    assert heard == []


def test_findings_go_into_the_folder_of_the_run_wherever_its_links_lead(copy: Path, tmp_path: Path) -> None:
    (copy / "attacks").mkdir()
    (copy / "attacks" / "peer-2").symlink_to(tmp_path)
    said = invoke("attack", copy, write(tmp_path, ANALYTIC), "--as", 2)
    assert said.exit_code == 2
    assert "attacks/peer-2 is a symbolic link: remove it" in said.output
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".json"] == []
    (copy / "attacks" / "peer-2").unlink()
    (target := tmp_path / "precious").write_text("mine")
    (copy / "summary.json.part").symlink_to(target)
    assert attack(copy, 2, **ANALYTIC)
    assert target.read_text() == "mine"


@pytest.mark.parametrize("kind", ["deep", "huge", "a device", "a list"])
def test_a_summary_that_is_none_is_left_as_it_is(kind: str, copy: Path) -> None:
    path = copy / "summary.json"
    path.unlink()
    match kind:
        case "deep":
            path.write_text('{"x": ' * 100_000 + "1" + "}" * 100_000)
        case "huge":
            with path.open("wb") as file:
                file.truncate(1 << 40)  # a hole: it takes no room
        case "a device":
            path.symlink_to("/dev/zero")
        case "a list":
            path.write_text("[1]")
    before = path.lstat()
    assert attack(copy, 2, **ANALYTIC)
    assert (path.lstat().st_ino, path.lstat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


@pytest.mark.parametrize("algorithm", ["choco", "local_only"])
def test_mail_that_no_attack_could_use_is_not_kept(algorithm: str, tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match=f"what the mail of {algorithm} tells peer 1 is not worked out"):
        run(tmp_path / "r", algorithm=algorithm, save={"mail": [1]})
    assert not (tmp_path / "r").exists()


def test_a_value_comes_back_as_it_was_and_code_as_nothing_but_its_fields(tmp_path: Path) -> None:
    page = {"floats": [0.1, -0.0, float("inf")], 3: {"bytes": b"\x00\xff", "none": None}, "x": torch.arange(3)}
    bundle.write(tmp_path / "a.safetensors", page)
    back = bundle.read(tmp_path / "a.safetensors", 1 << 20)
    assert {**back, "x": 0} == {**page, "x": 0}
    assert torch.equal(back["x"], torch.arange(3))
    bundle.write(tmp_path / "b.safetensors", {"seeds": Seeds(b"root")})
    assert vars(bundle.read(tmp_path / "b.safetensors", 1 << 20)["seeds"]) == {"root": b"root"}
    with pytest.raises(LocalError, match="it/0, which is of set"):
        bundle.write(tmp_path / "c.safetensors", {"it": [{1}]})


def test_keepers_and_the_keys_of_an_attack_are_offered_by_the_shell(former: Path) -> None:
    def offered(*words: object) -> list[str]:
        line = ["p2pfl", "attack", *map(str, words)]
        asked = {"_P2PFL_COMPLETE": "bash_complete", "COMP_WORDS": " ".join(line), "COMP_CWORD": str(len(line) - 1)}
        return CliRunner().invoke(main, prog_name="p2pfl", env=asked).output.splitlines()

    assert [word.rpartition(",")[2] for word in offered(former, "--as", "")] == ["1", "2"]
    assert "plain,attack.idlg.restarts=" in offered(former, "--set", "attack.idlg.r")
    assert "plain,rounds=" in offered(former, "--set", "r")
    assert not [word for word in offered(former, "--set", "") if "peers" in word]
