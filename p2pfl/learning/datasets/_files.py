"""Where files of data sets lie, and how a folder of four IDX files becomes a data set.

The folder is $P2PFL_DATA, or ~/.cache/p2pfl/datasets: a setting that comes from the environment, since it
says where this machine keeps things and nothing about the experiment.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from p2pfl.errors import ScenarioError
from p2pfl.learning import idx
from p2pfl.learning.data import Data, Part, held
from p2pfl.learning.datasets._fetching import Hear, Source, fetch
from p2pfl.learning.preparation import prepare

PARTS = ("train", "t10k")
IDX_NAMES = tuple(f"{part}-{kind}-ubyte" for part in PARTS for kind in ("images-idx3", "labels-idx1"))


def root() -> Path:
    """The folder of all data on this machine."""
    return Path(os.environ.get("P2PFL_DATA", "~/.cache/p2pfl/datasets")).expanduser()


def folder(name: str) -> Path:
    """Where the files of the data set `name` lie on this machine."""
    return root() / name


def present(where: Path, file: str) -> Path | None:
    """The file in that folder, plain or gzipped; None when there is neither."""
    return next((path for path in (where / file, where / f"{file}.gz") if path.is_file()), None)


def idx_files(name: str) -> dict[str, Path]:
    """The four files of an IDX data set. Raises ScenarioError that says where it looked, and for what."""
    verb = name.replace("-", "_")
    remedy = f"run 'p2pfl data {verb}', or set P2PFL_DATA to the folder that holds {name}/"
    return four(folder(name), remedy)


def four(where: Path, remedy: str) -> dict[str, Path]:
    """The four IDX files in a folder. Raises ScenarioError that names the one that is missing."""
    found = {file: present(where, file) for file in IDX_NAMES}
    missing = [file for file, path in found.items() if path is None]
    if missing:
        raise ScenarioError(f"no file {missing[0]}(.gz) in {where}", remedy)
    return {file: path for file, path in found.items() if path is not None}


def load_idx(files: dict[str, Path], classes: int | None, validation: float, normalise: bool) -> Data:
    """The data set of four IDX files; without `classes` they follow from the labels. Raises ScenarioError."""
    train, test = (
        read_pair(files[f"{part}-images-idx3-ubyte"], files[f"{part}-labels-idx1-ubyte"], classes) for part in PARTS
    )
    return prepare([train], [test], validation, normalise, classes=classes)


def read_pair(images: Path, labels: Path, classes: int | None) -> Part:
    """Bytes of N x 1 x H x W and their N labels. Raises ScenarioError when the two files do not fit."""
    x_NHW, y_N = (idx.parse(whole(path), str(path)) for path in (images, labels))
    if x_NHW.ndim != 3 or x_NHW.dtype.kind != "u" or x_NHW.size == 0:
        raise ScenarioError(f"{images} holds {x_NHW.dtype} of shape {x_NHW.shape}", "it must hold images of bytes")
    if y_N.shape != x_NHW.shape[:1] or y_N.dtype.kind not in "ui":
        problem = f"{labels} holds {y_N.dtype} of shape {y_N.shape} for {len(x_NHW)} images"
        raise ScenarioError(problem, "it must hold one whole number an image")
    if classes is not None and (y_N.min() < 0 or y_N.max() >= classes):
        raise ScenarioError(f"{labels} holds a label outside 0..{classes - 1}", idx.REMEDY)
    return held(str(labels), x_NHW[:, None], y_N)


def idx_sources(name: str, files: Iterable[tuple[str, int, str]], mirrors: Iterable[str]) -> tuple[Source, ...]:
    """The files of an IDX data set (name, bytes, SHA-256), each of which every mirror has."""
    return tuple(
        Source(f"{name}/{file}", size_bytes, f"sha256:{digest}", tuple(f"{mirror}{file}" for mirror in mirrors))
        for file, size_bytes, digest in files
    )


def fetch_idx(sources: Iterable[Source], hear: Hear) -> list[str]:
    """Have these files, gzipped; one that was unpacked by hand is left alone. Raises ScenarioError."""
    said = []
    for source in sources:
        plain = source.path.removesuffix(".gz")
        there = (root() / plain).is_file()
        said.append(f"{plain}: was there, unpacked: not checked" if there else fetch(source, root(), hear))
    return said


def kept_idx(name: str) -> list[Path]:
    """Where the four files lie, or would."""
    return [present(folder(name), file) or folder(name) / f"{file}.gz" for file in IDX_NAMES]


def listed(path: Path, ending: str) -> list[Path]:
    """The file at `path`, or the files in the folder at `path` that have this ending, sorted. Raises ScenarioError."""
    try:
        found = [path] if path.is_file() else sorted(each for each in path.iterdir() if each.name.endswith(ending))
    except OSError as error:
        raise ScenarioError(f"cannot read {path}, {error.strerror}", f"give a {ending} file, or a folder") from None
    if not found:
        raise ScenarioError(f"no {ending} file in {path}", f"give a {ending} file, or a folder that holds some")
    return found


def whole(path: Path) -> bytes:
    """All bytes of a file. Raises ScenarioError where it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise ScenarioError(f"cannot read {path}, {error.strerror}", "let this user read it") from None


def digest(path: Path) -> str:
    """SHA-256 of a file. Raises ScenarioError where it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ScenarioError(f"cannot read {path}, {error.strerror}", "let this user read it") from None


def checksums(files: Iterable[Path]) -> dict[str, str]:
    """SHA-256 of each file, by the name it has on this machine."""
    return {path.name: digest(path) for path in files}
