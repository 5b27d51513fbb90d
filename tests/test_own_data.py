"""A user's own data: every form that is read, the columns that come of it, and one line for whatever is wrong."""

from __future__ import annotations

import pickle
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from PIL import Image

from p2pfl import plugins
from p2pfl.errors import ScenarioError
from p2pfl.learning.data import Data
from p2pfl.learning.datasets import cifar10
from p2pfl.learning.preparation import cuts, fixed_order

COUNT = 60
RAW = numpy.random.default_rng(0).integers(0, 256, (COUNT, 5, 4, 3)).astype(numpy.uint8)
LABELS = numpy.array(["cat", "dog", "eel"])[numpy.arange(COUNT) % 3]
PLAIN = {"normalise": False, "validation": 0.0}


def built(name: str, **options: Any) -> Any:
    return plugins.build("datasets", name, {key: str(v) if key == "path" else v for key, v in options.items()})


def refusal(name: str, **options: Any) -> str:
    with pytest.raises(ScenarioError) as error:
        built(name, **options).load()
    assert "\n" not in str(error.value)
    assert error.value.remedy
    return str(error.value)


def npz(path: Path) -> dict[str, Any]:
    numpy.savez(path / "mine.npz", x=RAW, y=LABELS, writer=numpy.arange(COUNT) % 7)
    return {"path": path / "mine.npz"}


def idx(path: Path) -> dict[str, Any]:
    for part, count in (("train", 40), ("t10k", 20)):
        images, labels = RAW[:count, :, :, 0], (numpy.arange(count) % 3 + 4).astype(numpy.uint8)
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            head = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
            (path / f"{part}-{kind}-ubyte").write_bytes(head + array.tobytes())
    return {"path": path}


def csv(path: Path) -> dict[str, Any]:
    pixels, writers = RAW[:, 0, 0].tolist(), RAW[:, 0, 1, 0] % 3
    rows = [f"{r},{g},{b},{label},{w}.txt" for (r, g, b), label, w in zip(pixels, LABELS, writers, strict=True)]
    (path / "mine.csv").write_text("\n".join(["red,green,blue,label,writer", *rows]))
    return {"path": path / "mine.csv"}


def image_folder(path: Path) -> dict[str, Any]:
    for at, (pixels, label) in enumerate(zip(RAW, LABELS, strict=True)):
        (path / label).mkdir(exist_ok=True)
        Image.fromarray(pixels).save(path / label / f"{at:03}.png")
    return {"path": path}


LAYOUTS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "npz": npz,
    "idx": idx,
    "csv": csv,
    "image_folder": image_folder,
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_own_data_become_a_data_set_like_any_other(name: str, tmp_path: Path) -> None:
    options = LAYOUTS[name](tmp_path)
    data_set = built(name, **options, validation=0.25)
    data_set.check()
    data, again = data_set.load(), data_set.load()
    assert [len(y) for y in (data.train_y, data.validation_y, data.test_y)] in ([36, 12, 12], [30, 10, 20])
    assert data.classes == 3
    for x, y, other in (
        (data.train_x, data.train_y, again.train_x),
        (data.validation_x, data.validation_y, again.validation_x),
        (data.test_x, data.test_y, again.test_x),
    ):
        assert (x.dtype, y.dtype, len(x)) == (torch.float32, torch.int64, len(y))
        assert x.shape[1:] == data.shape
        assert x.is_contiguous()
        assert torch.equal(x, other)
        assert set(y.tolist()) == {0, 1, 2}
    assert all(len(values) == len(data.train_y) for values in data.columns.values())
    axes = (0,) if data.shape[:2] == (1, 1) else (0, 2, 3)
    torch.testing.assert_close(data.train_x.double().mean(axes).float(), torch.zeros(data.train_x.mean(axes).shape))
    torch.testing.assert_close(data.train_x.std(axes, correction=0), torch.ones(data.train_x.mean(axes).shape))


