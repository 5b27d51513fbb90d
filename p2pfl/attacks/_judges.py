"""What tells batches with a property from those without, by what they show: a filter, or a forest; and how sure it is.

Both go by absolute values, as published, each row brought to length 1: labels turn signs and these do not. The filter
goes by the signs as well; and by the numbers as they are, and nothing else, where a reading adds more to them than
batches differ by, as the noise of a sketch: that does not change what something linear looks for.
Sources: Fisher 1936 and, for white noise, North 1943 (the matched filter: the difference of two means, whitened by what
varies within and by noise); Melis et al. 2019 and Breiman 2001 (the forest).
Shapes: n batches of either kind, those with the property first; K numbers of each.
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
TINY = 1e-30

Judge = tuple[Callable[[Tensor], Tensor], float]
"""Scores of rows of K numbers, higher where the property is likelier; and the variance that noise adds to a score."""
Method = Callable[[Tensor, Tensor, int], Judge]
"""A judge taught by 2 n x K, of what was seen (1 x K), by a seed."""


def odds(method: Method, seen_1K: Tensor, one_2nK: Tensor, other_2nK: Tensor, seed: int) -> tuple[float, float]:
    """The log odds that what was seen has the property, before anything else is known, and an AUC to be expected.

    Each group of batches teaches a judge that the other puts to the test: its scores of either kind are taken to be
    normal, of one variance. A judge who is worse than chance there is not listened to.
    """
    told = []
    for taught_2nK, tested_2nK in ((one_2nK, other_2nK), (other_2nK, one_2nK)):
        judge, noise = method(taught_2nK, seen_1K, seed)
        score_2n, seen = judge(tested_2nK).double(), float(judge(seen_1K))
        with_n, without_n = torch.chunk(score_2n, 2)
        variance = float(with_n.var() + without_n.var()) / 2 + noise
        apart, middle = float(with_n.mean() - without_n.mean()), float(score_2n.mean())
        labels_2n = numpy.arange(len(score_2n)) < len(with_n)
        auc = roc.area(roc.curve(score_2n.numpy(), labels_2n))
        told.append((max(0.0, apart) / variance * (seen - middle) if variance > 0 else 0.0, auc))
    (first, first_auc), (second, second_auc) = told
    return (first + second) / 2, (first_auc + second_auc) / 2


def matched(taught_2nK: Tensor, seen_1K: Tensor, seed: int) -> Judge:
    """Fisher's discriminant: of what both kinds of features say, or of the numbers as they are if these are noisy.

    Noise is what lies between the seen and the mean row beyond what lies between rows, the same for all K.
    """
    size = max(float(taught_2nK.abs().max()), TINY)
    varies = float((taught_2nK / size).var(0).mean())
    noise = float(((seen_1K - taught_2nK.mean(0)) / size).square().mean()) - varies
    if noise > varies:
        filter_K = discriminant(taught_2nK.double() / size, noise)
        return lambda rows_nK: (rows_nK.double() / size) @ filter_K, noise * float(filter_K.square().sum())
    spread = torch.cat([signed(taught_2nK), scaled(taught_2nK)], 1).std(0).clamp(min=TINY)

    def both(rows_nK: Tensor) -> Tensor:
        return (torch.cat([signed(rows_nK), scaled(rows_nK)], 1) / spread).double()

    filter_2K = discriminant(both(taught_2nK), 0.0)
    return lambda rows_nK: both(rows_nK) @ filter_2K, 0.0


def discriminant(rows_2nK: Tensor, noise: float) -> Tensor:
    """The filter of K numbers, solved among the rows, which are fewer (Woodbury's identity); float64."""
    with_nK, without_nK = torch.chunk(rows_2nK, 2)
    apart_K = with_nK.mean(0) - without_nK.mean(0)
    within_2nK = torch.cat([with_nK - with_nK.mean(0), without_nK - without_nK.mean(0)])
    gram = within_2nK @ within_2nK.T
    added = SHRUNK * float(gram.diagonal().mean()) + noise * len(gram) + TINY
    shrunk = gram + added * torch.eye(len(gram), dtype=gram.dtype)
    explained_K: Tensor = within_2nK.T @ torch.linalg.solve(shrunk, within_2nK @ apart_K)
    return apart_K - explained_K


def forest(taught_2nK: Tensor, seen_1K: Tensor, seed: int) -> Judge:
    """A random forest: the share of its trees that say so."""
    from sklearn.ensemble import RandomForestClassifier  # a second to import, and only for who asks for it

    labels_2n = numpy.arange(len(taught_2nK)) < len(taught_2nK) // 2
    grown = RandomForestClassifier(TREES, min_samples_leaf=LEAF, random_state=seed, n_jobs=1)
    grown.fit(scaled(taught_2nK).numpy(), labels_2n)
    return lambda rows_nK: torch.as_tensor(grown.predict_proba(scaled(rows_nK).numpy())[:, 1]), 0.0


def signed(moved_nK: Tensor) -> Tensor:
    """Each row brought to length 1."""
    length_n1: Tensor = moved_nK.norm(dim=1, keepdim=True)
    return moved_nK / length_n1.clamp(min=TINY)


def scaled(moved_nK: Tensor) -> Tensor:
    """Absolute values, each row brought to length 1."""
    return signed(moved_nK).abs()
