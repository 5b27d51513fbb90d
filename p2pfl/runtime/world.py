"""What a scenario comes to before anybody starts: the graph, the data and who holds which, and each peer's seat.

Every process makes the same world from the same plan; nothing of it travels.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path

import networkx as nx
import numpy
import torch
from torch import Tensor, nn

from p2pfl import mixing, scenario
from p2pfl.contracts import Layout, Pair, Training
from p2pfl.learning.data import Data
from p2pfl.learning.model import Model, layout_of
from p2pfl.learning.task import SGDTask
from p2pfl.messages import Form, PeerId
from p2pfl.peer import Flow, Peer, Role, Roster
from p2pfl.protection import Chain, Guard, Stake
from p2pfl.runtime import checkpoint, spying
from p2pfl.scenario import Scenario, Start
from p2pfl.seeds import Seeds

Weights = Mapping[PeerId, Mapping[PeerId, float]]
"""The Metropolis weights of each peer's neighbours."""


@dataclass(frozen=True)
class Seat:
    """One peer ready to start: what it is given, and what it does; how the links of a round lie, where they change."""

    me: Peer
    flow: Flow
    evaluated: bool
    speed: float = 1.0
    around: Callable[[int], tuple[Weights, Roster]] | None = None

    def forms(self, r: int) -> Mapping[str, Form]:
        """What each kind of message of round `r` must look like; round 0 is when peers meet, and mail of no round."""
        if r > 0:
            return self.flow.forms(self.in_round(self.me, r), r)
        loose = self.flow.forms(self.me, 0) if getattr(self.flow, "asynchronous", False) else {}
        return {"secret": Form(figures={"half": bytes}), **loose}

    def in_round(self, me: Peer, r: int) -> Peer:
        """The peer in round `r`: with the neighbours and the sketch of that round."""
        if self.around is not None:
            weights, roster = self.around(r)
            me = replace(me, neighbours=tuple(weights[me.id]), weights=weights[me.id], roster=roster)
        if hasattr(me.sketch, "in_round") and (sketch := me.sketch.in_round(me.shared, r)) is not me.sketch:
            me = replace(me, sketch=sketch)
        return me


