"""Label leakage: which labels a batch had, read off the output layer's gradient at once, without any optimisation.

Source: Zhao, Mopuri & Bilen 2020, "iDLG: Improved Deep Leakage from Gradients" (a batch of one, exactly); Wainakh et
al. 2022, "User-Level Label Leakage from Gradients in Federated Learning", and Ma et al. 2023, "Instance-wise Batch
Label Restoration via Gradients" (numbers of examples by label, of larger batches; see `_labels.py`).
Where a mask sends but some entries of each column, one example is read from signs and from pairs, see there as well.
Shapes: B examples, C classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from p2pfl.attacks._labels import counts
from p2pfl.attacks._target import batches_of, readings
from p2pfl.curiosity import Case, Finding
from p2pfl.evidence import Sight
from p2pfl.messages import Watch


@dataclass(frozen=True)
class LabelLeakage:
    """Labels of a batch of one, and numbers of examples by label of larger ones, from the output layer's gradient."""

    scores: ClassVar[str] = "labels"

    def spy(self, case: Case) -> Iterator[Finding]:
        """See Attack: the labels of all batches of each reading together."""

        def solve(sight: Sight, watch: Watch) -> Finding:
            found_C = counts(case, sight, case.network)
            watch(1.0, 0.0)
            return told(sight, found_C.cpu())

        return readings(case, solve)


def told(sight: Sight, counts_C: Tensor) -> Finding:
    """The finding: single labels where there is but one example; nothing where nothing of the output layer came."""
    if not bool(counts_C.any()):
        return Finding(sight.reading, batches_of(sight), figures={"why": "it shows nothing of the output layer"})
    labels_B = counts_C.nonzero()[:, 0] if int(counts_C.sum()) == 1 else None
    return Finding(sight.reading, batches_of(sight), labels_B=labels_B, counts=counts_C)
