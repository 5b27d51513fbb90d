"""Whatever the README tells a reader to type works as it stands."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path

import pytest

import p2pfl
from p2pfl.errors import ScenarioError
from p2pfl.plugins import options_of
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
WITH_PLUGINS = [line for block in SHELL if block.about for line in block.text.splitlines()]


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder where a reader types along, with the scenario that the README has them save."""
    folder = tmp_path_factory.mktemp("desk")
    (explained,) = [block for block in BLOCKS if block.language == "yaml"]
    (folder / "mine.yaml").write_text(explained.text)
    return folder


def run(words: list[str], folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(BIN), os.environ.get("PATH", "")])
    env = {**os.environ, "PATH": path, **environment}
    return subprocess.run(words, cwd=folder, env=env, capture_output=True, text=True, timeout=240, check=False)


def shortened(words: list[str]) -> list[str]:
    """Scenarios on MNIST run for two rounds: here it matters that the command works."""
    return [*words, "--set", "rounds=2"] if words[1] == "launch" and words[2].startswith("mnist") else words


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


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_readme_works(command: str, desk: Path) -> None:
    words = shlex.split(command)
    assert words[0] == "p2pfl"
    if words[1] == "launch" and words[2] in shipped():
        try:
            read(words[2])
        except ScenarioError as error:
            if "P2PFL_DATA" not in str(error):
                raise
            pytest.skip(f"needs data: {error}")
    if words[1] == "report" and not (desk / words[2]).exists():
        assert run([str(BIN / "p2pfl"), "launch", "quickstart", "--out", words[2]], desk).returncode == 0
    ended = run(shortened(words), desk)
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
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package, laid out as it is when it is installed, with the README's plug-ins in it."""
    tree = tmp_path_factory.mktemp("copy")
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "p2pfl", tree / "p2pfl", ignore=ignore)
    for room in ("cli", "topologies", "scenarios"):
        shutil.copytree(ROOT / room, tree / "p2pfl" / room, ignore=ignore)
    for path, text in PLUGINS.items():
        inner = path if path.startswith("p2pfl/") else f"p2pfl/{path}"
        assert (tree / inner).parent.is_dir()
        assert not (tree / inner).exists(), "an example should be new"
        (tree / inner).write_text(text)
    return tree


@pytest.mark.parametrize("command", WITH_PLUGINS)
def test_plug_ins_of_the_readme_run_by_being_there(command: str, copy: Path) -> None:
    here = f"import sys, p2pfl; assert p2pfl.__file__.startswith({str(copy)!r}); from p2pfl.cli import main; main()"
    words = [sys.executable, "-c", here, *shlex.split(command)[1:]]
    ended = run(words, copy, PYTHONPATH=str(copy))
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_plug_ins_of_the_readme_are_listed_checked_and_clean(copy: Path) -> None:
    here = [sys.executable, "-c", "from p2pfl.cli import main; main()"]
    said = run([*here, "list"], copy, PYTHONPATH=str(copy)).stdout
    assert "  exponential: Each peer is linked to" in said
    assert "  diffusion: Train, then go" in said
    refused = run([*here, "check", "quickstart", "--set", "topology.exponential.base=1"], copy, PYTHONPATH=str(copy))
    assert refused.returncode == 2
    assert "base is 1" in refused.stderr
    assert "must be at least 2" in refused.stderr


def test_the_exponential_graph_is_what_the_readme_says(copy: Path) -> None:
    script = """
        from p2pfl.scenario import graph, read
        drawn = graph(read({"name": "x", "topology": "exponential"}))
        print(sorted(drawn[0]))
    """
    ended = run([sys.executable, "-c", textwrap.dedent(script)], copy, PYTHONPATH=str(copy))
    assert ended.stdout == "[1, 2, 4, 6, 7]\n", ended.stderr


def test_every_file_and_picture_that_the_readme_points_at_is_there() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        if not target.startswith("https://"):
            assert (ROOT / target).is_file(), target
    assert (ROOT / "docs" / "report.png").stat().st_size <= 300_000


def test_every_heading_that_the_readme_points_at_is_there() -> None:
    titles = [
        re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in re.findall(r"^## (.*)$", README, re.M)
    ]
    assert set(re.findall(r"\]\(#([^)]+)\)", README)) <= set(titles)


def test_what_is_not_built_is_named() -> None:
    chapter = README[README.index("## What is not built yet") :]
    for key in UNBUILT:
        if key != "tune":
            assert f"`{key}`" in chapter, key


def test_the_summary_has_no_figure_that_the_readme_does_not_explain(tmp_path: Path) -> None:
    settings = ["peers=3", "rounds=2", "engine=simulate"]
    record = p2pfl.launch("quickstart", tmp_path / "out", settings)
    table = README[README.index("| key | meaning |") :]
    for key in record.summary:
        assert f"`{key}" in table, key
    files = README[README.index("| file | what it holds |") :]
    assert {path.name for path in record.folder.iterdir()} == set(re.findall(r"^\| `([\w.]+)` \|", files, re.M)[:7])
