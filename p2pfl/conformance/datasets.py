"""What every data set keeps to: `check` says what is missing, `load` gives well-formed tensors, nothing is downloaded.

One whose files are not on this machine is not loaded: that it says so is all that can be checked.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from p2pfl.conformance import _randomness
from p2pfl.errors import ScenarioError
from p2pfl.learning.data import Data

PARTS = ("train", "validation", "test")


def says_with_a_remedy_what_is_missing(plugin: Any) -> None:
    """By a ScenarioError from `check`, which looks but downloads nothing."""
    missing = None
    try:
        with _offline():
            plugin.check()
    except ScenarioError as error:
        missing = error
    assert missing is None or missing.remedy, f"it says what is missing without a remedy: {missing}"


def loads_images_and_labels_of_one_form(plugin: Any) -> None:
    """Float32 of N x C x H x W, and int64 labels."""
    for part, x_NCHW, y_N in _parts(plugin):
        assert x_NCHW.ndim == 4, f"{part}_x has the shape {tuple(x_NCHW.shape)}: it must be N x C x H x W"
        assert x_NCHW.dtype == torch.float32, f"{part}_x is {x_NCHW.dtype}: it must be float32"
        assert y_N.dtype == torch.int64, f"{part}_y is {y_N.dtype}: it must be int64"
        assert y_N.shape == x_NCHW.shape[:1], f"{part} has {len(x_NCHW)} inputs and labels of {tuple(y_N.shape)}"
        assert len(y_N) > 0 or part == "validation", f"{part} holds no example"
    shapes = {tuple(x_NCHW.shape[1:]) for _, x_NCHW, _ in _parts(plugin)}
    assert len(shapes) <= 1, f"inputs differ in shape: {shapes}"


def has_finite_inputs_and_labels_below_classes(plugin: Any) -> None:
    """Every label from 0 to classes - 1, and more than one of them in the training part."""
    for part, x_NCHW, y_N in _parts(plugin):
        classes = _loaded(plugin).classes
        assert x_NCHW.isfinite().all(), f"{part}_x holds NaN or infinity"
        wrong = y_N[(y_N < 0) | (y_N >= classes)]
        assert not len(wrong), f"{part}_y holds the label {int(wrong[0])}: there are {classes} classes, from 0"
        if part == "train":
            assert y_N.min() < y_N.max(), "all training examples are of one class"


def loads_the_same_each_time(plugin: Any) -> None:
    """Every process loads it for itself; what is test and what validation must not depend on chance."""
    if (first := _data(plugin)) is None:
        return
    with _randomness.left_alone():
        again = plugin.load()
    same = all(torch.equal(getattr(first, f"{p}_{k}"), getattr(again, f"{p}_{k}")) for p in PARTS for k in "xy")
    assert same, "loaded twice it holds other examples"


def has_columns_as_long_as_the_training_part(plugin: Any) -> None:
    """One value for each training example."""
    if (data := _data(plugin)) is not None:
        for name, column in data.columns.items():
            about = f"the column {name!r} has {len(column)} values for {len(data.train_y)} examples"
            assert len(column) == len(data.train_y), about


def knows_the_sha256_of_its_files(plugin: Any) -> None:
    """They go into the record of every run; none without files."""
    if _is_here(plugin):
        for name, digest in plugin.checksums().items():
            assert re.fullmatch("[0-9a-f]{64}", digest), f"the checksum of {name} is {digest!r}, no SHA-256"


def _parts(plugin: Any) -> Iterator[tuple[str, Tensor, Tensor]]:
    if (data := _data(plugin)) is not None:
        for part in PARTS:
            yield part, getattr(data, f"{part}_x"), getattr(data, f"{part}_y")


def _is_here(plugin: Any) -> bool:
    try:
        plugin.check()
    except ScenarioError:
        return False
    return True


def _data(plugin: Any) -> Data | None:
    return _loaded(plugin) if _is_here(plugin) else None


@lru_cache(maxsize=1)
def _loaded(plugin: Any) -> Data:
    with _offline():
        data: Data = plugin.load()
    assert isinstance(data, Data), f"load gives {type(data).__name__}, not p2pfl.learning.data.Data"
    return data


@contextmanager
def _offline() -> Iterator[None]:
    """Raises AssertionError where something within connects to anywhere."""

    def refuse(*_: Any) -> None:
        raise AssertionError("it reaches for the network: only `p2pfl data` downloads")

    kept = {name: vars(socket.socket).get(name) for name in ("connect", "connect_ex")}
    for name in kept:
        setattr(socket.socket, name, refuse)
    try:
        yield
    finally:
        for name, own in kept.items():
            if own is None:
                delattr(socket.socket, name)
            else:
                setattr(socket.socket, name, own)
