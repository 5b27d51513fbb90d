"""Graph files: GraphML, edge lists and adjacency lists, of peers `0`, `1`, ... and `hub`; every link is checked.

Source: Brandes et al. 2002, "GraphML Progress Report" (read by networkx), and networkx's edge and adjacency lists.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.parsers import expat

import networkx as nx

from p2pfl.messages import HUB, PeerId, peer_name
from p2pfl.plugins import brief

from ._lines import content, lines, peer, refusal, table

MOST_NAMED = 8
IN_RANGE = "weights are above 0 and at most 1"


def read(path: Path) -> nx.Graph[PeerId]:
    """The graph in a file, its format told by the file's ending. Raises ScenarioError."""
    reader = FORMATS.get(path.suffix.lower())
    if reader is None:
        raise refusal(f"{path} is no graph file", f"its name should end in {', '.join(FORMATS)}")
    graph = reader(content(path), str(path))
    if not len(graph):
        raise refusal(f"{path} names no peer", "write at least one link")
    return graph


def numbered(found: Sequence[PeerId]) -> tuple[PeerId, ...]:
    """All peers up to the highest that a file names, and the hub where it does."""
    return (*((HUB,) if HUB in found else ()), *range(max(found) + 1))


def of_exactly(found: nx.Graph[PeerId], nodes: Sequence[PeerId], source: object) -> nx.Graph[PeerId]:
    """The same graph with its peers in the order of `nodes`. Raises ScenarioError unless it has just those."""
    extra, lacking = sorted(set(found) - set(nodes)), [node for node in nodes if node not in found]
    if extra:
        out = "take it out" if len(extra) == 1 else "take them out"
        remedy = f"set peers to {max(found) + 1}, or {out}" if max(extra) >= 0 else out
        raise refusal(f"{source} has {_named(extra)}, not among the {len(nodes)} peers there are", remedy)
    if lacking:
        remedy = "give it a link there" if len(lacking) == 1 else "give them links there, or set peers to what it has"
        raise refusal(f"{source} lacks {_named(lacking)}", remedy)
    ordered: nx.Graph[PeerId] = nx.Graph()
    ordered.add_nodes_from(nodes)
    ordered.add_edges_from(found.edges(data=True))
    return ordered


def add_link(
    graph: nx.Graph[PeerId], where: str, ends: Sequence[str], weight: Any = None, large: str = IN_RANGE
) -> None:
    """Add what a line says. Raises ScenarioError: a link joins two peers, stands once, and has a weight in (0, 1].

    `large` is the remedy for a weight that is larger.
    """
    i, j = (peer(end, where) for end in ends)
    if i == j:
        raise refusal(f"{where} links {peer_name(i)} to itself", "take the line out")
    if graph.has_edge(i, j):
        raise refusal(f"{where} links {peer_name(i)} and {peer_name(j)} again", "name each link once, in one direction")
    graph.add_edge(i, j, **({} if weight is None else {"weight": _weight(weight, where, large)}))


def _weight(given: Any, where: str, large: str) -> float:
    weight = _number(given)
    if not 0 < weight <= 1:
        raise refusal(f"{where} has the weight {brief(given)}", large if 1 < weight < math.inf else IN_RANGE)
    return weight


def _number(given: Any) -> float:
    try:
        return float("nan" if isinstance(given, bool) else given)
    except (TypeError, ValueError):
        return float("nan")


def _scaled(weights: Iterable[Any], part: str) -> str:
    """The remedy for weights above 1, which are those of a `part` of the file: their order is kept by a division."""
    largest = max((weight for weight in map(_number, weights) if math.isfinite(weight)), default=1.0)
    return f"{IN_RANGE}, so divide all of them by the largest, {largest:.12g}, or remove the {part}"


def _edge_list(raw: bytes, source: str) -> nx.Graph[PeerId]:
    graph: nx.Graph[PeerId] = nx.Graph()
    rows = table(raw, source, ("u", "v"))
    large = _scaled((weight for _, fields in rows for weight in fields[2:]), "third column")
    for where, (u, v, *weight) in rows:
        add_link(graph, where, (u, v), weight[0] if weight else None, large)
    return graph


def _adjacency_list(raw: bytes, source: str) -> nx.Graph[PeerId]:
    """A peer, then its neighbours, a line; each link once (as networkx writes) or all of them from both ends."""
    graph: nx.Graph[PeerId] = nx.Graph()
    heard: dict[tuple[str, str], str] = {}
    for where, (first, *others) in lines(raw, source):
        graph.add_node(peer(first, where))
        for other in others:
            if (first, other) in heard:
                raise refusal(f"{where} links {first} and {other} again", "name each link once a direction")
            if (other, first) not in heard:
                add_link(graph, where, (first, other))
            heard[first, other] = where
    one_way = [where for (u, v), where in heard.items() if (v, u) not in heard]
    if one_way and len(one_way) < len(heard):
        raise refusal(
            f"{one_way[0]} names a link from one end only, as in a directed graph", "name all links from both"
        )
    return graph


def _graphml(raw: bytes, source: str) -> nx.Graph[PeerId]:
    _check_xml(raw, source)
    try:
        made: Any = nx.read_graphml(io.BytesIO(raw))
    except Exception as error:  # networkx raises whatever the file leads to
        problem = f"{source} is no GraphML, {type(error).__name__}: {str(error)[:200]}"
        raise refusal(problem.rstrip(": "), "write it anew, by networkx.write_graphml for one") from None
    if made.is_directed():
        raise refusal(f"{source} is directed", 'links go both ways: write edgedefault="undirected"')
    graph: nx.Graph[PeerId] = nx.Graph()
    graph.add_nodes_from(peer(name, source) for name in made)
    usual = made.graph.get("edge_default", {}).get("weight")
    links = list(made.edges(data="weight", default=usual))
    large = _scaled((weight for _, _, weight in links), "attribute 'weight'")
    for u, v, weight in links:
        add_link(graph, source, (u, v), weight, large)
    return graph


def _check_xml(raw: bytes, source: str) -> None:
    """Raises ScenarioError unless this is XML of one graph, without a DOCTYPE: so no entity is declared or expanded."""
    parser, graphs = expat.ParserCreate(), 0

    def declared(*_: object) -> None:
        raise refusal(f"{source}:{parser.CurrentLineNumber} has a DOCTYPE", "take it out: entities are not expanded")

    def opened(name: str, _: object) -> None:
        nonlocal graphs
        graphs += name.rpartition(":")[2] == "graph"

    parser.StartDoctypeDeclHandler, parser.StartElementHandler = declared, opened
    try:
        parser.Parse(raw, True)
    except expat.ExpatError as error:
        problem = f"{source}:{error.lineno} is broken XML, {expat.ErrorString(error.code)}"
        raise refusal(problem, "mend the line") from None
    if graphs != 1:
        raise refusal(f"{source} holds {graphs} graphs", "keep one, without graphs within its nodes")


def _named(peers: Sequence[PeerId]) -> str:
    listed = ", ".join(peer_name(each) for each in peers[:MOST_NAMED])
    further = f" and {len(peers) - MOST_NAMED} more" if len(peers) > MOST_NAMED else ""
    return f"peer{'s' if len(peers) > 1 else ''} {listed}{further}"


FORMATS: Mapping[str, Callable[[bytes, str], nx.Graph[PeerId]]] = {
    ".graphml": _graphml,
    **dict.fromkeys((".csv", ".edgelist", ".txt", ".edges"), _edge_list),
    ".adjlist": _adjacency_list,
}
