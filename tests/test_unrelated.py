"""The unrelated project that has our name: where it is installed too the command says so, and refuses what it broke."""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
VERSION = "0.4.3"
THEIR_INIT = b'"""P2PFL: a federated learning library over gRPC."""\n\n__version__ = "0.4.3"\n'
REMEDY = "run 'pip uninstall p2pfl', then install p2pfl-zmq again"


def write_distribution(site: Path, name: str, version: str, files: Iterable[Path]) -> None:
    """The dist-info folder that pip leaves of a wheel with these files."""
    folder = site / f"{name.replace('-', '_')}-{version}.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    rows = []
    for path in files:
        digest = base64.urlsafe_b64encode(hashlib.sha256(path.read_bytes()).digest()).rstrip(b"=").decode()
        rows.append(f"{path.relative_to(site).as_posix()},sha256={digest},{path.stat().st_size}\n")
    (folder / "RECORD").write_text("".join([*rows, f"{folder.name}/RECORD,,\n"]))


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder of packages in which pip has installed ours, from a wheel."""
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "p2pfl", tmp_path / "p2pfl", ignore=ignore)
    for room in ("cli", "topologies", "scenarios"):
        shutil.copytree(ROOT / room, tmp_path / "p2pfl" / room, ignore=ignore)
    write_distribution(tmp_path, "p2pfl-zmq", "0.1.0", (path for path in tmp_path.rglob("*.*") if path.is_file()))
    return tmp_path


def install_theirs(site: Path, first: bool = False) -> None:
    """As pip does: files that are there are overwritten by whoever comes last."""
    ours = (site / "p2pfl" / "__init__.py").read_bytes()
    theirs = {"__init__.py": THEIR_INIT, "node.py": b"class Node: ...\n"}
    for name, text in theirs.items():
        (site / "p2pfl" / name).write_bytes(text)
    write_distribution(site, "p2pfl", VERSION, [site / "p2pfl" / name for name in theirs])
    if first:
        (site / "p2pfl" / "__init__.py").write_bytes(ours)


def command(site: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-c", "from p2pfl.cli import main; main(prog_name='p2pfl')", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(site)}
    return subprocess.run(words, cwd=site, env=environment, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("arguments", [("--help",), ("completion", "fish")])
def test_alone_nothing_is_said(arguments: tuple[str, ...], site: Path) -> None:
    ended = command(site, *arguments)
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.parametrize("arguments", [("--help",), ("completion", "fish")])
def test_beside_it_the_command_says_so_in_one_line_and_goes_on(arguments: tuple[str, ...], site: Path) -> None:
    alone = command(site, *arguments).stdout
    install_theirs(site, first=True)
    ended = command(site, *arguments)
    assert (ended.returncode, ended.stdout) == (0, alone)
    (line,) = ended.stderr.splitlines()
    assert line.startswith(f"the unrelated distribution p2pfl {VERSION} is installed beside ours")
    assert line.endswith(REMEDY)


@pytest.mark.parametrize("arguments", [("--help",), ("completion", "fish"), ("launch", "quickstart")])
def test_with_its_package_in_place_of_ours_the_command_refuses(arguments: tuple[str, ...], site: Path) -> None:
    install_theirs(site)
    ended = command(site, *arguments)
    assert (ended.returncode, ended.stdout) == (2, "")
    (line,) = ended.stderr.splitlines()
    assert line.startswith(f"{site / 'p2pfl' / '__init__.py'} is not that of p2pfl-zmq")
    assert f"overwritten by the unrelated distribution p2pfl {VERSION}" in line
    assert line.endswith(REMEDY)
    assert not (site / "runs").exists()


def test_a_file_further_in_that_it_overwrote_is_named(site: Path) -> None:
    install_theirs(site, first=True)
    broken = site / "p2pfl" / "learning" / "__init__.py"
    record = site / f"p2pfl-{VERSION}.dist-info" / "RECORD"
    record.write_text(record.read_text() + "p2pfl/learning/__init__.py,,\n")
    assert command(site, "--help").returncode == 0, "both may have it, as long as ours is the one that is there"
    broken.write_text('"""Learning over gRPC."""\n')
    ended = command(site, "--help")
    assert ended.returncode == 2
    assert ended.stderr.startswith(f"{broken} is not that of p2pfl-zmq, overwritten by")


def test_when_it_took_our_package_along_on_leaving_the_command_says_what_to_do(site: Path) -> None:
    (site / "p2pfl" / "__init__.py").unlink()
    ended = command(site, "--help")
    assert (ended.returncode, ended.stdout) == (2, "")
    (line,) = ended.stderr.splitlines()
    assert "__init__.py" in line
    assert "missing" in line
    assert "install p2pfl-zmq again" in line


def test_it_is_found_in_another_folder_that_python_imports_from(
    site: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    write_distribution(elsewhere, "p2pfl", VERSION, [])
    ended = command(site, "--help")
    assert ended.stderr == ""
    words = [sys.executable, "-c", "from p2pfl.cli import main; main()", "--help"]
    environment = {**os.environ, "PYTHONPATH": f"{site}{os.pathsep}{elsewhere}"}
    said = subprocess.run(words, env=environment, capture_output=True, text=True, check=True).stderr
    assert f"p2pfl {VERSION} is installed" in said


def test_looking_for_it_costs_less_than_five_milliseconds() -> None:
    from p2pfl.cli import _unrelated

    took_s = []
    for _ in range(5):
        began_s = time.perf_counter()
        _unrelated.ready()
        took_s.append(time.perf_counter() - began_s)
    assert min(took_s) < 0.005