class World:
    """A scenario made concrete. `root` is the root of all shared streams."""

    def __init__(self, settings: Scenario, root: Seeds) -> None:
        self.settings, self._root = settings, root
        self.roles: Mapping[PeerId, Role] = settings.algorithm.value.roles(settings.peers)
        self.around = lru_cache(maxsize=64)(self._around)
        self.module = lru_cache(maxsize=None)(self._module)
        self.beginning = lru_cache(maxsize=8)(self._beginning)

    @cached_property
    def graph(self) -> nx.Graph[PeerId]:
        """The peer graph."""
        return scenario.graph(self.settings, self._root)

    @property
    def graphs(self) -> tuple[nx.Graph[PeerId], ...]:
        """The graph, or those of the first rounds where the links change."""
        return scenario.graphs(self.settings, self._root)

    @cached_property
    def links(self) -> tuple[tuple[PeerId, PeerId], ...]:
        """The links of the graph, each once."""
        return tuple(sorted((min(i, j), max(i, j)) for i, j in self.graph.edges))

    @cached_property
    def data(self) -> Data:
        """The data set, one for all peers of a process."""
        loaded: Data = self.settings.data.value.load()
        return loaded

    @cached_property
    def shards(self) -> list[numpy.ndarray]:
        """The training examples of each learner, as indices."""
        rng = self._root.numpy("partition")
        batch = self.settings.training.batch
        examples, peers = self.data.examples, self.settings.peers
        return self.settings.partition.value.split(examples, peers, batch, rng)  # type: ignore[no-any-return]

    @cached_property
    def kept(self) -> list[numpy.ndarray]:
        """Of the training examples of each learner those that it keeps: the share that its group says."""
        return [self._part(k, rows_N) for k, rows_N in enumerate(self.shards)]

    def _part(self, learner: PeerId, rows_N: numpy.ndarray) -> numpy.ndarray:
        share = self.settings.group(learner).share
        if share == 1:
            return rows_N
        count = max(1, round(share * len(rows_N)))
        chosen: numpy.ndarray = self._root.numpy("share", learner).choice(rows_N, count, replace=False)
        return numpy.sort(chosen)

    @cached_property
    def roster(self) -> Roster:
        """What every peer knows of the run."""
        learners = tuple(i for i, role in self.roles.items() if role.shards)
        examples = {i: sum(len(self.kept[k]) for k in self.roles[i].shards) for i in learners}
        return Roster(learners, examples, self.links)

    def _around(self, r: int) -> tuple[Weights, Roster]:
        """How links lie in round `r`, where they change: the weights of that graph, and a roster with its links."""
        drawn = scenario.graph_in(self.settings, self._root, r)
        links = tuple(sorted((min(i, j), max(i, j)) for i, j in drawn.edges))
        return mixing.metropolis(drawn), replace(self.roster, links=links)

    def origin(self, peer: PeerId) -> tuple[Path, ...]:
        """The checkpoints whose mean a peer begins with; none where it begins anew. Raises ScenarioError."""
        init = self.settings.init
        return checkpoint.find(init.run, peer, init.round) if isinstance(init, Start) else ()

    def _beginning(self, origin: tuple[Path, ...]) -> Tensor:
        """The parameters that those checkpoints come to: many peers may begin with the mean of the same ones."""
        return checkpoint.load(origin, self.layout)

    def training(self, peer: PeerId) -> Training:
        """How a peer trains: as the scenario says, or its group."""
        return self.settings.group(peer).training

    @cached_property
    def layout(self) -> Layout:
        """How the parameters of the model are laid out."""
        return layout_of(self.settings.model.value.build(self.data.shape, self.data.classes))

    @cached_property
    def pair(self) -> Pair:
        """The sketch of this layout, of no round in particular."""
        return self.settings.sketch.value.bind(self.layout)  # type: ignore[no-any-return]

    @cached_property
    def weights(self) -> dict[PeerId, dict[PeerId, float]]:
        """Metropolis weights of the graph."""
        return mixing.metropolis(self.graph)

    def task(self, peer: PeerId, private: Seeds, one_thread: bool = False) -> SGDTask:
        """The model of the scenario on the data of one peer, on its device.

        Tasks that all run in `one_thread` share their module: it is as large as the parameters, and so many times.
        """
        held = [self.kept[k] for k in self.roles[peer].shards]
        indices = numpy.concatenate(held) if held else numpy.empty(0, numpy.int64)
        device = torch.device(self.device(peer))
        training = self.training(peer)
        run_steps = self.settings.rounds * training.steps(len(indices))
        module = self.module(device) if one_thread else None
        guard = self.guard(peer, len(indices), private)
        return SGDTask(
            self.settings.model.value, self.data, indices, training, device, private, run_steps, module, guard
        )

    def guard(self, peer: PeerId, examples: int, private: Seeds) -> Guard | None:
        """What protects a peer that holds so many examples; None where it has none, or the scenario no defence.

        Raises ValueError when a defence cannot protect it.
        """
        made = tuple(self.guards(peer, examples, private)) if examples else ()
        return Chain(made) if len(made) > 1 else next(iter(made), None)

    def guards(self, peer: PeerId, examples: int, private: Seeds) -> Iterator[Guard]:
        """Each defence of the scenario at work at a peer, in order. Raises ValueError at one that cannot protect it."""
        settings, training = self.settings, self.training(peer)
        algorithm, rounds = settings.algorithm.value, settings.rounds
        tellings = algorithm.losses_told(rounds) if hasattr(algorithm, "losses_told") else 0
        steps = rounds * training.steps(examples)
        for at, defence in enumerate(settings.defences):
            own = private.child("guard", at)
            yield defence.value.guard(Stake(examples, training.batch, steps, tellings, own, self.layout))

    def _module(self, device: torch.device) -> nn.Module:
        model: Model = self.settings.model.value
        return model.build(self.data.shape, self.data.classes).to(device)

    def seat(self, peer: PeerId, one_thread: bool = False) -> Seat:
        """Everything that one peer is given before it starts; see `task` for `one_thread`."""
        settings, role, origin = self.settings, self.roles[peer], self.origin(peer)
        private = Seeds.of(None) if settings.seed is None else self._root.child("peer", peer)
        me = Peer(
            peer,
            tuple(self.weights[peer]),
            self.weights[peer],
            self.roster,
            self.task(peer, private, one_thread),
            settings.sketch.value,
            settings.aggregator.value,
            self.training(peer),
            "own" if settings.init == "own" else "shared",
            self._root.child("shared"),
            private,
            origin=self.beginning(origin).to(self.device(peer), copy=True) if origin else None,
        )
        around = self.around if scenario.varies(settings) else None
        return Seat(me, spying.hidden(self, peer, role.flow, me), role.evaluated, settings.group(peer).speed, around)

    def device(self, peer: PeerId) -> str:
        """Where a peer computes: `auto` spreads the peers over the GPUs, or takes the CPU where there is none."""
        asked = self.training(peer).device
        if asked != "auto" and asked != "cuda":
            return asked
        count = torch.cuda.device_count()
        return f"cuda:{list(self.roles).index(peer) % count}" if count else "cpu"

    @property
    def threads(self) -> int:
        """Torch threads of each peer: the cores shared among the peers, at least one; the same in every engine."""
        return max(1, cores() // len(self.roles))


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
