"""How good the three modes are on MNIST with 8 peers, dense and at half sketch: a table with paired 95 % intervals.

    python benchmarks/modes.py results.jsonl [--engine simulate] [--seeds 5]

Every case gets the same budget: its learning rate is chosen on the validation split, among the same six, with a seed
that is not measured. The test set is read once a run. Each run is a line appended to the file, and what is there is
not run again, so it can be stopped and started at will. Needs MNIST (see the README).
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import p2pfl
from p2pfl.metrics.intervals import Interval, mean_interval, paired_interval

MODES = {"gossip": "mnist_gossip", "star": "mnist_star", "leader-follower": "mnist_leader_follower"}
BASELINES = {"alone": "mnist_alone", "central": "mnist_central"}
SKETCHES = {"dense": "dense", "half": "{countsketch: {ratio: 0.5}}"}
RATES = (0.05, 0.1, 0.2, 0.3, 0.4, 0.6)
ELASTIC = 0.5
"""lr * rho of leader-follower, whatever the learning rate."""
TUNING_SEED = 1000


@dataclass(frozen=True)
class Case:
    """A mode under a sketch."""

    mode: str
    sketch: str

    def settings(self, lr: float, seed: int, engine: str) -> list[str]:
        """What is set in its scenario."""
        elastic = [f"algorithm.leasgd.rho={ELASTIC / lr:g}"] if self.mode == "leader-follower" else []
        sketch = [f"sketch={SKETCHES[self.sketch]}"] if self.mode in MODES else []
        return [f"training.lr={lr:g}", f"seed={seed}", f"engine={engine}", *elastic, *sketch]


CASES = [Case(*pair) for pair in itertools.product(MODES, SKETCHES)] + [Case(mode, "dense") for mode in BASELINES]


class Results:
    """What was measured so far: one line of a file a run."""

    def __init__(self, path: Path, engine: str) -> None:
        self.path, self.engine = path, engine
        self.rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def run(self, case: Case, lr: float, seed: int) -> dict[str, Any]:
        """The run of this case, learning rate and seed: from the file, or made now and appended to it."""
        key = {"mode": case.mode, "sketch": case.sketch, "lr": lr, "seed": seed}
        for row in self.rows:
            if all(row[name] == value for name, value in key.items()):
                found: dict[str, Any] = row
                return found
        with tempfile.TemporaryDirectory() as folder:
            name = (MODES | BASELINES)[case.mode]
            record = p2pfl.launch(name, Path(folder) / "run", case.settings(lr, seed, self.engine))
            rows = [json.loads(line) for line in (record.folder / "records.jsonl").read_text().splitlines()]
        last = record.summary["rounds"]
        validation = [
            row["validation_accuracy"] for row in rows if row["round"] == last and "validation_accuracy" in row
        ]
        kept = ("accuracy", "rounds_to_target", "consensus_distance", "bytes", "vectors_sent", "wall_s", "engine")
        figures = {name: record.summary[name] for name in kept if name in record.summary}
        diverged = bool(record.crashed) or not validation
        row = {**key, "validation": 0.0 if diverged else statistics.fmean(validation), **figures}
        self.rows.append(row)
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(f"{case.mode} {case.sketch} lr {lr:g} seed {seed}: validation {row['validation']:.4f}", flush=True)
        return row

    def rate(self, case: Case) -> float:
        """The learning rate that is best for this case on the validation split."""
        return max(RATES, key=lambda lr: self.run(case, lr, TUNING_SEED)["validation"])


def percent(interval: Interval) -> str:
    """`97.10 ± 0.05`."""
    return f"{100 * interval.estimate:.2f} ± {50 * (interval.high - interval.low):.2f}"


def points(ours: Sequence[float], theirs: Sequence[float]) -> str:
    """A paired difference in percentage points, with its sign: `-0.12 ± 0.05`."""
    interval = paired_interval(ours, theirs)
    return f"{100 * interval.estimate:+.2f} ± {50 * (interval.high - interval.low):.2f}"


def table(measured: dict[Case, list[dict[str, Any]]], rates: dict[Case, float]) -> str:
    """Markdown, one line a case."""
    heads = ("mode", "sketch", "lr", "test accuracy, %", "against dense", "against gossip", "of the mean model, %")
    lines = ["| " + " | ".join([*heads, "rounds to 97 %", "kB a peer and round"]) + " |", "|" + "---|" * 9]
    for case, runs in measured.items():
        found = [run["accuracy"]["mean"] for run in runs]
        beside = [""] * 2
        for at, other in enumerate((Case(case.mode, "dense"), Case("gossip", case.sketch))):
            if other != case:
                beside[at] = points(found, [run["accuracy"]["mean"] for run in measured[other]])
        merged = percent(mean_interval([run["accuracy"].get("consensus_model", float("nan")) for run in runs]))
        reached = [run["rounds_to_target"] for run in runs if "rounds_to_target" in run]
        when = f"{statistics.median(reached):g}" if len(reached) == len(runs) else f"{len(reached)} of {len(runs)} runs"
        sent = statistics.fmean(run["bytes"]["minimum_per_peer_round"] for run in runs) / 1000
        first = (case.mode, case.sketch, f"{rates[case]:g}", percent(mean_interval(found)))
        lines.append("| " + " | ".join([*first, *beside, merged, when, f"{sent:,.0f}"]) + " |")
    return "\n".join(lines)


def main() -> None:
    """Run what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, help="JSON lines; what is there is not run again")
    parser.add_argument("--engine", default="local")
    parser.add_argument("--seeds", type=int, default=5)
    given = parser.parse_args()
    results = Results(given.results, given.engine)
    rates = {case: results.rate(case) for case in CASES}
    measured = {case: [results.run(case, rates[case], seed) for seed in range(1, given.seeds + 1)] for case in CASES}
    print(f"\n{given.seeds} seeds, 95 % intervals; differences are paired, in percentage points\n")
    print(table(measured, rates))


if __name__ == "__main__":
    main()
