"""What every aggregator keeps to: `merge` turns differences into one step, whatever their order, and alters none.

Rows are differences seen from the peer itself, which is a row of zeros: so where all agree there is no step, and a
lone row with the weight 1 is the way to go, of which a cautious rule may take a part.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from p2pfl.conformance import _randomness

D = 40
COUNTS = (1, 2, 3, 7)


def gives_one_finite_step_as_long_as_a_row(plugin: Any) -> None:
    """For any number of rows from one on."""
    for count in COUNTS:
        step_D = plugin.merge(_rows(count), [1 / (count + 1)] * count)
        assert isinstance(step_D, Tensor), f"it gives {type(step_D).__name__}, not a tensor"
        assert step_D.shape == (D,), f"of {count} rows of {D} numbers it makes a step of shape {tuple(step_D.shape)}"
        assert step_D.dtype == torch.float32, f"of float32 rows it makes a step of {step_D.dtype}"
        assert step_D.isfinite().all(), f"of {count} finite rows it makes a step that is not finite"


def alters_no_row_and_gives_none_of_them_back(plugin: Any) -> None:
    """Rows belong to others; who merged may do with the step what it likes."""
    for count in COUNTS:
        rows_KD = _rows(count)
        before_KD = [row_D.clone() for row_D in rows_KD]
        step_D = plugin.merge(rows_KD, [1 / (count + 1)] * count)
        assert all(map(torch.equal, rows_KD, before_KD)), "it alters the rows that it is given"
        step_D += 1
        assert all(map(torch.equal, rows_KD, before_KD)), "the step it gives is one of the rows, not a new tensor"


def disregards_the_order_of_rows(plugin: Any) -> None:
    """Mail is ordered by peer, which must not matter."""
    rows_KD, weights_K, order = _rows(5), [0.1, 0.2, 0.1, 0.3, 0.2], [3, 0, 4, 1, 2]
    step_D = plugin.merge(rows_KD, weights_K)
    shuffled_D = plugin.merge([rows_KD[k] for k in order], [weights_K[k] for k in order])
    assert torch.allclose(step_D, shuffled_D, rtol=1e-5, atol=1e-6), "in another order the same rows give another step"


def stays_where_everybody_agrees(plugin: Any) -> None:
    """No difference, no step."""
    for count in COUNTS:
        step_D = plugin.merge([torch.zeros(D)] * count, [1 / (count + 1)] * count)
        assert not step_D.any(), f"{count} rows of zeros make a step"


def goes_towards_a_lone_row_of_weight_1_and_not_beyond_it(plugin: Any) -> None:
    """All the way, as the mean does, or a part of it, as one that clips."""
    (row_D,) = _rows(1)
    step_D = plugin.merge([row_D], [1.0])
    share = float(step_D @ row_D / (row_D @ row_D))
    assert -1e-5 <= share <= 1 + 1e-5, f"of the way to a lone row of weight 1 it goes {share:.3g} times"
    assert torch.allclose(step_D, share * row_D, rtol=1e-4, atol=1e-5), "a lone row makes it go another way"


def is_a_function_of_its_rows(plugin: Any) -> None:
    """The same rows, the same step, and no global randomness."""
    with _randomness.left_alone():
        steps = [plugin.merge(_rows(5), [0.2] * 5) for _ in range(2)]
    assert torch.equal(*steps), "the same rows give another step the second time"


def _rows(count: int) -> list[Tensor]:
    return list(torch.randn(count, D, generator=torch.Generator().manual_seed(count)))
