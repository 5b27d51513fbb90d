"""Whose displacements curious peers can compute from their mail: a question about the graph alone.

Peers mix, x_{r+1} = W_r x_r + d_r: row i of d_r is what peer i adds in round r, and x_1 is one point that all know.
A peer is told the rows of x of its neighbours every round, so its mail of round r + 1 is the first that shows round r.
Some peers that share what they hear (or one) determine a displacement if it is the only one that fits their mail.
Each of the D numbers of a row mixes alike, so this hangs on the W_r alone. Two answers bound what happens:

static: every peer adds the same d in every round. What is heard later then tells of it again, and of ever more peers.
fresh: every peer adds something else in every round, N R unknowns for R rounds.

Both are answered exactly, without a tolerance: what is lost in the rounding of mail is not counted for the peers.
Sources: El Mrini, Cyffers & Bellet 2024, "Privacy Attacks in Decentralized Learning", section 4 (reconstruction by
Gaussian elimination); Pasquini, Raynal & Troncoso 2023, "On the (In)security of Peer-to-Peer Decentralized Learning".
Shapes: N peers by their position, R rounds, M rows.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy
from numpy.typing import NDArray

Weights = NDArray[numpy.float64]
"""w_NN of one round: row i is how peer i mixes, nonzero where it hears somebody; rows sum to 1."""
Modular = NDArray[numpy.int64]

PRIME = 2**31 - 1
"""Ranks are those modulo this prime: never more than the true one, less with a chance of about one in a million."""
FINEST = 10**6
"""Weights are the ratios of whole numbers below this that are nearest to the floats: 1/3 is a third."""


def heard(w_NN: Weights, observers: Collection[int]) -> NDArray[numpy.bool_]:
    """Whether each of the N is heard by one of the observers in a round, or is one."""
    heard_N: NDArray[numpy.bool_] = (w_NN[list(observers)] != 0).any(axis=0)
    heard_N[list(observers)] = True
    return heard_N


def fresh(mixings: Sequence[Weights], observers: Collection[int], common: bool = True) -> list[frozenset[int]]:
    """Whose displacement of round r the observers determine, for r = 1 to R, given W_1 to W_{R+1}.

    By x_2 to x_{R+1} in place of d_1 to d_R the unknowns are the rows that nobody hears, each free of the others. So
    d_r of peer i is determined if and only if x_{r+1} of i was heard, and x_r of all that i mixed in; x_1 is known to
    all, unless it is not `common`. What is not determined by the mail of round r + 1 never is.
    """
    found = []
    for at, (w_NN, later_NN) in enumerate(pairwise(mixings)):
        unheard_N = numpy.zeros(len(w_NN), bool) if common and at == 0 else ~heard(w_NN, observers)
        open_N = heard(later_NN, observers) & ~(w_NN[:, unheard_N] != 0).any(axis=1)
        found.append(others(open_N, observers))
    return found


def static(mixings: Sequence[Weights], observers: Collection[int], common: bool = True) -> list[frozenset[int]]:
    """Whose displacement the observers determine after r = 1 to R rounds if all bring the same, given W_1 to W_{R+1}.

    Without a `common` start the N rows of x_1 are unknown as well. Where all W are one, nothing is added after as many
    rounds as there are unknowns (Cayley & Hamilton).
    """
    return determined(list(told(mixings, common)), mixings, observers)


def collected(members: Collection[int], hub: int, observers: Collection[int]) -> frozenset[int]:
    """Whose displacement of a round is determined where a hub collects all and tells every member what they come to.

    The hub is sent each by itself; members know the sum of all, so that of the others: one's own if there is one other.
    """
    rest = frozenset(members) - frozenset(observers)
    return rest if hub in observers or len(rest) == 1 else frozenset()


def told(mixings: Sequence[Weights], common: bool = True) -> Iterator[Modular]:
    """x_1 to x_{R+1} as what they are of d, N x N modulo PRIME: M_1 = 0, M_{r+1} = W_r M_r + I.

    Without a `common` start d and x_1 are the unknowns, N x 2N. It hangs on no observer: compute it once for all.
    """
    peers = len(mixings[0])
    eye_NN, none_NN = numpy.eye(peers, dtype=numpy.int64), numpy.zeros((peers, peers), numpy.int64)
    moves = eye_NN if common else numpy.hstack([eye_NN, none_NN])
    x = none_NN if common else numpy.hstack([none_NN, eye_NN])
    yield x
    before, exact_NN = None, none_NN
    for w_NN in mixings[:-1]:
        exact_NN = exact_NN if w_NN is before else modular(w_NN)
        before, x = w_NN, (product(exact_NN, x) + moves) % PRIME
        yield x


def determined(
    points: Sequence[Modular], mixings: Sequence[Weights], observers: Collection[int]
) -> list[frozenset[int]]:
    """`static` for these observers, given what `told` yields for the same mixings.

    The mail is brought into reduced row echelon form, in which an unknown is determined if a row holds nothing else.
    """
    peers, width = points[0].shape
    rows = numpy.eye(peers, width, dtype=numpy.int64)[list(observers)]  # what they add themselves
    known_N, found = numpy.zeros(peers, bool), []
    for x, w_NN in zip(points, mixings, strict=True):
        if not known_N.all():
            rows = extended(rows, x[heard(w_NN, observers)])
            alone = rows[(rows != 0).sum(axis=1) == 1]
            known_N = (alone != 0).any(axis=0)[:peers]
        found.append(others(known_N, observers))
    return found[1:]


def others(told_N: NDArray[numpy.bool_], observers: Collection[int]) -> frozenset[int]:
    """The positions that are true, without the observers' own."""
    return frozenset(numpy.flatnonzero(told_N).tolist()) - frozenset(observers)


def modular(w_NN: Weights) -> Modular:
    """The weights modulo PRIME; who keeps what is left of 1 keeps exactly that."""
    exact_NN = numpy.zeros(w_NN.shape, numpy.int64)
    for i, j in numpy.argwhere(w_NN):
        if i != j:
            ratio = Fraction(w_NN[i, j]).limit_denominator(FINEST)
            exact_NN[i, j] = ratio.numerator * pow(ratio.denominator, -1, PRIME) % PRIME
    numpy.fill_diagonal(exact_NN, (1 - exact_NN.sum(axis=1)) % PRIME)
    return exact_NN


def product(a: Modular, b: Modular) -> Modular:
    """a @ b modulo PRIME: b in halves of 16 bits, so that no sum leaves 63 bits for up to 32,768 peers."""
    high: Any = a @ (b >> 16) % PRIME
    result: Modular = ((high << 16) + a @ (b & 0xFFFF)) % PRIME
    return result


def extended(rows: Modular, more: Modular) -> Modular:
    """The reduced row echelon form, modulo PRIME, of rows that are in it and more of them (Gauss & Jordan).

    It has no rows of zeros; in which order the others come does not matter.
    """
    leading = (rows != 0).argmax(axis=1)
    more = (more - product(more[:, leading], rows)) % PRIME
    rank = 0
    while len(left := numpy.flatnonzero((more[rank:] != 0).any(axis=0))):
        column, below = left[0], rank + int((more[rank:, left[0]] != 0).argmax())
        more[[rank, below]] = more[[below, rank]]
        more[rank] = more[rank] * pow(int(more[rank, column]), -1, PRIME) % PRIME
        factors = more[:, column].copy()
        factors[rank] = 0
        more = (more - factors[:, None] * more[rank]) % PRIME
        rank += 1
    more = more[:rank]
    return numpy.vstack([(rows - product(rows[:, (more != 0).argmax(axis=1)], more)) % PRIME, more])
