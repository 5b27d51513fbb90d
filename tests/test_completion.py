"""TAB in a shell: verbs, options, scenarios, rooms, engines, and the keys and values of --set; at once."""

from __future__ import annotations

import os
import pty
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner
from p2pfl.cli import main

from p2pfl import plugins, scenario
from p2pfl.contracts import Training

BIN = Path(sys.executable).parent
HEAVY = {"torch", "numpy", "networkx", "yaml", "rich", "zmq", "msgpack", "sklearn", "matplotlib"}
ENVIRONMENT = {
    **os.environ,
    "PATH": f"{BIN}{os.pathsep}{os.environ.get('PATH', '')}",
    "PS1": "$ ",
    "INPUTRC": "/dev/null",
}


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("script") / "p2pfl.bash"
    path.write_text(CliRunner().invoke(main, ["completion", "bash"]).stdout)
    return path


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    (tmp_path / "mine.yaml").touch()
    (tmp_path / "notes.txt").touch()
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "inner.yml").touch()
    return tmp_path


def offered(script: Path, desk: Path, *words: str) -> list[str]:
    """What bash offers for the last of the words, which are split as bash splits them."""
    line = " ".join(map(shlex.quote, words))
    asked = f"source {script}; COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; _p2pfl_completion p2pfl"
    said = subprocess.run(
        ["bash", "--norc", "-c", f"{asked}; printf '%s\\n' \"${{COMPREPLY[@]}}\""],
        cwd=desk, env=ENVIRONMENT, capture_output=True, text=True, timeout=20, check=True,
    )  # fmt: skip
    return said.stdout.splitlines()


def test_verbs_options_and_rooms_are_offered(script: Path, desk: Path) -> None:
    verbs = {path.stem for path in (Path(__file__).parent.parent / "cli").glob("[!_]*.py")}
    assert verbs <= set(offered(script, desk, "p2pfl", ""))
    assert offered(script, desk, "p2pfl", "launch", "x", "--s") == ["--set"]
    assert offered(script, desk, "p2pfl", "list", "sk") == ["sketches"]
    assert set(offered(script, desk, "p2pfl", "list", "")) == set(plugins.ROOMS)


def test_data_sets_and_families_of_peer_graphs_with_graph_files_are_offered(script: Path, desk: Path) -> None:
    from p2pfl.topologies._graph_files import FORMATS

    graphs = {f"lab{ending}" for ending in FORMATS}
    for name in graphs:
        (desk / name).touch()
    assert offered(script, desk, "p2pfl", "data", "") == list(plugins.names("datasets"))
    assert offered(script, desk, "p2pfl", "data", "fa") == ["fashion_mnist"]
    families = {*plugins.names("topologies"), *graphs, "notes.txt", "more/"}
    assert set(offered(script, desk, "p2pfl", "topology", "")) == families
    assert offered(script, desk, "p2pfl", "topology", "lab.g") == ["lab.graphml"]


def test_scenarios_that_come_along_yaml_files_and_folders_are_offered(script: Path, desk: Path) -> None:
    assert set(offered(script, desk, "p2pfl", "launch", "")) == {*scenario.shipped(), "mine.yaml", "more/"}
    assert offered(script, desk, "p2pfl", "check", "m") == [
        *(name for name in scenario.shipped() if name.startswith("m")),
        "mine.yaml",
        "more/",
    ]
    assert offered(script, desk, "p2pfl", "launch", "more/") == ["more/inner.yml"]
    in_folder = [name for name in scenario.shipped() if name.startswith("dbcl/")]
    assert offered(script, desk, "p2pfl", "launch", "dbcl/") == in_folder != []


@pytest.mark.parametrize("words", [("--engine", ""), ("--engine", "=")])
def test_engines_are_offered(words: tuple[str, ...], script: Path, desk: Path) -> None:
    assert offered(script, desk, "p2pfl", "launch", "quickstart", *words) == list(plugins.names("engines"))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["training.l"], ["training.lr=", "training.local_steps=", "training.local_epochs="]),
        (["pee"], ["peers="]),
        (["algo"], ["algorithm=", "algorithm."]),
        (["evaluate"], ["evaluate."]),
        (["sketch.co"], ["sketch.countsketch."]),
        (["sketch.countsketch.ra"], ["sketch.countsketch.ratio="]),
        (["sketch", "=", "co"], ["countsketch"]),
        (["model", "="], list(plugins.names("models"))),
        (["evaluate.split", "="], ["validation", "test"]),
        (["sketch.countsketch.balanced", "=", "f"], ["false"]),
        (["training.lr", "="], [""]),
        (["nonsense.x"], [""]),
        (["seed", "=", "3", "--set", "evaluate.t"], ["evaluate.target="]),
    ],
)
def test_keys_and_values_of_a_setting_are_offered(
    words: list[str], expected: list[str], script: Path, desk: Path
) -> None:
    assert offered(script, desk, "p2pfl", "launch", "quickstart", "--set", *words)[: len(expected)] == expected


