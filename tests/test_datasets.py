"""Data sets: how they are cut and scaled, and what is said when files are missing or broken."""

from __future__ import annotations

import gzip
import hashlib
import struct
import time
from pathlib import Path

import numpy
import pytest
import torch

from p2pfl import plugins
from p2pfl.errors import ScenarioError
from p2pfl.learning.data import Data, held
from p2pfl.learning.datasets import _files
from p2pfl.learning.datasets.digits import Digits
from p2pfl.learning.datasets.fashion_mnist import FashionMnist
from p2pfl.learning.datasets.mnist import Mnist
from p2pfl.learning.preparation import prepare

FOLDERS = {"mnist": Mnist, "fashion-mnist": FashionMnist}


def dump(array: numpy.ndarray) -> bytes:
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.astype(numpy.uint8).tobytes()


def images(count: int, seed: int) -> numpy.ndarray:
    return numpy.random.default_rng(seed).integers(0, 256, (count, 5, 4))


@pytest.fixture(params=sorted(FOLDERS))
def small(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with 50 and 20 pictures of 5 x 4 as four IDX files, the test part gzipped."""
    folder = tmp_path / request.param
    folder.mkdir()
    for part, count, ending, pack in (("train", 50, "", bytes), ("t10k", 20, ".gz", gzip.compress)):
        labels = numpy.arange(count) % 10
        (folder / f"{part}-images-idx3-ubyte{ending}").write_bytes(pack(dump(images(count, count))))
        (folder / f"{part}-labels-idx1-ubyte{ending}").write_bytes(pack(dump(labels)))
    monkeypatch.setenv("P2PFL_DATA", str(tmp_path))
    return folder


def test_a_folder_of_idx_files_is_a_data_set(small: Path) -> None:
    data_set = FOLDERS[small.name](normalise=False, validation=0.2)
    data_set.check()
    data = data_set.load()
    assert data.shape == (1, 5, 4)
    assert [len(y) for y in (data.train_y, data.validation_y, data.test_y)] == [40, 10, 20]
    expected = torch.from_numpy(images(20, 20) / 255).float()[:, None]
    torch.testing.assert_close(data.test_x, expected)
    whole = torch.cat([data.train_x, data.validation_x]).flatten(1).tolist()
    torch.testing.assert_close(
        torch.tensor(sorted(whole)), torch.tensor(sorted((images(50, 50) / 255).reshape(50, -1).tolist()))
    )


def test_checksums_are_those_of_the_files(small: Path) -> None:
    expected = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in small.iterdir()}
    assert FOLDERS[small.name]().checksums() == expected


def test_a_missing_file_is_named_with_its_folder_and_the_remedy(small: Path) -> None:
    (small / "t10k-labels-idx1-ubyte.gz").unlink()
    for act in (FOLDERS[small.name]().check, FOLDERS[small.name]().load, FOLDERS[small.name]().checksums):
        with pytest.raises(ScenarioError) as error:
            act()
        for word in ("t10k-labels-idx1-ubyte", str(small), "P2PFL_DATA"):
            assert word in str(error.value)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("train-images-idx3-ubyte", dump(numpy.zeros(50))),
        ("train-images-idx3-ubyte", dump(numpy.zeros((49, 5, 4)))),
        ("train-images-idx3-ubyte", dump(numpy.zeros((50, 0, 4)))),
        ("train-images-idx3-ubyte", b"<html>404</html>"),
        ("train-labels-idx1-ubyte", dump(numpy.full(50, 10))),
        ("train-labels-idx1-ubyte", dump(numpy.zeros((50, 1)))),
    ],
)
def test_files_that_do_not_fit_are_named(small: Path, file: str, content: bytes) -> None:
    (small / file).write_bytes(content)
    with pytest.raises(ScenarioError, match="train-"):
        FOLDERS[small.name]().load()


def test_without_the_variable_data_lie_in_the_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("P2PFL_DATA", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(ScenarioError, match=str(tmp_path / ".cache/p2pfl/datasets/mnist")):
        Mnist().check()


@pytest.mark.parametrize("name", plugins.names("datasets"))
@pytest.mark.parametrize("share", [1.0, -0.1, 1.5])
def test_a_validation_share_outside_its_range_is_refused_where_it_stands(name: str, share: float) -> None:
    if not any(field.name == "validation" for field in plugins.options_of(plugins.find("datasets", name))):
        pytest.skip("has no such option")
    needed = {
        option.name: "x" for option in plugins.options_of(plugins.find("datasets", name)) if option.name == "path"
    }
    with pytest.raises(ScenarioError, match=r"validation must lie in \[0, 1\), not") as error:
        plugins.build("datasets", name, {**needed, "validation": share})
    assert error.value.path == ("validation",)


def test_digits_need_nothing_and_are_cut_alike_each_time() -> None:
    Digits().check()
    first, second = Digits().load(), Digits().load()
    assert first.shape == (1, 8, 8)
    assert [len(y) for y in (first.train_y, first.validation_y, first.test_y)] == [1294, 143, 360]
    assert torch.equal(first.train_x, second.train_x)
    assert Digits().checksums() == {}
    assert first.train_x.dtype == torch.float32
    assert first.train_y.dtype == torch.int64
    rows = torch.cat([first.train_x, first.validation_x, first.test_x]).flatten(1)
    assert len(rows.unique(dim=0)) == 1797  # no example is in two parts


def test_the_test_part_of_digits_does_not_depend_on_the_validation_share() -> None:
    some, none = Digits(normalise=False).load(), Digits(normalise=False, validation=0.0).load()
    assert torch.equal(some.test_x, none.test_x)
    assert (len(none.validation_y), len(none.train_y)) == (0, 1437)


def test_the_cut_is_the_same_on_every_machine_and_version() -> None:
    """Labels as they were cut when this was written: whoever changes them changes every result."""
    data = Digits(normalise=False).load()
    assert data.test_y[:12].tolist() == [7, 9, 4, 7, 0, 2, 6, 1, 3, 1, 3, 7]
    assert data.validation_y[:12].tolist() == [6, 7, 7, 9, 0, 7, 0, 0, 3, 1, 4, 8]


def test_normalised_training_inputs_have_mean_0_and_deviation_1() -> None:
    x_NCHW = Digits().load().train_x.double()
    assert x_NCHW.mean().item() == pytest.approx(0, abs=1e-6)
    assert x_NCHW.std(correction=0).item() == pytest.approx(1, abs=1e-6)


def three_channels(normalise: bool) -> tuple[numpy.ndarray, Data]:
    rng = numpy.random.default_rng(0)
    raw = rng.integers(0, 256, (30, 3, 4, 4)).astype(numpy.uint8)
    raw[:, 1] //= 4
    raw[:, 2] = 9
    labels = rng.integers(0, 2, 30)
    parts = [held("some", raw[rows], labels[rows]) for rows in (slice(20), slice(20, None))]
    return raw, prepare(parts[:1], parts[1:], 0.0, normalise, classes=2)


def test_each_channel_is_scaled_by_the_training_part() -> None:
    raw, data = three_channels(normalise=True)
    x_NCHW = raw / 255
    mean = x_NCHW[:20].mean(axis=(0, 2, 3), keepdims=True)
    deviation = x_NCHW[:20].std(axis=(0, 2, 3), keepdims=True)
    deviation[:, 2] = 1  # a constant channel has nothing to divide by
    expected = torch.from_numpy((x_NCHW - mean) / deviation).float()
    torch.testing.assert_close(torch.cat([data.train_x, data.test_x]), expected, rtol=1e-5, atol=1e-6)


def test_without_normalising_inputs_lie_between_0_and_1() -> None:
    raw, data = three_channels(normalise=False)
    torch.testing.assert_close(data.train_x, torch.from_numpy(raw[:20] / 255).float())


def real(name: str) -> bool:
    return all(_files.present(_files.folder(name), file) for file in _files.IDX_NAMES)


@pytest.mark.parametrize("name", sorted(FOLDERS))
def test_the_real_files_load_in_about_a_second(name: str) -> None:
    if not real(name):
        pytest.skip(f"P2PFL_DATA holds no {name}")
    began = time.perf_counter()
    data = FOLDERS[name]().load()
    assert time.perf_counter() - began < 10  # 0.4 s on an idle core; this machine may be busy
    assert data.train_x.shape == (54000, 1, 28, 28)
    assert data.validation_y.shape == (6000,)
    assert data.test_y.bincount().sum() == 10000
    assert data.train_x.is_contiguous()
