"""Labels of examples that count for different shares: told apart by them, and left open where that is not sure."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from p2pfl.attacks._target import Unknown
from p2pfl.attacks._weighed import OPEN, alike, nearest, shares_of, sure
from p2pfl.evidence import Part, Sight

CLASSES = 4
WHOLE = torch.tensor([0.0, 0.0, 0.0, 1.0])


def shown(labels: tuple[int, ...], share_N: Tensor) -> Tensor:
    """For how much each class counts."""
    return torch.zeros(CLASSES, dtype=torch.float64).index_add(0, torch.tensor(labels), share_N)


def test_shares_are_those_of_parts_of_steps_and_of_examples() -> None:
    own = Part(1, 1.0, torch.zeros(1), 0, (0.1, 0.1), (2, 1), momentum=0.5)
    partner = Part(2, 0.25, torch.zeros(1), 0, (0.2,), (1,))
    # the first step lives on in the second by half: 0.15 for two examples, 0.1, and a quarter of 0.2
    share_N = shares_of(Sight("plain", torch.ones(1), (own, partner)))
    assert share_N.tolist() == pytest.approx([0.25, 0.25, 1 / 3, 1 / 6])
    assert not alike(share_N)
    assert alike(shares_of(Sight("plain", torch.ones(1), (replace(own, momentum=0.0, batches=(2, 2)),))))


@pytest.mark.parametrize("sizes", [[1, 1, 1, 1], [2, 1, 1], [1, 3]], ids=str)
def test_the_nearest_labels_are_those_of_all_that_could_be(sizes: list[int]) -> None:
    draw = torch.Generator().manual_seed(sum(sizes) + len(sizes))
    for _ in range(10):
        of_batches = torch.rand(len(sizes), generator=draw, dtype=torch.float64) / torch.tensor(sizes)
        share_N = torch.repeat_interleave(of_batches, torch.tensor(sizes))
        wanted_C = torch.rand(CLASSES, generator=draw, dtype=torch.float64)
        left = {}
        for labels in itertools.product(range(CLASSES), repeat=sum(sizes)):
            batches = torch.tensor(labels).split(sizes)
            told = tuple(label for batch in batches for label in sorted(batch.tolist()))
            left[told] = float((wanted_C - shown(labels, share_N)).square().sum())
        labels_WN, left_W = nearest(wanted_C, share_N, sizes)
        assert tuple(labels_WN[0].tolist()) == min(left, key=lambda told: left[told])
        assert left_W.tolist() == sorted(left_W.tolist())
        assert {tuple(each.tolist()) for each in labels_WN} <= left.keys()


def test_labels_are_sure_where_nothing_else_would_fit() -> None:
    share_N = torch.tensor([0.75, 0.25], dtype=torch.float64)
    for labels in itertools.product(range(CLASSES), repeat=2):
        assert sure(*nearest(shown(labels, share_N), share_N, [1, 1])).tolist() == list(labels)


def test_a_label_of_little_share_is_open() -> None:
    share_N = torch.tensor([0.9, 0.1], dtype=torch.float64)
    assert sure(*nearest(shown((2, 0), share_N), share_N, [1, 1])).tolist() == [2, OPEN]


def test_what_is_no_number_costs_no_more_than_the_labels() -> None:
    share_N = torch.tensor([0.75, 0.25], dtype=torch.float64)
    labels_WN, _ = nearest(torch.full((CLASSES,), float("nan"), dtype=torch.float64), share_N, [1, 1])
    assert labels_WN.shape[1] == 2


def test_of_labels_that_are_partly_known_only_the_others_are_found() -> None:
    logits_NK = torch.zeros(2, CLASSES, requires_grad=True)
    unknown = Unknown(torch.zeros(2, 1, 1, 1), torch.stack([WHOLE, 0 * WHOLE]), logits_NK)
    assert unknown.shares.tolist() == [WHOLE.tolist(), [1 / CLASSES] * CLASSES]
    (gradient_NK,) = torch.autograd.grad(unknown.shares[:, 0].sum(), [logits_NK])
    assert not gradient_NK[0].any()
    assert gradient_NK[1].any()
