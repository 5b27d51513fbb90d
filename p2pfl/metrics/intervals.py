"""How sure a figure is: t-intervals over runs, and Wilson's interval for a share.

Sources: Student 1908; Welch 1947; Wilson 1927. The unit is the run, not the peer: peers of one run are not independent.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from scipy.special import ndtri, stdtrit  # type: ignore[import-untyped]  # far quicker to import than scipy.stats

LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """An estimate, and the interval that covers the truth in a `level` share of all experiments."""

    estimate: float
    low: float
    high: float


def mean_interval(runs: Sequence[float], level: float = LEVEL) -> Interval:
    """Student's interval for the mean of R >= 2 runs. Raises ValueError when there are fewer."""
    spread = statistics.stdev(several(runs)) / math.sqrt(len(runs))
    return around(statistics.fmean(runs), spread, len(runs) - 1, level)


def paired_interval(ours: Sequence[float], theirs: Sequence[float], level: float = LEVEL) -> Interval:
    """For the mean of `ours - theirs`, run by run (same seed, same data). Raises ValueError when they do not pair."""
    if len(ours) != len(theirs):
        raise ValueError(f"{len(ours)} runs cannot be paired with {len(theirs)}")
    return mean_interval([a - b for a, b in zip(ours, theirs, strict=True)], level)


def unpaired_interval(ours: Sequence[float], theirs: Sequence[float], level: float = LEVEL) -> Interval:
    """Welch's, for the difference of two means of unrelated runs. Raises ValueError when a side has less than 2."""
    a = statistics.variance(several(ours)) / len(ours)
    b = statistics.variance(several(theirs)) / len(theirs)
    difference = statistics.fmean(ours) - statistics.fmean(theirs)
    if a + b == 0:
        return Interval(difference, difference, difference)
    freedom = (a + b) ** 2 / (a**2 / (len(ours) - 1) + b**2 / (len(theirs) - 1))
    return around(difference, math.sqrt(a + b), freedom, level)


def share_interval(successes: int, trials: int, level: float = LEVEL) -> Interval:
    """Wilson's, for a share of independent trials; it stays within [0, 1]. Raises ValueError without trials."""
    if not 0 <= successes <= trials or trials == 0:
        raise ValueError(f"{successes} of {trials} is not a share")
    share, z = successes / trials, float(ndtri((1 + level) / 2))
    widened = 1 + z**2 / trials
    centre = (share + z**2 / (2 * trials)) / widened
    reach = z / widened * math.sqrt(share * (1 - share) / trials + z**2 / (4 * trials**2))
    return Interval(share, max(0.0, centre - reach), min(1.0, centre + reach))


def around(estimate: float, spread: float, freedom: float, level: float) -> Interval:
    """`estimate` plus and minus `spread` times the quantile of Student's t."""
    reach = spread * float(stdtrit(freedom, (1 + level) / 2))
    return Interval(estimate, estimate - reach, estimate + reach)


def several(runs: Sequence[float]) -> Sequence[float]:
    """`runs`, if there are at least two of them."""
    if len(runs) < 2:
        raise ValueError(f"an interval needs at least 2 runs, not {len(runs)}")
    return runs
