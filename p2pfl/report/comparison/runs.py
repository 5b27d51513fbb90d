"""One run, as far as a comparison needs it: its settings, its figures and a few curves; and why it may not count.

Shapes: R evaluated rounds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from p2pfl.errors import ScenarioError
from p2pfl.report.comparison import keys
from p2pfl.report.comparison.keys import Settings, brief
from p2pfl.report.curves import Curve, Curves, accuracy, by_round, loss, mean, sent_by_round
from p2pfl.report.folder import Floats, Run, read, series
from p2pfl.report.units import flat, number


def consensus(run: Run) -> Curves | None:
    """How far the peers' models are from their mean; None where one model is all there is."""
    told = series(run.whole, "consensus_distance")
    return Curves("consensus", "consensus distance", {}, told, "all peers") if told[0].size else None


def clock(run: Run) -> Curve:
    """When a round ended, mean over peers; in a star the hub's; of an asynchronous run when all were looked at."""
    if series(run.whole, "mean_accuracy")[0].size:
        return series(run.whole, "time_s")
    voices = ("hub",) if "hub" in run.peers else run.peers
    each = {peer: series(run.rows.get(peer, ()), "time_s") for peer in voices}
    return mean({peer: curve for peer, curve in each.items() if curve[0].size})


TRACED: Mapping[str, Callable[[Run], Curves | None]] = {"accuracy": accuracy, "loss": loss, "consensus": consensus}
"""The curves that are compared."""
COSTS: Mapping[str, Callable[[Run], Curve]] = {
    "vectors": lambda run: by_round(run, "vectors"),
    "bytes": sent_by_round,
    "time": clock,
    "epsilon": lambda run: by_round(run, "epsilon", np.maximum),
}
"""What they are drawn over beside rounds: what all peers together had come to by the end of each."""


@dataclass(frozen=True, eq=False)
class Trace:
    """A curve of a run over rounds, and what each round had cost by its end.

    Time is in seconds since round 1 began, by the record's own clock.
    """

    what: str
    rounds_R: Floats
    figures_R: Floats
    costs: Mapping[str, Floats]
    """By the names of COSTS, those that were recorded."""

    def along(self, over: str) -> Floats | None:
        """Rounds, or a cost; None where that was not recorded."""
        return self.rounds_R if over == "rounds" else self.costs.get(over)


@dataclass(frozen=True, eq=False)
class Case:
    """One run. With a `trouble` it counts in no mean."""

    folder: Path
    settings: Settings
    figures: Mapping[str, float]
    """The numbers of summary.json by dotted path."""
    traces: Mapping[str, Trace]
    """Those of TRACED that were recorded."""
    trouble: str = ""

    @property
    def seed(self) -> int | None:
        """The scenario's seed; None where the operating system drew one."""
        seed = self.settings.get("seed")
        return seed if isinstance(seed, int) and not isinstance(seed, bool) else None


def case(folder: Path) -> Case:
    """The run in a folder. Raises ScenarioError when it is no run folder, or has no scenario that can be read."""
    run = read(folder)
    if not run.scenario.strip():
        raise ScenarioError("it has no scenario.yaml")
    settings = keys.read(run.scenario)
    costs = {name: curve for name, cost in COSTS.items() if (curve := cost(run))[0].size}
    return Case(
        folder=folder,
        settings={**settings, "folder": str(folder)},
        figures=_figures(run, costs),
        traces={name: trace for name in TRACED if (trace := _trace(run, name, costs)) is not None},
        trouble=_trouble(run),
    )


def _trouble(run: Run) -> str:
    """Why the figures of a run are not those of its scenario; nothing when they are."""
    crashed = run.summary.get("crashed")
    told = [line.partition(": ")[2] for line in run.log.splitlines() if ": crashed: " in line or ": stopped" in line]
    because = brief(told[-1].removeprefix("crashed: "), 200) if told else ""
    if crashed:
        named = ", ".join(map(str, crashed[:9])) if isinstance(crashed, list) else str(crashed)
        return f"peer {brief(named)} crashed{': ' + because if because else ''}"
    if run.summary.get("stopped") is True:
        return "stopped before the end"
    if not run.finished:
        return f"did not finish{': ' + because if because else ''}"
    return ""


def _figures(run: Run, costs: Mapping[str, Curve]) -> dict[str, float]:
    told = ((path, number(value)) for path, value in flat(run.summary))
    found = {path: value for path, value in told if value is not None}
    reached, sent = found.get("rounds_to_target"), costs.get("bytes")
    if reached is not None and "bytes.to_target" not in found and sent is not None and sent[0][-1] >= reached:
        # a run of an earlier version: its summary does not say it, its record does
        found["bytes.to_target"] = float(_at(np.array([reached]), sent)[0])
    return found


def _trace(run: Run, name: str, costs: Mapping[str, Curve]) -> Trace | None:
    curves = TRACED[name](run)
    if curves is None or not curves.bold[0].size:
        return None
    rounds_R, figures_R = curves.bold
    return Trace(curves.what, rounds_R, figures_R, {cost: _at(rounds_R, curve) for cost, curve in costs.items()})


def _at(rounds_R: Floats, curve: Curve) -> Floats:
    """A curve that climbs from nothing before round 1, in certain rounds."""
    found: Floats = np.interp(rounds_R, np.concatenate([[0.0], curve[0]]), np.concatenate([[0.0], curve[1]]))
    return found
