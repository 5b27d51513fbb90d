"""Whether the random state that a whole process shares was touched: whoever draws from it makes runs differ."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy
import torch


@contextmanager
def left_alone(remedy: str = "draw from what it is given") -> Iterator[None]:
    """Raises AssertionError when what was done within drew from the global random state of torch, numpy or Python."""
    before = torch.get_rng_state(), repr(numpy.random.get_state()), random.getstate()
    yield
    touched = [
        name
        for name, same in (
            ("torch", torch.equal(before[0], torch.get_rng_state())),
            ("numpy", before[1] == repr(numpy.random.get_state())),
            ("random", before[2] == random.getstate()),
        )
        if not same
    ]
    assert not touched, f"it draws from the global random state of {', '.join(touched)}: {remedy}"
