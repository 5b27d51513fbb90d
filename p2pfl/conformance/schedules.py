"""What every learning-rate schedule keeps to: `factor(done)` is a number from 0 to 1, and a function of its argument.

`lr` is the largest learning rate of a run; others rely on that.
"""

from __future__ import annotations

import math
from typing import Any

STEPS = 200


def gives_a_factor_from_0_to_1_throughout(plugin: Any) -> None:
    """At every share of the training that may be done."""
    for done in _shares():
        factor = plugin.factor(done)
        assert isinstance(factor, int | float), f"factor({done}) is {factor!r}, not a number"
        assert math.isfinite(factor), f"factor({done}) is {factor}, not finite"
        assert 0 <= factor <= 1, (
            f"factor({done}) is {factor}: it must lie in [0, 1], since training.lr is the largest rate"
        )


def lets_something_be_learned(plugin: Any) -> None:
    """Not every factor is 0."""
    assert any(plugin.factor(done) > 0 for done in _shares()), "every factor is 0"


def gives_the_same_factor_whatever_was_asked_before(plugin: Any) -> None:
    """Peers ask at different moments, and in a different order."""
    forth = [plugin.factor(done) for done in _shares()]
    back = [plugin.factor(done) for done in reversed(_shares())]
    assert forth == back[::-1], "asked in another order it gives other factors"


def _shares() -> list[float]:
    return [step / STEPS for step in range(STEPS)]