@pytest.mark.parametrize("name", LAYOUTS)
def test_checksums_follow_the_files(name: str, tmp_path: Path) -> None:
    data_set = built(name, **LAYOUTS[name](tmp_path))
    before = data_set.checksums()
    assert before == data_set.checksums()
    assert all(len(digest) == 64 for digest in before.values())
    changed = sorted(path for path in tmp_path.rglob("*") if path.is_file())[0]
    changed.write_bytes(changed.read_bytes() + b"\n")
    assert data_set.checksums() != before


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_path_that_leads_nowhere_is_refused_before_anything_is_read(name: str, tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere", tmp_path if name != "image_folder" else tmp_path / "file"):
        with pytest.raises(ScenarioError, match=str(tmp_path)) as error:
            built(name, path=path).check()
        assert error.value.remedy


@pytest.mark.parametrize("name", ["npz", "csv", "image_folder"])
def test_the_test_share_must_be_one(name: str) -> None:
    for share in (0.0, 1.0, -0.1):
        with pytest.raises(ScenarioError, match=r"test must lie in \(0, 1\)") as error:
            built(name, path="x", test=share)
        assert error.value.path == ("test",)


@pytest.mark.parametrize("validation", [0.0, 0.1, 0.5])
def test_the_three_parts_share_no_example_and_leave_none_out(validation: float) -> None:
    for count, test in ((1797, 0.2), (10, 0.2), (7, 0.5), (100, 0.0)):
        parts = cuts(count, test, validation)
        assert sorted(numpy.concatenate(parts).tolist()) == list(range(count))
        assert abs(len(parts[2]) - test * count) < 1
    assert cuts(1797, 0.2, 0.1)[2].tolist() == fixed_order(1797)[-360:].tolist()


def loaded(tmp_path: Path, **arrays: numpy.ndarray) -> Data:
    numpy.savez(tmp_path / "some.npz", **arrays)
    data: Data = built("npz", path=tmp_path / "some.npz", **PLAIN).load()
    return data


def kept(count: int) -> numpy.ndarray:
    return cuts(count, 0.2, 0.0)[0]


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((10, 6), (1, 1, 6)),
        ((10, 6, 7), (1, 6, 7)),
        ((10, 6, 7, 3), (3, 6, 7)),
        ((10, 3, 6, 7), (3, 6, 7)),
        ((10, 4, 4, 1), (1, 4, 4)),
        ((10, 1, 4, 4), (1, 4, 4)),
        ((10, 3, 5, 3), (3, 3, 5)),
        ((10, 4, 9, 3), (3, 4, 9)),
    ],
)
@pytest.mark.parametrize("kind", ["uint8", "float32", ">f8", "float16"])
def test_arrays_of_every_form_are_brought_to_channels_first(
    shape: tuple[int, ...], expected: tuple[int, int, int], kind: str, tmp_path: Path
) -> None:
    x = numpy.random.default_rng(1).integers(0, 256, shape).astype(kind)
    data = loaded(tmp_path, x=x, y=numpy.arange(10) % 2)
    assert data.shape == expected
    four = x.reshape(10, *(1,) * (4 - x.ndim), *shape[1:])
    oracle = four if four.shape[1:] == expected else four.transpose(0, 3, 1, 2)
    oracle = oracle.astype(numpy.float64) / (255 if kind == "uint8" else 1)
    torch.testing.assert_close(data.train_x, torch.from_numpy(oracle[kept(10)]).float())


def test_packed_arrays_are_read_too(tmp_path: Path) -> None:
    x, y = numpy.random.default_rng(0).random((3000, 4)), numpy.arange(3000) % 5
    numpy.savez_compressed(tmp_path / "some.npz", x=x, y=y)
    data = built("npz", path=tmp_path / "some.npz", **PLAIN).load()
    torch.testing.assert_close(data.train_x[:, 0, 0], torch.from_numpy(x[kept(3000)]).float())
    assert data.train_y.tolist() == y[kept(3000)].tolist()


@pytest.mark.parametrize(
    "labels", [numpy.array([9, -4, 70]), numpy.array([2.5, -1.0, 10.0]), numpy.array(["b", "a", "c"])]
)
def test_labels_of_any_type_are_numbered_in_sorted_order(labels: numpy.ndarray, tmp_path: Path) -> None:
    data = loaded(tmp_path, x=RAW, y=labels[numpy.arange(COUNT) % 3])
    assert data.train_y.tolist() == [(1, 0, 2)[row % 3] for row in kept(COUNT)]


