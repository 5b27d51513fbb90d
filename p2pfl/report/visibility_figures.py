"""Whom the curious can read, by the peer graph alone: what `p2pfl check` says of it before anything runs.

See `p2pfl.metrics.visibility` for the question; here it is put for the peers that a scenario calls malicious, else for
each and for some that collude, and the answers are written down.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import networkx as nx
import numpy

from p2pfl import mixing
from p2pfl import scenario as door
from p2pfl.messages import HUB, PeerId
from p2pfl.metrics import visibility
from p2pfl.report.graph_figures import Figures, Seen
from p2pfl.report.graph_view import SHOWN, View, coalitions, listed, look, mean
from p2pfl.scenario import Scenario
from p2pfl.seeds import Seeds

MOST_PEERS = 64
"""Beyond so many peers the answer takes more than a second or two."""
MOST_NAMED = 3


def figures(scenario: Scenario) -> Figures:
    """Whose updates curious peers can compute, as labels and values. Raises ScenarioError where there is no graph."""
    root = Seeds.of(scenario.seed)
    graphs, links = door.graphs(scenario, root), tuple(door.graph(scenario, root).edges)
    if not scenario.algorithm.value.vectors(links):
        return [("updates seen", "none: peers send each other nothing")]
    if HUB in graphs[0]:
        return [*star(scenario), *veil(scenario)]
    if len(graphs[0]) > MOST_PEERS:
        return [("updates seen", f"not computed beyond {MOST_PEERS} peers")]
    weights = mixings(scenario, graphs, root.child("shared"))
    view = look(sorted(graphs[0]), weights, scenario.rounds - 1, scenario.init != "own", ahead(scenario))
    if not view.rounds:
        return [("updates seen", "none: what a round adds shows in the mail of the next, and there is one round")]
    return [*_lines(view, curious(scenario)), ("seen, assumed", assumed(scenario, links)), *veil(scenario)]


def ahead(scenario: Scenario) -> bool:
    """Whether first posts hold a first update already: they do after several local steps, and in who knows which flow.

    Of a single step that is taken where the peer posts nothing shows before the next post.
    """
    roles = scenario.algorithm.value.roles(scenario.peers).values()
    trainings = (scenario.training, *(group.training for group in scenario.groups.values()))
    several = any(each.local_epochs is not None or (each.local_steps or 1) > 1 for each in trainings)
    return several or not all(hasattr(role.flow, "telltale") for role in roles)


def of_graph(seen: Seen) -> Figures:
    """What one peer determines on this graph, on average; nothing where there is nobody to see, or a hub."""
    if not 1 < len(seen.graph) <= MOST_PEERS or HUB in seen.graph:
        return []
    weights = [mixing.matrix(graph) for graph in seen.rounds or (seen.graph,)]
    view = look(sorted(seen.graph), weights, SHOWN[-1], common=True)
    if not view.rounds or (seen.rounds and len(weights) == 1):
        return []
    static, fresh = mean([view.seen((i,)) for i in view.peers]).parts
    after = f"after {listed(view.rounds)} rounds"
    return [("updates seen if static", f"{static}, {after}, by the mean peer"), ("updates seen if fresh", fresh)]


def mixings(scenario: Scenario, graphs: Sequence[nx.Graph[PeerId]], shared: Seeds) -> list[visibility.Weights]:
    """The weights of the first rounds, or of one where they stay.

    An algorithm that does not mix by Metropolis weights on all links may have `weights_in(links, training, shared, r)`:
    the weights of each peer's partners in round `r`, as far as they can be told before the run.
    """
    drawn = getattr(scenario.algorithm.value, "weights_in", None)
    if drawn is None:
        return [mixing.matrix(graph) for graph in graphs]
    if not door.varies(scenario):
        graphs = (*graphs,) * min(scenario.rounds, door.LOOKED_AT)
    weights = []
    for r, graph in enumerate(graphs, start=1):
        links = tuple(sorted((min(i, j), max(i, j)) for i, j in graph.edges))
        weights.append(_matrix(sorted(graph), drawn(links, scenario.training, shared, r)))
    return weights


def _lines(view: View, named: Sequence[tuple[PeerId, ...]]) -> Iterator[tuple[str, str]]:
    """A line for each who is curious; for the worst and the mean where nobody is named; for two and three together."""
    yield (
        "updates seen",
        f"by mail, after {listed(view.rounds)} rounds: static, all updates alike; fresh, of updates each new",
    )
    for who in named[:MOST_NAMED]:
        sight = view.seen(who)
        never = f"; never that of {listed(sight.never)}" if 0 < len(sight.never) <= 4 else ""
        yield f"seen by {listed(who)}", f"{sight}{never}"
    if not named:
        sights = [view.seen((i,)) for i in view.peers]
        worst = max(sights, key=lambda sight: sight.order)
        yield f"seen by {listed(worst.who)}, the worst", str(worst)
        yield "seen by a peer, mean", str(mean(sights))
    for size in (2, 3):
        if size < len(view.peers):
            tried, of = coalitions(view.peers, size)
            worst = max((view.seen(who) for who in tried), key=lambda sight: sight.order)
            yield f"seen by {size} that collude", f"{worst} ({listed(worst.who)}: worst of {of})"


def star(scenario: Scenario) -> Figures:
    """What hub and members determine."""
    members = tuple(i for i in scenario.algorithm.value.roles(scenario.peers) if i != HUB)
    said = []
    for size in (1, 2, 3):
        if size < len(members):
            found = visibility.collected(members, HUB, members[:size])
            rest = len(members) - size
            what = "the other's update" if found else f"the sum of the {rest} others' updates, none by itself"
            who = "a member" if size == 1 else f"{size} that collude"
            said.append((f"seen by {who}", f"{what}, in every round in which they take part"))
    every = f"the update of each of {len(members)}, as it comes, in every round in which it takes part"
    return [
        ("seen by the hub", every),
        *said,
        ("seen, assumed", "all take part in the same rounds; else a member sees other sums from round to round"),
    ]


def assumed(scenario: Scenario, links: Sequence[tuple[PeerId, PeerId]]) -> str:
    """Under what assumptions this is what can be determined."""
    begun = "one point that all know" if scenario.init != "own" else "points of their own"
    by = "by the Metropolis weights of all links"
    if hasattr(scenario.algorithm.value, "weights_in"):
        by = "in pairs drawn by the seed as if losses ranked peers at random"
    elif scenario.algorithm.value.vectors(links) < 2 * len(links):
        by += " (at most: it sends less than that takes)"
    shown = "in that round's mail" if ahead(scenario) else "in the mail of the next"
    return f"peers begin at {begun}, mix {by}; mail is exact, what a round adds shows {shown}"


def veil(scenario: Scenario) -> Figures:
    """What each sketch attacker holds, where there is a sketch with keys."""
    if not scenario.sketch.value.keyed:
        return []
    hub = HUB in scenario.algorithm.value.roles(scenario.peers)
    held = [
        "memoryless: single messages",
        *(["server (the hub): the true W, and updates unfolded"] if hub else []),
        "stateful: an estimate of whom it hears across rounds",
        "matched: updates as sketched, with their key",
        "head: what travels whole",
        "without keys, as on the wire: nothing",
    ]
    return [(f"under {scenario.sketch.name}", "; ".join(held))]


def curious(scenario: Scenario) -> list[tuple[PeerId, ...]]:
    """Who is named as an attacker, each once: alone, or together where they collude."""
    groups: dict[tuple[PeerId, ...], None] = {}
    for malice in scenario.attacks:
        who = tuple(sorted(set(scenario.named(malice.peers))))
        groups |= dict.fromkeys([who] if malice.collude else [(i,) for i in who])
    return list(groups)


def _matrix(peers: Sequence[PeerId], weights: Mapping[PeerId, Mapping[PeerId, float]]) -> visibility.Weights:
    w_NN = numpy.zeros((len(peers), len(peers)))
    for i, row in weights.items():
        for j, weight in row.items():
            w_NN[peers.index(i), peers.index(j)] = weight
    numpy.fill_diagonal(w_NN, 1 - w_NN.sum(axis=1))
    return w_NN
