"""`p2pfl data` says which data sets are here, and brings those that are not."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy
import pytest
from click.testing import CliRunner, Result
from p2pfl.cli import main
from PIL import Image

from p2pfl import plugins
from p2pfl.errors import ScenarioError
from p2pfl.learning.datasets import _files
from p2pfl.learning.datasets.lfw import Lfw

NO_NETWORK = {name: "http://127.0.0.1:9" for name in ("http_proxy", "https_proxy")} | {"no_proxy": "127.0.0.1"}
"""Public mirrors are out of reach, the one on loopback is not."""


class Quiet(SimpleHTTPRequestHandler):
    """Serves a folder, and says nothing."""

    def log_message(self, format: str, *args: object) -> None:
        """Nothing is printed."""


@pytest.fixture
def own_mirror(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder, and the address at which it is served."""
    folder = tmp_path / "mirror"
    folder.mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def data(*arguments: str, **environment: str) -> Result:
    """The verb, with these variables of the environment."""
    return CliRunner(env=NO_NETWORK | environment).invoke(main, ["data", *arguments])


def test_the_table_says_of_each_data_set_whether_it_is_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("P2PFL_DATA", str(tmp_path))
    (tmp_path / "mnist").mkdir()
    for file in _files.IDX_NAMES:
        (tmp_path / "mnist" / file).write_bytes(bytes(1000))
    (tmp_path / "fashion-mnist").mkdir()
    (tmp_path / "fashion-mnist/t10k-labels-idx1-ubyte.gz").write_bytes(b"")
    said = CliRunner().invoke(main, ["data"]).stdout
    lines = said.splitlines()
    about = {line.partition(":")[0]: after for line, after in zip(lines[::2], lines[1::2], strict=True)}
    assert tuple(about) == plugins.names("datasets")
    assert about["mnist"].strip() == f"here; {tmp_path}/mnist (4.0 kB); to use it: data: mnist"
    assert about["fashion_mnist"].strip().startswith("1 of 4 files; ")
    assert about["fashion_mnist"].strip().endswith("; to fetch the rest: p2pfl data fashion_mnist")
    folder = f"{tmp_path}/cifar-10-batches-bin"
    assert about["cifar10"].strip() == f"not here; {folder}; to fetch it: p2pfl data cifar10"
    assert about["digits"].strip() == "here, it comes along; to use it: data: digits"
    assert about["npz"].strip() == "for files of your own; to use it: data: {npz: {path: ...}}"


def test_a_name_that_nobody_knows_and_one_that_needs_nothing() -> None:
    unknown = CliRunner().invoke(main, ["data", "fashion-mnist"])
    assert unknown.exit_code == 2
    assert "did you mean 'fashion_mnist'?" in unknown.stderr
    for name, said in (
        ("digits", "digits: nothing to fetch, here, it comes along; to use it: data: digits"),
        ("csv", "csv: nothing to fetch, for files of your own; to use it: data: {csv: {path: ...}}"),
    ):
        known = CliRunner().invoke(main, ["data", name])
        assert known.exit_code == 0
        assert said in known.stdout
    assert CliRunner().invoke(main, ["data", "mnist", "--all"]).exit_code == 2


def test_mnist_comes_from_a_mirror_of_ones_own_and_is_whole(own_mirror: tuple[Path, str], tmp_path: Path) -> None:
    real = _files.folder("mnist")
    if not all((real / f"{file}.gz").is_file() for file in _files.IDX_NAMES):
        pytest.skip("P2PFL_DATA holds no mnist")
    folder, address = own_mirror
    (folder / "mnist").symlink_to(real.resolve())
    here = str(tmp_path / "data")
    command = [sys.executable, "-m", "p2pfl.cli", "data", "mnist"]
    environment = os.environ | NO_NETWORK | {"P2PFL_MIRROR": address, "P2PFL_DATA": here}
    came = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert came.returncode == 0, came.stderr
    assert came.stdout.count(f"fetched from {address}/mnist/") == 4
    assert "mnist/train-images-idx3-ubyte.gz: 100 %" in came.stdout
    for file in _files.IDX_NAMES:
        assert (tmp_path / "data/mnist" / f"{file}.gz").read_bytes() == (real / f"{file}.gz").read_bytes()
    again = data("mnist", P2PFL_DATA=here)
    assert again.exit_code == 0
    assert again.stdout.count("was there, its checksum is right") == 4


