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
from torch import Generator

Device = torch.device | str
TWISTER_AT, TWISTER_WORDS = 24, 624
"""Where the words of the Mersenne twister lie in the state of torch's generator on the CPU, and how many there are."""


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

    def torch(self, *names: str | int, device: Device = "cpu") -> Generator:
        """A torch generator, which draws other numbers on another kind of device."""
        seed = int.from_bytes(self._derive(names)[:8], "little") >> 1
        return Generator(device).manual_seed(seed)

    def noise(self, *names: str | int, device: Device = "cpu") -> Generator:
        """A torch generator whose seed must not be found by trial, and whose numbers no other stream draws.

        On the CPU torch seeds by no more than 32 bits: so the whole state of its Mersenne twister is filled, which is
        no cipher all the same. GPUs take 63 bits.
        """
        generator = self.torch(*names, device=device)
        if generator.device.type == "cpu":
            state, words = generator.get_state(), self.key(4 * TWISTER_WORDS, *names)
            filled = torch.frombuffer(bytearray(words), dtype=torch.int32).to(torch.int64) & 0xFFFFFFFF
            state[TWISTER_AT : TWISTER_AT + 8 * TWISTER_WORDS].view(torch.int64).copy_(filled)
            generator.set_state(state)
        return generator

    def numpy(self, *names: str | int) -> numpy.random.Generator:
        """A numpy generator."""
        return numpy.random.default_rng(numpy.frombuffer(self._derive(names), numpy.uint32).tolist())

    def _derive(self, names: tuple[str | int, ...]) -> bytes:
        digest = hashlib.sha256(self.root)
        for name in names:
            coded = f"{type(name).__name__}:{name}".encode()
            digest.update(len(coded).to_bytes(4, "little") + coded)
        return digest.digest()
