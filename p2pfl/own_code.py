"""Code of the user's own: plug-ins in a folder beside the scenario, which run only where the user says so.

The folder holds a folder a room (`plugins/topologies/ladder.py`). Once adopted, each is one more place where the
package of its room is looked for, after ours: its files are imported as `p2pfl.topologies.ladder`, and none before
it is asked for by its name. A process has one adopted folder at most; adopting another, or the same with a file that
has changed, forgets every module of the former.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import importlib.util
import inspect
import os
import pkgutil
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from p2pfl.errors import ScenarioError

FOLDER = "plugins"
"""The folder's name, beside a scenario and in the folder of a run."""


@dataclass
class _Known:
    """What this process knows: the folder that may run, its files then, where it was added; and one that may not."""

    adopted: Path | None = None
    stamps: tuple[tuple[str, int, int], ...] = ()
    added: list[tuple[ModuleType, str]] = field(default_factory=list)
    offered: Path | None = None


_KNOWN = _Known()


def adopt(folder: Path | None, rooms: Mapping[str, str]) -> None:
    """Let the plug-ins of this folder be found, and those of no other; with None, or where it is not there, none.

    `rooms` maps the name of each room to its package. Nothing of the folder is imported. Raises ScenarioError for a
    file that no room would find, or that has the name of a plug-in of ours; then nothing is adopted.
    """
    folder = Path(os.path.abspath(folder)) if folder is not None and folder.is_dir() else None
    stamps = _stamps(folder)
    if folder is not None and (folder, stamps) == (_KNOWN.adopted, _KNOWN.stamps):
        return  # classes stay what they are, and with them what others keep by them
    _forget()
    if folder is None:
        return
    _refuse_strays(folder, rooms)
    found = {importlib.import_module(package): folder / room for room, package in rooms.items()}
    found = {package: place for package, place in found.items() if place.is_dir()}
    for package, place in found.items():
        _refuse_taken_names(package, place)
    for package, place in found.items():
        package.__path__.append(str(place))
        _KNOWN.added.append((package, str(place)))
    importlib.invalidate_caches()
    _KNOWN.adopted, _KNOWN.stamps = folder, stamps


def adopted() -> Path | None:
    """The folder whose plug-ins may run in this process, absolute."""
    return _KNOWN.adopted


@contextmanager
def offered(folder: Path) -> Iterator[None]:
    """Within, it is known that this folder lies beside the scenario, so that an error can say what it would bring."""
    before, _KNOWN.offered = _KNOWN.offered, folder
    try:
        yield
    finally:
        _KNOWN.offered = before


def unused(room: str, name: str) -> str | None:
    """The file beside the scenario that would be the plug-in of this name, if it might run; None without one."""
    if _KNOWN.offered is None or not name.isidentifier():
        return None
    file = _KNOWN.offered / room / f"{name}.py"
    return f"{_KNOWN.offered.name}/{room}/{file.name}" if file.is_file() else None


def files() -> dict[str, Path]:
    """The files of the adopted folder that p2pfl may import, by their place from its parent on."""
    if _KNOWN.adopted is None:
        return {}
    places = [Path(place) for _, place in _KNOWN.added]
    found = (file for place in places for file in sorted(place.rglob("*.py")) if file.is_file())
    return {f"{FOLDER}/{file.relative_to(_KNOWN.adopted).as_posix()}": file for file in found}


def named() -> tuple[tuple[str, str], ...]:
    """Room and name of every plug-in of the adopted folder."""
    places = [Path(place) for _, place in _KNOWN.added]
    return tuple((place.name, file.stem) for place in places for file in sorted(place.glob("[!_]*.py")))


def file_of(cls: type[Any]) -> Path | None:
    """The user's file that holds a plug-in; None for one that comes with p2pfl."""
    file = getattr(sys.modules.get(cls.__module__), "__file__", None)
    return Path(file) if file is not None and _is_own(file) else None


def held(module: str) -> type[Any]:
    """The plug-in of a module: its frozen dataclass with the module's name, underscores and capitals apart.

    Raises ScenarioError, with file and line, when a file of the user's own holds none or cannot be imported.
    """
    holder, name = _imported(module), module.rpartition(".")[2]
    for key, value in vars(holder).items():
        if key.lower() == name.replace("_", "") and isinstance(value, type) and dataclasses.is_dataclass(value):
            if file_of(value) is not None:
                _refuse_unfit(value)
            return value
    file = shown(Path(str(holder.__file__)))
    remedy = f"write '@dataclass(frozen=True)' and 'class {name.title().replace('_', '')}:'"
    raise ScenarioError(f"{file}:1 holds no dataclass named like its file", remedy)


def shown(file: Path) -> str:
    """A file of the adopted folder as it is called in messages: from the folder's own name on."""
    if _KNOWN.adopted is None or not file.is_relative_to(_KNOWN.adopted):
        return str(file)
    return file.relative_to(_KNOWN.adopted.parent).as_posix()


