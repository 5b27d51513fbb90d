"""What a defence is: how a peer protects what it sends, as hooks into how it trains.

Shapes: S numbers of the vector that steps are taken in (D parameters, or their sketch), B examples of a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, nn

from p2pfl.contracts import Layout
from p2pfl.messages import Figure
from p2pfl.seeds import Seeds


@dataclass(frozen=True)
class Stake:
    """What a defence is told of the peer that it guards: what is at stake, and for how long.

    `steps` are those of the whole run, `tellings` the losses that it tells others in it, at most. `seeds` are the
    peer's own.
    """

    examples: int
    batch: int
    steps: int
    tellings: int
    seeds: Seeds
    layout: Layout = ()
    """How the parameters of the model lie. Steps under a sketch are taken in another space, which begins otherwise."""


class Guard(Protocol):
    """A defence at work at one peer. It counts what it gives away: whoever asks twice gives away twice."""

    @property
    def clip(self) -> float | None:
        """The L2 norm that the gradient of each example is cut down to before all are summed; None: as they are."""

    @property
    def private(self) -> bool:
        """Whether losses are told to others as `telling` has them; if not, as they are."""

    def allows(self, telling: bool = False) -> bool:
        """Whether the peer may take another step, or tell another loss: not once the budget for it is spent."""

    def sample(self, at: int, telling: bool = False) -> Tensor | None:
        """Which of the peer's examples the `at`-th batch has, int64 from 0; None where it is the usual batch.

        The losses that are told after that step are of another sample.
        """

    def around(self, module: nn.Module, at: int) -> AbstractContextManager[object]:
        """Within, `module` computes the gradient of the `at`-th batch: it may be hooked into, and is left as it was."""

    def gradient(self, g_S: Tensor, at: int) -> Tensor:
        """What the `at`-th step goes by, for the sum of clipped gradients (the mean gradient without `clip`).

        `g_S` may be altered.
        """

    def telling(self, losses_B: Tensor, at: int) -> float:
        """The mean of the losses of the examples sampled for it at `at`, as it may be told to others."""

    def spent(self) -> Mapping[str, Figure]:
        """What was given away so far, as columns of the peer's rows: `epsilon`, and so on."""


class Defence(Protocol):
    """How a peer protects what it sends: what every plug-in of `defences/` is."""

    def guard(self, stake: Stake) -> Guard:
        """The defence at work at one peer. Raises ValueError when it cannot protect this peer."""


@dataclass(frozen=True)
class Shield:
    """A Guard that alters gradients, or how they come about, and nothing else: each step by itself, without a budget.

    `alters(g_S, at)` is Guard.gradient, `hooks(module, at)` is Guard.around.
    """

    alters: Callable[[Tensor, int], Tensor] = lambda g_S, at: g_S
    hooks: Callable[[nn.Module, int], AbstractContextManager[object]] = lambda module, at: nullcontext()
    clip: float | None = None
    private: bool = False

    def allows(self, telling: bool = False) -> bool:
        """See Guard: always."""
        return True

    def sample(self, at: int, telling: bool = False) -> Tensor | None:
        """See Guard: the usual batch."""
        return None

    def around(self, module: nn.Module, at: int) -> AbstractContextManager[object]:
        """See Guard."""
        return self.hooks(module, at)

    def gradient(self, g_S: Tensor, at: int) -> Tensor:
        """See Guard."""
        return self.alters(g_S, at)

    def telling(self, losses_B: Tensor, at: int) -> float:
        """See Guard: their mean."""
        return float(losses_B.mean())

    def spent(self) -> Mapping[str, Figure]:
        """See Guard: it keeps no account."""
        return {}


@dataclass(frozen=True)
class Chain:
    """A Guard of several, in order: the first clips, samples and tells, gradients go through all of them.

    So what follows a differentially private one is computed from what that gives away, and costs nothing more.
    """

    guards: tuple[Guard, ...]

    @property
    def clip(self) -> float | None:
        """See Guard."""
        return self.guards[0].clip

    @property
    def private(self) -> bool:
        """See Guard."""
        return self.guards[0].private

    def allows(self, telling: bool = False) -> bool:
        """See Guard."""
        return all(guard.allows(telling) for guard in self.guards)

    def sample(self, at: int, telling: bool = False) -> Tensor | None:
        """See Guard."""
        return self.guards[0].sample(at, telling)

    @contextmanager
    def around(self, module: nn.Module, at: int) -> Iterator[None]:
        """See Guard."""
        with ExitStack() as stack:
            for guard in self.guards:
                stack.enter_context(guard.around(module, at))
            yield

    def gradient(self, g_S: Tensor, at: int) -> Tensor:
        """See Guard."""
        for guard in self.guards:
            g_S = guard.gradient(g_S, at)
        return g_S

    def telling(self, losses_B: Tensor, at: int) -> float:
        """See Guard."""
        return self.guards[0].telling(losses_B, at)

    def spent(self) -> Mapping[str, Figure]:
        """See Guard."""
        return {name: figure for guard in self.guards for name, figure in guard.spent().items()}
