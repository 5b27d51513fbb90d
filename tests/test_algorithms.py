"""Each algorithm against its twin: the paper's equations on the parameters of all peers at once, slow and obvious.

The twins are in float64 and take from us nothing but the model, the batches, and what was drawn at random (who was
chosen, who pairs with whom, the keys of sketches). Flows are driven by hand: no bus, no engine.

Shapes: N peers, D parameters, S numbers on the wire, K messages.
"""

from __future__ import annotations

import copy
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import networkx as nx
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from p2pfl import mixing, plugins, scenario
from p2pfl.aggregators.mean import Mean
from p2pfl.algorithms.dpsgd import DPSGD
from p2pfl.algorithms.fedavg import FedAvg
from p2pfl.algorithms.leasgd import LEASGD
from p2pfl.contracts import Layout, Pair, Sketch, Slot, Trained, Training
from p2pfl.errors import LocalError
from p2pfl.messages import HUB, Exchange, Mail, Message, PeerId, Report, Step
from p2pfl.peer import Algorithm, Flow, Peer, Roster
from p2pfl.runtime.plan import Plan
from p2pfl.runtime.world import World
from p2pfl.seeds import Seeds
from p2pfl.sketches._matrices import Matrices
from p2pfl.sketches.countsketch import CountSketch
from p2pfl.sketches.dense import Dense

CPU = torch.device("cpu")
PLAIN = {"batch": 8, "lr": 0.1, "local_steps": 1}
HEAVY = {"batch": 8, "lr": 0.1, "momentum": 0.6, "weight_decay": 0.02, "local_steps": 3}
SKETCHES: list[Any] = ["dense", {"countsketch": {"ratio": 0.5}}, {"countsketch": {"ratio": 0.3, "balanced": False}}]
CLOSE: dict[str, Any] = {"rtol": 1e-4, "atol": 2e-5}
"""Ours are float32, the twins float64."""


# Driving flows by hand


@dataclass
class Play:
    """What happened: the peers after they met, the state of each after each round (0: before), reports, posts."""

    flows: Mapping[PeerId, Flow]
    mes: dict[PeerId, Peer] = field(default_factory=dict)
    states: dict[tuple[PeerId, int], Any] = field(default_factory=dict)
    reports: dict[tuple[PeerId, int], Mapping[str, Any]] = field(default_factory=dict)
    posts: list[tuple[PeerId, PeerId, Message, dict[str, Tensor]]] = field(default_factory=list)

    def model(self, i: PeerId, r: int) -> Tensor:
        """The model of peer `i` after round `r`, in float64."""
        return self.flows[i].model(self.states[i, r]).double()

    def sent(self, i: PeerId, kind: str, r: int) -> list[PeerId]:
        """To whom peer `i` sent such messages in round `r`."""
        return [to for by, to, message, _ in self.posts if (by, message.kind, message.round) == (i, kind, r)]


def play(
    flows: Mapping[PeerId, Flow],
    mes: Mapping[PeerId, Peer],
    rounds: int,
    deaths: Mapping[PeerId, int] | None = None,
    starts: Mapping[PeerId, Tensor] | None = None,
) -> Play:
    """Run all flows. A peer dies at the start of its round in `deaths`; `starts` replaces first points."""
    stage = Play(flows)
    lives = {i: living(stage, i, mes[i], rounds, (deaths or {}).get(i), (starts or {}).get(i)) for i in flows}
    waiting: dict[PeerId, Exchange | None] = dict.fromkeys(lives)
    came: dict[tuple[PeerId, str, int], dict[PeerId, Message]] = {}
    while waiting:
        ready = [i for i, step in waiting.items() if step is None or complete(i, step, came, waiting)]
        assert ready, f"all wait for each other: {waiting}"
        for i in ready:
            step = waiting.pop(i)
            mail = {} if step is None else came.pop((i, step.kind, step.round), {})
            heard = {j: mail[j] for j in sorted(mail) if step is not None and j in step.expect}
            if (asked := go_on(stage, i, lives[i], None if step is None else heard, came)) is not None:
                waiting[i] = asked
    return stage


def complete(
    i: PeerId, step: Exchange, came: Mapping[Any, Mapping[PeerId, Message]], living: Mapping[PeerId, Any]
) -> bool:
    return all(j in came.get((i, step.kind, step.round), {}) or j not in living for j in step.expect)


