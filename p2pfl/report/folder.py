"""A run folder, read with suspicion: whatever is missing, cut off or nonsense costs only itself."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from p2pfl.errors import ScenarioError
from p2pfl.report.units import number, peer_label, peer_order

Row = Mapping[str, Any]
Floats = NDArray[np.float64]
Link = tuple[str, str]

LOG_BYTES = 16_000
"""How much of the end of log.txt is shown."""
APART = {"spied", "spying"}
"""What rows have that tell of an attack, by any of these: they are no rounds of their peer. See leaks.py."""


@dataclass(frozen=True, eq=False)
class Run:
    """What a run left. Peers are named as in records: `hub`, `0`, `1`, ..."""

    folder: Path
    name: str
    scenario: str
    environment: Any
    summary: Mapping[str, Any]
    peers: tuple[str, ...]
    rows: Mapping[str, tuple[Row, ...]]
    """A peer's rows, in the order of rounds."""
    whole: tuple[Row, ...]
    """The rows of all peers together."""
    links: Mapping[Link, float | None]
    """The links of the graph, and the bytes both ends sent over each; None where nobody said."""
    unreadable: int
    """How many lines of records.jsonl said nothing."""
    log: str

    @property
    def finished(self) -> bool:
        """Whether the run came to its end and was summed up."""
        return bool(self.summary)


def read(folder: Path) -> Run:
    """The record in `folder`. Raises ScenarioError where there is none."""
    try:
        is_folder = folder.is_dir()
    except OSError:  # a name that no folder can have
        is_folder = False
    if not is_folder:
        raise ScenarioError(f"no folder {str(folder)[-60:]!r}", "give the folder that `p2pfl launch` wrote")
    if not any((folder / name).is_file() for name in ("records.jsonl", "summary.json", "environment.json")):
        remedy = "it has no records.jsonl; give the folder that `p2pfl launch` wrote"
        raise ScenarioError(f"'{folder}' is not a run folder", remedy)
    rows, whole, sent, unreadable = _records(_text(folder / "records.jsonl"))
    nodes, links = _graph(_json(folder / "graph.json"))
    scenario, summary = ends(folder)
    said = re.search(r"^name:[ \t]*['\"]?([^\s'\"]+)", scenario, re.MULTILINE)
    return Run(
        folder=folder,
        name=str(summary.get("name") or (said.group(1) if said else folder.resolve().name)),
        scenario=scenario,
        environment=_json(folder / "environment.json"),
        summary=summary,
        peers=tuple(sorted({*nodes, *rows}, key=peer_order)),
        rows=rows,
        whole=whole,
        links={link: sent.get(link) for link in sorted({*links, *sent}, key=lambda link: [*map(peer_order, link)])},
        unreadable=unreadable,
        log=_text(folder / "log.txt", LOG_BYTES),
    )


def ends(folder: Path) -> tuple[str, Mapping[str, Any]]:
    """What a run began and ended with: the text of its scenario and its summary; empty where there is none."""
    return _text(folder / "scenario.yaml"), mapping(folder / "summary.json")


def mapping(path: Path) -> Mapping[str, Any]:
    """The mapping that a JSON file holds; empty where there is none."""
    held = _json(path)
    return held if isinstance(held, dict) else {}


def series(rows: tuple[Row, ...], key: str) -> tuple[Floats, Floats]:
    """The rounds in which `key` was recorded as a number, and the numbers."""
    found = [(row["round"], figure) for row in rows if (figure := number(row.get(key))) is not None]
    points = np.array(found, dtype=np.float64).reshape(-1, 2)
    return points[:, 0], points[:, 1]


def last(run: Run, peer: str, *keys: str) -> float | None:
    """The last number a peer recorded under the first of `keys` that it ever recorded."""
    for key in keys:
        for row in reversed(run.rows.get(peer, ())):
            if (figure := number(row.get(key))) is not None:
                return figure
    return None


def last_round(run: Run, peer: str) -> int:
    """The last round a peer reported; 0 if none."""
    rows = run.rows.get(peer, ())
    return int(rows[-1]["round"]) if rows else 0


def crashed(run: Run) -> tuple[str, ...]:
    """Whose process or flow failed, as the summary says."""
    told = run.summary.get("crashed")
    found = {peer for peer in map(peer_label, told if isinstance(told, list) else []) if peer is not None}
    return tuple(sorted(found, key=peer_order))


