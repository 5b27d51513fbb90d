"""Tensors beside a finding as small pictures: safetensors read with suspicion, each image a PNG as a data URI.

Shapes: B images of a batch (or frames of one), C x H x W each.
"""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from safetensors import SafetensorError, safe_open

MOST_BYTES = 64_000_000
MOST_IMAGES, MOST_CHANNELS, MOST_SIDE = 64, 16, 1024
"""How large a file may be that is read, and the images in it; of more images the first are."""
FLOATS = ("F16", "F32", "F64")
SIDE_PX, LEAST_PX = 84, 8
"""How long the sides of an image are on the page: the longer one, and the shorter one at least."""

Pixels = NDArray[Any]
Range = tuple[float, float]
"""The values that are drawn black and white."""


@dataclass(frozen=True)
class Shown:
    """An image of the page: `uri` is a PNG, `width_px` and `height_px` how large it is drawn."""

    uri: str
    width_px: int
    height_px: int


def images(path: Path, name: str) -> Pixels | None:
    """The images that a file holds by this name, B x C x H x W; None of a file that is not there, or not fit."""
    try:
        if not path.is_file() or path.stat().st_size > MOST_BYTES:
            return None
        with safe_open(path, "numpy") as file:
            part = file.get_slice(name)
            if part.get_dtype() not in FLOATS or not _fit(part.get_shape()):
                return None
            return np.asarray(part[: min(MOST_IMAGES, part.get_shape()[0])])
    except (OSError, SafetensorError):
        return None


def places(path: Path, name: str) -> list[int]:
    """The whole numbers that a file holds by this name, as many as there may be images; none of a file not fit."""
    try:
        if not path.is_file() or path.stat().st_size > MOST_BYTES:
            return []
        with safe_open(path, "numpy") as file:
            part = file.get_slice(name)
            shape, kind = part.get_shape(), part.get_dtype()
            whole = kind == "I64" and len(shape) == 1 and shape[0] > 0
            return [int(place) for place in part[: min(MOST_IMAGES, shape[0])]] if whole else []
    except (OSError, SafetensorError):
        return []


def holds(path: Path, name: str) -> bool:
    """Whether a file holds anything by this name."""
    try:
        if not path.is_file() or path.stat().st_size > MOST_BYTES:
            return False
        with safe_open(path, "numpy") as file:
            return name in set(file.keys())
    except (OSError, SafetensorError):
        return False


def _fit(shape: list[int]) -> bool:
    most = (MOST_CHANNELS, MOST_SIDE, MOST_SIDE)
    return (
        len(shape) == 4 and shape[0] > 0 and all(0 < side <= limit for side, limit in zip(shape[1:], most, strict=True))
    )


def span(image_BCHW: Pixels | None) -> Range:
    """From 0 to 1 where all values are between, else from the least to the largest."""
    known = np.zeros(0) if image_BCHW is None else image_BCHW[np.isfinite(image_BCHW)]
    low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)
    return (0.0, 1.0) if low >= 0 and high <= 1 else (low, high)


def shown(image_CHW: Pixels, drawn: Range, side_px: int = SIDE_PX) -> Shown:
    """An image as a PNG; what lies outside of the range is black or white, and so is what is no number.

    A small one is scaled by a whole factor to the nearest pixels, of a large one every so manieth pixel is kept.
    """
    height, width = image_CHW.shape[1:]
    longer = max(height, width)
    step, times = -(-longer // (2 * side_px)), max(1, side_px // longer)
    low, high = drawn
    with np.errstate(all="ignore"):
        grey_CHW = (np.asarray(image_CHW[:, ::step, ::step], np.float64) - low) / max(high - low, 1e-12)
    bytes_CHW = (255 * np.clip(np.nan_to_num(grey_CHW, posinf=1.0, neginf=0.0), 0, 1)).round().astype(np.uint8)
    pixels = bytes_CHW.repeat(times, 1).repeat(times, 2)
    buffer = io.BytesIO()
    rgb = len(pixels) == 3
    Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)) if rgb else pixels[0]).save(buffer, "PNG")
    uri = f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    scale = side_px / longer
    return Shown(uri, *(max(LEAST_PX, round(scale * side)) for side in (width, height)))