def test_what_cannot_be_fetched_is_one_line_and_exit_code_2(own_mirror: tuple[Path, str], tmp_path: Path) -> None:
    folder, address = own_mirror
    (folder / "cifar-10-binary.tar.gz").write_bytes(b"<html>not here</html>")
    ended = data("cifar10", P2PFL_MIRROR=address, P2PFL_DATA=str(tmp_path / "data"))
    assert ended.exit_code == 2
    (line,) = ended.stderr.splitlines()
    assert f"{address}/cifar-10-binary.tar.gz offers 21 bytes where the file has 170,052,171" in line
    assert "www.cs.toronto.edu" in line
    assert [path for path in (tmp_path / "data").rglob("*") if path.is_file()] == []


def test_lfw_comes_by_scikit_learn_with_images_and_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder laid out as scikit-learn leaves it after its download."""
    home = tmp_path / "scikit_learn_data/lfw_home"
    for name, count in (("Ada_Lovelace", 6), ("Alan_Turing", 7)):
        (home / "lfw_funneled" / name).mkdir(parents=True)
        for at in range(1, count + 1):
            pixels = numpy.full((250, 250, 3), (10 * at, 100, 200), numpy.uint8)
            Image.fromarray(pixels).save(home / "lfw_funneled" / name / f"{name}_{at:04}.jpg", quality=100)
    for file in ("pairsDevTrain.txt", "pairsDevTest.txt", "pairs.txt"):
        (home / file).write_bytes(b"")
    ended = data("lfw", SCIKIT_LEARN_DATA=str(home.parent), P2PFL_DATA=str(tmp_path))
    assert ended.exit_code == 0, ended.stderr
    assert [path.name for path in (tmp_path / "lfw").iterdir()] == ["lfw.npz"]
    monkeypatch.setenv("P2PFL_DATA", str(tmp_path))
    loaded = Lfw(target="name", normalise=False, validation=0.0).load()
    assert loaded.shape == (3, 62, 47)
    assert (loaded.classes, len(loaded.train_y), len(loaded.test_y)) == (2, 10, 3)
    assert set(loaded.columns["name"]) == {"Ada_Lovelace", "Alan_Turing"}
    greens, blues = loaded.train_x[:, 1] * 255, loaded.train_x[:, 2] * 255
    assert (greens - 100).abs().max() <= 2  # what JPEG makes of them
    assert (blues - 200).abs().max() <= 2
    with pytest.raises(ScenarioError, match=r"lfw\.npz has no array 'male', it has image, name: take target: name"):
        Lfw().load()
    assert "was there" in data("lfw", P2PFL_DATA=str(tmp_path)).stdout


def test_when_scikit_learn_fails_that_is_one_line(tmp_path: Path) -> None:
    """A file lies where scikit-learn wants its folder: the quick way to make it fail."""
    (tmp_path / "lfw_home").mkdir()
    (tmp_path / "lfw_home/lfw_funneled").write_bytes(b"a file where a folder must be")
    for file in ("pairsDevTrain.txt", "pairsDevTest.txt", "pairs.txt"):
        (tmp_path / "lfw_home" / file).write_bytes(b"")
    ended = data("lfw", SCIKIT_LEARN_DATA=str(tmp_path), P2PFL_DATA=str(tmp_path))
    assert ended.exit_code == 2, ended.stderr
    assert "scikit-learn cannot fetch LFW" in ended.stderr
    assert not (tmp_path / "lfw/lfw.npz").exists()
