"""What a run leaked in all: `leak` of summary.json, over everything that was judged in it.

Of several methods and readings of one victim's round by one attacker the strongest counts, which nobody who attacks
could have picked out: so it is at least what leaked to one who tries them all. `leak.<reading>` is the same of each
reading alone. An area under a curve is never picked so, the best of several areas of chance being above chance: it is
a mean over all findings, of properties and of membership apart, and in all only where there is but one reading.
Source of the interval: Wilson 1927.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from statistics import fmean, median
from typing import Any

from p2pfl.metrics.intervals import share_interval
from p2pfl.runtime.findings import Told

RECOVERED = 1e-3
"""An image whose mean squared error is less, on a scale of [0, 1], is recovered."""

JUDGED = "inferred"
"""The key of a finding with an `auc` that says of what it is."""
INFERRED = ("property", "membership")

Image = dict[str, Any]


def leak(tolds: Sequence[Told]) -> dict[str, Any]:
    """The figures of all judged findings, and those of each reading below its name; {} where nothing was judged."""
    whole = _leak(tolds)
    readings = dict.fromkeys(str(told["reading"]) for told in tolds if told.get("reading"))
    alone = {reading: _leak([told for told in tolds if told.get("reading") == reading]) for reading in readings}
    return whole | {reading: figures for reading, figures in alone.items() if figures and reading not in whole}


def own(images: Sequence[Image], victim: int | str) -> list[Image]:
    """The victim's of the images that were judged together, or all where none is its."""
    return [image for image in images if image["peer"] == victim] or [*images]


def recovered(images: Sequence[Image]) -> int:
    """How many of them."""
    return sum(image.get("mse", 1.0) < RECOVERED for image in images)


def short(value: float) -> float:
    """Six digits say all that a figure of a picture can."""
    return float(f"{value:.6g}")


def _leak(tolds: Sequence[Told]) -> dict[str, Any]:
    seen = _strongest(tolds, "images", lambda told: (told["recovered"], -told.get("mse", 1.0)))
    named = _strongest(tolds, "label_accuracy", lambda told: told["label_accuracy"])
    inferred = {kind: [told for told in tolds if told.get(JUDGED) == kind] for kind in INFERRED}
    found = _seen([image for told in seen for image in own(told["images"], told["victim"])]) if seen else {}
    if named:
        right = sum(told["label_accuracy"] * told["examples"] for told in named)
        found["label_accuracy"] = short(right / sum(told["examples"] for told in named))
    for kind, those in inferred.items():
        if those and len({told.get("reading") for told in those}) == 1:
            found[f"{kind}_auc"] = short(fmean(told["auc"] for told in those))
    if seconds := [*_seconds_each(seen or named or [told for those in inferred.values() for told in those])]:
        found["seconds"] = short(median(seconds))
    return found


def _strongest(tolds: Sequence[Told], figure: str, rank: Callable[[Told], Any]) -> list[Told]:
    """Of each attacker, victim and round the finding that ranks highest, of those with that figure."""
    best: dict[Any, Told] = {}
    for told in tolds:
        key = (told["attacker"], told["victim"], told["round"])
        if figure in told and (key not in best or rank(told) > rank(best[key])):
            best[key] = told
    return [*best.values()]


def _seen(images: Sequence[Image]) -> dict[str, Any]:
    share = share_interval(recovered(images), len(images))
    found: dict[str, Any] = {
        "images": len(images),
        "recovered": short(share.estimate),
        "recovered_low": short(share.low),
        "recovered_high": short(share.high),
    }
    for figure, over in (("mse", median), ("psnr_db", fmean), ("ssim", fmean)):
        if told := [image[figure] for image in images if figure in image]:
            found[figure] = short(over(told))
    return found


def _seconds_each(tolds: Sequence[Told]) -> Iterator[float]:
    """How long an example took, in each of them."""
    for told in tolds:
        if isinstance(told.get("seconds"), int | float):
            yield told["seconds"] / max(1, len(told.get("images", ())) or told.get("examples", 1))
