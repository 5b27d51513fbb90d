"""Memory for the tensors that arrive, used again as soon as nobody holds them.

What the kernel hands out anew it must first clear, page by page: to fill 40 MB takes 16 ms in torch's memory, 3 ms in
numpy's, which asks for huge pages, and 1 ms in memory that was used before.
"""

from __future__ import annotations

import math
import sys

import numpy
import torch
from torch import Tensor

ALIGNMENT_BYTES = 64
"""As torch aligns its own tensors: the order of sums, and so the last bit of figures, may hang on it."""
ALONE = 3
"""References to an array that only its keeper holds: the list, the loop, and the call that counts."""


class Memory:
    """Keeps the arrays that it gave out, as many as were held at one time, and gives them out again."""

    def __init__(self) -> None:
        self._arrays: list[numpy.ndarray[tuple[int], numpy.dtype[numpy.uint8]]] = []

    def tensor(self, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
        """A tensor of this form and of any content."""
        size = dtype.itemsize * math.prod(shape)
        for array in self._arrays:
            if len(array) == size + ALIGNMENT_BYTES and sys.getrefcount(array) == ALONE:
                break
        else:
            array = numpy.empty(size + ALIGNMENT_BYTES, numpy.uint8)
            self._arrays.append(array)
        start = -array.ctypes.data % ALIGNMENT_BYTES
        return torch.from_numpy(array[start : start + size]).view(dtype).view(shape)
