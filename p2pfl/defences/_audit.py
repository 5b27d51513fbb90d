"""A lower bound on epsilon from one run: how often an auditor guesses rightly which canaries took part.

Each canary is in or out by a fair coin. Whoever is (epsilon, delta)-private lets nobody guess a coin better than
randomized response would show it, but for what delta allows; more right guesses than that refute epsilon. The bound
holds for any way of guessing, at the confidence that is asked for.
Source: Steinke, Nasr & Jagielski 2023, "Privacy Auditing with One (1) Training Run", theorem 5.2 and appendix D.
Shapes: M canaries, V numbers of right guesses.
"""

from __future__ import annotations

import math
from typing import Any

import numpy
from numpy.typing import NDArray
from scipy.special import bdtrc, expit, gammaln, xlog1py, xlogy  # type: ignore[import-untyped]

CLOSE = 1e-6
"""The bound is found to so much, from below."""


def guesses(scores_M: NDArray[Any], share: float) -> NDArray[numpy.int8]:
    """1 (in) for the `share` of canaries with the highest scores, -1 (out) for as many with the lowest, 0 between.

    Raises ValueError unless `share` is between 0 and a half. Of equal scores the first count as the lower ones.
    """
    if not 0 < share <= 0.5:
        raise ValueError(f"share must be above 0 and at most a half, not {share}: as many are guessed out as in")
    order_M = numpy.argsort(scores_M, kind="stable")
    guessed_M = numpy.zeros(len(order_M), numpy.int8)
    count = math.floor(share * len(order_M))
    if count:
        guessed_M[order_M[:count]], guessed_M[order_M[-count:]] = -1, 1
    return guessed_M


def lower_bound(canaries: int, guesses: int, right: int, delta: float, confidence: float = 0.95) -> float:
    """The largest epsilon that so many right guesses refute at this confidence; 0.0 where they refute none.

    Raises ValueError unless 0 <= right <= guesses <= canaries, and for a probability outside of [0, 1).
    """
    if not 0 <= right <= guesses <= canaries:
        raise ValueError(f"right guesses, guesses and canaries must not fall: {right}, {guesses} and {canaries} do")
    if not (0 <= delta < 1 and 0 < confidence < 1):
        raise ValueError(f"delta and confidence must be between 0 and 1, not {delta} and {confidence}")
    chance = 1 - confidence
    if probability(canaries, guesses, right, 0.0, delta) >= chance:
        return 0.0
    low, high = 0.0, 1.0
    while probability(canaries, guesses, right, high, delta) < chance:
        low, high = high, 2 * high
    while high - low > CLOSE:
        middle = (low + high) / 2
        if probability(canaries, guesses, right, middle, delta) < chance:
            low = middle
        else:
            high = middle
    return low


def probability(canaries: int, guesses: int, right: int, epsilon: float, delta: float) -> float:
    """How probable so many right guesses are at most, whatever the auditor does, where `epsilon` and `delta` hold.

    Theorem 5.2: f(v) + 2 m delta max_i (f(v - i) - f(v)) / i for i = 1 .. m, f(v) being the probability that a
    binomial variable of `guesses` trials, each right with probability e^epsilon / (1 + e^epsilon), is v or more.
    """
    rate = float(expit(epsilon))
    at_least = float(bdtrc(right - 1, guesses, rate)) if right else 1.0
    if not right or not delta:
        return at_least
    fewer_V = numpy.arange(right - 1, -1, -1)  # v - i for i = 1 .. v; beyond it the mean only falls
    ways_V = gammaln(guesses + 1) - gammaln(fewer_V + 1) - gammaln(guesses - fewer_V + 1)
    pmf_V = numpy.exp(ways_V + xlogy(fewer_V, rate) + xlog1py(guesses - fewer_V, -rate))
    steepest = float((numpy.cumsum(pmf_V) / numpy.arange(1, right + 1)).max())
    return min(at_least + 2 * canaries * delta * steepest, 1.0)
