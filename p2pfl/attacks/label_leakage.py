"""Label leakage: which labels a batch had, read off the output layer's gradient at once, without any optimisation.

Source: Zhao, Mopuri & Bilen 2020, "iDLG: Improved Deep Leakage from Gradients" (a batch of one, exactly); Wainakh et
al. 2022, "User-Level Label Leakage from Gradients in Federated Learning", and Ma et al. 2023, "Instance-wise Batch
Label Restoration via Gradients" (numbers of examples by label, of larger batches; see `_labels.py`).
Where a mask sends but some entries of each column, one example is read from pairs: its gradient is (p - y) h^T, so that
two entries of one column are of different sign if one of them is the label's, and else of one sign, whatever the sign
of the feature h. Features that are never negative tell more: every negative entry is the label's.
Shapes: C classes, F features of the output layer.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from p2pfl.attacks._labels import Head, counts, output_gradient
from p2pfl.attacks._target import batches_of, examples_of, readings
from p2pfl.curiosity import Case, Finding
from p2pfl.evidence import Sight
from p2pfl.messages import Watch

TIE = 0.25
"""Small enough that a mean of signs never outweighs a whole count."""


@dataclass(frozen=True)
class LabelLeakage:
    """Labels of a batch of one, and numbers of examples by label of larger ones, from the output layer's gradient."""

    scores: ClassVar[str] = "labels"

    def spy(self, case: Case) -> Iterator[Finding]:
        """See Attack: the labels of all batches of each reading together."""

        def solve(sight: Sight, watch: Watch) -> Finding:
            head = output_gradient(sight, case.network.layout)
            found_C = counts(case, sight, case.network)
            if examples_of(sight) == 1 and case.masks and (label := paired(head)) is not None:
                found_C = torch.nn.functional.one_hot(torch.tensor(label), case.network.classes)
            watch(1.0, 0.0)
            return told(sight, found_C.cpu())

        return readings(case, solve)


def told(sight: Sight, counts_C: Tensor) -> Finding:
    """The finding: single labels where there is but one example; nothing where nothing of the output layer came."""
    if not bool(counts_C.any()):
        return Finding(sight.reading, batches_of(sight), figures={"why": "it shows nothing of the output layer"})
    labels_B = counts_C.nonzero()[:, 0] if int(counts_C.sum()) == 1 else None
    return Finding(sight.reading, batches_of(sight), labels_B=labels_B, counts=counts_C)


def paired(head: Head) -> int | None:
    """The label of a single example from entries that a mask let through, the others being 0; None where none came.

    For each class it is counted how many entries of other sign its own stand beside in their columns, less those of
    the same sign. Where that is the same for several it is who is negative more often.
    """
    columns = (head.weight_CF, None if head.bias_C is None else head.bias_C[:, None])
    sent = [column.sign() for column in columns if column is not None]
    if not any(bool(sign.any()) for sign in sent):
        return None
    sign_CF = torch.cat(sent, 1)
    odd_C = (sign_CF * (sign_CF - sign_CF.sum(0))).sum(1)
    return int((odd_C - TIE * sign_CF.mean(1)).argmax())
