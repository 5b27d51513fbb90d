"""A baseline: one model learns on the data of all peers together, in one place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from p2pfl.algorithms.local_only import LocalOnly
from p2pfl.contracts import Sketch, Training
from p2pfl.messages import HUB, PeerId
from p2pfl.peer import Role


@dataclass(frozen=True)
class Central:
    """Baseline: one model on all data; a round is `local_steps` steps, or `local_epochs` passes over all of it."""

    topology = "complete"

    def roles(self, learners: int) -> dict[PeerId, Role]:
        """The hub, which learns alone on every shard."""
        return {HUB: Role(LocalOnly(), tuple(range(learners)))}

    def check(self, training: Training, sketch: Sketch, links: Sequence[tuple[PeerId, PeerId]]) -> None:
        """There is nobody to talk to."""

    def vectors(self, links: Sequence[tuple[PeerId, PeerId]]) -> float:
        """Nothing travels."""
        return 0
