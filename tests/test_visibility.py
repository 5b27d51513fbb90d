"""Who can compute whose updates is what exact elimination over all unknowns says, and `check` and an attack say it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import networkx as nx
import numpy
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as some
from p2pfl.cli import main
from sklearn.datasets import load_digits
from torch import Tensor, nn

from p2pfl import scenario
from p2pfl.algorithms.dpsgd import DPSGD
from p2pfl.attacks import _mixtures
from p2pfl.attacks.linear_reconstruction import LinearReconstruction
from p2pfl.contracts import Slot, Training
from p2pfl.curiosity import Case, Known, Network
from p2pfl.evidence import Clue, Part, Sight
from p2pfl.messages import HUB, Figure, PeerId
from p2pfl.metrics import visibility
from p2pfl.mixing import matrix, metropolis
from p2pfl.peer import Role
from p2pfl.report import visibility_figures
from p2pfl.seeds import Seeds

Row = list[Fraction]


def rank(rows: Sequence[Row]) -> int:
    """By elimination in whole fractions."""
    left, found = [list(row) for row in rows], 0
    for column in range(len(left[0]) if left else 0):
        pivot = next((row for row in left[found:] if row[column]), None)
        if pivot is None:
            continue
        left.remove(pivot)
        left = [*left[:found], pivot, *left[found:]]
        for at, row in enumerate(left):
            if at != found and row[column]:
                left[at] = [a - row[column] / pivot[column] * b for a, b in zip(row, pivot, strict=True)]
        found += 1
    return found


def unit(at: int, length: int) -> Row:
    return [Fraction(int(k == at)) for k in range(length)]


def in_span(rows: list[Row], at: int) -> bool:
    return rank([*rows, unit(at, len(rows[0]))]) == rank(rows)


def slow(graphs: Sequence[nx.Graph[int]], observers: set[int], common: bool) -> Iterator[tuple[set[int], set[int]]]:
    """After each round: whose static update is determined, and whose fresh one of that round."""
    peers, rounds = len(graphs[0]), len(graphs) - 1
    width = peers * (rounds + 1)  # x_1, then the d of each round

    def mixed(graph: nx.Graph[int], x: list[Row], r: int) -> list[Row]:
        found = []
        for i in range(peers):
            row = unit(peers * r + i, width)
            weights = {j: Fraction(1, 1 + max(graph.degree[i], graph.degree[j])) for j in graph[i]}
            for j, weight in {**weights, i: 1 - sum(weights.values())}.items():
                row = [a + weight * b for a, b in zip(row, x[j], strict=True)]
            found.append(row)
        return found

    x, mail = [unit(i, width) for i in range(peers)], [unit(i, width) for i in range(peers) if common]
    mail += [unit(peers * r + i, width) for r in range(1, rounds + 1) for i in observers]
    mail += [x[j] for j in around(graphs[0], observers)]
    for r in range(1, rounds + 1):
        x = mixed(graphs[r - 1], x, r)
        mail += [x[j] for j in around(graphs[r], observers)]
        same = [[*row[:peers], *(sum(row[peers + i :: peers], Fraction(0)) for i in range(peers))] for row in mail]
        others = set(range(peers)) - observers
        yield {i for i in others if in_span(same, peers + i)}, {i for i in others if in_span(mail, peers * r + i)}


def around(graph: nx.Graph[int], observers: set[int]) -> set[int]:
    return observers | {j for i in observers for j in graph[i]}


@settings(max_examples=40, deadline=None)
@given(some.integers(2, 5), some.lists(some.integers(0, 10**6), min_size=2, max_size=4), some.booleans(), some.data())
def test_what_is_determined_is_what_elimination_over_all_unknowns_finds(
    peers: int, seeds: list[int], common: bool, data: some.DataObject
) -> None:
    graphs = [nx.gnp_random_graph(peers, 0.5, seed=seed) for seed in seeds]
    if data.draw(some.booleans()):
        graphs = [graphs[0]] * len(graphs)
    observers = data.draw(some.sets(some.integers(0, peers - 1), min_size=1, max_size=2))
    weights = [matrix(graph) for graph in graphs]
    found = zip(
        visibility.static(weights, observers, common), visibility.fresh(weights, observers, common), strict=True
    )
    assert list(found) == list(slow(graphs, observers, common))


CLIQUES = nx.barbell_graph(8, 0)
TORUS = nx.convert_node_labels_to_integers(nx.grid_2d_graph(4, 4, periodic=True))
TABLE = {
    "ring": (nx.cycle_graph(16), 0, (0.13, 0.53, 1.0)),
    "torus": (TORUS, 0, (0.27, 0.60, 0.60)),
    "random 4-regular": (nx.random_regular_graph(4, 16, seed=0), 0, (0.27, 1.0, 1.0)),
    "Erdos-Renyi": (nx.gnp_random_graph(16, 0.3, seed=3), 0, (0.33, 0.93, 0.93)),
    "two cliques": (CLIQUES, 0, (0.47, 0.53, 0.53)),
    "the middle of a star": (nx.star_graph(15), 0, (1.0, 1.0, 1.0)),
    "complete": (nx.complete_graph(16), 0, (1.0, 1.0, 1.0)),
}


@pytest.mark.parametrize("name", TABLE)
def test_the_shares_of_known_graphs_are_those_that_were_found_before(name: str) -> None:
    graph, observer, shares = TABLE[name]
    found = visibility.static([matrix(graph)] * 13, [observer])
    assert tuple(round(len(found[r - 1]) / 15, 2) for r in (1, 4, 12)) == shares


@pytest.mark.parametrize(("graph", "share"), [(nx.cycle_graph(16), 1.1), (nx.random_regular_graph(4, 16, seed=0), 2.2)])
def test_of_fresh_updates_only_the_first_of_neighbours_is_seen_where_partners_are_unheard(
    graph: nx.Graph[int], share: float
) -> None:
    found = visibility.fresh([matrix(graph)] * 13, [0])
    assert found == [frozenset(graph[0]), *[frozenset()] * 11]
    assert round(100 * sum(map(len, found)) / (15 * 12), 1) == share


def test_who_hears_all_partners_of_a_peer_sees_each_of_its_updates() -> None:
    triangle = [matrix(nx.complete_graph(3))] * 6
    assert visibility.fresh(triangle, [0], common=False) == [frozenset({1, 2})] * 5
    ring = [matrix(nx.cycle_graph(4))] * 6
    assert visibility.fresh(ring, [0, 2])[-1] == {1, 3}


def test_ranks_are_exact_where_floats_see_but_rounding() -> None:
    found = visibility.static([matrix(nx.path_graph(40))] * 40, [0])
    assert [len(known) for known in found] == list(range(1, 40))


def test_a_hub_sees_each_member_and_a_member_only_the_last_other() -> None:
    assert visibility.collected(range(4), HUB, [HUB]) == {0, 1, 2, 3}
    assert visibility.collected(range(4), HUB, [0]) == visibility.collected(range(4), HUB, [0, 1]) == frozenset()
    assert visibility.collected(range(4), HUB, [0, 1, 3]) == visibility.collected([0, 2], HUB, [0]) == {2}


ONE_STEP = {"local_steps": 1}


def said(**keys: object) -> dict[str, str]:
    settings_ = {"name": "x", "seed": 7, "peers": 16, "model": "logistic", "training": ONE_STEP, **keys}
    return dict(visibility_figures.figures(scenario.read(settings_)))


def test_check_says_whose_updates_the_worst_peer_and_coalitions_compute_and_what_it_assumes(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("name: x\nseed: 7\npeers: 16\ntraining: {local_steps: 1}\n")
    result = CliRunner().invoke(main, ["check", str(tmp_path / "x.yaml")], catch_exceptions=False)
    lines = (line.split("  ", 1) for line in result.stdout.splitlines() if line[:1].strip() and "  " in line)
    shown = {label: value.strip() for label, value in lines}
    both = "static 2, 8, 15, 15 of 15 others; fresh 13.3, 3.33, 1.11, 0.46 %"
    assert "after 1, 4, 12 and 29 rounds" in shown["updates seen"]
    assert shown["seen by 0, the worst"] == shown["seen by a peer, mean"] == both
    assert shown["seen by 2 that collude"].endswith("worst of all 120)")
    assert "drawn of 560" in shown["seen by 3 that collude"]
    assert "one point that all know" in shown["seen, assumed"]
    assert "points of their own" in said(init="own")["seen, assumed"]


def test_check_speaks_of_those_who_attack() -> None:
    alone = {"peers": [3, 5], "attack": "linear_reconstruction"}
    together = {"peers": [1, 2], "collude": True, "attack": "idlg"}
    shown = said(attacks=[alone, together], topology="torus", rounds=5)
    assert shown["seen by 3"] == shown["seen by 5"] == "static 4, 9 of 15 others; fresh 26.7, 6.67 %"
    assert shown["seen by 1 and 2"].startswith("static 6, ")
    assert not [label for label in shown if "worst" in label]


def test_check_speaks_of_hub_and_members_of_a_star_and_of_each_sketch_attacker() -> None:
    shown = said(algorithm="fedavg", peers=3, sketch="countsketch")
    assert "each of 3" in shown["seen by the hub"]
    assert "the sum of the 2 others' updates" in shown["seen by a member"]
    assert shown["seen by 2 that collude"].startswith("the other's update")
    held = [part.partition(":")[0] for part in shown["under countsketch"].split("; ")]
    assert held[:5] == ["memoryless", "server (the hub)", "stateful", "matched", "head"]
    assert "server" not in said(sketch="countsketch")["under countsketch"]


def test_of_several_local_steps_the_first_post_shows_an_update_so_there_is_one_more() -> None:
    shown = said(training={"local_steps": 5})
    assert "after 1, 4, 12 and 30 rounds" in shown["updates seen"]
    assert shown["seen by 0, the worst"] == "static 2, 8, 15, 15 of 15 others; fresh 13.3, 3.33, 1.11, 0.444 %"
    assert "in that round's mail" in shown["seen, assumed"]
    assert said(training={"local_steps": 5}, rounds=1)["seen by a peer, mean"].startswith("static 2 of 15")


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("algorithm", "local_only", "nothing"),
        ("rounds", 1, "one round"),
        ("peers", 65, "not computed beyond 64 peers"),
    ],
)
def test_check_says_why_there_is_nothing_to_see(key: str, value: object, expected: str) -> None:
    assert expected in said(**{key: value})["updates seen"]


def test_links_that_change_are_looked_at_round_by_round() -> None:
    shown = said(topology="one_peer_exponential", peers=8, rounds=6)
    assert shown["seen by a peer, mean"].startswith("static 1, 1, 1 of 7 others; fresh 14.3, ")
    assert "in pairs drawn by the seed" in said(algorithm="leasgd")["seen, assumed"]


@dataclass(frozen=True)
class Pairs:
    """Gossip in pairs that take turns: 0-1 and 2-3, then 1-2 and 3-0."""

    def roles(self, learners: int) -> dict[PeerId, Role]:
        return DPSGD().roles(learners)

    def vectors(self, links: Sequence[tuple[PeerId, PeerId]]) -> float:
        return float(len(links))

    def weights_in(
        self, links: Sequence[tuple[PeerId, PeerId]], training: Training, shared: Seeds, r: int
    ) -> Mapping[PeerId, Mapping[PeerId, float]]:
        partner = {0: 1, 1: 0, 2: 3, 3: 2} if r % 2 else {0: 3, 3: 0, 1: 2, 2: 1}
        return {i: {j: training.lr} for i, j in partner.items()}


def test_the_weights_that_an_algorithm_tells_for_a_round_are_those_that_are_looked_at() -> None:
    given_ = scenario.read({"name": "x", "peers": 4, "rounds": 5, "topology": "complete", "training": ONE_STEP})
    given_ = replace(given_, algorithm=replace(given_.algorithm, value=Pairs()))
    shown = dict(visibility_figures.figures(given_))
    for label in ("seen by 0, the worst", "seen by a peer, mean"):  # of who is met next the first update, no other
        assert shown[label].startswith("static 1, ")
        assert shown[label].endswith("; fresh 33.3, 8.33 %")
    assert "pairs" in shown["seen, assumed"]


IMAGES, LABELS = load_digits(return_X_y=True)
X_NCHW, Y_N = torch.tensor(IMAGES / 16, dtype=torch.float32).view(-1, 1, 8, 8), torch.tensor(LABELS)


def make() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.Sigmoid(), nn.Linear(32, 10))


LAYOUT = tuple(Slot(name, tuple(p.shape), name.startswith("3")) for name, p in make().named_parameters())


def gradient(x_D: Tensor, rows: Tensor) -> Tensor:
    pieces = x_D.split([slot.size for slot in LAYOUT])
    tensors = {slot.name: p.view(slot.shape).requires_grad_() for slot, p in zip(LAYOUT, pieces, strict=True)}
    logits = torch.func.functional_call(make(), tensors, (X_NCHW[rows],))
    loss = nn.functional.cross_entropy(logits, Y_N[rows])
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(tensors.values()))])


Moves = list[list[Tensor]]


def learned(graph: nx.Graph[int], rounds: int, lr: float, fresh: bool) -> tuple[Moves, Moves, list[list[int]]]:
    """D-PSGD with one example a step: posts and displacements by round and peer, and the examples of round 1."""
    draw, weights = torch.Generator().manual_seed(1), metropolis(graph)
    origin_D = torch.rand(sum(slot.size for slot in LAYOUT), generator=draw) - 0.5
    own_PN = torch.randperm(len(X_NCHW), generator=draw)[: 16 * len(graph)].view(len(graph), 16)
    posts, moves, first = [[origin_D] * len(graph)], [], own_PN[:, :1].tolist()
    for r in range(rounds):
        rows = [own[(r if fresh else 0) : (r if fresh else 0) + 1] for own in own_PN]
        moves.append([-lr * gradient(x_D.clone(), row) for x_D, row in zip(posts[-1], rows, strict=True)])
        posts.append(mixed(posts[-1], moves[-1], weights))
    return posts, moves, first


def mixed(x: list[Tensor], moves: list[Tensor], weights: Mapping[int, Mapping[int, float]]) -> list[Tensor]:
    pulled = [sum((w * (x[j] - x[i]) for j, w in weights[i].items()), torch.zeros(())) for i in range(len(x))]
    return [x_D + pulled_D + move_D for x_D, pulled_D, move_D in zip(x, pulled, moves, strict=True)]


def case(graph: nx.Graph[int], posts: Moves, observer: int, victim: int, r: int = 1, lr: float = 0.01) -> Case:
    """What `observer` heard, and the clue of each neighbour, which is not asked for its displacement."""
    known = around(graph, {observer})
    heard = {j: {q: posts[q - 1][j] for q in range(1, len(posts) + 1)} for j in known}

    def clue_of(j: PeerId, q: int) -> Clue | None:
        part = Part(j, 1.0, torch.zeros(1), q - 1, (lr,), (1,))
        return Clue(j, q, "neighbour", "", (Sight("plain", torch.zeros(1), (part,)),)) if j in graph[observer] else None

    network, own = Network(make, LAYOUT, (1, 8, 8), 10), Known(X_NCHW[:0], Y_N[:0])
    links, weights = tuple(graph.edges), metropolis(graph)
    place = ((observer,), victim, r, clue_of(victim, r), clue_of, heard, links, lambda r: weights, network, own)
    return Case(*place, False, torch.device("cpu"), Seeds(bytes(32)), lambda done, loss: True)


@pytest.mark.parametrize("common", [True, False])
@pytest.mark.parametrize("r", [1, 3])
def test_rows_that_stay_the_same_are_found_of_every_peer_that_is_determined(common: bool, r: int) -> None:
    graph, rounds = nx.random_regular_graph(3, 10, seed=2), 9
    if not common:  # where a peer begins must be heard of all that it mixes: of 1, 2 and 3
        graph = nx.compose(nx.complete_graph(5), nx.path_graph([4, 5, 6]))
    draw = torch.Generator().manual_seed(3)
    moves = [torch.randn(50, generator=draw, dtype=torch.float64) for _ in graph]
    start = torch.randn(50, generator=draw, dtype=torch.float64)
    posts = [[start if common else torch.randn(50, generator=draw, dtype=torch.float64) for _ in graph]]
    for _ in range(rounds):
        posts.append(mixed(posts[-1], moves, metropolis(graph)))
    determined = visibility.static([matrix(graph)] * (rounds + 1), [0], common)[-1]
    assert determined > set(graph[0]) if common else determined == {1, 2, 3}
    for victim in determined:
        at = case(graph, posts, 0, victim, r)
        row = _mixtures.solved(at, _mixtures.heard(at))
        assert row.determined
        assert row.residual < 1e-9
        assert torch.allclose(row.moved_D, moves[victim], atol=1e-5)
        assert torch.allclose(row.at_D, posts[r - 1][victim], atol=1e-5)
        assert torch.allclose(row.at_D + row.pulled_D + row.moved_D, posts[r][victim], atol=1e-5)


def figures_of(at: Case) -> tuple[Tensor | None, Mapping[str, Figure]]:
    (finding,) = LinearReconstruction().spy(at)
    assert finding.reading == "linear"
    return finding.inputs_BCHW, finding.figures


def test_images_of_peers_that_were_never_heard_are_found_where_gradients_stay() -> None:
    ring = nx.cycle_graph(8)
    posts, _, first = learned(ring, 4, 0.01, fresh=False)
    for victim, mse in ((1, 1e-5), (2, 1e-3)):
        image, figures = figures_of(case(ring, posts, 0, victim))
        assert image is not None
        assert float((image - X_NCHW[first[victim]]).square().mean()) < mse
        assert figures["determined"] is True
        assert float(figures["residual"]) < 0.05  # type: ignore[arg-type]
        assert ("threat" in figures) == (victim == 2)  # of a neighbour there is a clue, which says so


def test_fresh_gradients_show_as_a_residual_and_leave_only_the_neighbour_readable() -> None:
    ring = nx.cycle_graph(8)
    posts, moves, _ = learned(ring, 4, 0.01, fresh=True)
    errors = []
    for victim in (1, 2):
        at = case(ring, posts, 0, victim)
        row = _mixtures.solved(at, _mixtures.heard(at))
        errors.append(float((row.moved_D - moves[0][victim]).norm() / moves[0][victim].norm()))
        assert row.residual > 0.2
    assert errors[0] < 1e-3 < 0.5 < errors[1]


@pytest.mark.parametrize("r", [1, 3])
def test_of_several_local_steps_the_first_post_holds_a_part_and_the_rest_follows(r: int) -> None:
    graph, steps, origin_D = nx.cycle_graph(8), 5, torch.zeros(50, dtype=torch.float64)
    draw = torch.Generator().manual_seed(3)
    moves = [torch.randn(50, generator=draw, dtype=torch.float64) for _ in graph]
    posts = [[0.8 * move_D for move_D in moves]]
    for _ in range(6):
        posts.append(mixed(posts[-1], moves, metropolis(graph)))

    def clue_of(j: PeerId, q: int) -> Clue | None:
        if q > 1 or j not in graph[0]:
            return None
        part = Part(j, 1.0, origin_D, 0, (0.1,) * (steps - 1), (1,) * (steps - 1))
        return Clue(j, q, "neighbour", "", (Sight("plain", torch.zeros(50), (part,)),))

    for victim in range(1, 8):
        at = replace(case(graph, posts, 0, victim, r), clue_of=clue_of)
        row = _mixtures.solved(at, _mixtures.heard(at))
        begun_D, share = (origin_D, 0.8) if r == 1 else (posts[r - 1][victim], 1.0)
        assert row.determined
        assert torch.allclose(row.moved_D, share * moves[victim], atol=1e-5)
        assert torch.allclose(row.at_D, begun_D, atol=1e-5)
        assert torch.allclose(row.at_D + row.pulled_D + row.moved_D, posts[r - (r == 1)][victim], atol=1e-5)


def test_who_is_not_determined_is_not_guessed() -> None:
    posts, _, _ = learned(CLIQUES, 3, 0.01, fresh=False)
    image, figures = figures_of(case(CLIQUES, posts, 0, 12))
    assert image is None
    assert figures["determined"] is False
    image, figures = figures_of(replace(case(nx.complete_graph(4), posts, 0, 1), weights=lambda r: {}))
    assert image is None
    assert "no posts were heard that mix" in str(figures["why"])


def test_the_audit_of_many_peers_takes_no_longer_than_it_should() -> None:
    weights = [matrix(nx.random_regular_graph(4, 64, seed=1))] * 13
    points = list(visibility.told(weights))
    found = [visibility.determined(points, weights, [i])[-1] for i in range(64)]
    assert numpy.mean([len(known) for known in found]) >= 4
