"""What a scenario comes to before anybody starts: the graph, the data and who holds which, and each peer's seat.

Every process makes the same world from the same plan; nothing of it travels.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import networkx as nx
import numpy
import torch

from p2pfl import mixing, scenario
from p2pfl.contracts import Layout
from p2pfl.errors import ScenarioError
from p2pfl.learning.data import Data
from p2pfl.learning.model import layout_of
from p2pfl.learning.task import SGDTask
from p2pfl.messages import Form, PeerId
from p2pfl.peer import Flow, Peer, Role, Roster
from p2pfl.scenario import Scenario
from p2pfl.seeds import Seeds


@dataclass(frozen=True)
class Seat:
    """One peer ready to start: what it is given, and what it does."""

    me: Peer
    flow: Flow
    evaluated: bool

    def forms(self, r: int) -> Mapping[str, Form]:
        """What each kind of message of round `r` must look like; round 0 is when peers meet."""
        return {"secret": Form(figures={"half": bytes})} if r <= 0 else self.flow.forms(self.me, r)


class World:
    """A scenario made concrete. `root` is the root of all shared streams."""

    def __init__(self, settings: Scenario, root: Seeds) -> None:
        self.settings, self._root = settings, root
        self.roles: Mapping[PeerId, Role] = settings.algorithm.value.roles(settings.peers)

    def survey(self) -> None:
        """Make all that does not depend on a peer, so that what cannot be made shows before anything is started.

        Raises ScenarioError with the path of the culprit.
        """
        assert self.graph
        for key, make in (("data", "data"), ("partition", "shards"), ("model", "layout")):
            culprit = (key, getattr(self.settings, key).name)
            try:
                getattr(self, make)
            except ScenarioError as error:
                raise error.under(*culprit) from None
            except (ValueError, RuntimeError, MemoryError) as error:  # torch says so when a model does not fit
                reason = str(error).partition("\n")[0][:200]
                raise ScenarioError(
                    f"{'.'.join(culprit)} cannot be made, {reason}", "change its options", culprit
                ) from None

    @cached_property
    def graph(self) -> nx.Graph[PeerId]:
        """The peer graph."""
        return scenario.graph(self.settings, self._root)

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
        labels_N = self.data.train_y.numpy()
        rng = self._root.numpy("partition")
        batch = self.settings.training.batch
        parts: list[numpy.ndarray] = self.settings.partition.value.split(labels_N, self.settings.peers, batch, rng)
        return parts

    @cached_property
    def roster(self) -> Roster:
        """What every peer knows of the run."""
        learners = tuple(i for i, role in self.roles.items() if role.shards)
        examples = {i: sum(len(self.shards[k]) for k in self.roles[i].shards) for i in learners}
        return Roster(learners, examples, self.links, nx.diameter(self.graph))

    @cached_property
    def layout(self) -> Layout:
        """How the parameters of the model are laid out."""
        return layout_of(self.settings.model.value.build(self.data.shape, self.data.classes))

    @cached_property
    def weights(self) -> dict[PeerId, dict[PeerId, float]]:
        """Metropolis weights of the graph."""
        return mixing.metropolis(self.graph)

    def task(self, peer: PeerId, private: Seeds) -> SGDTask:
        """The model of the scenario on the data of one peer, on its device."""
        held = [self.shards[k] for k in self.roles[peer].shards]
        indices = numpy.concatenate(held) if held else numpy.empty(0, numpy.int64)
        device = torch.device(self.device(peer))
        return SGDTask(self.settings.model.value, self.data, indices, self.settings.training, device, private)

    def seat(self, peer: PeerId) -> Seat:
        """Everything that one peer is given before it starts."""
        settings, role = self.settings, self.roles[peer]
        private = Seeds.of(None) if settings.seed is None else self._root.child("peer", peer)
        me = Peer(
            peer,
            tuple(self.weights[peer]),
            self.weights[peer],
            self.roster,
            self.task(peer, private),
            settings.sketch.value,
            settings.aggregator.value,
            settings.training,
            settings.init,
            self._root.child("shared"),
            private,
        )
        return Seat(me, role.flow, role.evaluated)

    def device(self, peer: PeerId) -> str:
        """Where a peer computes: `auto` spreads the peers over the GPUs, or takes the CPU where there is none."""
        asked = self.settings.training.device
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
