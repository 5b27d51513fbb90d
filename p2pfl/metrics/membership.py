"""Who was among the examples that a model learned from, by its losses: low ones give members away.

Sources: Yeom, Giacomelli, Fredrikson & Jha 2018, "Privacy Risk in Machine Learning: Analyzing the Connection to
Overfitting" (the loss itself); Watson, Guo, Cormode & Sablayrolles 2022, "On the Importance of Difficulty Calibration
in Membership Inference Attacks" (less the loss of a model that has not learned them: some examples are hard for all).
Shapes: N examples, M of them members.
"""

from __future__ import annotations

from typing import Any

import numpy
from numpy.typing import NDArray

from p2pfl.metrics import roc

Floats = NDArray[numpy.float64]


def scores(losses_suspect_N: NDArray[Any], losses_reference_N: NDArray[Any] | None = None) -> Floats:
    """How much each example looks like a member, higher being more: how far its loss is below that of the reference.

    Without a reference, below 0. A loss that is not finite tells nothing: such an example scores lowest.
    """
    suspect_N = numpy.asarray(losses_suspect_N, numpy.float64)
    with numpy.errstate(invalid="ignore"):  # infinity less infinity: not finite, as is said below
        scores_N = -suspect_N if losses_reference_N is None else numpy.subtract(losses_reference_N, suspect_N)
    return numpy.where(numpy.isfinite(scores_N), scores_N, -numpy.inf)


def auc(members_M: NDArray[Any], others_N: NDArray[Any]) -> float:
    """The share of pairs, a member and another example, whose scores are in the right order, ties counted half.

    Raises ValueError unless there are both.
    """
    labels = numpy.concatenate([numpy.ones(len(members_M)), numpy.zeros(len(others_N))])
    return roc.area(roc.curve(numpy.concatenate([members_M, others_N]), labels))
