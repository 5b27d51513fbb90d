"""What peers without rounds in common last said: they are compared as they last were, being never in one round."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass, field

from torch import Tensor

from p2pfl.messages import Message, PeerId


@dataclass
class Newest:
    """The last model of each peer and its accuracy on `split`, how far anybody is, and when that was said.

    Altered in place by `hear`.
    """

    split: str
    models: dict[PeerId, Tensor] = field(default_factory=dict)
    accuracies: dict[PeerId, float] = field(default_factory=dict)
    round: int = 0
    time_s: float = 0.0

    def hear(self, peer: PeerId, message: Message) -> None:
        """A row of a peer's record."""
        self.round = max(self.round, message.round)
        self.time_s = max(self.time_s, float(str(message.figures["time_s"])))
        if "model" in message.tensors:
            self.models = dict(sorted({**self.models, peer: message.tensors["model"]}.items()))
        accuracy = message.figures.get(f"{self.split}_accuracy")
        if isinstance(accuracy, float):
            self.accuracies[peer] = accuracy

    def mean_accuracy(self, living: Set[PeerId]) -> dict[str, float]:
        """The mean over those who live at this moment: over peers in one round it would be one of many moments."""
        told = [accuracy for peer, accuracy in self.accuracies.items() if peer in living]
        return {"mean_accuracy": sum(told) / len(told)} if told else {}
