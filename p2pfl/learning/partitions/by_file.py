"""The natural partition of data that come in several files: one file a peer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy
from numpy.typing import NDArray

from p2pfl.errors import ScenarioError
from p2pfl.learning.data import Examples


@dataclass(frozen=True)
class ByFile:
    """One file a peer, in the order of their names; for data in a folder of as many files as there are peers."""

    def split(
        self, examples: Examples, peers: int, batch: int, rng: numpy.random.Generator
    ) -> list[NDArray[numpy.int64]]:
        """For each peer the rows it holds, ascending; every row is given exactly once.

        Raises ScenarioError when the data do not come in files, or in another number of files than there are peers.
        """
        names, file_N = numpy.unique(examples.column("file"), return_inverse=True)
        if len(names) != peers:
            remedy = f"set peers: {len(names)}" + (", or take {by_column: file}" if len(names) > peers else "")
            raise ScenarioError(f"the data come in {len(names)} files for {peers} peers", remedy)
        return [numpy.flatnonzero(file_N == peer).astype(numpy.int64) for peer in range(peers)]
