"""How the curious read sketched mail: five readings of one displacement, from the weakest attacker to the strongest.

Source: Wang & Zhang, "Matrix Sketching for Secure Collaborative Machine Learning" (DBCL), sections 3 and 5.3: a client
sees `W_t S_t`, a server `Gamma S^T`. The other three are ours: whoever keeps an estimate W^ of the weights learns from
each sketch, W^ <- W^ + pull(z - down(W^)), so that it errs by an update and not by the weights; whoever holds the key
may compare in the sketched space; and what travels whole is there for everybody.
Shapes: D parameters, S numbers of a sketch, O of them that travel whole.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from p2pfl.contracts import Layerwise, Layout, Pair
from p2pfl.evidence import HEAD, MATCHED, MEMORYLESS, PLAIN, SERVER, STATEFUL, Linear, Part, Sight

AVERAGED = 4
"""Of so many keys the mean stands for what a sketch does on the average."""


@dataclass(frozen=True, eq=False)
class Letter:
    """A vector as it travelled: S numbers, under which pair and key."""

    z_S: Tensor
    pair: Pair
    key: bytes
    layout: Layout

    @property
    def keyed(self) -> bool:
        """Whether anything was sketched at all."""
        return self.pair.size < sum(slot.size for slot in self.layout) or bool(self.key)

    def down(self, x_D: Tensor) -> Tensor:
        """Another vector, sketched as this one."""
        return self.pair.down(x_D, self.key)

    def up(self, z_S: Tensor) -> Tensor:
        """The transpose of `down`."""
        return self.pair.up(z_S, self.key)

    def opened(self) -> Tensor:
        """The D numbers that whoever has nothing else takes it for."""
        return self.pair.pull(self.z_S, self.key)

    def learned(self, estimate_D: Tensor) -> Tensor:
        """What is added to an estimate of the vector by reading this letter."""
        return self.pair.pull(self.z_S - self.down(estimate_D), self.key)

    def unsketched(self) -> Tensor:
        """Which of the D numbers travel as they are: indices."""
        return _whole(self, [slot.size for slot in self.layout])

    def unsketched_here(self) -> Tensor:
        """Where these lie among the S numbers."""
        assert isinstance(self.pair, Layerwise)
        return _whole(self, [part.numel() for part in self.pair.sketches_of(self.z_S)])


def _whole(letter: Letter, sizes: list[int]) -> Tensor:
    if not isinstance(letter.pair, Layerwise):  # a sketch of another kind says nothing of its slots
        return torch.zeros(0, dtype=torch.int64)
    maps = letter.pair.maps(letter.key, letter.z_S.device)
    kept = torch.cat([torch.full((size,), s is None) for size, s in zip(sizes, maps, strict=True)])
    return kept.nonzero().flatten().to(letter.z_S.device)


def taken(index_O: Tensor, x: Tensor) -> Tensor:
    """Some of the numbers of a vector."""
    return x.index_select(0, index_O)


def expected(pair: Pair, difference_D: Tensor) -> Tensor:
    """What becomes of a difference that is sketched under a key which nobody here knows, on the average."""
    keys = [bytes([number]) * 16 for number in range(AVERAGED)]
    return torch.stack([pair.pull(pair.down(difference_D, key), key) for key in keys]).mean(0)


def read(
    before: Letter, after: Letter, estimate_D: Tensor, known_D: Tensor, parts: tuple[Part, ...], exact: bool
) -> tuple[Sight, ...]:
    """The readings of what a sender's steps came to between two of its letters.

    `estimate_D` is where the attacker has it before, and `known_D` what it knows to have been added besides the steps;
    `parts` are those steps, taken at the estimate. `exact` says that the estimate is the truth.
    """
    if not after.keyed:
        return (Sight(PLAIN, after.z_S - before.z_S - known_D, parts),)
    opened_D = before.opened()
    naive = _moved_to(parts, opened_D)
    sights = [
        Sight(MEMORYLESS, after.opened() - opened_D, naive),
        Sight(STATEFUL, after.learned(estimate_D) - known_D, parts),
        Sight(MATCHED, after.z_S - after.down(estimate_D + known_D), parts, after.down),
    ]
    if exact:
        sights.insert(1, Sight(SERVER, after.up(after.z_S - after.down(estimate_D + known_D)), parts))
    if len(whole_D := after.unsketched()):
        before_O = taken(before.unsketched_here(), before.z_S)
        moved_O = taken(after.unsketched_here(), after.z_S) - before_O - taken(whole_D, known_D)
        sights.append(Sight(HEAD, moved_O, naive, partial(taken, whole_D)))
    return tuple(sights)


def _moved_to(parts: tuple[Part, ...], at_D: Tensor) -> tuple[Part, ...]:
    """The same steps, those that began where the first did taken from another point."""
    return tuple(dataclasses.replace(part, at=at_D) if part.at is parts[0].at else part for part in parts)


def of_answer(sent: Letter, answer_S: Tensor, true_D: Tensor, part: Part) -> tuple[Sight, ...]:
    """The readings of a hub that sent its model and hears where a member's steps in the sketched space ended.

    `part` says which steps they are, wherever it has them begin; the hub's own parameters are `true_D`.
    """
    moved_S = answer_S - sent.z_S
    if not sent.keyed:
        return (Sight(PLAIN, moved_S, (dataclasses.replace(part, at=sent.z_S),)),)
    up: Linear = sent.up
    inside = dataclasses.replace(part, at=sent.z_S, up=up, down=sent.down)
    sights = [
        Sight(SERVER, sent.up(moved_S), (dataclasses.replace(part, at=true_D),)),
        Sight(MATCHED, moved_S, (inside,)),
    ]
    if len(whole_S := sent.unsketched_here()):
        sights.append(Sight(HEAD, taken(whole_S, moved_S), (inside,), partial(taken, whole_S)))
    return tuple(sights)
