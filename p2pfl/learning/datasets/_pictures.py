"""Pictures in folders, one a class, opened when their turn comes, by Pillow."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
from numpy.typing import NDArray
from PIL import Image

from p2pfl.errors import ScenarioError
from p2pfl.learning.data import ROWS, Part

ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp")
GREY = ("1", "L")
COLOUR = ("P", "PA", "LA", "La", "RGB", "RGBA", "RGBX", "RGBa", "CMYK", "YCbCr", "LAB", "HSV")
BROKEN = (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError)
"""What Pillow says of a file that is no picture, is cut, or claims to be huge."""


@dataclass(frozen=True)
class Form:
    """What all pictures are brought to: Pillow's mode, and height and width."""

    mode: str
    height: int
    width: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """C x H x W."""
        return 1 if self.mode == "L" else 3, self.height, self.width


def classes(folder: Path) -> Mapping[str, list[Path]]:
    """The pictures of each class, in alphabetical order. Raises ScenarioError where a class has none."""
    found = {}
    for each in sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")):
        paths = (path for path in each.iterdir() if path.suffix.lower() in ENDINGS and not path.name.startswith("."))
        found[each.name] = sorted(paths)
        if not found[each.name]:
            raise ScenarioError(f"no picture in {each}", "put some there, or remove the folder")
    if not found:
        raise ScenarioError(f"no folder in {folder}", "make one for each class")
    return found


def form(paths: Sequence[Path], size: tuple[int, int] | None) -> Form:
    """Grey where all are, else RGB; `size`, or the one size that all have. Raises ScenarioError."""
    grey, first = True, None
    for path in paths:
        try:
            with Image.open(path) as picture:
                mode, width, height = picture.mode, *picture.size
        except BROKEN as error:
            raise broken(path, error) from None
        if mode not in (*GREY, *COLOUR):
            raise ScenarioError(f"{path} is a picture of mode {mode!r}", "save it with 8 bits a channel")
        grey, first = grey and mode in GREY, first or (height, width)
        if size is None and (height, width) != first:
            problem = f"{path} is {height} x {width} pixels, the first picture {first[0]} x {first[1]}"
            raise ScenarioError(problem, f"give size: [{first[0]}, {first[1]}] to resize all")
    height, width = size or first or (0, 0)
    return Form("L" if grey else "RGB", height, width)


def part(folder: Path, classes: Mapping[str, Sequence[Path]], form: Form) -> Part:
    """The examples of a folder, labelled by the names of the folders in it."""
    paths = [path for each in classes.values() for path in each]
    labels_N = numpy.array([name for name, each in classes.items() for _ in each])

    def chunks() -> Iterator[NDArray[Any]]:
        for at in range(0, len(paths), ROWS):
            yield numpy.stack([picture(path, form) for path in paths[at : at + ROWS]])

    return Part(str(folder), form.shape, numpy.dtype(numpy.uint8), labels_N, chunks)


def picture(path: Path, form: Form) -> NDArray[numpy.uint8]:
    """C x H x W bytes. Raises ScenarioError where the file is broken."""
    try:
        with Image.open(path) as opened:
            converted = opened.convert(form.mode)
            if converted.size != (form.width, form.height):
                converted = converted.resize((form.width, form.height))
            pixels = numpy.asarray(converted, numpy.uint8)
    except BROKEN as error:
        raise broken(path, error) from None
    return pixels[None] if pixels.ndim == 2 else numpy.moveaxis(pixels, 2, 0)


def broken(path: Path, error: BaseException) -> ScenarioError:
    """A file that Pillow cannot read."""
    reason = str(error).partition("\n")[0][:120] or type(error).__name__
    return ScenarioError(f"{path} cannot be read as a picture, {reason}", "replace it, or remove it")