def test_a_file_is_offered_after_a_setting(script: Path, desk: Path) -> None:
    assert offered(script, desk, "p2pfl", "launch", "--set", "seed", "=", "3", "quick") == ["quickstart"]


def test_every_key_of_a_scenario_and_every_option_of_a_plugin_is_offered(script: Path, desk: Path) -> None:
    from p2pfl.cli import _words

    def keys(path: str) -> set[str]:
        found = _words.settings(None, None, path)  # type: ignore[arg-type]
        return {word.removeprefix(path).rstrip("=.") for word in found}

    assert keys("") == {option.name for option in plugins.options_of(scenario.Scenario)}
    assert keys("training.") == {option.name for option in plugins.options_of(Training)}
    for key, slot in scenario.SLOTS.items():
        assert keys(f"{key}.") == set(plugins.names(slot.room))
        for name in plugins.names(slot.room):
            known = {option.name for option in plugins.options_of(plugins.find(slot.room, name))}
            assert keys(f"{key}.{name}.") == known, f"{key}.{name}"


def test_nothing_is_offered_or_said_after_a_verb_that_there_is_not(script: Path, desk: Path) -> None:
    assert not [word for word in offered(script, desk, "p2pfl", "lanch", "q") if word]


QUICK = (
    *("p2pfl launch qu", "p2pfl launch x --set algorithm=le", "p2pfl list sk"),
    *("p2pfl data fa", "p2pfl topology toru"),
)


@pytest.mark.parametrize("words", QUICK)
def test_it_is_quick_and_imports_nothing_heavy(words: str, desk: Path) -> None:
    code = "import sys, atexit; atexit.register(lambda: print(*sys.modules, file=sys.stderr));"
    code += "from p2pfl.cli import main; main(prog_name='p2pfl')"
    asked = {"COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1), "_P2PFL_COMPLETE": "zsh_complete"}
    took_s = []
    for _ in range(3):
        began_s = time.monotonic()
        ended = subprocess.run(
            [sys.executable, "-c", code], cwd=desk, env=ENVIRONMENT | asked, capture_output=True, text=True, check=True
        )
        took_s.append(time.monotonic() - began_s)
        assert len(ended.stdout.splitlines()) == 3
        assert not HEAVY & set(ended.stderr.split())
    assert min(took_s) < 0.4


@pytest.mark.parametrize(
    ("typed", "becomes"),
    [
        ("launch quicks\t--set rou\t4", "launch quickstart --set rounds=4"),
        ("launch quickstart --set sket\t.count\trat\t", "launch quickstart --set sketch.countsketch.ratio="),
        ("check mine\t--set algorithm=leas\tx", "check mine.yaml --set algorithm=leasgd x"),
        ("check more/\t", "check more/inner.yml "),
    ],
)
def test_at_a_real_prompt_a_word_that_goes_on_is_not_closed(typed: str, becomes: str, script: Path, desk: Path) -> None:
    ours, theirs = pty.openpty()
    bash = subprocess.Popen(
        ["bash", "--norc", "--noprofile", "-i"], cwd=desk, env=ENVIRONMENT, stdin=theirs, stdout=theirs, stderr=theirs,
        start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    os.write(ours, f"source {script}\n".encode())
    os.write(ours, f"p2pfl {typed}\x01echo '<\x05>'; exit\n".encode())
    said = b""
    try:
        while part := os.read(ours, 4096):
            said += part
    except OSError:  # how Linux says that the other end of a terminal is closed
        pass
    bash.wait(timeout=10)
    os.close(ours)
    assert f"<p2pfl {becomes}>" in said.decode(), said.decode()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_each_shell_is_printed_and_the_help_says_where_it_belongs(shell: str) -> None:
    said = CliRunner().invoke(main, ["completion", shell])
    assert said.exit_code == 0
    assert f"_P2PFL_COMPLETE={shell}_complete" in said.stdout
    assert f"p2pfl completion {shell}" in CliRunner().invoke(main, ["completion", "--help"]).stdout


def test_another_shell_is_refused() -> None:
    assert CliRunner().invoke(main, ["completion", "csh"]).exit_code == 2
