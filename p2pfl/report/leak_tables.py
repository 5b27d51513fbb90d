"""Attacks as tables: what each reading came to over the whole run, and every attack by itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from p2pfl.report.folder import Run
from p2pfl.report.leaks import READINGS, entries, peers, rank, text, travels
from p2pfl.report.units import count, humane, number, numbers, peer_order, plain, share

MOST_ROWS = 200
HEADS = {
    **{"attacker": "attacker", "victim": "victim", "round": "round", "method": "method", "reading": "reading"},
    **{"threat": "place", "knowledge": "knows", "recovered": "images read", "psnr_db": "PSNR", "ssim": "SSIM"},
    **{"mse": "MSE", "label_accuracy": "labels read", "inferred": "told", "auc": "AUC", "seconds": "took"},
}
"""The columns, in their order, by the keys of summary.json."""
SUMMED = {
    **{"images": "images", "recovered": "images read", "mse": "MSE, median", "psnr_db": "PSNR, mean"},
    **{"ssim": "SSIM, mean", "label_accuracy": "labels read", "property_auc": "AUC, property"},
    **{"membership_auc": "AUC, membership", "seconds": "took an image"},
}
"""The columns of the table of readings, by the keys of `leak` in summary.json."""


@dataclass(frozen=True)
class Table:
    """Heads, rows of the same length, and what is not shown."""

    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    rest: str = ""


def attacks(run: Run) -> Table:
    """Every attack, in the order of attackers, victims and rounds; a reading is never cut off from its others."""
    told = sorted(entries(run), key=lambda entry: (*_scene(entry), rank(text(entry.get("reading")))))
    kept: list[Mapping[str, Any]] = []
    for _, scene in groupby(told, key=_scene):
        together = list(scene)
        if kept and len(kept) + len(together) > MOST_ROWS:
            break
        kept += together
    heads = [key for key in HEADS if any(entry.get(key) is not None for entry in kept)]
    heads += [key for key in dict.fromkeys(key for entry in kept for key in entry) if key not in (*HEADS, *MARKS)]
    marks = [_mark(entry) for entry in kept]
    rows = [[cell(key, entry[key]) if key in entry else "" for key in heads] for entry in kept]
    more = count(len(told) - len(kept), "row")
    titles = [HEADS.get(key, key) for key in heads]
    if any(marks):
        titles, rows = [*titles, "counts as"], [[*row, mark] for row, mark in zip(rows, marks, strict=True)]
    return Table(titles, rows, f"And {more} more: summary.json has all of them." if len(kept) < len(told) else "")


MARKS = ("upper_bound", "engine")
"""Keys that are told in one column of words."""


def _mark(entry: Mapping[str, Any]) -> str:
    told = ["upper bound"] if entry.get("upper_bound") is True else []
    return ", ".join([*told, *(["rehearsal"] if "engine" in entry and not travels(str(entry["engine"])) else [])])


def _scene(entry: Mapping[str, Any]) -> tuple[list[int], list[int], float, str]:
    who, whom = ([*map(peer_order, peers(entry.get(key)))] for key in ("attacker", "victim"))
    return who, whom, number(entry.get("round")) or 0.0, text(entry.get("method"))


def cell(key: str, value: object) -> str:
    """A figure of an attack, for people."""
    figure = number(value)
    if figure is None or isinstance(value, str):
        return text(humane(key, value))
    match key:
        case "ssim" | "auc" | "property_auc" | "membership_auc":
            return f"{figure:.3f}"
        case "mse":
            return plain(float(f"{figure:.2g}"))
        case _:
            return humane(key, value)


def readings(run: Run) -> Table | None:
    """What each reading came to over the whole run, and the strongest of each attack; None where nothing was judged."""
    leak = run.summary.get("leak")
    told = leak if isinstance(leak, Mapping) else {}
    every = {"the strongest of each": numbers(told)}
    order = [*READINGS, *(str(key) for key in told if key not in READINGS)]
    every |= {text(key): numbers(told[key]) for key in order if isinstance(told.get(key), Mapping)}
    shown = {name: figures for name, figures in every.items() if figures}
    heads = [key for key in SUMMED if any(key in figures for figures in shown.values())]
    rows = [[name, *(_summed(key, figures) for key in heads)] for name, figures in shown.items()]
    return Table(["reading", *(SUMMED[key] for key in heads)], rows) if heads else None


def _summed(key: str, figures: Mapping[str, float]) -> str:
    if key not in figures:
        return "–"
    if key == "recovered" and {"recovered_low", "recovered_high"} <= figures.keys():
        low, high = share(figures["recovered_low"], 0), share(figures["recovered_high"], 0)
        return f"{share(figures[key])} ({low} to {high})"
    return cell(key, figures[key])


def sentence(run: Run) -> str:
    """What came of all attacks; nothing where no image was judged."""
    leak = numbers(run.summary.get("leak"))
    if not {"images", "recovered"} <= leak.keys():
        return ""
    read = round(leak["recovered"] * leak["images"])
    return f"{read:,} of {count(leak['images'], 'image')} were read, each by the strongest reading of its attack."