def blamed(error: BaseException) -> str | None:
    """The last line of the user's own that led to an error, as `plugins/topologies/ladder.py:7`; None without any."""
    if isinstance(error, SyntaxError) and error.filename and _is_own(error.filename):
        return f"{shown(Path(error.filename))}:{error.lineno}"
    steps = [(frame.f_code.co_filename, line) for frame, line in traceback.walk_tb(error.__traceback__)]
    ours = [(file, line) for file, line in steps if _is_own(file)]
    return f"{shown(Path(ours[-1][0]))}:{ours[-1][1]}" if ours else None


@contextmanager
def blaming() -> Iterator[None]:
    """Within, whatever code of the user's own raises is one line that names its place, as a ScenarioError."""
    try:
        yield
    except ScenarioError:
        raise
    except Exception as error:  # plug-ins may raise anything; what is not theirs goes on
        if (place := blamed(error)) is None:
            raise
        raise ScenarioError(f"{place} raised {type(error).__name__}: {str(error)[:200]}", "mend the plug-in") from error


def checksums() -> dict[str, str]:
    """SHA-256 of each file of the adopted folder that p2pfl may import, by its place from its parent on."""
    return {name: hashlib.sha256(file.read_bytes()).hexdigest() for name, file in files().items()}


def place_of(cls: type[Any]) -> str:
    """File and line of a class of the user's own."""
    file = file_of(cls)
    return f"{shown(file)}:{inspect.getsourcelines(cls)[1]}" if file is not None else cls.__module__


def _imported(module: str) -> ModuleType:
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True  # nothing is left in the user's folder
    try:
        return importlib.import_module(module)
    except (Exception, SystemExit) as error:  # a file of the user's may raise anything
        spec = importlib.util.find_spec(module)
        if spec is None or spec.origin is None or not _is_own(spec.origin):
            raise
        said = f"{type(error).__name__}: {error.msg if isinstance(error, SyntaxError) else error}"
        place = blamed(error) or f"{shown(Path(spec.origin))}:1"
        raise ScenarioError(f"{place} cannot be imported, {said}", "mend the file") from None
    finally:
        sys.dont_write_bytecode = before


def _refuse_unfit(cls: type[Any]) -> None:
    if not vars(cls)["__dataclass_params__"].frozen:
        raise ScenarioError(f"{place_of(cls)}, {cls.__name__} is not frozen", "write '@dataclass(frozen=True)'")
    for option in dataclasses.fields(cls):
        default = option.default if option.default_factory is dataclasses.MISSING else option.default_factory()
        try:
            hash(default)
        except TypeError:
            problem = f"{place_of(cls)}, the default of {option.name} is {default!r}, which has no hash"
            raise ScenarioError(problem, "take a tuple, a word or a number") from None


def _is_own(file: str) -> bool:
    return _KNOWN.adopted is not None and Path(file).is_relative_to(_KNOWN.adopted)


def _stamps(folder: Path | None) -> tuple[tuple[str, int, int], ...]:
    """Name, time and size of every file that may be imported from a folder."""
    found = sorted(folder.rglob("*.py")) if folder is not None else ()
    return tuple((str(file), file.stat().st_mtime_ns, file.stat().st_size) for file in found if file.is_file())


def _forget() -> None:
    """Take the adopted folder out again: its modules, what names them, and the places where they were found."""
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if isinstance(file, str) and _is_own(file):
            del sys.modules[name]
            parent, _, last = name.rpartition(".")
            if vars(sys.modules.get(parent, object)).get(last) is module:
                delattr(sys.modules[parent], last)
    for package, place in _KNOWN.added:
        package.__path__.remove(place)
    _KNOWN.added.clear()
    _KNOWN.adopted = None


def _refuse_strays(folder: Path, rooms: Mapping[str, str]) -> None:
    for entry in sorted(folder.iterdir()):
        if entry.name in rooms or entry.name.startswith((".", "__")):
            continue
        if entry.suffix == ".py" or next(entry.rglob("*.py"), None) is not None:
            remedy = f"put it into the folder of its room: {', '.join(rooms)}"
            raise ScenarioError(f"{folder.name}/{entry.name} lies in no room", remedy)


def _refuse_taken_names(package: ModuleType, place: Path) -> None:
    ours = {module.name for module in pkgutil.iter_modules(package.__path__)}
    for file in sorted(place.glob("*.py")):
        called, name = f"{place.parent.name}/{place.name}/{file.name}", file.stem
        if name == "__init__":
            continue
        if not name.isidentifier() or name != name.lower():
            raise ScenarioError(f"{called} cannot be named in a scenario", "call it by small letters, digits and '_'")
        if name in ours or (hasattr(package, "elsewhere") and package.elsewhere(name) is not None):
            raise ScenarioError(f"{called} has a name that p2pfl has already", "give it another")
