"""What is true of a run that is over, for who judges it: the examples that batches held, and how a model does on them.

Shapes: D parameters, K examples of C x H x W, N examples of either kind.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from p2pfl import plugins
from p2pfl.errors import ScenarioError
from p2pfl.learning.preparation import fixed_order
from p2pfl.messages import PeerId
from p2pfl.metrics import images
from p2pfl.runtime.findings import Batch
from p2pfl.runtime.world import World

Held = Mapping[Batch, Sequence[int]]
"""Rows of the training part, by whose batch of which number they were."""
MOST_MEMBERS = 1000
"""Whose membership is judged by; the losses of more would take long and say no more."""
CHUNK = 256


@dataclass(frozen=True, eq=False)
class Truth:
    """The K examples of the batches that are known; `whole` where no batch is unknown."""

    peers_K: tuple[PeerId, ...]
    rows_K: Tensor
    inputs_KCHW: Tensor
    labels_K: Tensor
    whole: bool


@dataclass(frozen=True, eq=False)
class Court:
    """A run, and what its victims logged. What is read of the data is read when it is wanted."""

    world: World
    held: Held

    @cached_property
    def span(self) -> images.Span:
        """Where the values of inputs lie, as whoever knows the data set knows."""
        return images.span(self.world.data.train_x)

    @cached_property
    def module(self) -> nn.Module:
        """The model, on the CPU, with any parameters."""
        data = self.world.data
        built: nn.Module = self.world.settings.model.value.build(data.shape, data.classes)
        return built

    def truth(self, batches: Sequence[Batch]) -> Truth | None:
        """The examples of those batches that are known; None where there are none."""
        known = [(peer, row) for peer, number in batches for row in self._rows(peer, number)]
        if not known:
            return None
        rows_K = torch.tensor([row for _, row in known])
        data, whole = self.world.data, all(batch in self.held for batch in batches)
        return Truth(tuple(peer for peer, _ in known), rows_K, data.train_x[rows_K], data.train_y[rows_K], whole)

    def kind(self, method: str) -> str | None:
        """By what an attack of this name is judged; None where there is no such attack any more."""
        try:
            return getattr(plugins.find("attacks", method), "scores", None)
        except (ScenarioError, ImportError):  # ImportError: of a library that this machine has not
            return None

    def taken(self, victim: PeerId, round: int) -> list[Batch]:
        """The batches that a peer is known to have had in a round."""
        ends = [self._steps(victim, r) for r in (round - 1, round)]
        return sorted((peer, number) for peer, number in self.held if peer == victim and number in range(*ends))

    def members(self, victim: PeerId, round: int, batches: Sequence[Batch]) -> Tensor:
        """Which examples a peer is known to have learned from by then: rows of the training part, each once.

        Up to the last of `batches` that is its own; where none is, up to as many as it can have had by that round.
        """
        own = [number + 1 for peer, number in batches if peer == victim]
        end = max(own, default=self._steps(victim, round))
        numbers = sorted(number for peer, number in self.held if peer == victim and number < end)
        rows = dict.fromkeys(row for number in numbers for row in self._rows(victim, number))
        return torch.tensor([*rows][-MOST_MEMBERS:], dtype=torch.int64)

    def others(self, count: int) -> Tensor:
        """Examples that nobody learned from: rows of the test part, so many if there are as many."""
        return torch.from_numpy(fixed_order(len(self.world.data.test_y))[:count])

    def losses(self, x_D: Tensor, inputs_NCHW: Tensor, labels_N: Tensor) -> Tensor:
        """Cross entropy of each example under these parameters. Raises ValueError where they are of another model."""
        layout = self.world.layout
        if x_D.shape != (sum(slot.size for slot in layout),):
            raise ValueError(f"{tuple(x_D.shape)} are no parameters of this model")
        parts = torch.split(x_D, [slot.size for slot in layout])
        named = {slot.name: part.view(slot.shape) for slot, part in zip(layout, parts, strict=True)}
        chunks = zip(torch.split(inputs_NCHW, CHUNK), torch.split(labels_N, CHUNK), strict=True)
        with torch.no_grad():
            return torch.cat([self._losses(named, inputs, labels) for inputs, labels in chunks])

    def _losses(self, named: dict[str, Tensor], inputs: Tensor, labels: Tensor) -> Tensor:
        logits = torch.func.functional_call(self.module, named, (inputs,))
        return nn.functional.cross_entropy(logits, labels, reduction="none")

    def _steps(self, peer: PeerId, rounds: int) -> int:
        """How many batches a peer has had after so many rounds, if it took part in each."""
        return rounds * self.world.training(peer).steps(self.world.roster.examples.get(peer, 0))

    def _rows(self, peer: PeerId, number: int) -> list[int]:
        """What a batch held, of the rows that there are; nothing where nobody said."""
        told = self.held.get((peer, number), ())
        return [row for row in told if row < len(self.world.data.train_y)] if told else []