def go_on(
    stage: Play,
    i: PeerId,
    life: Generator[Step, Mail, None],
    mail: Mail | None,
    came: dict[tuple[PeerId, str, int], dict[PeerId, Message]],
) -> Exchange | None:
    """Let one peer compute until it waits; None when it is through."""
    try:
        step = next(life) if mail is None else life.send(mail)
        while True:
            if isinstance(step, Report):
                stage.reports[i, step.round] = step.figures
                step = life.send({})
                continue
            for to, message in step.post.items():
                assert to in stage.mes[i].neighbours if i in stage.mes else True, "only neighbours are spoken to"
                stage.posts.append((i, to, message, {name: t.clone() for name, t in message.tensors.items()}))
                came.setdefault((to, message.kind, message.round), {})[i] = message
            if step.expect:
                return step
            step = life.send({})
    except StopIteration:
        return None


def living(
    stage: Play, i: PeerId, me: Peer, rounds: int, death: int | None, start: Tensor | None
) -> Generator[Step, Mail, None]:
    """Meet, start, and all rounds of one peer."""
    me = stage.mes[i] = yield from me.meet()
    state = stage.flows[i].start(me)
    if start is not None:
        state = replace(state, x_D=start)
    stage.states[i, 0] = state
    for r in range(1, rounds + 1):
        if r == death:
            return
        state = yield from stage.flows[i].round(me, state, r)
        stage.states[i, r] = state


def world(training: Mapping[str, Any], **settings: Any) -> World:
    """A world of a few peers that read digits with a small network."""
    chosen = {
        "name": "twin",
        "seed": 5,
        "model": {"mlp": {"hidden": [6]}},
        "training": {"device": "cpu", **training},
        **settings,
    }
    made = Plan(read := scenario.read(chosen), Seeds.of(read.seed).root, bytes(8)).world
    torch.set_num_threads(1)
    return made


def played(made: World, rounds: int, deaths: Mapping[PeerId, int] | None = None) -> Play:
    seats = {i: made.seat(i) for i in made.roles}
    return play({i: s.flow for i, s in seats.items()}, {i: s.me for i, s in seats.items()}, rounds, deaths)


# The twins' own arithmetic


class Gradients:
    """Loss and gradient of every peer's batches in float64, and the steps of SGD as its textbooks write them."""

    def __init__(self, made: World) -> None:
        self.tasks: dict[PeerId, Any] = {i: made.seat(i).me.task for i in made.roster.learners}
        self.module = copy.deepcopy(next(iter(self.tasks.values())).module).double()
        self.training = made.settings.training
        self.tau = self.training.local_steps or 0

    def of(self, i: PeerId, b: int, x_D: Tensor) -> tuple[float, Tensor]:
        torch.nn.utils.vector_to_parameters(x_D, self.module.parameters())
        inputs, labels = self.tasks[i].batch(b)
        loss = functional.cross_entropy(self.module(inputs.double()), labels)
        return loss.item(), torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(self.module.parameters()))])

    def displace(self, i: PeerId, b: int, x_D: Tensor, m_D: Tensor) -> tuple[Tensor, Tensor, float]:
        loss, g_D = self.of(i, b, x_D)
        m_D = self.training.momentum * m_D + g_D + self.training.weight_decay * x_D
        return -self.training.lr * m_D, m_D, loss


def mixing_matrix(made: World) -> Tensor:
    """Metropolis-Hastings weights, straight from their definition."""
    order = sorted(made.graph)
    degree = {i: sum(i in link for link in made.links) for i in order}
    w_NN = torch.zeros(len(order), len(order), dtype=torch.float64)
    for i, j in made.links:
        w_NN[i, j] = w_NN[j, i] = 1 / (1 + max(degree[i], degree[j]))
    return w_NN + torch.diag(1 - w_NN.sum(1))


def sketch_matrix(pair: Pair, key: bytes) -> Tensor:
    """S of all parameters at once, D x S: a block of d_in x s for each row of each matrix, ones elsewhere."""
    assert isinstance(pair, Matrices)
    parts = []
    for at, (slot, s) in enumerate(zip(pair.layout, pair.widths, strict=True)):
        parts.append(torch.kron(torch.eye(slot.shape[0]), slot_matrix(pair, at, key)) if s else torch.eye(slot.size))
    joined: Tensor = torch.block_diag(*parts)  # type: ignore[no-untyped-call]
    return joined.double()