def test_a_given_test_part_is_taken_as_it_is(tmp_path: Path) -> None:
    data = loaded(tmp_path, x=RAW[:40], y=LABELS[:40], x_test=RAW[40:], y_test=LABELS[40:])
    assert (len(data.train_y), len(data.test_y)) == (40, 20)
    assert data.test_y.tolist() == [row % 3 for row in range(40, 60)]
    torch.testing.assert_close(data.train_x, torch.from_numpy(RAW[:40] / 255).float().permute(0, 3, 1, 2))


def test_columns_keep_to_their_examples_through_both_cuts(tmp_path: Path) -> None:
    x = numpy.arange(COUNT, dtype=numpy.float64)[:, None]
    numpy.savez(tmp_path / "a.npz", x=x, y=LABELS, row=numpy.arange(COUNT), note=numpy.array("not a column"))
    data = built("npz", path=tmp_path / "a.npz", normalise=False, validation=0.3).load()
    assert list(data.columns) == ["row"]
    assert data.columns["row"].tolist() == data.train_x.flatten().int().tolist()
    assert data.examples.column("row").tolist() == data.columns["row"].tolist()


def test_a_folder_of_files_knows_which_file_an_example_comes_from(tmp_path: Path) -> None:
    for at, name in enumerate("abc"):
        x = numpy.full((20, 2), at, numpy.float32)
        numpy.savez(tmp_path / f"{name}.npz", x=x, y=numpy.arange(20) % 2)
        text = "\n".join(["v,label", *(f"{at},{row % 2}" for row in range(20))])
        (tmp_path / f"{name}.csv").write_text(text)
    for name in ("npz", "csv"):
        data = built(name, path=tmp_path, **PLAIN).load()
        values = data.train_x[:, 0, 0, 0].int().tolist()
        assert data.columns["file"].tolist() == [f"{'abc'[value]}.{name}" for value in values]


def test_large_numbers_that_differ_little_are_not_lost(tmp_path: Path) -> None:
    """In float32 there are 128 seconds between two neighbouring times of today; a constant has nothing to divide by."""
    x = numpy.stack([1.7e9 + numpy.arange(50), numpy.full(50, 0.1), numpy.arange(50) / 7], axis=1)
    numpy.savez(tmp_path / "some.npz", x=x, y=numpy.arange(50) % 2)
    data = built("npz", path=tmp_path / "some.npz", validation=0.0).load()
    rows = x[kept(50)]
    for at, expected in enumerate([(rows - rows.mean(0)) / rows.std(0), None, (rows - rows.mean(0)) / rows.std(0)]):
        feature = data.train_x[:, 0, 0, at]
        oracle = torch.zeros(40) if expected is None else torch.from_numpy(expected[:, at]).float()
        torch.testing.assert_close(feature, oracle, rtol=1e-4, atol=1e-5)


