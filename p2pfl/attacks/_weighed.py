"""Labels of examples that count for different shares of one displacement: each by the share that it leaves in the bias.

Ours, after the sources of `_labels.py`: if example n counts for a share a_n of the mean gradient, that in the bias of
class c is g_c = p_c - sum of a_n over the examples of c. So labels are looked for that bring these sums next to
p_c - g_c, by least squares and a beam search. p_c, a mean that the attacker has from examples of its own, is not quite
right: where other labels of an example fit about as well, its label is open, and to be found along with its input.
Shapes: N examples, C classes, W guesses that are pursued.
"""

from __future__ import annotations

import torch
from torch import Tensor

from p2pfl.attacks._first_order import weights
from p2pfl.evidence import Sight

OPEN = -1
WIDTH = 256
DOUBT, BLUR = 3.0, 0.01
"""Labels fit about as well if they leave no more than so many times what the best leave and mean probabilities err."""
ALIKE = 1e-6


def shares_of(sight: Sight) -> Tensor:
    """For how much of the mean gradient each of the N examples counts, float64; they sum to 1."""
    shares = [
        part.share * weight / size
        for part in sight.parts
        for weight, size in zip(weights(part), part.batches, strict=True)
        for _ in range(size)
    ]
    share_N = torch.tensor(shares, dtype=torch.float64, device=sight.moved_O.device)
    return share_N / share_N.sum()


def alike(share_N: Tensor) -> bool:
    """Whether all count for the same, so that only numbers of labels can be told."""
    return len(share_N) == 0 or float(share_N.max() - share_N.min()) <= ALIKE * float(share_N.abs().max())


def nearest(wanted_C: Tensor, share_N: Tensor, sizes: list[int]) -> tuple[Tensor, Tensor]:
    """W x N labels whose shares come next to `wanted_C`, the nearest first; and what each guess leaves of it, squared.

    `sizes` are those of the batches that the examples lie in, in order: within a batch labels ascend.
    """
    order_N = share_N.abs().argsort(descending=True, stable=True)
    batch_N = torch.repeat_interleave(torch.tensor(sizes)).to(order_N)
    each_CC = torch.eye(len(wanted_C)).to(wanted_C)
    labels_WN, left_WC = order_N.new_zeros(1, len(order_N)), wanted_C.nan_to_num()[None]
    for done, n in enumerate(order_N.tolist(), start=1):
        left = (left_WC[:, None] - share_N[n] * each_CC).flatten(0, 1)
        labels = labels_WN.repeat_interleave(len(each_CC), 0)
        labels[:, n] = torch.arange(len(each_CC)).to(order_N).repeat(len(labels_WN))
        same = order_N[:done][batch_N[order_N[:done]] == batch_N[n]].sort().values
        labels[:, same] = labels[:, same].sort(1).values
        labels_WN, at = torch.unique(labels, dim=0, return_inverse=True)
        left_WC = torch.empty(len(labels_WN), len(wanted_C)).to(wanted_C).index_copy_(0, at, left)
        best = left_WC.square().sum(1).argsort(stable=True)[:WIDTH]
        labels_WN, left_WC = labels_WN[best], left_WC[best]
    return labels_WN, left_WC.square().sum(1)


def sure(labels_WN: Tensor, left_W: Tensor) -> Tensor:
    """The nearest labels, OPEN where others that fit about as well differ."""
    fitting = labels_WN[left_W <= DOUBT * (left_W[0] + BLUR)]
    return torch.where((fitting == labels_WN[0]).all(0), labels_WN[0], OPEN)