def slot_matrix(pair: Matrices, at: int, key: bytes) -> Tensor:
    """S of one slot, d x s."""
    d, s = pair.layout[at].size // pair.layout[at].shape[0], pair.widths[at]
    hashed = pair.draw(key + at.to_bytes(4, "little"), d, s, device=CPU)
    s_ds = torch.zeros(d, s)
    for i in range(d):
        s_ds[i, hashed.bucket_d[i]] = hashed.sign_d[i]
    return s_ds


def damped(pair: Pair, key: bytes) -> Tensor:
    """What a difference becomes on its way, D x D: S diag(1 / load) S^T, relaxed; the identity without a sketch."""
    if not isinstance(pair, Matrices):
        return torch.eye(pair.size, dtype=torch.float64)
    s_DS = sketch_matrix(pair, key)
    reach_D = torch.cat(
        [
            torch.full((slot.size,), pair.reach if s else 1.0, dtype=torch.float64)
            for slot, s in zip(pair.layout, pair.widths, strict=True)
        ]
    )
    return reach_D[:, None] * (s_DS @ torch.diag(1 / s_DS.abs().sum(0).clamp(min=1)) @ s_DS.T)


# D-PSGD


@pytest.mark.parametrize("sketch", SKETCHES, ids=str)
@pytest.mark.parametrize("training", [PLAIN, HEAVY], ids=["plain", "heavy"])
@pytest.mark.parametrize("topology", ["ring", "star", {"watts_strogatz_graph": {"k": 4, "p": 0.3}}], ids=str)
@pytest.mark.parametrize("inertia", [0.0, 0.4])
def test_dpsgd_is_x_times_w_minus_lr_times_gradients(topology: Any, training: Any, sketch: Any, inertia: float) -> None:
    if inertia and sketch != "dense":
        sketch = {"countsketch": {**sketch["countsketch"], "relaxation": 1.0}}
    made = world(
        training,
        peers=5,
        topology=topology,
        partition={"dirichlet": {"alpha": 0.5}},
        algorithm={"dpsgd": {"inertia": inertia}},
        sketch=sketch,
        init="own",
    )
    ours, twin, w_NN = played(made, rounds=4), Gradients(made), mixing_matrix(made)
    tau, pair = twin.tau, ours.mes[0].pair
    x_ND = torch.stack([ours.model(i, 0) for i in range(5)])
    m_ND, last_ND = torch.zeros_like(x_ND), torch.zeros_like(x_ND)
    for r in range(1, 5):
        losses, moves_ND = torch.zeros(5, tau), torch.zeros_like(x_ND)
        for i in range(5):
            for t in range(tau):
                move_D, m_ND[i], losses[i, t] = twin.displace(i, (r - 1) * tau + t, x_ND[i], m_ND[i])
                if t < tau - 1:
                    x_ND[i] += move_D
                else:
                    moves_ND[i] = move_D
        if sketch == "dense":
            pulled_ND = w_NN @ x_ND - x_ND
        else:
            pulled_ND = torch.zeros_like(x_ND)
            for i, j in [*made.links, *((j, i) for i, j in made.links)]:
                pulled_ND[i] += w_NN[i, j] * damped(pair, ours.mes[i].key(j, r)) @ (x_ND[j] - x_ND[i])
        last_ND = pulled_ND + inertia * last_ND
        x_ND = x_ND + last_ND + moves_ND
        for i in range(5):
            torch.testing.assert_close(ours.model(i, r), x_ND[i], **CLOSE)
            assert ours.reports[i, r]["loss"] == pytest.approx(float(losses[i].mean()), rel=1e-4)


# FedAvg


def descend_alone(twin: Gradients, i: PeerId, r: int, x_D: Tensor) -> tuple[Tensor, float]:
    """One round of a member from rest: momentum restarts, every peer has as many steps as it is due."""
    tau = twin.training.steps(twin.tasks[i].examples)
    m_D, losses = torch.zeros_like(x_D), []
    for t in range(tau):
        move_D, m_D, loss = twin.displace(i, (r - 1) * tau + t, x_D, m_D)
        x_D = x_D + move_D
        losses.append(loss)
    return x_D, sum(losses) / tau