def test_images_of_floats_are_scaled_channel_by_channel_by_the_training_part(tmp_path: Path) -> None:
    x = numpy.random.default_rng(0).random((2500, 3, 4, 5)) * numpy.array([1, 1e3, 0])[:, None, None] + 0.1
    numpy.savez(tmp_path / "some.npz", x=x, y=numpy.arange(2500) % 2)
    data = built("npz", path=tmp_path / "some.npz", validation=0.1).load()
    train, held_out, tests = cuts(2500, 0.2, 0.1)
    mean, deviation = (f(x[train], axis=(0, 2, 3), keepdims=True) for f in (numpy.mean, numpy.std))
    deviation[:, 2] = 1  # a constant channel has nothing to divide by
    for rows, part in ((train, data.train_x), (held_out, data.validation_x), (tests, data.test_x)):
        torch.testing.assert_close(part, torch.from_numpy((x[rows] - mean) / deviation).float(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("normalise", [True, False])
def test_an_array_is_never_held_twice(normalise: bool, tmp_path: Path) -> None:
    x = numpy.random.default_rng(0).random((20_000, 200), numpy.float32)
    numpy.savez(tmp_path / "large.npz", x=x, y=numpy.arange(20_000) % 3)
    data_set, size_bytes = built("npz", path=tmp_path / "large.npz", normalise=normalise), x.nbytes
    del x
    tracemalloc.start()
    data_set.load()
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 1.4 * size_bytes  # a chunk of 1,024 rows in float64 is a tenth of it


class Bomb:
    """What must never be executed."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("exploded"),)


def test_nothing_that_is_read_is_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    bomb = numpy.array([Bomb()] * 3, object)
    numpy.savez("bomb.npz", x=RAW[:3], y=bomb, allow_pickle=True)
    assert "holds Python objects in its array 'y'" in refusal("npz", path="bomb.npz")
    numpy.savez("bomb.npz", x=RAW[:3], y=LABELS[:3], other=bomb, allow_pickle=True)
    assert "holds Python objects" in refusal("npz", path="bomb.npz")
    Path("pickle.npz").write_bytes(pickle.dumps(Bomb()))
    assert "cannot be read as .npz" in refusal("npz", path="pickle.npz")
    assert not Path("exploded").exists()


def not_finite() -> numpy.ndarray:
    x = numpy.zeros((COUNT, 2))
    x[41, 1] = numpy.nan
    return x


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"x": RAW}, "has no array 'y', it has x"),
        ({"x": RAW, "y": LABELS[:-1]}, "(array 'y') is <U3 of shape (59,)"),
        ({"x": RAW, "y": LABELS[:, None]}, "(array 'y') is <U3 of shape (60, 1)"),
        ({"x": RAW[0, 0, 0], "y": LABELS[:3]}, "(array 'x') has the shape (3,)"),
        ({"x": RAW[..., :2].copy(), "y": LABELS}, "C of 1, 3 or 4"),
        ({"x": RAW[:, :0], "y": LABELS}, "has the shape (60, 0, 4, 3)"),
        ({"x": RAW.astype(int), "y": LABELS}, "holds int64: give bytes"),
        ({"x": RAW[:0], "y": LABELS[:0]}, "holds no examples"),
        ({"x": RAW, "y": numpy.zeros(COUNT)}, "has the label 0.0 only"),
        ({"x": RAW, "y": numpy.where(numpy.arange(COUNT) == 5, numpy.nan, 1)}, "no finite label for example 5"),
        ({"x": not_finite(), "y": LABELS}, "(array 'x') holds a number that is not finite in example 41"),
        ({"x": numpy.full((COUNT, 2), numpy.inf), "y": LABELS}, "holds a number that is not finite in example 0"),
        ({"x": RAW, "y": LABELS, "x_test": RAW}, "has no array 'y_test'"),
        ({"x": RAW, "y": LABELS, "x_test": RAW[:, 1:], "y_test": LABELS}, "holds uint8 of (3, 4, 4)"),
        ({"x": RAW, "y": LABELS, "x_test": RAW, "y_test": numpy.arange(COUNT)}, "mix numbers and words"),
        ({"x": RAW, "y": LABELS, "x_test": RAW[:1], "y_test": numpy.array(["fox"])}, "label fox, which no training"),
        ({"x": numpy.asfortranarray(RAW), "y": LABELS}, "column by column"),
        ({"x": RAW[:1], "y": LABELS[:1]}, "has the label cat only"),
    ],
)
def test_arrays_that_do_not_fit_are_named(arrays: dict[str, numpy.ndarray], said: str, tmp_path: Path) -> None:
    numpy.savez(tmp_path / "some.npz", **arrays)
    for options in ({}, {"normalise": False}):
        line = refusal("npz", path=tmp_path / "some.npz", **options)
        assert said in line
        assert "some.npz" in line


def test_broken_npz_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "some.npz"
    numpy.savez(path, x=RAW, y=LABELS)
    whole = path.read_bytes()
    for content in (
        b"",
        b"PK\3\4",
        whole[:-40],
        whole[: len(whole) // 2],
        whole.replace(b"\x93NUMPY\1", b"\x93NUMPY\7"),
    ):
        path.write_bytes(content)
        assert "some.npz" in refusal("npz", path=path)
    path.write_bytes(whole[:300] + bytes([whole[300] ^ 1]) + whole[301:])  # its CRC is wrong then
    assert "some.npz" in refusal("npz", path=path)
    for packing, content in (
        (zipfile.ZIP_STORED, b"\x93NUMPY\1\0\x0a\0((((((((((" + bytes(99)),
        (zipfile.ZIP_LZMA, bytes(range(256))),
    ):
        with zipfile.ZipFile(path, "w", packing) as archive:
            archive.writestr("x.npy", content)
        held = bytearray(path.read_bytes())
        if packing == zipfile.ZIP_LZMA:
            held[60:90] = bytes(byte ^ 0x5A for byte in held[60:90])
        path.write_bytes(held)
        assert "some.npz cannot be read as .npz" in refusal("npz", path=path)


def test_files_of_a_folder_must_be_alike(tmp_path: Path) -> None:
    numpy.savez(tmp_path / "a.npz", x=RAW, y=LABELS)
    numpy.savez(tmp_path / "b.npz", x=RAW, y=LABELS, writer=numpy.arange(COUNT))
    assert "differ in 'writer'" in refusal("npz", path=tmp_path)
    numpy.savez(tmp_path / "b.npz", x=RAW, y=LABELS, x_test=RAW, y_test=LABELS)
    assert "a.npz has no x_test, others have" in refusal("npz", path=tmp_path)
    (tmp_path / "a.csv").write_text("v,label\n1,0\n2,1\n")
    (tmp_path / "b.csv").write_text("w,label\n1,0\n2,1\n")
    assert "b.csv has another header" in refusal("csv", path=tmp_path)


TABLE = 'age, town,zip,"label"\n' + "".join(f"{20 + n},{'Bonn' if n % 2 else '14'},{n},{n % 11}\n" for n in range(50))


def test_a_table_has_numbers_as_features_and_words_as_columns(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("\ufeff" + TABLE.replace(",14,", ",Köln,") + "\n", encoding="utf-8")
    data = built("csv", path=tmp_path / "t.csv", columns=["zip"], **PLAIN).load()
    rows = kept(50)
    assert data.shape == (1, 1, 1)
    assert data.train_x.flatten().tolist() == (20.0 + rows).tolist()
    assert data.train_y.tolist() == (rows % 11).tolist()  # numbers: 10 comes after 9
    assert data.columns["town"].tolist() == ["Bonn" if row % 2 else "Köln" for row in rows]
    assert data.columns["zip"].tolist() == [str(row) for row in rows]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "holds no examples"),
        ("a,label\n", "holds no examples"),
        ("a;label\n1;2\n", "has no column 'label': name one of a;label"),
        ("a,label\n1,0\n2,1,3\n", "has 3 values in line 3, its header 2"),
        ("a,label\n1\n", "has 1 values in line 2, its header 2"),
        ("a,label\n1,0\n\n2,\n", "has no label in line 4"),
        ("a,label\n1,0\nnan,1\n", "has 'nan' for the number 'a' in line 3"),
        ("a,label\n1,0\n,1\n", "has '' for the number 'a' in line 3"),
        ("a,label\n1,0\nn/a,1\n", "has 'n/a' for the number 'a' in line 3"),
        ("a,label\nx,0\ny,1\n", "has no column of numbers beside 'label'"),
        (",a,label\n0,1,0\n", "calls column 1 ''"),
        ("a,a,label\n0,1,0\n", "calls column 2 'a'"),
        ("a,label\n1,0\n2,0\n", "has the label 0.0 only"),
        ('a,label\n"1,0\n', "is broken in line 2"),
        ("a,b,label\n,1,0\n2,3,1\n", "has no value for 'a' in line 2"),
        ("\n\na,label\n1,2,3\n", "has 3 values in line 4, its header 2"),
        ("a,label\n1,\xff\n", "is no text in UTF-8"),
    ],
)
def test_tables_that_are_wrong_are_named_with_the_line(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(text.encode("latin-1"))
    line = refusal("csv", path=tmp_path / "t.csv")
    assert said in line
    assert "t.csv" in line


def test_a_column_to_keep_out_must_be_there(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(TABLE)
    said = refusal("csv", path=tmp_path / "t.csv", columns=["Zip"])
    assert "has no column 'Zip': name one of age, town, zip, label" in said
    assert "has 'Bonn' for the number 'town' in line 3" in refusal("csv", path=tmp_path / "t.csv")
    assert "has no column 'y'" in refusal("csv", path=tmp_path / "t.csv", label="y")


def test_pictures_are_those_of_their_folders(tmp_path: Path) -> None:
    data = built("image_folder", **image_folder(tmp_path), **PLAIN).load()
    order = numpy.argsort(LABELS, kind="stable")  # folder by folder
    rows = order[kept(COUNT)]
    torch.testing.assert_close(data.train_x, torch.from_numpy(RAW[rows] / 255).float().permute(0, 3, 1, 2))
    assert data.train_y.tolist() == (rows % 3).tolist()


def test_grey_pictures_have_one_channel_and_any_colour_makes_three(tmp_path: Path) -> None:
    for at in range(8):
        (tmp_path / f"train/{at % 2}").mkdir(parents=True, exist_ok=True)
        (tmp_path / f"test/{at % 2}").mkdir(parents=True, exist_ok=True)
        for part in ("train", "test"):
            Image.fromarray(RAW[at, :, :, 0]).save(tmp_path / f"{part}/{at % 2}/{at}.png")
    data = built("image_folder", path=tmp_path, **PLAIN).load()
    assert data.shape == (1, 5, 4)
    assert (len(data.train_y), len(data.test_y)) == (8, 8)
    torch.testing.assert_close(data.test_x[0, 0], torch.from_numpy(RAW[0, :, :, 0] / 255).float())
    Image.fromarray(RAW[0]).save(tmp_path / "test/1/colour.webp", lossless=True)
    assert built("image_folder", path=tmp_path).load().shape == (3, 5, 4)


def test_pictures_of_several_sizes_are_resized_if_asked(tmp_path: Path) -> None:
    image_folder(tmp_path)
    Image.fromarray(numpy.zeros((9, 9, 3), numpy.uint8)).save(tmp_path / "eel/large.png")
    said = refusal("image_folder", path=tmp_path)
    assert "large.png is 9 x 9 pixels, the first picture 5 x 4: give size: [5, 4]" in said
    assert built("image_folder", path=tmp_path, size=[7, 6]).load().shape == (3, 7, 6)
    with pytest.raises(ScenarioError, match="size must be a height and a width") as error:
        built("image_folder", path=tmp_path, size=[0, 6])
    assert error.value.path == ("size",)


def test_pictures_that_are_none_are_named(tmp_path: Path) -> None:
    image_folder(tmp_path)
    broken = tmp_path / "dog/broken.png"
    whole = (tmp_path / "dog/001.png").read_bytes()
    for content in (b"", b"<html>", whole[:60]):
        broken.write_bytes(content)
        assert "broken.png cannot be read as a picture" in refusal("image_folder", path=tmp_path)
    Image.fromarray(numpy.zeros((5, 4), numpy.uint16)).save(broken)
    assert "broken.png is a picture of mode 'I;16': save it with 8 bits" in refusal("image_folder", path=tmp_path)
    broken.unlink()
    (tmp_path / "empty").mkdir()
    assert f"no picture in {tmp_path}/empty" in refusal("image_folder", path=tmp_path)
    (tmp_path / "train").mkdir()
    assert "holds train, but not the other" in refusal("image_folder", path=tmp_path)


def test_one_class_alone_is_refused_everywhere(tmp_path: Path) -> None:
    (tmp_path / "only").mkdir()
    Image.fromarray(RAW[0]).save(tmp_path / "only/a.png")
    assert "has the label only only" in refusal("image_folder", path=tmp_path)


@pytest.fixture
def cifar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Six files of 20 examples of CIFAR's form."""
    folder = tmp_path / cifar10.NAME
    folder.mkdir()
    rng = numpy.random.default_rng(0)
    for member in cifar10.MEMBERS:
        rows = rng.integers(0, 256, (20, 3073)).astype(numpy.uint8)
        rows[:, 0] = numpy.arange(20) % 10
        (tmp_path / member.path).write_bytes(rows.tobytes())
    monkeypatch.setenv("P2PFL_DATA", str(tmp_path))
    return folder


def test_cifar_10_is_read_channel_by_channel(cifar: Path) -> None:
    data = built("cifar10", **PLAIN).load()
    assert (data.shape, len(data.train_y), len(data.test_y), data.classes) == ((3, 32, 32), 100, 20, 10)
    raw = (cifar / "data_batch_2.bin").read_bytes()
    assert data.train_y[23] == raw[3 * 3073] == 3
    for channel, row, column in ((0, 0, 0), (1, 2, 3), (2, 31, 30)):
        expected = raw[3 * 3073 + 1 + 1024 * channel + 32 * row + column] / 255
        assert data.train_x[23, channel, row, column].item() == pytest.approx(expected)
    assert len(built("cifar10").checksums()) == 6


def test_cifar_10_that_is_missing_or_broken_is_named(cifar: Path) -> None:
    (cifar / "data_batch_3.bin").write_bytes(b"\xff" * 3073)
    assert "data_batch_3.bin holds a label outside 0..9" in refusal("cifar10")
    (cifar / "data_batch_3.bin").write_bytes(bytes(3072))
    assert "data_batch_3.bin has 3,072 bytes" in refusal("cifar10")
    (cifar / "data_batch_3.bin").unlink()
    said = refusal("cifar10")
    assert f"no file data_batch_3.bin in {cifar}: run 'p2pfl data cifar10', or set P2PFL_DATA" in said


def faces(folder: Path, **left_out: None) -> None:
    arrays = {
        "image": numpy.random.default_rng(0).integers(0, 256, (30, 62, 47, 3)).astype(numpy.uint8),
        "male": (numpy.arange(30) % 2).astype(numpy.int8),
        "race": numpy.array(["A", "B", "C"])[numpy.arange(30) % 3],
        "name": numpy.array([f"Ada_B_{n % 5}_{n:04}.jpg" for n in range(30)]),
    }
    (folder / "lfw").mkdir(exist_ok=True)
    numpy.savez(folder / "lfw/lfw.npz", **{name: array for name, array in arrays.items() if name not in left_out})


def test_lfw_has_a_person_a_race_and_a_sex_for_each_face(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("P2PFL_DATA", str(tmp_path))
    assert "run 'p2pfl data lfw', or set P2PFL_DATA" in refusal("lfw")
    faces(tmp_path)
    for target, classes in (("male", 2), ("race", 3), ("name", 5)):
        data = built("lfw", target=target, validation=0.0).load()
        assert (data.shape, data.classes, len(data.test_y)) == ((3, 62, 47), classes, 6)
        values, codes = numpy.unique(data.columns[target], return_inverse=True)
        assert data.train_y.tolist() == codes.tolist()
        assert len(values) == classes
    assert set(data.columns["name"]) == {f"Ada_B_{n}" for n in range(5)}
    rows = kept(30)
    assert data.columns["race"].tolist() == [("A", "B", "C")[row % 3] for row in rows]
    numbered = {"image": numpy.zeros((30, 62, 47, 3), numpy.uint8), "name": numpy.arange(30) % 5}
    numpy.savez(tmp_path / "lfw/lfw.npz", **numbered)
    assert built("lfw", target="name").load().classes == 5
    faces(tmp_path, race=None)
    assert "lfw.npz has no array 'race', it has image, male, name: take target: name" in refusal("lfw", target="race")
    faces(tmp_path, image=None)
    assert "has no array 'image'" in refusal("lfw")


def test_the_real_faces_load(monkeypatch: pytest.MonkeyPatch) -> None:
    data_set = built("lfw", target="race", normalise=False)
    if not data_set.kept()[0].is_file():
        pytest.skip("P2PFL_DATA holds no lfw")
    data = data_set.load()
    assert data.shape == (3, 62, 47)
    assert data.classes == 5
    assert len(data.train_y) == len(data.columns["name"]) > 2 * len(set(data.columns["name"]))
