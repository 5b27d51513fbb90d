"""A baseline: every peer learns alone, on its own data, and sends nothing."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from p2pfl.contracts import Sketch, Trained, Training
from p2pfl.messages import Form, Mail, PeerId, Report, Step
from p2pfl.peer import Peer, Role


@dataclass(frozen=True)
class LocalOnly:
    """Baseline: every peer learns alone."""

    topology = "ring"

    def roles(self, learners: int) -> dict[PeerId, Role]:
        """Every learner does the same."""
        return {i: Role(self, (i,)) for i in range(learners)}

    def check(self, training: Training, sketch: Sketch, links: Sequence[tuple[PeerId, PeerId]]) -> None:
        """Any graph will do: nothing travels."""

    def vectors(self, links: Sequence[tuple[PeerId, PeerId]]) -> float:
        """Nothing travels."""
        return 0

    def start(self, me: Peer) -> Trained:
        """The first point, at rest."""
        return Trained(me.first_point(), None, 0.0)

    def forms(self, me: Peer, r: int) -> Mapping[str, Form]:
        """No message is expected."""
        return {}

    def round(self, me: Peer, state: Trained, r: int) -> Generator[Step, Mail, Trained]:
        """Plain SGD."""
        state = me.steps(state.x_D, state.m_D, r, me.local_steps)
        yield Report(r, {"loss": state.loss})
        return state

    def model(self, state: Trained) -> Tensor:
        """The peer's own parameters."""
        return state.x_D
