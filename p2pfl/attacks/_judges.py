"""What tells batches with a property from those without, by features: a filter, or a forest; and how sure it is.

Sources: Fisher 1936 for the matched filter, the difference of two means, whitened by what varies within, shrunk towards
its mean; Breiman 2001, "Random Forests", which Melis et al. 2019 take.
Shapes: n batches of either kind, those with the property first; K features.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy
import torch
from torch import Tensor

from p2pfl.metrics import roc

SHRUNK = 1.0
"""What is added to all variances, in parts of the sum of them that batches have."""
TREES, LEAF = 100, 5
TINY = 1e-12

Judge = Callable[[Tensor], Tensor]
"""Scores of rows of features, higher where the property is likelier."""
Method = Callable[[Tensor, int], Judge]
"""A judge taught by 2 n x K features, by a seed."""


def odds(method: Method, seen_1K: Tensor, one_2nK: Tensor, other_2nK: Tensor, seed: int) -> tuple[float, float]:
    """The log odds that what was seen has the property, before anything else is known, and an AUC to be expected.

    Each group of batches teaches a judge that the other puts to the test: its scores of either kind are taken to be
    normal, of one variance. A judge who is worse than chance there is not listened to.
    """
    told = []
    for taught_2nK, tested_2nK in ((one_2nK, other_2nK), (other_2nK, one_2nK)):
        judge = method(taught_2nK, seed)
        score_2n, seen = judge(tested_2nK).double(), float(judge(seen_1K))
        with_n, without_n = torch.chunk(score_2n, 2)
        variance = float(with_n.var() + without_n.var()) / 2
        apart, middle = float(with_n.mean() - without_n.mean()), float(score_2n.mean())
        labels_2n = numpy.arange(len(score_2n)) < len(with_n)
        auc = roc.area(roc.curve(score_2n.numpy(), labels_2n))
        told.append((max(0.0, apart) / max(variance, TINY) * (seen - middle), auc))
    (first, first_auc), (second, second_auc) = told
    return (first + second) / 2, (first_auc + second_auc) / 2


def matched(taught_2nK: Tensor, seed: int) -> Judge:
    """Fisher's discriminant, solved among the rows, which are fewer than features (Woodbury's identity)."""
    spread_K = taught_2nK.std(0).clamp(min=TINY).double()
    with_nK, without_nK = torch.chunk(taught_2nK.double() / spread_K, 2)
    apart_K = with_nK.mean(0) - without_nK.mean(0)
    within_2nK = torch.cat([with_nK - with_nK.mean(0), without_nK - without_nK.mean(0)])
    gram = within_2nK @ within_2nK.T
    shrunk = gram + SHRUNK * gram.diagonal().mean().clamp(min=TINY) * torch.eye(len(gram), dtype=gram.dtype)
    filter_K = (apart_K - within_2nK.T @ torch.linalg.solve(shrunk, within_2nK @ apart_K)) / spread_K
    return lambda rows_nK: rows_nK.double() @ filter_K


def forest(taught_2nK: Tensor, seed: int) -> Judge:
    """A random forest: the share of its trees that say so."""
    from sklearn.ensemble import RandomForestClassifier  # a second to import, and only for who asks for it

    labels_2n = numpy.arange(len(taught_2nK)) < len(taught_2nK) // 2
    grown = RandomForestClassifier(TREES, min_samples_leaf=LEAF, random_state=seed, n_jobs=1)
    grown.fit(taught_2nK.numpy(), labels_2n)
    return lambda rows_nK: torch.as_tensor(grown.predict_proba(rows_nK.numpy())[:, 1])
