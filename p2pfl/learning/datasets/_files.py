"""Where files of data sets lie, and how a folder of four IDX files becomes a data set.

The folder is $P2PFL_DATA, or ~/.cache/p2pfl/datasets: the one setting that comes from the environment, since it
says where this machine keeps things and nothing about the experiment.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from p2pfl.errors import ScenarioError
from p2pfl.learning import idx
from p2pfl.learning.data import Data, prepare

PARTS = ("train", "t10k")
IDX_NAMES = tuple(f"{part}-{kind}-ubyte" for part in PARTS for kind in ("images-idx3", "labels-idx1"))


def folder(name: str) -> Path:
    """Where the files of the data set `name` lie on this machine."""
    return Path(os.environ.get("P2PFL_DATA", "~/.cache/p2pfl/datasets")).expanduser() / name


def present(where: Path, file: str) -> Path | None:
    """The file in that folder, plain or gzipped; None when there is neither."""
    return next((path for path in (where / file, where / f"{file}.gz") if path.is_file()), None)


def idx_files(name: str) -> dict[str, Path]:
    """The four files of an IDX data set. Raises ScenarioError that says where it looked, and for what."""
    where = folder(name)
    found = {file: present(where, file) for file in IDX_NAMES}
    missing = [file for file, path in found.items() if path is None]
    if missing:
        raise ScenarioError(
            f"no file {missing[0]}(.gz) in {where}",
            f"put the four files of {name} there, or set P2PFL_DATA to the folder that holds {name}/",
        )
    return {file: path for file, path in found.items() if path is not None}


def load_idx(name: str, classes: int, validation: float, normalise: bool) -> Data:
    """The data set of a folder of four IDX files. Raises ScenarioError when a file is missing or broken."""
    files = idx_files(name)
    train, test = (
        read_pair(files[f"{part}-images-idx3-ubyte"], files[f"{part}-labels-idx1-ubyte"], classes) for part in PARTS
    )
    return prepare(train, test, classes, validation, normalise)


def read_pair(images: Path, labels: Path, classes: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Bytes of N x 1 x H x W and their N labels. Raises ScenarioError when the two files do not fit."""
    x_NHW = idx.parse(whole(images), str(images))
    y_N = idx.parse(whole(labels), str(labels))
    if x_NHW.ndim != 3 or x_NHW.dtype.kind != "u" or x_NHW.size == 0:
        raise ScenarioError(f"{images} holds {x_NHW.dtype} of shape {x_NHW.shape}", "it must hold images of bytes")
    if y_N.shape != x_NHW.shape[:1] or y_N.dtype.kind not in "ui":
        problem = f"{labels} holds {y_N.dtype} of shape {y_N.shape} for {len(x_NHW)} images"
        raise ScenarioError(problem, "it must hold one whole number an image")
    if y_N.min() < 0 or y_N.max() >= classes:
        raise ScenarioError(f"{labels} holds a label outside 0..{classes - 1}", idx.REMEDY)
    return x_NHW[:, None], y_N


def whole(path: Path) -> bytes:
    """All bytes of a file. Raises ScenarioError where it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise ScenarioError(f"cannot read {path}, {error.strerror}", "let this user read it") from None


def checksums(files: dict[str, Path]) -> dict[str, str]:
    """SHA-256 of each file, by the name it has on this machine."""
    return {path.name: hashlib.sha256(whole(path)).hexdigest() for path in files.values()}