@pytest.mark.parametrize("steps", [{"local_steps": 3}, {"local_epochs": 1, "batch": 64}], ids=str)
@pytest.mark.parametrize("options", [{}, {"fraction": 0.5, "step": 1.5}, {"fraction": 0.5, "averaging": 0.7}], ids=str)
def test_fedavg_takes_the_weighted_mean_of_what_the_chosen_trained(options: Any, steps: Any) -> None:
    training = {key: value for key, value in HEAVY.items() if key != "local_steps"} | steps
    made = world(training, peers=5, partition={"dirichlet": {"alpha": 0.3}}, algorithm={"fedavg": options})
    ours, twin = played(made, rounds=6), Gradients(made)
    sizes = {i: len(made.shards[i]) for i in range(5)}
    assert len(set(sizes.values())) > 1
    theta_D = mean_D = ours.model(HUB, 0)
    seen = set()
    for r in range(1, 7):
        chosen = ours.sent(HUB, "model", r)
        assert len(chosen) == len(set(chosen)) == max(1, round(options.get("fraction", 1.0) * 5))
        assert all(ours.sent(i, "update", r) == ([HUB] if i in chosen else []) for i in range(5))
        trained = {i: descend_alone(twin, i, r, theta_D) for i in chosen}
        step_D = sum(sizes[i] * (x_D - theta_D) for i, (x_D, _) in trained.items()) / sum(sizes[i] for i in chosen)
        theta_D = theta_D + options.get("step", 1.0) * step_D
        weight = min(options.get("averaging", 0.0), r / (r + 9))
        mean_D = weight * mean_D + (1 - weight) * theta_D
        torch.testing.assert_close(ours.states[HUB, r].x_D.double(), theta_D, **CLOSE)
        torch.testing.assert_close(ours.model(HUB, r), mean_D, **CLOSE)
        assert all(ours.reports[i, r]["loss"] == pytest.approx(loss, rel=1e-4) for i, (_, loss) in trained.items())
        seen |= set(chosen)
    assert seen == set(range(5))


