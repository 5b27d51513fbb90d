"""How much of an image another one gives away: mean squared error, PSNR, SSIM, and which of several it shows.

All is measured on images whose values lie in [0, 1], which `to_unit` brings them to; PSNR is 10 log10(1 / mse).
Sources: Wang, Bovik, Sheikh & Simoncelli 2004, "Image quality assessment: from error visibility to structural
similarity"; Kuhn 1955, "The Hungarian method for the assignment problem".
Shapes: C x H x W an image, B images that were recovered, K that are true.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

FAINTEST = 1e-12
"""The smallest error that PSNR tells apart: 120 dB, more than float32 holds."""
WINDOW = 7
"""Side of the window of SSIM, in pixels, where the image is as large."""


@dataclass(frozen=True, eq=False)
class Span:
    """From `low` to `low + width` go the values of each channel (of features, 1 x 1 x W: of each): 1 x C x 1 x 1."""

    low: Tensor
    width: Tensor


def span(images_NCHW: Tensor) -> Span:
    """Where the values of at least one image lie: [0, 1] where all do, else from the least to the greatest."""
    low, high = images_NCHW.amin((2, 3), keepdim=True), images_NCHW.amax((2, 3), keepdim=True)
    if images_NCHW.shape[1] == images_NCHW.shape[2] == 1:
        low = high = images_NCHW
    low, high = low.amin(0, keepdim=True).double(), high.amax(0, keepdim=True).double()
    if low.min() >= 0 and high.max() <= 1:
        return Span(torch.zeros_like(low), torch.ones_like(low))
    width = high - low
    return Span(low, torch.where(width > 0, width, 1.0))


def to_unit(images_BCHW: Tensor, span: Span) -> Tensor:
    """The images in [0, 1] and float64: what lies outside of the span is cut off, and what is no number is black."""
    unit_BCHW = (images_BCHW.double() - span.low) / span.width
    return unit_BCHW.nan_to_num(0.0, 1.0, 0.0).clamp(0, 1)


def errors(recovered_BCHW: Tensor, true_KCHW: Tensor) -> Tensor:
    """The mean squared error of each with each, B x K."""
    return torch.stack([(true_KCHW - image_CHW).square().mean((1, 2, 3)) for image_CHW in recovered_BCHW])


def assignment(errors_BK: Tensor) -> dict[int, int]:
    """Which recovered image (of B) shows which true one (of K): min(B, K) pairs, true to recovered, of least sum."""
    from scipy.optimize import linear_sum_assignment  # type: ignore[import-untyped]  # 0.2 s, for who judges images

    rows, columns = linear_sum_assignment(errors_BK.numpy())
    return dict(sorted(zip(columns.tolist(), rows.tolist(), strict=True)))


def psnr_db(mse: float) -> float:
    """Peak signal-to-noise ratio of images in [0, 1], at most 120 dB."""
    return -10 * math.log10(max(mse, FAINTEST))


def ssim(a_CHW: Tensor, b_CHW: Tensor) -> float | None:
    """Structural similarity of two images in [0, 1]; None where a side is shorter than 3 pixels.

    In windows of 7 x 7, of smaller images in the largest odd one that fits; the mean over channels.
    """
    from skimage.metrics import structural_similarity  # 0.2 s, for who judges images

    side = min(WINDOW, *a_CHW.shape[1:])
    if side < 3:
        return None
    odd = side - 1 + side % 2
    a, b = a_CHW.numpy(), b_CHW.numpy()
    like = structural_similarity(a, b, win_size=odd, data_range=1.0, channel_axis=0)  # type: ignore[no-untyped-call]
    return float(like)
