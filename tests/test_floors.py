"""The keeper of the house: each room imports only rooms of lower floors, and each wire library stands in one file."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FLOORS = {
    **dict.fromkeys(("p2pfl.errors", "p2pfl.messages", "p2pfl.seeds"), 0),
    **dict.fromkeys(("p2pfl.own_code", "p2pfl.wording", "p2pfl.yaml_marks"), 1),
    **dict.fromkeys(("p2pfl.plugins", "p2pfl.yaml_settings"), 2),
    "p2pfl.contracts": 3,
    **dict.fromkeys(("p2pfl.peer", "p2pfl.mixing", "p2pfl.metrics", "p2pfl.protection"), 4),
    "p2pfl.evidence": 5,
    "p2pfl.curiosity": 6,
    **dict.fromkeys(("p2pfl.topologies", "p2pfl.algorithms", "p2pfl.sketches", "p2pfl.aggregators"), 7),
    **dict.fromkeys(("p2pfl.defences", "p2pfl.attacks", "p2pfl.learning", "p2pfl.transport"), 7),
    "p2pfl.scenario": 8,
    **dict.fromkeys(("p2pfl.runtime", "p2pfl.schema"), 9),
    **dict.fromkeys(("p2pfl.report", "p2pfl.conformance"), 10),
    "p2pfl": 11,
    "p2pfl.cli": 12,
    "p2pfl.scenarios": 12,
}
ONE_FILE = {"yaml": "p2pfl/yaml_marks.py", "zmq": None, "msgpack": None}
BANNED_NAMES = {"utils", "util", "common", "helpers", "helper", "base", "misc"}
IMPURE = {
    *("os", "io", "sys", "pathlib", "shutil", "tempfile", "subprocess", "socket", "asyncio", "threading", "signal"),
    *("multiprocessing", "time", "datetime", "logging", "random", "secrets", "uuid", "urllib", "requests", "pooch"),
}
IMPURE_NAMES = {"os.environ", "os.getenv", "numpy.random.seed", "numpy.random.rand", "torch.manual_seed", "torch.seed"}
READ_GRAPHS = tuple(f"p2pfl.topologies.{name}" for name in ("file", "schedule", "_graph_files", "_lines", "_spec"))
MAY_DO_IO = (
    *("p2pfl.plugins", "p2pfl.own_code", "p2pfl.seeds", "p2pfl.transport", "p2pfl.learning.datasets"),
    *READ_GRAPHS,
)


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    dotted = ".".join(parts if parts[0] == "p2pfl" else ("p2pfl", *parts))
    return dotted.removesuffix(".__init__")


FOLDERS = ("p2pfl", "cli", "topologies", "scenarios")
FILES = {module_of(path): path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))}


def room_of(module: str) -> str:
    return next((room for room in sorted(FLOORS, key=len, reverse=True) if f"{module}.".startswith(f"{room}.")), "")


def imports(module: str) -> Iterator[str]:
    """Every module that this one imports, also within functions; relative ones as absolute."""
    path = FILES[module]
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
            source = ".".join([*above, *([node.module] if node.module else [])])
            names = [f"{source}.{alias.name}" for alias in node.names]
            yield from (name if name in FILES or source == "p2pfl" else source for name in names)


@pytest.mark.parametrize("module", FILES)
def test_a_room_imports_only_rooms_of_lower_floors(module: str) -> None:
    room = room_of(module)
    assert room != "p2pfl" or module == "p2pfl", f"{module} stands in no room: give it a floor in DESIGN section 3"
    for imported in imports(module):
        other = room_of(imported)
        if other not in ("", room):
            assert FLOORS[other] < FLOORS[room], f"{module} (floor {FLOORS[room]}) imports {imported} ({FLOORS[other]})"


@pytest.mark.parametrize("library", ONE_FILE)
def test_each_wire_library_is_imported_in_one_file(library: str) -> None:
    importers = [
        FILES[module].relative_to(ROOT).as_posix()
        for module in FILES
        if any(imported.partition(".")[0] == library for imported in imports(module))
    ]
    assert len(importers) == 1, importers
    assert ONE_FILE[library] in (None, importers[0])


@pytest.mark.parametrize("module", FILES)
def test_no_file_is_called_after_nothing(module: str) -> None:
    assert not BANNED_NAMES & set(module.strip("_").split("."))


PURE = [
    module
    for module in FILES
    if FLOORS.get(room_of(module), 9) <= FLOORS["p2pfl.algorithms"] and not module.startswith(MAY_DO_IO)
]


@pytest.mark.parametrize("module", PURE)
def test_pure_rooms_touch_no_file_clock_environment_log_or_global_randomness(module: str) -> None:
    assert not {imported.partition(".")[0] for imported in imports(module)} & IMPURE
    for node in ast.walk(ast.parse(FILES[module].read_text())):
        if isinstance(node, ast.Attribute):
            assert ast.unparse(node) not in IMPURE_NAMES
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in ("open", "print", "input", "exec", "eval")


@pytest.mark.parametrize("module", FILES)
def test_nobody_unpickles(module: str) -> None:
    assert not {"pickle", "cloudpickle", "dill", "shelve", "marshal"} & {
        name.partition(".")[0] for name in imports(module)
    }


@pytest.mark.parametrize("module", FILES)
def test_a_file_begins_with_its_idea(module: str) -> None:
    assert FILES[module].read_text().startswith('"""')
