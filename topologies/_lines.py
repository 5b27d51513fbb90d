"""The lines of a text file that names links: comments and a header are left out, every refusal says which line."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from p2pfl.errors import ScenarioError
from p2pfl.messages import HUB, PeerId
from p2pfl.plugins import brief

LARGEST_BYTES = 1 << 28
NETWORKX_DATA = re.compile(r"\{'weight': ([^,}]*)\}$|,?\s*\{\}$")
"""What networkx.write_edgelist writes behind each link."""

NUMBER = re.compile("[-+.]?[0-9]")
"""How no column is called: a first row that has one is a link, if of somebody who is no peer."""

ENDS = {
    *("u", "v", "i", "j", "source", "target", "src", "dst", "from", "to", "start", "end", "head", "tail"),
    *("node", "node_a", "node_b", "node1", "node2", "peer", "peer_a", "peer_b", "peer1", "peer2", "vertex"),
    *("round", "weight"),
}
"""How columns are called: a first row without any of them is a link too."""

Line = tuple[str, list[str]]
"""Where it stands, as `lab.csv:3`, and its fields."""


def refusal(problem: str, remedy: str) -> ScenarioError:
    """The error of a file, whose name is the option `path`."""
    return ScenarioError(problem, remedy, ("path",))


def content(path: Path) -> bytes:
    """What the file holds. Raises ScenarioError."""
    try:
        if not path.is_file():
            raise refusal(f"no file {path}", "give the path of a graph file")
        with path.open("rb") as file:
            raw = file.read(LARGEST_BYTES + 1)
    except OSError as error:
        raise refusal(f"cannot read {path}, {error.strerror}", "give a file that can be read") from None
    if len(raw) > LARGEST_BYTES:
        raise refusal(f"{path} is larger than {LARGEST_BYTES} bytes", "no graph of peers is")
    return raw


def lines(raw: bytes, source: str) -> Iterator[Line]:
    """Those that say something. Raises ScenarioError where they are not text."""
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        number = raw[: error.start].count(b"\n") + 1
        raise refusal(f"{source}:{number} is not UTF-8 text", "save it as UTF-8 text") from None
    for number, line in enumerate(text.split("\n"), 1):
        said = NETWORKX_DATA.sub(r"\1", line.partition("#")[0].strip()).strip()
        if said:
            fields = said.split(",") if "," in said else said.split()
            yield f"{source}:{number}", [field.strip().strip('"') for field in fields]


def table(raw: bytes, source: str, columns: Sequence[str]) -> list[Line]:
    """The rows of a table whose last column, `weight`, may be left out. Raises ScenarioError."""
    rows, most = list(lines(raw, source)), (*columns, "weight")
    if rows and not any(map(NUMBER.match, rows[0][1])) and "hub" not in rows[0][1]:
        where, names = rows.pop(0)
        if ENDS.isdisjoint(name.lower() for name in names):
            raise _nobody(names[0], where, f"; columns are {','.join(most)}")
        _check_header(where, names, most)
    for where, fields in rows:
        if not len(columns) <= len(fields) <= len(most):
            had = f"{len(fields)} column{'s' if len(fields) > 1 else ''}"
            raise refusal(f"{where} has {had}", f"write {','.join(columns)} or {','.join(most)}")
    return rows


def _check_header(where: str, names: list[str], most: Sequence[str]) -> None:
    named = [name.lower() for name in names]
    if (most[0] == "round") != (named[0] == "round"):
        has, other = ("a", "schedule") if named[0] == "round" else ("no", "file")
        raise refusal(f"{where} has {has} column 'round' to begin with", f"name the file as a {other!r}")
    if len(named) not in (len(most) - 1, len(most)) or named[len(most) - 1 :] not in ([], ["weight"]):
        raise refusal(f"{where} has the columns {brief(','.join(names))}", f"they should be {','.join(most)}")


def is_peer(name: str) -> bool:
    """Whether a peer can be called so."""
    return name == "hub" or re.fullmatch(r"0|[1-9][0-9]{0,4}", name) is not None


def peer(name: str, where: str) -> PeerId:
    """The peer of this name. Raises ScenarioError when no peer is called so."""
    if not is_peer(name):
        raise _nobody(name, where)
    return HUB if name == "hub" else int(name)


def _nobody(name: str, where: str, further: str = "") -> ScenarioError:
    return refusal(f"{where} names {brief(name)}, which no peer is called", f"peers are 0, 1, 2, ... and hub{further}")