def absences(run: Run) -> dict[str, list[int]]:
    """The rounds in which somebody missed a peer, by peer."""
    missed: dict[str, set[int]] = {}
    for rows in run.rows.values():
        for row in rows:
            if isinstance(row.get("absent"), list):
                for peer in filter(None, map(peer_label, row["absent"])):
                    missed.setdefault(peer, set()).add(row["round"])
    return {peer: sorted(rounds) for peer, rounds in missed.items()}


def spent_out(run: Run) -> dict[str, int]:
    """Peers that stopped training because their privacy budget was spent, and the first round that says so."""
    found: dict[str, int] = {}
    for peer in run.peers:
        spent = (int(row["round"]) for row in run.rows.get(peer, ()) if row.get("budget_spent") is True)
        if (round_ := next(spent, None)) is not None:
            found[peer] = round_
    return found


def lost(run: Run) -> dict[str, int]:
    """Who did not come to the end, and its last round: crashed, missed after its own last word, or silent at the end.

    In a star a peer that is not chosen is silent too, so there only being missed counts; nor is anybody
    silent at the end of a run that was stopped, which is one that nobody tested, nor who was tested itself, as
    asynchronous peers are after rounds of their own.
    """
    missed, failed = absences(run), crashed(run)
    ended = {peer: last_round(run, peer) for peer in run.peers}
    end = max(ended.values(), default=0)
    tested = any("test_accuracy" in rows[-1] for rows in run.rows.values() if rows[-1]["round"] == end)
    silent_is_lost = tested and "hub" not in run.peers
    return {
        peer: round_
        for peer, round_ in ended.items()
        if peer in failed
        or max(missed.get(peer, [0])) > round_
        or (silent_is_lost and round_ < end and "test_accuracy" not in (run.rows.get(peer) or ({},))[-1])
    }


def _text(path: Path, tail_bytes: int | None = None) -> str:
    try:
        with path.open("rb") as file:
            if tail_bytes is not None:
                file.seek(max(0, path.stat().st_size - tail_bytes))
            return file.read().decode(errors="replace")
    except OSError:
        return ""


def _json(path: Path) -> Any:
    try:
        return json.loads(_text(path))
    except (ValueError, RecursionError):
        return None


def _lines(text: str) -> Iterator[Any]:
    for line in text.split("\n"):
        if line.strip():
            try:
                yield json.loads(line)
            except (ValueError, RecursionError):
                yield None


def _records(text: str) -> tuple[dict[str, tuple[Row, ...]], tuple[Row, ...], dict[Link, float], int]:
    """The rows of each peer, those of all together, the bytes of each link, and how many lines said nothing."""
    by_peer: dict[str, list[Row]] = {}
    whole: list[Row] = []
    links: dict[Link, float] = {}
    unreadable = 0
    for row in _lines(text):
        round_ = row.get("round") if isinstance(row, dict) else None
        peer = peer_label(row.get("peer")) if isinstance(row, dict) else None
        if type(round_) is not int or not 0 <= round_ < 10**9 or (peer is None and row.get("peer") != "all"):
            unreadable += 1
        elif APART & row.keys():
            continue
        elif peer is None:
            whole.append(row)
        elif "to" in row:
            link, sent = _link((peer, row["to"])), number(row.get("link_bytes"))
            if link is not None and sent is not None:
                links[link] = links.get(link, 0.0) + sent
        else:
            by_peer.setdefault(peer, []).append(row)
    by_round = {peer: tuple(sorted(rows, key=lambda row: int(row["round"]))) for peer, rows in by_peer.items()}
    return by_round, tuple(sorted(whole, key=lambda row: int(row["round"]))), links, unreadable


def _link(ends: object) -> Link | None:
    """The two ends of a link, the lower first; None if it is none."""
    if not isinstance(ends, list | tuple) or len(ends) != 2:
        return None
    a, b = (peer_label(end) for end in ends)
    if a is None or b is None or a == b:
        return None
    return (a, b) if peer_order(a) < peer_order(b) else (b, a)


def _graph(graph: Any) -> tuple[set[str], set[Link]]:
    if not isinstance(graph, dict):
        return set(), set()
    nodes, links = graph.get("nodes"), graph.get("links")
    found = {link for item in (links if isinstance(links, list) else []) if (link := _link(item)) is not None}
    named = filter(None, map(peer_label, nodes if isinstance(nodes, list) else []))
    return {*named, *(end for link in found for end in link)}, found