def dbcl_loss(z: Sequence[Tensor], s: Sequence[Tensor | None], inputs: Tensor, labels: Tensor, strides: Any) -> Tensor:
    """The paper's sketched network: every layer but the last computes (X S)(W S)^T, a convolution on its patches."""
    hidden = inputs
    for layer in range(0, len(z) - 2, 2):
        weight, bias, s_ds = z[layer], z[layer + 1], s[layer]
        assert s_ds is not None
        if strides is None:
            hidden = functional.relu((hidden.flatten(1) @ s_ds) @ weight.T + bias)
        else:
            stride = strides[layer // 2]
            patches_BQd = functional.unfold(hidden, 5, padding=2, stride=stride).transpose(1, 2)
            convolved_BOQ = ((patches_BQd @ s_ds) @ weight.T + bias).transpose(1, 2)
            side = int(convolved_BOQ.shape[2] ** 0.5)
            hidden = torch.sigmoid(convolved_BOQ.reshape(*convolved_BOQ.shape[:2], side, side))
    return functional.cross_entropy(hidden.flatten(1) @ z[-2].T + z[-1], labels)


@pytest.mark.parametrize(("balanced", "keys"), [(True, "shared"), (False, "shared"), (True, "own")])
@pytest.mark.parametrize(("model", "strides"), [({"mlp": {"hidden": [6, 5]}}, None), ("lenet", (2, 2, 1))], ids=str)
def test_sketched_fedavg_is_the_papers_sketched_layers_and_their_gradients(
    model: Any, strides: Any, balanced: bool, keys: str
) -> None:
    sketch = {"countsketch": {"ratio": 0.4, "balanced": balanced}}
    made = world(
        HEAVY,
        peers=3,
        model=model,
        algorithm={"fedavg": {"step": 1.2, "keys": keys}},
        sketch=sketch,
        partition={"dirichlet": {}},
    )
    ours, twin = played(made, rounds=3), Gradients(made)
    pair = ours.mes[HUB].pair
    assert isinstance(pair, Matrices)
    lr, momentum, decay = (
        made.settings.training.lr,
        made.settings.training.momentum,
        made.settings.training.weight_decay,
    )
    theta_D = mean_D = ours.model(HUB, 0)
    seen = set()
    for r in range(1, 4):
        update_D, total = torch.zeros(len(theta_D), dtype=torch.float64), sum(map(len, made.shards))
        for i in range(3):
            key = next(bytes(m.figures["key"]) for by, to, m, _ in ours.posts if (by, to, m.round) == (HUB, i, r))  # type: ignore[arg-type]
            seen.add(key)
            slots = [slot_matrix(pair, at, key).double() if s else None for at, s in enumerate(pair.widths)]
            shapes = [(slot.shape[0], s) if s else slot.shape for slot, s in zip(pair.layout, pair.widths, strict=True)]
            s_DS = sketch_matrix(pair, key)
            z_S, m_S = theta_D @ s_DS, torch.zeros(pair.size, dtype=torch.float64)
            for t in range(3):
                inputs, labels = twin.tasks[i].batch((r - 1) * 3 + t)
                sizes = [int(torch.Size(shape).numel()) for shape in shapes]
                parts = [
                    p.view(shape).requires_grad_() for p, shape in zip(torch.split(z_S, sizes), shapes, strict=True)
                ]
                loss = dbcl_loss(parts, slots, inputs.double(), labels, strides)
                g_S = torch.cat([g.flatten() for g in torch.autograd.grad(loss, parts)])
                z_S = z_S.detach()
                m_S = momentum * m_S + g_S + decay * z_S
                z_S = z_S - lr * m_S
            update_D += len(made.shards[i]) / total * s_DS @ (z_S - theta_D @ s_DS)
        theta_D = theta_D + 1.2 * update_D
        weight = min(0.9, r / (r + 9))
        mean_D = weight * mean_D + (1 - weight) * theta_D
        torch.testing.assert_close(ours.states[HUB, r].x_D.double(), theta_D, **CLOSE)
        torch.testing.assert_close(ours.model(HUB, r), mean_D, **CLOSE)
    assert len(seen) == (3 if keys == "shared" else 9)


# Baselines


@pytest.mark.parametrize("training", [PLAIN, HEAVY], ids=["plain", "heavy"])
def test_local_only_is_sgd_on_ones_own_examples(training: Any) -> None:
    made = world(training, peers=3, algorithm="local_only", partition={"dirichlet": {}})
    ours, twin = played(made, rounds=4), Gradients(made)
    tau = twin.tau
    for i in range(3):
        x_D = ours.model(i, 0)
        m_D = torch.zeros_like(x_D)
        for b in range(4 * tau):
            move_D, m_D, _ = twin.displace(i, b, x_D, m_D)
            x_D = x_D + move_D
        torch.testing.assert_close(ours.model(i, 4), x_D, **CLOSE)
    assert not ours.posts


def test_central_is_sgd_on_everybodys_examples() -> None:
    made = world(HEAVY, peers=3, algorithm="central", partition={"dirichlet": {}})
    ours, twin = played(made, rounds=4), Gradients(made)
    assert twin.tasks[HUB].examples == len(made.data.train_y) == sum(map(len, made.shards))
    x_D = ours.model(HUB, 0)
    m_D = torch.zeros_like(x_D)
    for b in range(12):
        move_D, m_D, _ = twin.displace(HUB, b, x_D, m_D)
        x_D = x_D + move_D
    torch.testing.assert_close(ours.model(HUB, 4), x_D, **CLOSE)
    assert not ours.posts


# Properties, on quadratic functions: f_i(x) = curvature / 2 |x - target_i|^2


@dataclass
class Quadratic:
    """A `Task` whose gradient is known in closed form."""

    target_D: Tensor
    curvature: float
    rate: float
    layout: Layout
    device: torch.device = CPU
    examples: int = 32

    def start(self, seeds: Seeds) -> Tensor:
        return torch.randn(len(self.target_D), generator=seeds.torch("x"))

    def steps(
        self, x: Tensor, m: Tensor | None, first: int, count: int, pair: Pair | None = None, key: bytes = b""
    ) -> Trained:
        for at in range(first, first + count):
            x = x + self.step(x, m, at).x_D
        return Trained(x, m, 0.0)

    def lr(self, at: int) -> float:
        return self.rate

    def step(self, x_D: Tensor, m_D: Tensor | None, at: int) -> Trained:
        return Trained(-self.rate * self.curvature * (x_D - self.target_D), m_D, 0.0)

    def told(self, loss: float, x_D: Tensor, at: int) -> float:
        return loss

    def spent(self) -> dict[str, Any]:
        return {}

    def evaluate(self, x_D: Tensor, split: str) -> dict[str, float]:
        return {}


LAYOUT: Layout = (Slot("w", (4, 24)), Slot("b", (4,)), Slot("output.weight", (3, 4), output=True))
SIZE = 4 * 24 + 4 + 12


def quadratic_peers(
    graph: nx.Graph[PeerId], sketch: Sketch, curvature: float = 0.0, lr: float = 0.1, layout: Layout = LAYOUT
) -> dict[PeerId, Peer]:
    """Peers on a graph, each with a target of its own."""
    weights = mixing.metropolis(graph)
    links = tuple(sorted((min(link), max(link)) for link in graph.edges))
    roster = Roster(tuple(sorted(graph)), dict.fromkeys(graph, 32), links)
    root, size = Seeds.of(4), sum(slot.size for slot in layout)
    return {
        i: Peer(
            i,
            tuple(weights[i]),
            weights[i],
            roster,
            Quadratic(torch.randn(size, generator=root.torch("target", i)), curvature, lr, layout),
            sketch,
            Mean(),
            Training(lr=lr),
            "own",
            root.child("shared"),
            root.child("peer", i),
        )
        for i in graph
    }


def quadratic_play(algorithm: Any, graph: nx.Graph[PeerId], sketch: Sketch, rounds: int, **more: Any) -> Play:
    deaths, starts = more.pop("deaths", None), more.pop("starts", None)
    return play(dict.fromkeys(graph, algorithm), quadratic_peers(graph, sketch, **more), rounds, deaths, starts)


def stacked(ours: Play, r: int) -> Tensor:
    return torch.stack([ours.model(i, r) for i in sorted(ours.flows)])


def consensus(ours: Play, r: int) -> float:
    x_ND = stacked(ours, r)
    return float((x_ND - x_ND.mean(0)).norm())


GOSSIPS = [DPSGD(), LEASGD(rho=6.0, k=2), LEASGD(rho=1.6, k=2, pairing="pull")]
"""All bear the default relaxation of a sketch, with four leaders that pull on one follower."""
GRAPHS = {"ring": nx.cycle_graph(7), "complete": nx.complete_graph(6), "odd": nx.barbell_graph(3, 1)}
NARROW: Layout = (Slot("one", (40, 1)), Slot("three", (20, 3)), Slot("output", (2, 5), output=True))
"""Of its matrices a sketch sends more than its ratio says."""
EVERY_SKETCH = [Dense(), CountSketch(), CountSketch(0.3), CountSketch(0.3, balanced=False), CountSketch(0.01)]


@pytest.mark.parametrize("sketch", EVERY_SKETCH, ids=repr)
@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("algorithm", GOSSIPS, ids=repr)
def test_without_gradients_the_mean_stays_and_peers_come_together(algorithm: Any, graph: str, sketch: Sketch) -> None:
    ours = quadratic_play(algorithm, GRAPHS[graph], sketch, 12)
    for r in range(1, 13):
        torch.testing.assert_close(stacked(ours, r).mean(0), stacked(ours, 0).mean(0), rtol=0, atol=2e-6)
        assert consensus(ours, r) <= consensus(ours, r - 1) * (1 + 1e-6)
    assert consensus(ours, 12) < consensus(ours, 0)


@pytest.mark.parametrize("relaxation", [None, 1.9])
def test_narrow_matrices_of_which_more_is_sent_than_asked_bring_peers_together(
    relaxation: float | None,
) -> None:
    torus = nx.convert_node_labels_to_integers(nx.grid_2d_graph(4, 4, periodic=True))
    ours = quadratic_play(DPSGD(), torus, CountSketch(relaxation=relaxation), 60, layout=NARROW)
    assert consensus(ours, 60) < 0.1 * consensus(ours, 0)


@pytest.mark.parametrize("graph", ["ring", "odd"])
def test_inertia_keeps_the_mean_and_brings_peers_together_sooner_where_links_are_few(graph: str) -> None:
    sketch = CountSketch(relaxation=1.0)
    plain, heavy = (quadratic_play(DPSGD(inertia), GRAPHS[graph], sketch, 40) for inertia in (0.0, 0.45))
    torch.testing.assert_close(stacked(heavy, 40).mean(0), stacked(heavy, 0).mean(0), rtol=0, atol=2e-6)
    assert consensus(heavy, 40) < 0.7 * consensus(plain, 40)
    with pytest.raises(ValueError, match="inertia goes with no relaxed pull"):
        DPSGD(0.45).check(Training(), CountSketch(), ())


@pytest.mark.parametrize("sketch", EVERY_SKETCH, ids=repr)
@pytest.mark.parametrize("algorithm", GOSSIPS, ids=repr)
def test_at_consensus_an_exchange_changes_nothing(algorithm: Any, sketch: Sketch) -> None:
    start = torch.randn(SIZE, generator=torch.Generator().manual_seed(9))
    ours = quadratic_play(algorithm, GRAPHS["ring"], sketch, 3, starts=dict.fromkeys(range(7), start))
    assert all(torch.equal(ours.model(i, 3), start.double()) for i in range(7))


@dataclass(frozen=True)
class Undamped:
    """A CountSketch whose differences are rebuilt by `up`, as unbiased estimates, without damping."""

    sketch: CountSketch
    keyed: bool = True

    def bind(self, layout: Layout) -> Any:
        pair = self.sketch.bind(layout)
        return UndampedPair(pair, pair.size)


@dataclass(frozen=True)
class UndampedPair:
    pair: Matrices
    size: int

    def down(self, x_D: Tensor, key: bytes) -> Tensor:
        return self.pair.down(x_D, key)

    def up(self, z_S: Tensor, key: bytes) -> Tensor:
        return self.pair.up(z_S, key)

    pull = up


def test_undamped_differences_drive_peers_apart_where_damped_ones_bring_them_together() -> None:
    together = quadratic_play(DPSGD(), GRAPHS["ring"], CountSketch(0.25), 60)
    apart = quadratic_play(DPSGD(), GRAPHS["ring"], Undamped(CountSketch(0.25)), 60)
    assert consensus(together, 60) < 0.05 * consensus(together, 0)
    assert consensus(apart, 60) > 1e3 * consensus(apart, 0)


@pytest.mark.parametrize("sketch", [Dense(), CountSketch(0.5)], ids=repr)
def test_gossip_finds_the_mean_of_all_optima(sketch: Sketch) -> None:
    ours = quadratic_play(DPSGD(), GRAPHS["ring"], sketch, 400, curvature=1.0, lr=0.02)
    best_D = torch.stack([me.task.target_D for me in ours.mes.values()]).double().mean(0)  # type: ignore[attr-defined]
    torch.testing.assert_close(stacked(ours, 400).mean(0), best_D, rtol=0, atol=1e-3)
    assert consensus(ours, 400) < 0.3 * float((best_D - stacked(ours, 0)).norm())


@pytest.mark.parametrize("sketch", [Dense(), CountSketch(0.5)], ids=repr)
def test_an_absent_neighbour_costs_nothing(sketch: Sketch) -> None:
    dead, graph = 3, GRAPHS["complete"]
    ours = quadratic_play(DPSGD(), graph, sketch, 3, deaths={dead: 2})
    others = [i for i in graph if i != dead]
    for r in (2, 3):
        for i in others:
            expected_D = ours.model(i, r - 1).clone()
            for j in others:
                if j != i:
                    p_DD = damped(ours.mes[i].pair, ours.mes[i].key(j, r))
                    expected_D += ours.mes[i].weights[j] * p_DD @ (ours.model(j, r - 1) - ours.model(i, r - 1))
            torch.testing.assert_close(ours.model(i, r), expected_D, **CLOSE)
        mean_D, before_D = (torch.stack([ours.model(i, at) for i in others]).mean(0) for at in (r, r - 1))
        torch.testing.assert_close(mean_D, before_D, rtol=0, atol=2e-6)


@pytest.mark.parametrize("algorithm", GOSSIPS, ids=repr)
def test_a_peer_whose_neighbours_never_came_trains_alone(algorithm: Any) -> None:
    for sketch in (Dense(), CountSketch(0.5)):
        peers = quadratic_peers(nx.path_graph(2), sketch, curvature=1.0)
        ours = play({0: algorithm}, {0: peers[0]}, 3)
        task = peers[0].task
        assert isinstance(task, Quadratic)
        expected_D = task.target_D + 0.9**3 * (ours.states[0, 0].x_D - task.target_D)
        torch.testing.assert_close(ours.states[0, 3].x_D, expected_D)


# What every algorithm keeps to


def carries(name: str, sketch: Sketch) -> bool:
    """Whether an algorithm takes a sketch: one that compresses itself does not."""
    try:
        plugins.build("algorithms", name, {}).check(Training(), sketch, ())
    except ValueError:
        return False
    return True


EVERYONE = [
    pytest.param(name, written, id=f"{name} {type(sketch).__name__}")
    for name in plugins.names("algorithms")
    for written, sketch in zip(SKETCHES[:2], (Dense(), CountSketch()), strict=True)
    if carries(name, sketch) and not getattr(plugins.find("algorithms", name), "asynchronous", False)
]


@pytest.mark.parametrize(("name", "sketch"), EVERYONE)
def test_vectors_sent_a_round_are_those_that_were_promised(name: str, sketch: Any) -> None:
    made = world(PLAIN, peers=4, algorithm=name, sketch=sketch)
    ours = played(made, rounds=2)
    algorithm: Algorithm = made.settings.algorithm.value
    for r in (1, 2):
        messages = [message for _, _, message, _ in ours.posts if message.round == r]
        sent = sum("params" in message.tensors for message in messages)
        if sent or not messages:
            assert sent == algorithm.vectors(made.links)
        else:  # compressed ones count as the part of a vector that their bytes are
            size = 4 * sum(slot.size for slot in made.layout)
            parts = sum(t.nbytes for message in messages for t in message.tensors.values()) / size
            assert parts == pytest.approx(algorithm.vectors(made.links), rel=0.05)


@pytest.mark.parametrize(("name", "sketch"), EVERYONE)
def test_divergence_ends_in_an_error_that_names_the_learning_rate(name: str, sketch: Any) -> None:
    options = {"leasgd": {"rho": 0.0}}.get(name, {})
    made = world({"lr": 1e30, "local_steps": 2}, peers=3, algorithm={name: options} if options else name, sketch=sketch)
    with pytest.raises(LocalError, match="lr"):
        played(made, rounds=6)


@pytest.mark.parametrize("sketch", SKETCHES[:2], ids=str)
def test_a_member_that_hears_no_hub_or_a_key_of_another_length_skips_the_round(sketch: Any) -> None:
    made = world(PLAIN, peers=2, algorithm="fedavg", sketch=sketch)
    seat = made.seat(0)
    state = seat.flow.start(seat.me)
    for mail in ({}, {HUB: Message("model", 1, {"params": torch.zeros(seat.me.pair.size)}, {"key": b"short"})}):
        flow = seat.flow.round(seat.me, state, 1)
        assert next(flow).expect == (HUB,)  # type: ignore[union-attr]
        with pytest.raises(StopIteration) as end:
            flow.send(mail)
        assert end.value.value is state


def test_a_hub_that_hears_nobody_keeps_its_model() -> None:
    made = world(PLAIN, peers=2, algorithm="fedavg")
    seat = made.seat(HUB)
    state = seat.flow.start(seat.me)
    flow = seat.flow.round(seat.me, state, 1)
    next(flow)
    report = flow.send({})
    assert isinstance(report, Report)
    assert report.figures["heard"] == 0
    with pytest.raises(StopIteration) as end:
        flow.send({})
    assert torch.equal(end.value.value.x_D, state.x_D)


def test_fedavg_draws_its_members_evenly() -> None:
    made = world(PLAIN, peers=10, algorithm={"fedavg": {"fraction": 0.3}})
    rule, me = made.settings.algorithm.value, made.seat(HUB).me
    assert isinstance(rule, FedAvg)
    drawn = [rule.chosen(me, r) for r in range(1, 501)]
    counts = [sum(i in chosen for chosen in drawn) for i in range(10)]
    assert all(len(set(chosen)) == 3 for chosen in drawn)
    assert all(100 < count < 200 for count in counts), counts
