"""How well a model does on examples that it did not learn from.

Shapes: N examples, C x H x W an input.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from p2pfl.metrics import roc

CHUNK = 256
"""Examples that are evaluated at once."""


@torch.no_grad()
def figures(
    module: nn.Module, inputs_NCHW: Tensor, labels_N: Tensor, device: torch.device, classes: int
) -> dict[str, Any]:
    """`accuracy` (share of right answers) and `loss`; of two classes those of `metrics.roc` too, where both occur."""
    right_and_loss = torch.zeros(2, dtype=torch.float64, device=device)
    leads = []
    for inputs, labels in zip(torch.split(inputs_NCHW, CHUNK), torch.split(labels_N, CHUNK), strict=True):
        labels = labels.to(device)
        logits = module(inputs.to(device))
        right = (logits.argmax(1) == labels).sum()
        right_and_loss += torch.stack([right, nn.functional.cross_entropy(logits, labels, reduction="sum")])
        leads.append(logits[:, 1] - logits[:, 0])  # not a softmax, which rounds what is sure to ties
    accuracy, loss = (right_and_loss / len(labels_N)).tolist()
    ranked = roc.figures(torch.cat(leads).cpu().numpy(), labels_N.numpy()) if classes == 2 else {}
    return {"accuracy": accuracy, "loss": loss, **ranked}
