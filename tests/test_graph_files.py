"""Graph files say which peers are linked; what is no simple graph of just the peers is refused by file and line."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import networkx as nx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from p2pfl import plugins
from p2pfl.errors import ScenarioError
from p2pfl.messages import HUB
from p2pfl.mixing import metropolis
from p2pfl.seeds import Seeds

SEEDS = Seeds.of(7)
GRAPHML = '<graphml xmlns="http://graphml.graphdrawing.org/xmlns">{}</graphml>'


def written(folder: Path, name: str, text: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def read(path: Path, peers: int, hub: bool = False) -> nx.Graph[int]:
    nodes = (*((HUB,) if hub else ()), *range(peers))
    graph: nx.Graph[int] = plugins.build("topologies", "file", {"path": str(path)}).graph(nodes, SEEDS)
    assert tuple(graph) == nodes
    assert type(graph) is nx.Graph
    return graph


def links(graph: nx.Graph[int]) -> dict[tuple[int, ...], float | None]:
    return {tuple(sorted((i, j))): weight for i, j, weight in graph.edges(data="weight")}


EDGES = {(0, 1): None, (1, 2): None, (0, 2): None}
WEIGHED = {(0, 1): 0.5, (1, 2): 1.0, (0, 2): None}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "0,1\n1,2\n2,0\n"),
        ("a.csv", "u,v\r\n0,1\r\n1,2\r\n2,0\r\n"),
        ("a.csv", '"source","target"\n"0", "1"\n1,2\n\n2,0'),
        ("a.CSV", "\ufeffsource,target\n0,1\n1,2\n2,0\n"),
        ("a.edgelist", "# of the laboratory\n0 1  # by cable\n1 2\n2\t0\n"),
        ("a.txt", "from to\n0 1\n1 2\n2 0\n"),
        ("a.edges", "0 1 {}\n1 2 {}\n2 0 {}\n"),
        ("a.csv", "0,1,{}\n1,2,{}\n2,0,{}\n"),
        ("a.adjlist", "# networkx\n0 1 2\n1 2\n2\n"),
        ("a.adjlist", "0 1 2\n1 0 2\n2 0 1\n"),
    ],
)
def test_links_are_read_from_lines(name: str, text: str, tmp_path: Path) -> None:
    assert links(read(written(tmp_path, name, text), 3)) == EDGES


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "u,v,weight\n0,1,0.5\n1,2,1\n2,0\n"),
        ("a.csv", "0,1,5e-1\n1,2,1.0\n2,0"),
        ("a.edgelist", "0 1 0.5\n1 2 1\n2 0\n"),
        ("a.edgelist", "0 1 {'weight': 0.5}\n1 2 {'weight': 1}\n2 0 {}\n"),
    ],
)
def test_a_weight_is_kept_and_scales_the_mixing_weight(name: str, text: str, tmp_path: Path) -> None:
    graph = read(written(tmp_path, name, text), 3)
    assert links(graph) == WEIGHED
    assert metropolis(graph)[0] == {1: pytest.approx(0.5 / 3), 2: pytest.approx(1 / 3)}


WRITERS: dict[str, Callable[[nx.Graph[str], Path], None]] = {
    "graphml": nx.write_graphml_xml,
    "edgelist": nx.write_edgelist,
    "adjlist": nx.write_adjlist,
    "csv": lambda graph, path: nx.write_edgelist(graph, path, delimiter=",", data=False),
    "txt": lambda graph, path: nx.write_weighted_edgelist(graph, path),
}


@settings(max_examples=25, deadline=None)
@given(peers=some.integers(2, 9), seed=some.integers(0, 10**6), hub=some.booleans())
@pytest.mark.parametrize("ending", WRITERS)
def test_what_networkx_writes_is_read_as_it_was(
    ending: str, peers: int, seed: int, hub: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    graph: nx.Graph[int] = nx.connected_watts_strogatz_graph(peers, 2, 0.5, 100, seed)
    if hub:
        graph.add_edges_from((HUB, i) for i in range(peers))
    for i, j in graph.edges:
        if ending in ("graphml", "edgelist", "txt"):
            graph.edges[i, j]["weight"] = 1 / (1 + i + j + 2)
    named: nx.Graph[str] = nx.Graph()
    named.add_nodes_from("hub" if node == HUB else str(node) for node in graph)
    for i, j, attributes in graph.edges(data=True):
        named.add_edge("hub" if i == HUB else str(i), "hub" if j == HUB else str(j), **attributes)
    path = tmp_path_factory.mktemp("written") / f"lab.{ending}"
    WRITERS[ending](named, path)
    assert links(read(path, peers, hub)) == links(graph)
    made_for = plugins.build("topologies", "file", {"path": str(path)}).peers()
    assert made_for == (*((HUB,) if hub else ()), *range(peers))


REFUSED = [
    ("a.csv", "0,1\n0,2", 2, "a.csv has peer 2, not among the 2 peers there are: set peers to 3, or take it out"),
    ("a.csv", "0,1", 5, "a.csv lacks peers 2, 3, 4: give them links there"),
    ("a.csv", "0,1", 3, "a.csv lacks peer 2: give it a link there"),
    ("a.csv", "hub,1\n0,1", 2, "a.csv has peer hub, not among the 2 peers there are: take it out"),
    ("a.csv", "0,1\n# x\n1,1", 2, "a.csv:3 links 1 to itself: take the line out"),
    ("a.csv", "0,1\n1,0", 2, "a.csv:2 links 1 and 0 again: name each link once"),
    ("a.csv", "0,1\n1,alice", 2, "a.csv:2 names 'alice', which no peer is called: peers are 0, 1, 2, ... and hub"),
    (
        "a.csv",
        "alice,bob,0.5\nbob,carol,1",
        2,
        "a.csv:1 names 'alice', which no peer is called: peers are 0, 1, 2, ... and hub",
    ),
    (
        "a.csv",
        "alice,bob\nbob,carol",
        2,
        "a.csv:1 names 'alice', which no peer is called: peers are 0, 1, 2, ... and hub",
    ),
    (
        "a.csv",
        "von,nach\n0,1",
        2,
        "a.csv:1 names 'von', which no peer is called: peers are 0, 1, 2, ... and hub; columns are u,v,weight",
    ),
    ("a.csv", "hub,alice\n0,1", 2, "a.csv:1 names 'alice', which no peer is called: peers are 0, 1, 2, ... and hub"),
    ("a.csv", "0,1\n1,-1", 2, "a.csv:2 names '-1', which no peer is called"),
    ("a.csv", "-1,-2\n0,1", 2, "a.csv:1 names '-1', which no peer is called"),
    ("a.csv", "00,01\n0,1", 2, "a.csv:1 names '00', which no peer is called"),
    ("a.csv", "0,1\n1,02", 3, "a.csv:2 names '02', which no peer is called"),
    ("a.csv", "0,1\n1,2,0.5,x", 3, "a.csv:2 has 4 columns: write u,v or u,v,weight"),
    ("a.csv", "0,1\n1", 2, "a.csv:2 has 1 column: write u,v or u,v,weight"),
    ("a.csv", "u,v,latency\n0,1,3", 2, "a.csv:1 has the columns 'u,v,latency': they should be u,v,weight"),
    ("a.csv", "round,u,v\n1,0,1", 2, "a.csv:1 has a column 'round' to begin with: name the file as a 'schedule'"),
    ("a.csv", "u,v\n", 2, "a.csv names no peer: write at least one link"),
    ("a.csv", "", 2, "a.csv names no peer: write at least one link"),
    ("a.csv", b"0,1\n1,\xff", 2, "a.csv:2 is not UTF-8 text: save it as UTF-8 text"),
    *(
        ("a.csv", f"0,1,{weight}", 2, f"a.csv:1 has the weight '{weight}': weights are above 0 and at most 1")
        for weight in ("0", "-0.5", "1.01", "nan", "inf", "", "heavy")
    ),
    ("a.adjlist", "0 1\n1 1", 2, "a.adjlist:2 links 1 to itself"),
    ("a.adjlist", "0 1 1", 2, "a.adjlist:1 links 0 and 1 again"),
    ("a.adjlist", "0 1 2\n1 0 2\n2 1", 3, "a.adjlist:1 names a link from one end only, as in a directed graph"),
    ("a.gml", "graph []", 2, "a.gml is no graph file: its name should end in .graphml, .csv"),
    ("a.graphml", "<graphml>\n<graph>", 2, "a.graphml:2 is broken XML, no element found: mend the line"),
    ("a.graphml", "0,1", 2, "a.graphml:1 is broken XML, syntax error: mend the line"),
    ("a.graphml", GRAPHML.format(""), 2, "a.graphml holds 0 graphs: keep one"),
    ("a.graphml", GRAPHML.format("<graph/><graph/>"), 2, "a.graphml holds 2 graphs: keep one"),
    ("a.graphml", GRAPHML.format('<graph edgedefault="directed"/>'), 2, "a.graphml is directed: links go both ways"),
    ("a.graphml", GRAPHML.format('<graph><node id="a"/></graph>'), 2, "a.graphml names 'a', which no peer is called"),
    ("a.graphml", GRAPHML.format("<graph><hyperedge/></graph>"), 2, "a.graphml is no GraphML, NetworkXError: "),
]
EDGE = '<edge source="{}" target="{}"/>'
TWICE = "<graph>" + EDGE.format(0, 1) + EDGE.format(1, 0) + "</graph>"
LOOP = "<graph>" + EDGE.format(0, 1) + EDGE.format(1, 1) + "</graph>"
ONE_WAY = '<graph edgedefault="undirected"><edge source="0" target="1" directed="true"/></graph>'
WEIGHT = (
    '<key id="w" for="edge" attr.name="weight" attr.type="{}"/>'
    '<graph><edge source="0" target="1"><data key="w">{}</data></edge></graph>'
)
REFUSED += [
    ("a.graphml", GRAPHML.format(TWICE), 2, "a.graphml links 0 and 1 again: name each link once"),
    ("a.graphml", GRAPHML.format(LOOP), 2, "a.graphml links 1 to itself: take the line out"),
    ("a.graphml", GRAPHML.format(ONE_WAY), 2, "a.graphml is no GraphML, NetworkXError: directed=true edge"),
    ("a.graphml", GRAPHML.format(WEIGHT.format("double", 3)), 2, "a.graphml has the weight 3.0: weights are above 0"),
    (
        "a.graphml",
        GRAPHML.format(WEIGHT.format("long", 7)),
        2,
        "a.graphml has the weight 7: weights are above 0 and at most 1, so divide all of them by the largest, 7, "
        "or remove the attribute 'weight'",
    ),
    (
        "a.csv",
        "0,1,2\n1,2,4.5",
        3,
        "a.csv:1 has the weight '2': weights are above 0 and at most 1, so divide all of them by the largest, 4.5, "
        "or remove the third column",
    ),
    ("a.csv", "0,1,-2\n1,2,3", 3, "a.csv:1 has the weight '-2': weights are above 0 and at most 1"),
    ("a.graphml", GRAPHML.format(WEIGHT.format("boolean", "true")), 2, "a.graphml has the weight True: weights are"),
    ("a.graphml", GRAPHML.format(WEIGHT.format("double", "x")), 2, "a.graphml is no GraphML, ValueError: could not"),
]


@pytest.mark.parametrize(("name", "text", "peers", "said"), REFUSED)
def test_what_is_no_graph_of_just_the_peers_is_refused_in_one_line(
    name: str, text: str | bytes, peers: int, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    written(tmp_path, name, text)
    with pytest.raises(ScenarioError) as raised:
        read(Path(name), peers)
    assert str(raised.value).startswith(said)
    assert len(str(raised.value).splitlines()) == 1
    assert raised.value.remedy
    assert raised.value.path == ("path",)


def test_a_graph_of_large_weights_is_read_after_what_the_error_says_to_do(tmp_path: Path) -> None:
    club, path = nx.karate_club_graph(), tmp_path / "club.graphml"
    largest = max(weight for _, _, weight in club.edges(data="weight"))
    nx.write_graphml_xml(club, path)
    with pytest.raises(ScenarioError, match=f"divide all of them by the largest, {largest}, or remove the attribute"):
        read(path, 34)
    for _, _, link in club.edges(data=True):
        link["weight"] /= largest
    nx.write_graphml_xml(club, path)
    assert links(read(path, 34)) == links(club)


def test_no_link_between_peers_is_taken_for_a_header(tmp_path: Path) -> None:
    for header in ("u,v", "Source,Target", "from,to", "node1,node2", "src,dst,weight", "i,j"):
        assert links(read(written(tmp_path, "a.csv", f"{header}\n0,1\n"), 2)) == {(0, 1): None}
    assert links(read(written(tmp_path, "a.csv", "hub,0\n0,1\n"), 2, hub=True)) == {(HUB, 0): None, (0, 1): None}


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none.csv", tmp_path):
        with pytest.raises(ScenarioError, match=r"no file|no graph file"):
            read(path.with_suffix(".csv"), 2)
    with pytest.raises(ScenarioError, match=r"cannot read .*File name too long"):
        read(tmp_path / ("x" * 300 + ".csv"), 2)
    if os.geteuid():  # root may read all
        written(tmp_path, "locked.csv", "0,1").chmod(0)
        with pytest.raises(ScenarioError, match=r"cannot read .*Permission denied"):
            read(tmp_path / "locked.csv", 2)


LAUGHS = '<!ENTITY l0 "lol">' + "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 30))
BOMBS = {
    "entities of entities": f"<!DOCTYPE graphml [{LAUGHS}]>\n<graphml><graph><node id='&l29;'/></graph></graphml>",
    "one large entity": f'<!DOCTYPE g [<!ENTITY a "{"a" * 10**5}">]>\n<graphml>{"&a;" * 10**5}</graphml>',
    "a file": '<!DOCTYPE g [<!ENTITY a SYSTEM "file:///etc/passwd">]>\n<graphml><graph id="&a;"/></graphml>',
}


@pytest.mark.parametrize("coding", ["utf-8", "utf-16"])
@pytest.mark.parametrize("bomb", BOMBS)
def test_entities_of_graphml_are_never_expanded(bomb: str, coding: str, tmp_path: Path) -> None:
    path = written(tmp_path, "bomb.graphml", BOMBS[bomb].encode(coding))
    begun_s = time.process_time()
    with pytest.raises(ScenarioError, match=r"bomb\.graphml:1 has a DOCTYPE: take it out"):
        read(path, 2)
    assert time.process_time() - begun_s < 1


def test_a_default_weight_of_graphml_counts_where_a_link_says_none(tmp_path: Path) -> None:
    key = '<key id="w" for="edge" attr.name="weight" attr.type="double"><default>0.25</default></key>'
    path = written(tmp_path, "a.graphml", GRAPHML.format(key + f"<graph>{EDGE.format(0, 1)}</graph>"))
    assert links(read(path, 2)) == {(0, 1): 0.25}


SCHEDULE = "round,u,v,weight\n1,0,1\n1,1,2\n2,0,2,0.5\n2,1,2\n4,0,1\n4,0,2\n"


def schedule(folder: Path, text: str, **options: object) -> plugins.Any:
    return plugins.build("topologies", "schedule", {"path": str(written(folder, "s.csv", text)), **options})


def test_a_schedule_has_the_links_of_each_round_and_begins_again(tmp_path: Path) -> None:
    plugin = schedule(tmp_path, SCHEDULE, allow_disconnected=True)
    assert links(plugin.graph(range(3), SEEDS)) == EDGES
    expected = [
        {(0, 1): None, (1, 2): None},
        {(0, 2): 0.5, (1, 2): None},
        {},
        {(0, 1): None, (0, 2): None},
    ]
    for r in range(1, 13):
        graph = plugin.graph_in(range(3), SEEDS, r)
        assert tuple(graph) == (0, 1, 2)
        assert links(graph) == expected[(r - 1) % 4]
    assert plugin.peers() == (0, 1, 2)


def test_a_schedule_is_read_once_and_outlives_its_file(tmp_path: Path) -> None:
    plugin = schedule(tmp_path, SCHEDULE, allow_disconnected=True)
    assert links(plugin.graph_in(range(3), SEEDS, 1))
    (tmp_path / "s.csv").unlink()
    assert links(plugin.graph_in(range(3), SEEDS, 2)) == {(0, 2): 0.5, (1, 2): None}


@pytest.mark.parametrize(
    ("text", "peers", "options", "said"),
    [
        (
            SCHEDULE,
            3,
            {},
            "does not connect all peers in round 3: give it more links, or say 'allow_disconnected: true'",
        ),
        ("1,0,1\n1,1,2\n2,0,1", 3, {}, "does not connect all peers in round 2: give it more links, or say"),
        ("1,0,1\n2,2,3", 4, {"allow_disconnected": True}, "does not connect all peers, in all its rounds together"),
        ("1,0,1\n1,1,2\n2,1,2\n2,2,1", 3, {}, "s.csv:4 links 2 and 1 again"),
        ("0,0,1", 3, {}, "s.csv:1 is of round '0': rounds are 1, 2, 3, ..."),
        ("1.5,0,1", 3, {}, "s.csv:1 is of round '1.5': rounds are 1, 2, 3, ..."),
        (f"{'9' * 30},0,1", 3, {}, "s.csv:1 is of round '99999999999999999999'"),
        ("1,0", 3, {}, "s.csv:1 has 2 columns: write round,u,v or round,u,v,weight"),
        ("u,v\n0,1", 3, {}, "s.csv:1 has no column 'round' to begin with: name the file as a 'file'"),
        ("round,u,v\n", 3, {}, "names no link: write at least one row 'round,u,v'"),
        ("1,0,1,2", 3, {}, "s.csv:1 has the weight '2': weights are above 0 and at most 1"),
        (
            "1,0,1\n1,1,2\n1,2,3\n1,3,4",
            4,
            {},
            "has peer 4, not among the 4 peers there are: set peers to 5, or take it out",
        ),
    ],
)
def test_a_schedule_that_cannot_be_is_refused(
    text: str, peers: int, options: dict[str, object], said: str, tmp_path: Path
) -> None:
    with pytest.raises(ScenarioError) as raised:
        schedule(tmp_path, text, **options).graph(range(peers), SEEDS)
    assert said in str(raised.value)
    assert raised.value.path == ("path",)
    assert raised.value.remedy


def test_rounds_far_apart_take_no_memory_and_no_time(tmp_path: Path) -> None:
    plugin = schedule(tmp_path, "1,0,1\n999999999,1,2\n", allow_disconnected=True)
    assert links(plugin.graph(range(3), SEEDS)) == {(0, 1): None, (1, 2): None}
    assert not links(plugin.graph_in(range(3), SEEDS, 500))
