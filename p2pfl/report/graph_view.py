"""A peer graph as the curious see it: what each, or some together, determine of others' updates after some rounds.

See `p2pfl.metrics.visibility` for what that means; here it is counted, for who is asked about.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean

import numpy

from p2pfl.messages import PeerId, peer_name
from p2pfl.metrics import visibility
from p2pfl.seeds import Seeds

MOST_TRIED = 2400
"""Of more coalitions than this over the number of peers so many are drawn."""
SHOWN = (1, 4, 12)
"""The rounds after which it is shown, beside the last."""


@dataclass(frozen=True, eq=False)
class Sight:
    """What some peers determine of `others`: of how many, if updates stay the same, and of which share of updates, if
    each is new, after each round that is shown; and of whom never.
    """

    who: tuple[PeerId, ...]
    others: int
    static: Sequence[float]
    fresh: Sequence[float]
    never: tuple[PeerId, ...] = ()

    @property
    def order(self) -> tuple[float, float]:
        """A key to sort by: who sees most, and soonest, comes last."""
        return sum(self.static), sum(self.fresh)

    @property
    def parts(self) -> tuple[str, str]:
        """Both answers."""
        static = ", ".join(f"{count:.3g}" for count in self.static)
        fresh = ", ".join(f"{100 * share:.3g}" for share in self.fresh)
        return f"{static} of {self.others} others", f"{fresh} %"

    def __str__(self) -> str:
        return "static {}; fresh {}".format(*self.parts)


@dataclass(frozen=True, eq=False)
class View:
    """A graph as it is looked at: what is mixed in rounds 1 to R + 1, after which each round is as the one before.

    `points` are what `told` makes of `mixings`; `rounds` are those that are shown.
    """

    peers: tuple[PeerId, ...]
    mixings: Sequence[visibility.Weights]
    points: Sequence[visibility.Modular]
    rounds: tuple[int, ...]
    common: bool = True

    def seen(self, who: Collection[PeerId]) -> Sight:
        """What these peers determine together."""
        places = [self.peers.index(i) for i in who]
        static = visibility.determined(self.points, self.mixings, places)
        fresh = [len(found) for found in visibility.fresh(self.mixings, places, self.common)]
        others, looked = len(self.peers) - len(places), len(fresh)
        sums = [sum(fresh[:r]) + max(0, r - looked) * fresh[-1] for r in self.rounds]
        return Sight(
            tuple(who),
            others,
            [len(static[min(r, looked) - 1]) for r in self.rounds],
            [count / (others * r) for count, r in zip(sums, self.rounds, strict=True)],
            tuple(i for k, i in enumerate(self.peers) if k not in static[-1] and i not in who),
        )


def look(
    peers: Sequence[PeerId], weights: list[visibility.Weights], last: int, common: bool, ahead: bool = False
) -> View:
    """What there is to see up to the `last` round, of weights that change from round to round or, if one, stay.

    Where first posts hold an update, `ahead`, there is one more: it is as if a round without mixing came first.
    """
    begun = [numpy.eye(len(peers))] if ahead else []
    if len(weights) == 1:
        last, unknowns = last + len(begun), len(peers) * (1 if common else 2)
        weights = weights * (min(last, unknowns + 2) + 1)
    else:
        last = min(last, len(weights) - 1) + len(begun)
    weights = [*begun, *weights][: max(last, 0) + 1]
    rounds = tuple(sorted({*(r for r in SHOWN if r < last), last})) if last > 0 else ()
    return View(tuple(peers), weights, list(visibility.told(weights, common)), rounds, common)


def coalitions(peers: Sequence[PeerId], size: int) -> tuple[list[tuple[PeerId, ...]], str]:
    """All coalitions of this size, or some that are drawn, the same each time; and how many of how many that is."""
    count, most = math.comb(len(peers), size), MOST_TRIED // len(peers)
    if count <= most:
        return list(combinations(peers, size)), f"all {count:,}"
    draw = Seeds(bytes(32)).numpy("coalitions", size)
    drawn = {tuple(sorted(draw.choice(peers, size, replace=False).tolist())) for _ in range(most)}
    return sorted(drawn), f"{len(drawn)} drawn of {count:,}"


def mean(sights: Sequence[Sight]) -> Sight:
    """What one of them determines on average."""
    static = [fmean(counts) for counts in zip(*(sight.static for sight in sights), strict=True)]
    fresh = [fmean(shares) for shares in zip(*(sight.fresh for sight in sights), strict=True)]
    return Sight((), sights[0].others, static, fresh)


def listed(numbers: Sequence[int]) -> str:
    """1, 4 and 12."""
    *first, last = (peer_name(number) for number in numbers)
    return f"{', '.join(first)} and {last}" if first else last
