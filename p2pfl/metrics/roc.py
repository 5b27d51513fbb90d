"""How well scores tell two classes apart, at every threshold: the ROC curve and the area under it.

The area is the share of pairs (a positive and a negative example) whose scores are in the right order, ties counted
half: unlike accuracy it does not hang on how many examples each class has.
Sources: Hanley & McNeil 1982, "The meaning and use of the area under a receiver operating characteristic (ROC) curve";
Chen & Samuelson 2014, "The average receiver operating characteristic curve in multireader multicase imaging studies".
Shapes: N examples, P points of a curve. A curve is `fpr_P, tpr_P`, false and true positive rates from (0, 0) to (1, 1).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy
from numpy.typing import NDArray

Floats = NDArray[numpy.float64]
Curve = tuple[Floats, Floats]

MOST_POINTS = 200
DIGITS = 6
"""Rates are recorded with so many: enough for a million examples of a class."""


def curve(scores_N: NDArray[Any], labels_N: NDArray[Any]) -> Curve:
    """The corners of the curve of scores that are high where the label is 1, and low where it is 0.

    Raises ValueError unless there are examples of both.
    """
    positive_N = numpy.asarray(labels_N) == 1
    positives = int(positive_N.sum())
    negatives = len(positive_N) - positives
    if min(positives, negatives) == 0:
        raise ValueError("a ROC curve needs examples of both classes")
    order_N = numpy.argsort(-numpy.asarray(scores_N, numpy.float64), kind="stable")
    ranked_N, right_N = numpy.asarray(scores_N)[order_N], numpy.cumsum(positive_N[order_N])
    last_of_tie_P = numpy.append(numpy.flatnonzero(ranked_N[1:] != ranked_N[:-1]), len(ranked_N) - 1)
    true_P = numpy.concatenate([[0], right_N[last_of_tie_P]])
    false_P = numpy.concatenate([[0], last_of_tie_P + 1 - right_N[last_of_tie_P]])
    rise_P, run_P = numpy.diff(true_P), numpy.diff(false_P)
    bends_P = rise_P[1:] * run_P[:-1] != rise_P[:-1] * run_P[1:]  # in whole numbers, so exactly
    corners_P = numpy.concatenate([[True], bends_P, [True]])
    return false_P[corners_P] / negatives, true_P[corners_P] / positives


def area(curve: Curve) -> float:
    """The area under it: 1 of a perfect score, 0.5 of chance."""
    fpr_P, tpr_P = curve
    return float((numpy.diff(fpr_P) * (tpr_P[1:] + tpr_P[:-1])).sum()) / 2


def thinned(curve: Curve, most: int = MOST_POINTS) -> Curve:
    """At most `most` of its points, evenly along it, with its ends: none left out is more than 2 / (most - 1) off."""
    along_P = numpy.add(*curve)
    if len(along_P) <= most:
        return curve
    kept_P = numpy.unique(numpy.searchsorted(along_P, numpy.linspace(0, 2, most)))
    return curve[0][kept_P], curve[1][kept_P]


def mean(curves: Sequence[Curve]) -> Curve:
    """The mean of at least one curve, taken across the diagonal of chance: its area is the mean of their areas."""
    along_P = numpy.unique(numpy.concatenate([numpy.add(*each) for each in curves]))
    above_P = numpy.mean([numpy.interp(along_P, numpy.add(*each), each[1] - each[0]) for each in curves], axis=0)
    return (along_P - above_P) / 2, (along_P + above_P) / 2


def figures(scores_N: NDArray[Any], labels_N: NDArray[Any]) -> dict[str, Any]:
    """`auc`, and `roc`: two lists of at most 200 rates each; {} where one of the classes is missing."""
    if len(numpy.unique(labels_N)) < 2:
        return {}
    found = curve(scores_N, labels_N)
    return {"auc": area(found), "roc": [rates_P.round(DIGITS).tolist() for rates_P in thinned(found)]}


def read(value: object) -> Curve | None:
    """A `roc` of a record, which is untrusted; None where it is none."""
    try:
        rates_2P = numpy.array(value, numpy.float64)
    except (OverflowError, TypeError, ValueError):
        return None
    if rates_2P.ndim != 2 or len(rates_2P) != 2 or not 2 <= rates_2P.shape[1] <= MOST_POINTS:
        return None
    climbs = bool((numpy.diff(rates_2P) >= 0).all())
    whole = bool((rates_2P[:, 0] == 0).all() and (rates_2P[:, -1] == 1).all())
    return (rates_2P[0], rates_2P[1]) if climbs and whole else None
