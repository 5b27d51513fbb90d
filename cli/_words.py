"""What the shell offers after TAB: read from the sources as text, so that nothing heavy is imported for a word.

A plug-in's options, a scenario's keys and their types are the annotated fields of dataclasses, which is what `ast` sees
of them. What only code can tell (the generators of networkx, say) is not offered.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import click

Kind = str | tuple[str, str]
"""The type of a key, as it is written; or a plug-in, as its room and its name."""
OPEN = ("p2pfl", "p2pfl.scenario")
"""The packages that hold a scenario's keys."""
YAML = (".yaml", ".yml")
GRAPHS = (".graphml", ".csv", ".edgelist", ".txt", ".edges", ".adjlist")
"""How the files end that a verb reads."""

Completer = Callable[[click.Context, click.Parameter, str], list[str]]


def scenarios(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Scenarios that come along, YAML files, and folders to look into."""
    root = _folder("p2pfl.scenarios")
    shipped = sorted(path.relative_to(root).with_suffix("").as_posix() for path in root.rglob("*.yaml"))
    return [name for name in shipped if name.startswith(incomplete)] + list(_files(incomplete, YAML))


def rooms(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """The rooms of plug-ins."""
    return [room for room in _rooms() if room.startswith(incomplete)]


def engines(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """What runs the peers."""
    return [name for name in _names("engines") if name.startswith(incomplete)]


def datasets(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """The data sets."""
    return [name for name in _names("datasets") if name.startswith(incomplete)]


def topologies(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """The families of peer graphs, graph files, and folders to look into."""
    return [name for name in _names("topologies") if name.startswith(incomplete)] + list(_files(incomplete, GRAPHS))


def entries(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """YAML files, and folders to look into."""
    return list(_files(incomplete, YAML))


def keepers(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """The peers whose mail the run that was named has kept."""
    run = ctx.params.get("run") or next(iter(ctx.args), ".")  # where an option still lacks its value, all are loose
    names = (path.name.removeprefix("peer-") for path in Path(run).glob("mail/peer-*"))
    return sorted((name for name in names if name.startswith(incomplete)), key=lambda name: (len(name), name))


def settings(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """The next word of `training.lr=`, and the values of `algorithm=` where they have names."""
    return _settings("Scenario", incomplete)


def attack_settings(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """The same for an entry of `attacks`, as in `attack.idlg.restarts=`."""
    return [word for word in _settings("Malice", incomplete) if not word.startswith("peers")]


def _settings(top: str, incomplete: str) -> list[str]:
    path, equals, _ = incomplete.partition("=")
    *above, last = path.split(".")
    known = _within(above, top)
    if equals:
        return [found for value in _values(known.get(last)) if (found := f"{path}={value}").startswith(incomplete)]
    offered = [".".join([*above, word]) + end for word, kind in known.items() for end in _ends(kind)]
    return [found for found in offered if found.startswith(incomplete)]


def _files(incomplete: str, endings: Sequence[str]) -> Iterator[str]:
    head, slash, tail = incomplete.rpartition("/")
    try:
        found = sorted(Path(head + slash or ".").iterdir())
    except OSError:
        return
    for path in found:
        if path.name.startswith(tail) and not path.name.startswith("." if not tail else "\0"):
            if path.is_dir():
                yield f"{head}{slash}{path.name}/"
            elif path.suffix in endings:
                yield f"{head}{slash}{path.name}"


def _within(words: Sequence[str], top: str) -> Mapping[str, Kind]:
    """What may stand behind these words in the class `top` of keys, and what it is."""
    known: Mapping[str, Kind] = _class(top, OPEN)
    for word in words:
        kind = known.get(word)
        if isinstance(kind, tuple):
            room, name = kind
            known = _class(name.replace("_", ""), (_rooms()[room],), f"{name}.py")
        elif kind is not None and (inner := _room(kind)):
            known = {name: (inner, name) for name in _names(inner)}
        else:
            known = _class(kind, OPEN) if kind is not None and kind.isidentifier() else {}
    return known


def _ends(kind: Kind) -> tuple[str, ...]:
    """How a word goes on: by a value, by a further word, or by either."""
    if isinstance(kind, tuple):
        return (".",)
    if _room(kind):
        return ("=", ".")
    return (".",) if kind.isidentifier() and _class(kind, OPEN) else ("=",)


def _values(kind: Kind | None) -> Sequence[str]:
    """The values of a key that have names."""
    if kind is None or isinstance(kind, tuple):
        return ()
    if room := _room(kind):
        return _names(room)
    if words := re.search(r"\bLiteral\[(.*?)\]", kind):
        return re.findall(r"'([^']*)'", words[1])
    return ("true", "false") if kind == "bool" else ()


def _room(kind: Kind) -> str:
    """The room whose plug-ins a key takes; empty if it takes none."""
    found = re.search(r"\bSlot\('[\w.]*', '(\w+)'", "" if isinstance(kind, tuple) else kind)
    return found[1] if found else ""


@cache
def _class(name: str, packages: tuple[str, ...], file: str = "*.py") -> Mapping[str, Kind]:
    """The annotated fields of the first class that is so called, in whatever case; none if there is no such class."""
    for path in (path for package in packages for path in sorted(_folder(package).glob(file))):
        text = path.read_text()
        if re.search(rf"^class {name}\b", text, re.MULTILINE | re.IGNORECASE):
            return _fields(ast.parse(text).body, name)
    return {}


def _fields(module: Sequence[ast.stmt], name: str) -> Mapping[str, Kind]:
    """The fields of a class, their types as written; what the module itself names is written out."""
    held = next(part for part in module if isinstance(part, ast.ClassDef) and part.name.lower() == name.lower())
    lines = [line for line in held.body if isinstance(line, ast.AnnAssign) and _is_option(line)]
    meant = {ast.unparse(line.targets[0]): line.value for line in module if isinstance(line, ast.Assign)}
    return {ast.unparse(line.target): _written_out(ast.unparse(line.annotation), meant) for line in lines}


def _is_option(line: ast.AnnAssign) -> bool:
    hidden = "init=False" in ast.unparse(line.value) if isinstance(line.value, ast.Call) else False
    return not hidden and "ClassVar" not in ast.unparse(line.annotation)


def _written_out(kind: str, meant: Mapping[str, ast.expr]) -> str:
    return re.sub(r"\w+", lambda word: ast.unparse(meant[word[0]]) if word[0] in meant else word[0], kind)


def _rooms() -> Mapping[str, str]:
    from p2pfl.plugins import ROOMS

    return ROOMS


def _names(room: str) -> list[str]:
    return sorted(path.stem for path in _folder(_rooms()[room]).glob("[!_]*.py"))


@cache
def _folder(package: str) -> Path:
    """The folder of a package, which is not imported, though the one above it is."""
    spec = find_spec(package)
    return Path(next(iter((spec and spec.submodule_search_locations) or ["."])))
