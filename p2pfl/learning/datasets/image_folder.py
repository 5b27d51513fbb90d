"""Your own pictures in folders, one a class: PATH/CLASS/*, or PATH/train/CLASS/* and PATH/test/CLASS/*."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from p2pfl.errors import ScenarioError
from p2pfl.learning.data import Data, check_test, check_validation
from p2pfl.learning.datasets import _files, _pictures
from p2pfl.learning.preparation import prepare


@dataclass(frozen=True)
class ImageFolder:
    """Your own pictures: `path` holds a folder for each class, or `train` and `test` that do. Grey or RGB.

    All have one size, or are resized to `size` (height and width). Where there are no `train` and `test`, a share
    `test` is cut off by a permutation that is the same in every run.
    """

    path: Path
    size: tuple[int, int] | None = None
    test: float = 0.2
    normalise: bool = True
    validation: float = 0.1

    def __post_init__(self) -> None:
        check_test(self.test)
        check_validation(self.validation)
        if self.size is not None and min(self.size) < 1:
            raise ValueError(f"size must be a height and a width of 1 pixel or more, not {list(self.size)}")

    def check(self) -> None:
        """Raise ScenarioError when there are no such folders."""
        self._folders()

    def load(self) -> Data:
        """Read all pictures. Raises ScenarioError that names the one that is broken or unlike the others."""
        found = [_pictures.classes(folder) for folder in self._folders()]
        form = _pictures.form([path for classes in found for paths in classes.values() for path in paths], self.size)
        train, *test = (
            _pictures.part(folder, classes, form) for folder, classes in zip(self._folders(), found, strict=True)
        )
        return prepare([train], test, self.validation, self.normalise, self.test)

    def checksums(self) -> dict[str, str]:
        """One SHA-256 of all names and checksums of the pictures: they may be many."""
        whole = hashlib.sha256()
        for folder in self._folders():
            for name, paths in _pictures.classes(folder).items():
                for path in paths:
                    whole.update(f"{folder.name}/{name}/{path.name} {_files.digest(path)}\n".encode())
        return {self.path.name: whole.hexdigest()}

    def _folders(self) -> list[Path]:
        """The folder of classes, or the two of them."""
        if not self.path.is_dir():
            raise ScenarioError(f"no folder {self.path}", "give one that holds a folder for each class")
        parts = [self.path / "train", self.path / "test"]
        there = [part for part in parts if part.is_dir()]
        if len(there) == 1:
            problem = f"{self.path} holds {there[0].name}, but not the other of train and test"
            raise ScenarioError(problem, "add it, or let the folders of the classes lie there themselves")
        return there or [self.path]
