"""LFW: press photographs of faces of 62 x 47, in colour, with the names of the people.

Source: Huang, Ramesh, Berg & Learned-Miller 2007, "Labeled faces in the wild"; attributes after Kumar et al. 2009,
"Attribute and simile classifiers for face verification". Photographs of real people: for research only.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy
from numpy.typing import NDArray

from p2pfl.errors import ScenarioError
from p2pfl.learning.data import ROWS, Data, check_test, check_validation
from p2pfl.learning.datasets import _files, _zipped
from p2pfl.learning.datasets._fetching import Hear
from p2pfl.learning.datasets.npz import images
from p2pfl.learning.preparation import prepare

FILE = "lfw/lfw.npz"
SHAPE = (62, 47, 3)
COLUMNS = ("name", "race", "male")


@dataclass(frozen=True)
class Lfw:
    """Faces in colour of 62 x 47, labelled by `target`: male, race or name (the person).

    All that is known of a face (name, race, male) is a column too. A share `test` of all faces is cut off.
    """

    target: Literal["male", "race", "name"] = "male"
    test: float = 0.2
    normalise: bool = True
    validation: float = 0.1

    def __post_init__(self) -> None:
        check_test(self.test)
        check_validation(self.validation)

    def check(self) -> None:
        """Raise ScenarioError when the file is missing."""
        (path,) = self.kept()
        if not path.is_file():
            remedy = "run 'p2pfl data lfw', or set P2PFL_DATA to the folder that holds lfw/"
            raise ScenarioError(f"no file lfw.npz in {path.parent}", remedy)

    def load(self) -> Data:
        """Read the file. Raises ScenarioError when it is missing, broken, or lacks an array that is needed."""
        self.check()
        (path,) = self.kept()
        arrays = _zipped.arrays(path)
        known = [name for name in COLUMNS if name in arrays]
        for name in ("image", self.target):
            if name not in arrays:
                problem = f"{path} has no array {name!r}, it has {', '.join(arrays) or 'none'}"
                raise ScenarioError(problem, f"take target: {known[0]}" if known else "move it away and fetch it anew")
        faces = arrays["image"]
        if faces.shape[1:] != SHAPE or any(arrays[name].shape != faces.shape[:1] for name in known):
            raise ScenarioError(f"{path} holds faces of {faces.shape}", f"give N x {' x '.join(map(str, SHAPE))}")
        columns = {name: arrays[name].whole() for name in known}
        columns |= {"name": people(columns["name"])} if "name" in columns else {}
        return prepare([images(faces, columns[self.target], columns)], [], self.validation, self.normalise, self.test)

    def checksums(self) -> dict[str, str]:
        """SHA-256 of the file."""
        self.check()
        return _files.checksums(self.kept())

    @staticmethod
    def kept() -> list[Path]:
        """Where the file lies, or would."""
        return [_files.root() / FILE]

    @staticmethod
    def fetch(hear: Hear) -> list[str]:
        """Have the file, by scikit-learn's own download; it knows names only. Raises ScenarioError."""
        (path,) = Lfw.kept()
        if path.is_file():
            _zipped.arrays(path)
            return [f"{FILE}: was there, it can be read"]
        hear(FILE, 0, 0)
        write(path)
        return [f"{FILE}: fetched by scikit-learn, with images and names, without male and race"]


def people(name_N: NDArray[Any]) -> NDArray[Any]:
    """Who is on each picture: `Adam_Sandler_0002.jpg` -> `Adam_Sandler`."""
    if name_N.dtype.kind not in "US":  # numbers of people: nothing to be taken off
        return name_N
    bare_N = numpy.char.replace(name_N, ".jpg", "")
    parts = numpy.char.rpartition(bare_N, "_")
    return numpy.where(numpy.char.isdigit(parts[:, 2]), parts[:, 0], bare_N)


def write(path: Path) -> None:
    """Write the faces that scikit-learn has, or downloads, as bytes. Raises ScenarioError where it cannot."""
    from sklearn.datasets import fetch_lfw_people  # a second to import, and only for who asks for these data

    try:
        found = fetch_lfw_people(color=True, resize=0.5)
    except (OSError, ValueError) as error:
        reason = str(error).partition("\n")[0][:120]
        problem = f"scikit-learn cannot fetch LFW, {reason}"
        raise ScenarioError(problem, f"try again later, or put lfw.npz into {path.parent}") from None
    brightest = 255 if found.images[:ROWS].max() <= 1 else 1  # scikit-learn 1.2 changed from 0..255 to 0..1
    image = numpy.empty(found.images.shape, numpy.uint8)
    for at in range(0, len(image), ROWS):
        image[at : at + ROWS] = numpy.rint(found.images[at : at + ROWS] * brightest)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name("lfw.part.npz")
    name = numpy.char.replace(found.target_names[found.target], " ", "_")
    numpy.savez(part, image=image, name=name)
    part.replace(path)
