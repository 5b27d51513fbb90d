"""What is built from this tree holds all that a run needs, under one top-level name."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).parent.parent
PARTS = ("p2pfl", "cli", "topologies", "scenarios", "pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md")


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what is built from: building leaves things behind."""
    copy = tmp_path_factory.mktemp("tree")
    for name in PARTS:
        part = ROOT / name
        if part.is_dir():
            shutil.copytree(part, copy / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        else:
            shutil.copy(part, copy / name)
    return copy


def built(tree: Path, hook: str) -> Path:
    """What the build backend makes, as pip has it made."""
    script = f"import setuptools.build_meta as b; print(b.build_{hook}('made'))"
    (tree / "made").mkdir(exist_ok=True)
    ended = subprocess.run([sys.executable, "-c", script], cwd=tree, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return tree / "made" / ended.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def wheel(tree: Path) -> set[str]:
    """The names of all files in the wheel."""
    with zipfile.ZipFile(built(tree, "wheel")) as archive:
        return set(archive.namelist())


@pytest.fixture(scope="module")
def sdist(tree: Path) -> set[str]:
    """The names of all files in the source distribution, below its one folder."""
    with tarfile.open(built(tree, "sdist")) as archive:
        return {str(PurePosixPath(*PurePosixPath(name).parts[1:])) for name in archive.getnames()}


def sources(folder: str) -> set[str]:
    """The files of a folder that a run needs."""
    found = (path for path in (ROOT / folder).rglob("*") if path.suffix in (".py", ".html", ".yaml", ".typed"))
    return {path.relative_to(ROOT).as_posix() for path in found}


def test_the_wheel_has_one_top_level_name_beside_what_pip_reads(wheel: set[str]) -> None:
    tops = {PurePosixPath(name).parts[0] for name in wheel}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"p2pfl"}


def test_the_wheel_holds_every_module_scenario_and_page(wheel: set[str]) -> None:
    assert sources("p2pfl") <= wheel
    for room in ("cli", "topologies", "scenarios"):
        assert {f"p2pfl/{name}" for name in sources(room)} <= wheel
    assert {"p2pfl/py.typed", "p2pfl/report/page.html", "p2pfl/scenarios/quickstart.yaml"} <= wheel


def test_the_wheel_holds_no_test_and_no_leftover(wheel: set[str]) -> None:
    assert not [name for name in wheel if "test" in PurePosixPath(name).name or "__pycache__" in name]


def test_the_source_distribution_can_be_built_from(sdist: set[str]) -> None:
    for room in ("p2pfl", "cli", "topologies", "scenarios"):
        assert sources(room) <= sdist
    assert {"pyproject.toml", "README.md", "LICENSE"} <= sdist


def test_the_wheel_names_the_command_and_carries_the_licence(tree: Path, wheel: set[str]) -> None:
    assert [name for name in wheel if name.endswith(".dist-info/licenses/LICENSE")]
    with zipfile.ZipFile(next((tree / "made").glob("*.whl"))) as archive:
        entries = archive.read(next(name for name in wheel if name.endswith("entry_points.txt"))).decode()
        described = archive.read(next(name for name in wheel if name.endswith("METADATA"))).decode()
    assert "p2pfl = p2pfl.cli:main" in entries
    assert "Name: p2pfl-zmq" in described
    assert "License-Expression: Apache-2.0" in described
