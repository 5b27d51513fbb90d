"""A model and one peer's examples as functions of the flat parameter vector: the hot path of the project.

To work at a point, the parameters of a module are made views of that vector, so nothing is copied in or out, and
tasks of one thread can share a module.
Shapes: D parameters, S numbers of a sketch, B examples of a batch, C x H x W an input.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from p2pfl.contracts import Layerwise, Pair, Trained, Training
from p2pfl.learning import evaluation
from p2pfl.learning.clipped import clipped_sum
from p2pfl.learning.data import Data
from p2pfl.learning.descent import Fold, Space, descend, flat
from p2pfl.learning.model import Model, layout_of
from p2pfl.learning.sketched import Sketched
from p2pfl.messages import Figure
from p2pfl.protection import Guard
from p2pfl.seeds import Seeds


class SGDTask:
    """A `Task`: cross entropy of one model on the examples `indices` of `data.train_x`, by SGD.

    The b-th batch is a function of `seeds` and b alone: rows [b * batch, (b + 1) * batch) of a fresh permutation
    each epoch, the last of an epoch being short where they do not divide; who holds no more than one batch takes
    them all, in the order of `indices`. `run_steps` are the steps of the whole run, through which the schedule goes;
    where there is no end in sight it stays at its beginning. `module`, one that `model` built on this device, may be
    shared by tasks of one thread; without it the task has its own. Not for two threads at once. A `guard` chooses other
    batches, and what steps go by is what it makes of their gradients; where it allows none, none is taken.
    """

    def __init__(
        self,
        model: Model,
        data: Data,
        indices: NDArray[Any],
        training: Training,
        device: torch.device,
        seeds: Seeds,
        run_steps: float = math.inf,
        module: nn.Module | None = None,
        guard: Guard | None = None,
    ) -> None:
        self.model, self.data, self.training, self.device, self.seeds = model, data, training, device, seeds
        self.run_steps, self.guard = run_steps, guard
        self.module = model.build(data.shape, data.classes).to(device) if module is None else module
        self.layout = layout_of(self.module)
        self.examples = len(indices)
        self._held_N = torch.as_tensor(indices, dtype=torch.int64)
        self._parameters = tuple(self.module.parameters())
        self._shapes = tuple(slot.shape for slot in self.layout)
        self._sizes = [slot.size for slot in self.layout]
        self._x_NCHW, self._y_N, self._rows_N = data.train_x, data.train_y, self._held_N
        if device.type != "cpu":  # gathered once; on the CPU all peers read the one copy that they share
            self._x_NCHW = data.train_x[self._held_N].to(device)
            self._y_N = data.train_y[self._held_N].to(device)
            self._rows_N = torch.arange(self.examples)
        self._batches = -(-self.examples // training.batch)
        self._epoch, self._order_N = -1, self._rows_N.to(device)

    def start(self, seeds: Seeds) -> Tensor:
        """Initial parameters, D numbers, on the task's device."""
        x_D = torch.empty(sum(self._sizes))
        self._stand_at(x_D)
        self.model.draw(self.module, seeds.torch("parameters"))
        return x_D.to(self.device)

    def batch(self, b: int) -> tuple[Tensor, Tensor]:
        """Inputs (B x C x H x W) and labels (B) of the b-th batch of the run, counted from 0.

        Raises ValueError when this peer holds no examples.
        """
        if self.examples == 0:
            raise ValueError("a peer without examples has no batches")
        rows_B = self._order_N if self._batches == 1 else self._shuffled(b)
        return self._x_NCHW.index_select(0, rows_B), self._y_N.index_select(0, rows_B)

    def held(self, at: int) -> list[int]:
        """Which examples of the data set's training part the `at`-th batch holds, in their order."""
        chosen_B = None if self.guard is None else self.guard.sample(at)
        if chosen_B is not None:
            return self._held_N[chosen_B].tolist()
        rows_B = (self._order_N if self._batches == 1 else self._shuffled(at)).cpu()
        return (rows_B if self.device.type == "cpu" else self._held_N[rows_B]).tolist()

    def lr(self, at: int) -> float:
        """The learning rate of the `at`-th step of the run, counted from 0: `training.lr` as its schedule has it."""
        return self.training.rate(at, self.run_steps)

    def steps(
        self, x: Tensor, m: Tensor | None, first: int, count: int, pair: Pair | None = None, key: bytes = b""
    ) -> Trained:
        """`count` steps of SGD from `x`, the `first`-th batch first; neither `x` nor `m` is altered.

        With a `pair`, `x` and `m` are S numbers: the loss is taken at `up(x)`, its gradient in x is
        `down(gradient)`, and weight decay acts on x. The loss is the mean over the steps, nan when count is 0.
        """
        if count == 0:
            return Trained(x, m, math.nan)
        x, m = x.clone(), self._first_momentum(x, m)
        if pair is None:
            self._stand_at(x)
            losses = self._walk(x, m, first, count, Space(self._views))
        elif isinstance(pair, Layerwise):
            with Sketched(self.module, pair, key, x).standing() as sketched:
                losses = self._walk(x, m, first, count, Space(sketched.cut, sketched.refresh, sketched.fold))
        else:
            up, down = lambda: self._stand_at(pair.up(x, key)), lambda g: [pair.down(flat(g), key)]
            losses = self._walk(x, m, first, count, Space(lambda z: [z], up, down))
        return Trained(x, m, torch.stack(losses).nanmean().item() if losses else math.nan)

    def _walk(self, x: Tensor, m: Tensor | None, first: int, count: int, space: Space) -> list[Tensor]:
        """Take the steps, altering x and m in place; returns the losses."""
        whole = self.device.type != "cpu"  # few large kernels on a GPU, no copy on a CPU
        points = (x,) if whole else space.cut(x)
        momenta = [None] * len(points) if m is None else [m] if whole else space.cut(m)
        losses = []
        for at in range(first, first + count):
            if self.guard is not None and not self.guard.allows():
                break
            space.refresh()
            loss, gradients = self._gradients(at, space.folded)
            descend(points, momenta, [flat(gradients)] if whole else gradients, self.training, self.lr(at))
            losses.append(loss)
        return losses

    def step(self, x_D: Tensor, m_D: Tensor | None, at: int) -> Trained:
        """The displacement `-lr(at) * gradient` (or momentum) of the `at`-th batch, taken at `x_D`, not yet added."""
        if self.guard is not None and not self.guard.allows():
            return Trained(torch.zeros_like(x_D), m_D, math.nan)
        self._stand_at(x_D)
        loss, gradients = self._gradients(at)
        g_D, m_D = flat(gradients), self._first_momentum(x_D, m_D)
        if self.training.weight_decay:
            g_D = g_D.add_(x_D, alpha=self.training.weight_decay)
        if m_D is not None:
            g_D = m_D.mul_(self.training.momentum).add_(g_D)
        moved_D = g_D.mul_(-self.lr(at)) if m_D is None else g_D * -self.lr(at)
        return Trained(moved_D, m_D, loss.item())

    @torch.no_grad()
    def told(self, loss: float, x_D: Tensor, at: int) -> float:
        """The training loss as it may be told to others: `loss` itself, or what the guard makes of it at `x_D`."""
        if self.guard is None or not self.guard.private:
            return loss
        if not self.guard.allows(telling=True):
            return math.nan
        inputs, labels = self._examples(at, telling=True)
        losses_B = x_D.new_zeros(0)
        if len(labels):  # not every module bears a batch without examples
            self._stand_at(x_D)
            losses_B = nn.functional.cross_entropy(self.module(inputs), labels, reduction="none")
        return self.guard.telling(losses_B, at)

    def spent(self) -> Mapping[str, Figure]:
        """What the guard has given away of this peer's examples so far; {} without one."""
        return {} if self.guard is None else self.guard.spent()

    @torch.no_grad()
    def evaluate(self, x_D: Tensor, split: str) -> dict[str, Any]:
        """`accuracy` (share of right answers) and `loss` on `validation` or `test`; {} where that holds nothing.

        Of two classes also the figures of `metrics.roc`, where the split has both. Raises ValueError for any other
        split.
        """
        if split not in ("validation", "test"):
            raise ValueError(f"there are the splits validation and test, not {split!r}")
        inputs_NCHW: Tensor = getattr(self.data, f"{split}_x")
        labels_N: Tensor = getattr(self.data, f"{split}_y")
        if len(labels_N) == 0:
            return {}
        self._stand_at(x_D)
        return evaluation.figures(self.module, inputs_NCHW, labels_N, self.device, self.data.classes)

    def _gradients(self, at: int, folded: Fold | None = None) -> tuple[Tensor, Sequence[Tensor]]:
        """Loss of the `at`-th batch where the module stands, and what is made of its gradient, folded."""
        if self.guard is None:
            return self._of_batch(at, folded)
        with self.guard.around(self.module, at):
            loss, gradients = self._of_batch(at, folded)
        g = self.guard.gradient(flat(gradients), at)
        parts = g.split_with_sizes([part.numel() for part in gradients])
        return loss, [part.view(of.shape) for part, of in zip(parts, gradients, strict=True)]

    def _of_batch(self, at: int, folded: Fold | None) -> tuple[Tensor, Sequence[Tensor]]:
        """Loss of the `at`-th batch where the module stands, and its gradient in each parameter tensor, folded."""
        inputs, labels = self._examples(at)
        gradients: Sequence[Tensor]
        if self.guard is not None and self.guard.clip is not None:
            losses_B, gradients = clipped_sum(self.module, self._parameters, inputs, labels, self.guard.clip, folded)
            loss = losses_B.mean()
        elif len(labels):
            loss = nn.functional.cross_entropy(self.module(inputs), labels)
            gradients = torch.autograd.grad(loss, self._parameters)
            gradients = gradients if folded is None else folded(gradients)
        else:
            loss, gradients = torch.tensor(math.nan), [torch.zeros_like(part) for part in self._parameters]
            gradients = gradients if folded is None else folded(gradients)
        return loss.detach(), gradients

    def _examples(self, at: int, telling: bool = False) -> tuple[Tensor, Tensor]:
        """Inputs and labels of the `at`-th batch, or of the sample that the guard draws in its place."""
        rows_B = None if self.guard is None else self.guard.sample(at, telling)
        if rows_B is None:
            return self.batch(at)
        rows_B = self._rows_N[rows_B].to(self.device)
        return self._x_NCHW.index_select(0, rows_B), self._y_N.index_select(0, rows_B)

    def _shuffled(self, b: int) -> Tensor:
        """The examples of the b-th batch, where an epoch has several."""
        epoch, within = divmod(b, self._batches)
        if epoch != self._epoch:
            shuffled_N = torch.randperm(self.examples, generator=self.seeds.torch("epoch", epoch))
            self._epoch, self._order_N = epoch, self._rows_N[shuffled_N].to(self.device)
        return self._order_N[within * self.training.batch : (within + 1) * self.training.batch]

    def _stand_at(self, x_D: Tensor) -> tuple[Tensor, ...]:
        """Make the module's parameters views of `x_D`, and return these views."""
        views = self._views(x_D)
        for parameter, view in zip(self._parameters, views, strict=True):
            parameter.data = view
        return views

    def _views(self, x_D: Tensor) -> tuple[Tensor, ...]:
        """`x_D` seen as the parameter tensors."""
        parts = x_D.split_with_sizes(self._sizes)
        return tuple(part.view(shape) for part, shape in zip(parts, self._shapes, strict=True))

    def _first_momentum(self, x: Tensor, m: Tensor | None) -> Tensor | None:
        """A momentum that may be altered in place, like `x` in shape; None where there is none."""
        if not self.training.momentum:
            return None
        return torch.zeros_like(x) if m is None else m.clone()
