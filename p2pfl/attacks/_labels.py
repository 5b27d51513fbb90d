"""Labels of a batch from the gradient of the output layer: one exactly, several as numbers of examples by label.

Source: Zhao, Mopuri & Bilen 2020, "iDLG: Improved Deep Leakage from Gradients"; Wainakh et al. 2022, "User-Level Label
Leakage from Gradients in Federated Learning"; Ma et al. 2023, "Instance-wise Batch Label Restoration via Gradients".
Of the mean cross entropy of B examples the gradient in the bias of class c is g_c = p_c - n_c / B, p_c being the mean
probability of c and n_c the number of examples of it: so n_c = B (p_c - g_c), and n_c > 0 wherever g_c < 0. Of one
example the gradient in the weights is (p - y) h^T for its features h: as 1 - p_y is the sum of all other p_c, the row
of its label is the longest, and the only one of the other sign.
Shapes: C classes, F features of the output layer, D parameters, S and O as in `p2pfl.evidence`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

from p2pfl.attacks._first_order import mean_gradient, weights
from p2pfl.attacks._target import sizes_of
from p2pfl.attacks._unrolled import standing
from p2pfl.attacks._weighed import alike, nearest, shares_of, sure
from p2pfl.contracts import Layout
from p2pfl.curiosity import Case, Network
from p2pfl.evidence import Sight

NOISE_EXAMPLES = 64
MOST_OWN = 256
"""Examples of its own that an attacker takes the mean probabilities of."""
CLEARLY = 1e-6
"""Of the largest entry of a gradient: what is less below 0 may be rounding."""
TIE = 0.25
"""Small enough that a mean of signs never outweighs a whole count."""


@dataclass(frozen=True, eq=False)
class Head:
    """What a sight shows of the mean gradient of the output layer, None where it shows nothing of it.

    What was not seen of a tensor is 0, and so is what a mask left out.
    """

    weight_CF: Tensor | None
    bias_C: Tensor | None


def counts(case: Case, sight: Sight, network: Network) -> Tensor:
    """How many examples of each of the C classes all batches of a sight hold together, int64, by the best guess.

    They sum to the number of these examples. All are 0 where the sight shows nothing of the output layer.
    """
    head, share_N = output_gradient(sight, network.layout, case.masks), shares_of(sight)
    counts_C = torch.zeros(network.classes, dtype=torch.int64, device=sight.moved_O.device)
    if (head.bias_C is None and head.weight_CF is None) or len(share_N) == 0:
        return counts_C
    if len(share_N) == 1:
        counts_C[single(head, case.masks)] = 1
        return counts_C
    p_C = expected(case, sight, network)
    g_C = like_bias(head, p_C)
    if not alike(share_N):
        return torch.bincount(nearest(p_C - g_C, share_N, sizes_of(sight))[0][0], minlength=network.classes)
    certain_C = (g_C < -CLEARLY * g_C.abs().max()).long()
    return whole(len(share_N) * (p_C - g_C), certain_C, len(share_N))


def guesses(case: Case, sight: Sight, network: Network, most: int) -> list[Tensor]:
    """What the N labels of a sight may be, in order, to be tried in turn: `most` ways at most. None where too many are.

    Where batches count for different shares there is one guess, with some of the labels OPEN.
    """
    head, share_N = output_gradient(sight, network.layout, case.masks), shares_of(sight)
    if alike(share_N) or (head.bias_C is None and head.weight_CF is None):
        return dealt(counts(case, sight, network), sight, most)
    p_C = expected(case, sight, network)
    return [sure(*nearest(p_C - like_bias(head, p_C), share_N, sizes_of(sight)))]


def single(head: Head, masked: bool) -> int:
    """The label of one example, exactly where the gradient is: the row of the other sign, which is the longest.

    Of two classes both are equally long, and under a mask lengths say nothing. There the bias tells, of which only the
    label's entry is negative, whatever the features; where it was not seen those of two classes must not be negative.
    """
    g_CF, two = columns(head), len(columns(head)) == 2
    if head.bias_C is not None and (two or (masked and float(head.bias_C.min()) < 0)):
        return int(head.bias_C.argmin())
    if masked:
        return paired(head)
    if two:
        return int(g_CF.sum(1).argmin())
    return int(torch.linalg.svd(g_CF, full_matrices=False).U[:, 0].abs().argmax())


def paired(head: Head) -> int:
    """The label of one example from entries that a mask let through, the others being 0.

    As its gradient is (p - y) h^T, two entries of one column are of different sign if one of them is the label's, and
    else of one sign, whatever the sign of the feature h. For each class it is counted how many entries of other sign
    its own stand beside in their columns, less those of the same sign. Where that is the same for several it is who is
    negative more often: of features that are never negative, every negative entry is the label's.
    """
    sign_CF = columns(head).sign()
    odd_C = (sign_CF * (sign_CF - sign_CF.sum(0))).sum(1)
    return int((odd_C - TIE * sign_CF.mean(1)).argmax())


def columns(head: Head) -> Tensor:
    """What was seen of the output layer: a column for each feature, and one for the bias."""
    shown = (head.weight_CF, None if head.bias_C is None else head.bias_C[:, None])
    return torch.cat([each for each in shown if each is not None], 1)


def like_bias(head: Head, p_C: Tensor) -> Tensor:
    """The gradient in the bias; where it was not seen, that in the weights, of features that are not negative.

    Its row sums are those of the bias times a sum of features, which rows that hold no example tell: there g_c = p_c.
    """
    if head.bias_C is not None and bool(head.bias_C.any()):
        return head.bias_C
    assert head.weight_CF is not None
    row_C = head.weight_CF.sum(1)
    up_C = row_C > 0
    return row_C * (p_C[up_C] / row_C[up_C]).median() if bool(up_C.any()) else row_C


def dealt(counts_C: Tensor, sight: Sight, most: int) -> list[Tensor]:
    """All ways to deal out labels to the batches of a sight, in order, N labels each; none if more than `most`.

    Where they lie within a batch does not matter. None either where nothing was counted.
    """
    sizes = sizes_of(sight)
    if int(counts_C.sum()) != sum(sizes):
        return []
    ways = list(islice(_ways(counts_C.tolist(), sizes), most + 1))
    return [torch.tensor(way) for way in ways] if len(ways) <= most else []


def _ways(left: list[int], sizes: list[int]) -> Iterator[list[int]]:
    """All ways to fill the batches with these numbers of labels, ascending within each."""
    if not sizes:
        yield []
        return
    for hand in _hands(left, sizes[0], 0):
        rest = [count - hand.count(label) for label, count in enumerate(left)]
        yield from (hand + others for others in _ways(rest, sizes[1:]))


def _hands(left: list[int], size: int, label: int) -> Iterator[list[int]]:
    """All ascending choices of `size` labels, from `label` on."""
    if size == 0 or label == len(left):
        yield from [[]] if size == 0 else []
        return
    for taken in range(min(left[label], size), -1, -1):
        yield from ([label] * taken + others for others in _hands(left, size - taken, label + 1))


def output_gradient(sight: Sight, layout: Layout, masked: bool = False) -> Head:
    """The mean gradient that the steps of a sight had in the output layer, which is found by its name; float64."""
    g_D = mean_gradient(sight, sum(slot.size for slot in layout), masked)
    parts = zip(layout, g_D.split_with_sizes([slot.size for slot in layout]), strict=True)
    seen = {len(slot.shape): g.view(slot.shape) for slot, g in parts if slot.output and bool(g.any())}
    return Head(seen.get(2), seen.get(1))


def expected(case: Case, sight: Sight, network: Network) -> Tensor:
    """The mean probability of each class where the steps began: on examples of the attacker's, or on noise in the box
    of the inputs. float64.
    """
    device = sight.moved_O.device
    inputs = case.own.x_NCHW[:MOST_OWN].to(device, torch.float64)
    if len(inputs) == 0:
        noise = torch.rand(NOISE_EXAMPLES, *network.shape, generator=case.seeds.torch("noise"), dtype=torch.float64)
        least, most = network.box
        inputs = (least + (most - least) * noise).to(device)
    total_C, counted = torch.zeros(network.classes, dtype=torch.float64, device=device), 0.0
    with torch.no_grad():
        for part in sight.parts:
            weight = part.share * sum(weights(part))
            total_C += weight * standing(network, part)(inputs).softmax(1).mean(0)
            counted += weight
    return total_C / counted


def whole(wanted_C: Tensor, least_C: Tensor, total: int) -> Tensor:
    """Integers next to `wanted_C`, of this sum, and no fewer than `least_C` as far as that sum allows."""
    wanted_C = wanted_C.nan_to_num().clamp(0, total)  # a reading that is wrong may want anything
    given_C = torch.maximum(wanted_C.floor().long(), least_C)
    while int(given_C.sum()) != total:
        over_C = given_C - wanted_C
        if int(given_C.sum()) < total:
            given_C[over_C.argmin()] += 1
        else:
            bound_C = torch.where((given_C > least_C).any() & (given_C <= least_C), -torch.inf, over_C)
            given_C[torch.where(given_C > 0, bound_C, -torch.inf).argmax()] -= 1
    return given_C
