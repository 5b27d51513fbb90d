"""A module that computes with sketched weights, so that a step costs no more than the sketch is wide.

Source: Wang & Zhang, "Matrix Sketching for Secure Collaborative Machine Learning" (DBCL), section 4.2 and appendix A:
a dense layer is Z = (X S)(W S)^T, its gradient in W S is G^T (X S), that in X is G (W S) S^T. A layer of another kind
computes with (W S) S^T, which is the same by X (W S S^T)^T = (X S)(W S)^T: for a convolution that is cheaper than to
sketch each of its patches, as its kernels are far smaller than its input.
Shapes: S numbers of a sketched point; d columns of a weight matrix, s of its sketch; rows its outputs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from p2pfl.contracts import Layerwise, Map
from p2pfl.learning.descent import Fold


class Sketched:
    """A module at the sketched point `z_S`, which is altered in place from step to step."""

    def __init__(self, module: nn.Module, pair: Layerwise, key: bytes, z_S: Tensor) -> None:
        self._pair, self._maps = pair, pair.maps(key, z_S.device)
        self._parameters = tuple(module.parameters())
        self._dense = dict(_dense_layers(module, self._parameters, self._maps))
        self._views = self.cut(z_S)
        self._spread: list[tuple[Map, Tensor, Tensor]] = []

    def cut(self, z_S: Tensor) -> list[Tensor]:
        """A vector as its sketched matrices, rows x s, and the parameters that travel whole: views of it."""
        parts = zip(self._pair.sketches_of(z_S), self._maps, self._parameters, strict=True)
        return [part.view(parameter.shape) if s is None else part for part, s, parameter in parts]

    @contextmanager
    def standing(self) -> Iterator[Sketched]:
        """Within, the module computes at the sketched point; its former parameters come back afterwards."""
        before, hooks = [parameter.data for parameter in self._parameters], []
        try:
            for at, (layer, s) in self._dense.items():
                hooks.append(layer.register_forward_pre_hook(_Folding(s, self._views[at].shape[1])))
            for at, (parameter, s_or_none, view) in enumerate(
                zip(self._parameters, self._maps, self._views, strict=True)
            ):
                if s_or_none is None or at in self._dense:
                    parameter.data = view
                else:
                    parameter.data = view.new_empty(parameter.shape)
                    self._spread.append((s_or_none, view, parameter.data.flatten(1)))
            yield self
        finally:
            self._spread.clear()
            for hook in hooks:
                hook.remove()
            for parameter, data in zip(self._parameters, before, strict=True):
                parameter.data = data

    def refresh(self) -> None:
        """Follow the point where weights are kept unsketched: W = Z S^T."""
        for s, view, weight in self._spread:
            s.unfold(view, weight, False)

    @property
    def fold(self) -> Fold | None:
        """`folded`, where there is something to fold."""
        return self.folded if self._spread else None

    def folded(self, gradients: Sequence[Tensor]) -> list[Tensor]:
        """Gradients in the module's parameters as gradients in the parts of the point."""
        made = []
        for at, (gradient, s, view) in enumerate(zip(gradients, self._maps, self._views, strict=True)):
            if s is not None and at not in self._dense:
                folded = torch.empty_like(view)
                s.fold(gradient.flatten(1), folded)
                made.append(folded)
            else:
                made.append(gradient)
        return made


def _dense_layers(
    module: nn.Module, parameters: Sequence[nn.Parameter], maps: Sequence[Map | None]
) -> Iterator[tuple[int, tuple[nn.Module, Map]]]:
    """Which parameters are sketched weights of dense layers that are only ever called, as those in a chain are.

    Whoever reads such a weight otherwise would find another shape: it is spread as all others are.
    """
    at = {id(parameter): number for number, parameter in enumerate(parameters)}
    owners: dict[int, list[nn.Module]] = {}
    for layer in module.modules():
        for parameter in layer.parameters(recurse=False):
            owners.setdefault(at[id(parameter)], []).append(layer)
    chained = {layer for chain in module.modules() if type(chain) is nn.Sequential for layer in chain}
    for number, layers in owners.items():
        s, layer = maps[number], layers[0]
        called = len(layers) == 1 and layer in chained and not (layer._forward_pre_hooks or layer._forward_hooks)
        if s is not None and called and type(layer) is nn.Linear and layer.weight is parameters[number]:
            yield number, (layer, s)


class _Folding:
    """A hook before a dense layer: what comes in is X, what goes on X S."""

    def __init__(self, s: Map, columns: int) -> None:
        self._s, self._columns = s, columns

    def __call__(self, layer: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor:
        x = inputs[0]
        x_BD = x if x.dim() == 2 else x.reshape(-1, x.shape[-1])
        if x.requires_grad:
            z_BS = self._s.folded(x_BD)
        else:
            z_BS = x_BD.new_empty(len(x_BD), self._columns)
            self._s.fold(x_BD, z_BS)
        return z_BS if x.dim() == 2 else z_BS.view(*x.shape[:-1], self._columns)
