"""Peers see few classes: the examples are sorted by label, cut into shards, and each peer is dealt some.

Source: McMahan et al. 2017, "Communication-efficient learning of deep networks from decentralized data", section 3
(their pathological non-IID partition: 200 shards of 300 examples, two for each of 100 clients).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy
import pydantic
from numpy.typing import NDArray

from p2pfl.errors import ScenarioError
from p2pfl.learning.data import Examples


@dataclass(frozen=True)
class Shards:
    """Sorted by label and cut into shards of equal size, `labels` of them a peer: it sees about so many labels."""

    labels: Annotated[int, pydantic.Field(ge=1)] = 2

    def split(
        self, examples: Examples, peers: int, batch: int, rng: numpy.random.Generator
    ) -> list[NDArray[numpy.int64]]:
        """For each peer the rows it holds, ascending; every row is given exactly once.

        Raises ScenarioError when there are fewer examples than shards.
        """
        count = peers * self.labels
        if len(examples) < count:
            problem = f"{len(examples)} examples do not make {count} shards, {self.labels} for each of {peers} peers"
            raise ScenarioError(problem, "use fewer peers, fewer labels or more data")
        shuffled = rng.permutation(len(examples)).astype(numpy.int64)
        ordered = shuffled[numpy.argsort(examples.labels_N[shuffled], kind="stable")]
        shards = numpy.array_split(ordered, count)
        dealt = rng.permutation(count).reshape(peers, self.labels)
        return [numpy.sort(numpy.concatenate([shards[shard] for shard in hand])) for hand in dealt]
