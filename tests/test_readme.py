"""Whatever the README tells a reader to type works as it stands."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path

import pytest

import p2pfl
from p2pfl.errors import ScenarioError
from p2pfl.plugins import options_of
from p2pfl.runtime.sweeps import matrix
from p2pfl.scenario import UNBUILT, Scenario, read, shipped

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BIN = Path(sys.executable).parent


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, what stands behind that, and its text."""

    language: str
    about: str
    text: str


BLOCKS = [Block(*found) for found in re.findall(r"^```(\w*) ?(.*)\n((?:.*\n)*?)```$", README, re.MULTILINE)]
OPENING, *SHELL = [block for block in BLOCKS if block.language == "sh"]
COMMANDS = [line for block in SHELL if not block.about for line in block.text.splitlines()]
PLUGINS = {block.about: block.text for block in BLOCKS if block.language == "python" and block.about}
WITH_PLUGINS = [line for block in SHELL if block.about == "plug-ins" for line in block.text.splitlines()]
(COMPARING,) = [block.text.strip() for block in SHELL if block.about == "compare"]
(CAPTURING,) = [block.text for block in SHELL if block.about == "capture"]
MAKERS = {words[words.index("--out") + 1]: words for words in map(shlex.split, reversed(COMMANDS)) if "--out" in words}
"""The folders and files that commands of the README make, and the first that makes each."""
DONE: dict[str, subprocess.CompletedProcess[str]] = {}
"""What came of the commands that were typed so far: each is typed once at a desk."""


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder where a reader types along, with the scenario that the README has them save."""
    folder = tmp_path_factory.mktemp("desk")
    explained, sweep = [block for block in BLOCKS if block.language == "yaml"]
    (folder / "mine.yaml").write_text(explained.text)
    (folder / f"{sweep.about}.yaml").write_text(sweep.text)
    return folder


def run(words: list[str], folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(BIN), os.environ.get("PATH", "")])
    env = {**os.environ, "PATH": path, **environment}
    return subprocess.run(words, cwd=folder, env=env, capture_output=True, text=True, timeout=240, check=False)


def shortened(words: list[str]) -> list[str]:
    """Scenarios on MNIST run for two rounds, with little time for attacks: here it matters that the command works."""
    if words[1] != "launch" or not words[2].startswith(("mnist", "dbcl", "leasgd", "leakage")):
        return words
    brief = ["attacks.0.rounds=[1]", "attacks.0.victims=[1]", "attacks.0.seconds=2"]
    sets = ["rounds=2", *(brief if words[2].startswith("leakage") else [])]
    return [*words, *(part for setting in sets for part in ("--set", setting))]


def test_the_readme_opens_with_two_commands_each_enough_by_itself() -> None:
    before = README[: README.index(OPENING.text)]
    assert len(before.splitlines()) <= 4
    lines = OPENING.text.splitlines()
    assert len(lines) == 2
    for line in lines:
        assert line.startswith("python3 -m venv .venv && .venv/bin/pip install ")
    assert lines[0].endswith("pip install . && .venv/bin/p2pfl launch quickstart")
    assert "install -e '.[test]'" in lines[1]
    assert lines[1].endswith(".venv/bin/python -m pytest")


def test_continuous_integration_runs_exactly_the_test_command_of_the_readme() -> None:
    (literal,) = re.findall(
        r"^test_command=\$\(cat <<'END'\n(.*)\nEND\n\)$", (ROOT / ".ci" / "run").read_text(), re.MULTILINE
    )
    assert literal == OPENING.text.splitlines()[1]


def typed(words: list[str], desk: Path) -> subprocess.CompletedProcess[str]:
    """Type a command, after those former ones whose folders it is about."""
    for name in {word.rpartition("=")[2] for word in words} & MAKERS.keys():
        if MAKERS[name] != words:
            assert typed(MAKERS[name], desk).returncode == 0
    if (line := shlex.join(words)) not in DONE:
        DONE[line] = run(shortened(words), desk)
    return DONE[line]


def test_any_runs_can_be_compared_as_the_readme_says(desk: Path) -> None:
    ended = typed(shlex.split(COMPARING), desk)
    assert ended.returncode == 0, ended.stderr
    assert {"comparison.html", "runs.csv"} <= {path.name for path in desk.iterdir()}


def test_mail_that_a_run_kept_is_attacked_as_the_readme_says(desk: Path) -> None:
    ended = run(["sh", "-ec", CAPTURING], desk)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    found = json.loads((desk / "kept" / "summary.json").read_text())["attacks"]
    assert [(entry["method"], entry["attacker"], entry["victim"], entry["round"]) for entry in found] == [
        ("dlg", 0, 1, 1),
        ("dlg", 0, 1, 3),
    ]


def test_the_curious_peer_finds_what_the_readme_shows(desk: Path) -> None:
    (command,) = [line for line in COMMANDS if line.endswith("--out spied")]
    assert typed(shlex.split(command), desk).returncode == 0
    leak = json.loads((desk / "spied" / "summary.json").read_text())["leak"]
    assert (leak["images"], leak["recovered"]) == (4, 1.0)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_readme_works(command: str, desk: Path) -> None:
    words = shlex.split(command)
    assert words[0] == "p2pfl"
    if words[1] == "launch" and words[2] in shipped():
        try:
            if matrix.cases(words[2]) is None:
                read(words[2])
        except ScenarioError as error:
            if "P2PFL_DATA" not in str(error):
                raise
            pytest.skip(f"needs data: {error}")
    ended = typed(words, desk)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "Traceback" not in ended.stdout + ended.stderr


def test_the_explained_scenario_names_every_key_with_its_default(desk: Path) -> None:
    explained = (desk / "mine.yaml").read_text()
    assert set(re.findall(r"^(\w+):", explained, re.MULTILINE)) == {option.name for option in options_of(Scenario)}
    settings, default = read(desk / "mine.yaml"), read({"name": "explained"})
    differing = {o.name for o in options_of(Scenario) if getattr(settings, o.name) != getattr(default, o.name)}
    assert differing == {"seed", "model", "sketch", "evaluate"}
    assert settings.evaluate.every == default.evaluate.every
    assert settings.evaluate.split == default.evaluate.split


def test_the_python_of_the_readme_works(desk: Path) -> None:
    (script,) = [block.text for block in BLOCKS if block.language == "python" and not block.about]
    (desk / "script.py").write_text(script)
    ended = run([sys.executable, "script.py"], desk)
    assert ended.returncode == 0, ended.stderr
    assert re.fullmatch(r"0\.\d+\nsmall \d+\n", ended.stdout)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the README's plug-ins where it says to put them."""
    folder = tmp_path_factory.mktemp("bench")
    for path, text in PLUGINS.items():
        (folder / path).parent.mkdir(parents=True)
        (folder / path).write_text(text)
    return folder


