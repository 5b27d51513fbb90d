"""Every random stream, by name: a stream is the SHA-256 of its root and its names, so no two meet.

With a `seed` the root is public and a run can be replayed; without one it is the operating system's
randomness. Nobody touches the global random state of torch, numpy or Python.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass

import numpy
import torch


@dataclass(frozen=True)
class Seeds:
    """A root of random streams. `root` is 32 bytes; whoever holds it can compute every stream of it."""

    root: bytes

    @staticmethod
    def of(seed: int | None) -> Seeds:
        """The root of a run: derived from `seed`, or fresh from the operating system without one."""
        return Seeds(os.urandom(32) if seed is None else hashlib.sha256(f"p2pfl {seed}".encode()).digest())

    def child(self, *names: str | int) -> Seeds:
        """The root of all streams under these names."""
        return Seeds(self._derive(names))

    def key(self, count: int, *names: str | int) -> bytes:
        """`count` bytes of the stream of these names (a SHAKE-256 output: fit for a key)."""
        return hashlib.shake_256(self._derive(names)).digest(count)

    def torch(self, *names: str | int) -> torch.Generator:
        """A torch generator on the CPU."""
        seed = int.from_bytes(self._derive(names)[:8], "little") >> 1
        return torch.Generator().manual_seed(seed)

    def numpy(self, *names: str | int) -> numpy.random.Generator:
        """A numpy generator."""
        return numpy.random.default_rng(numpy.frombuffer(self._derive(names), numpy.uint32).tolist())

    def _derive(self, names: tuple[str | int, ...]) -> bytes:
        digest = hashlib.sha256(self.root)
        for name in names:
            coded = f"{type(name).__name__}:{name}".encode()
            digest.update(len(coded).to_bytes(4, "little") + coded)
        return digest.digest()