@pytest.mark.parametrize("command", WITH_PLUGINS)
def test_plug_ins_of_the_readme_run_by_being_there(command: str, bench: Path) -> None:
    ended = run(shlex.split(command), bench)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "chordal_ring" in ended.stdout or "launch" in command


def test_plug_ins_of_the_readme_do_not_run_unasked(bench: Path) -> None:
    refused = run(["p2pfl", "check", "quickstart", "--set", "topology=chordal_ring"], bench)
    assert refused.returncode == 2
    assert "plugins/topologies/chordal_ring.py" in refused.stderr
    assert "--allow-code" in refused.stderr


def test_a_wrong_option_of_a_plug_in_of_the_readme_is_refused(bench: Path) -> None:
    words = ["p2pfl", "check", "quickstart", "--allow-code", "--set", "topology.chordal_ring.chord=1"]
    refused = run(words, bench)
    assert refused.returncode == 2
    assert "chord is 1" in refused.stderr
    assert "must be at least 2" in refused.stderr


def test_the_chordal_ring_is_what_the_readme_says(bench: Path) -> None:
    script = """
        from p2pfl import scenario
        chosen = {"name": "x", "topology": "chordal_ring"}
        scenario.allow_code(chosen)
        print(sorted(scenario.graph(scenario.read(chosen))[0]))
    """
    ended = run([sys.executable, "-c", textwrap.dedent(script)], bench)
    assert ended.stdout == "[1, 3, 5, 7]\n", ended.stderr


def test_every_file_and_picture_that_the_readme_points_at_is_there() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        if not target.startswith("https://"):
            assert (ROOT / target).is_file(), target
    assert all(picture.stat().st_size <= 300_000 for picture in (ROOT / "docs").iterdir())


def test_every_heading_that_the_readme_points_at_is_there() -> None:
    titles = [
        re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in re.findall(r"^## (.*)$", README, re.M)
    ]
    assert set(re.findall(r"\]\(#([^)]+)\)", README)) <= set(titles)


def test_what_is_not_built_is_named() -> None:
    chapter = README[README.index("## What is not built yet") :]
    for key in UNBUILT:
        assert f"`{key}`" in chapter, key


def test_the_summary_has_no_figure_that_the_readme_does_not_explain(tmp_path: Path) -> None:
    settings = ["peers=3", "rounds=2", "engine=simulate"]
    record = p2pfl.launch("quickstart", tmp_path / "out", settings)
    table = README[README.index("| key | meaning |") :]
    for key in record.summary:
        assert f"`{key}" in table, key
    files = README[README.index("| file | what it holds |") :]
    assert {path.name for path in record.folder.iterdir()} == set(re.findall(r"^\| `([\w.]+)` \|", files, re.M)[:7])
