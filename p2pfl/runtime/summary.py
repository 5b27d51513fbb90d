"""The figures of a run, from its record: a stable interface. Keys that do not apply are absent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy

from p2pfl import mixing
from p2pfl.messages import HUB, Figure, PeerId, peer_name
from p2pfl.metrics.consensus import consensus_model
from p2pfl.runtime import findings, judging
from p2pfl.runtime.privacy import privacy
from p2pfl.runtime.record import Recorder, Row
from p2pfl.runtime.world import World
from p2pfl.seeds import Seeds

TESTED = ("accuracy", "auc")
"""What is measured on the test set: of all data, and of those with two classes."""


def summarise(recorder: Recorder, birth_s: float, wall_s: float) -> dict[str, Any]:
    """summary.json. `birth_s` is the wall-clock time of the launcher's birth, `wall_s` is how long ago that was."""
    world, settings = recorder.world, recorder.world.settings
    everything = sorted(recorder.rows, key=lambda row: (row["round"], str(row["peer"])))
    rows = [row for row in everything if "round_s" in row]
    tested = [row for row in everything if "test_accuracy" in row]
    consensus = [row for row in everything if "consensus_distance" in row]
    reached = _rounds_to_target(rows, settings.evaluate.split, settings.evaluate.target)
    learned = _rounds_to_loss(rows, settings.evaluate.loss)
    summary: dict[str, Any] = {
        "name": settings.name,
        "engine": settings.engine.name,
        "peers": settings.peers,
        "rounds": max((row["round"] for row in rows), default=0),
        "parameters": sum(slot.size for slot in world.layout),
        "seed": settings.seed,
        "ended_by": recorder.ended_by,
        "crashed": sorted((i if i >= 0 else peer_name(i) for i in recorder.crashed), key=str) or None,
        **_tested(recorder, tested),
        "validation_accuracy": None if settings.evaluate.test else _validation_accuracy(recorder, everything),
        "loss": _loss(recorder, rows),
        "rounds_to_target": reached,
        "rounds_to_loss": learned,
        "consensus_distance": consensus[-1]["consensus_distance"] if consensus else None,
        "spectral_gap": _spectral_gap(world),
        **_sent(recorder, rows, reached),
        "vectors_to_loss": None if learned is None else _by(rows, learned, "vectors"),
        **_took(recorder, rows, birth_s, wall_s),
        "privacy": privacy(settings, everything, reached),
        **judging.summed(recorder.folder, world, findings.held(everything)),
        "faults": _faults(recorder),
        "absent": _absent(rows),
    }
    return {key: value for key, value in summary.items() if value is not None}


def _spectral_gap(world: World) -> float | None:
    """Of the mixing matrix; where links change, of the rounds taken together. A star with a hub does not mix."""
    if len(world.graph) == 1 or HUB in world.graph:
        return None
    return mixing.contraction(world.graphs)


def _took(recorder: Recorder, rows: list[Row], birth_s: float, wall_s: float) -> dict[str, Any]:
    """Times, and the memory of peers."""
    rounds_s = [row["round_s"] for row in rows]
    memory_mb = [float(str(figures["pss_mb"])) for figures in recorder.left.values() if "pss_mb" in figures]
    return {
        "startup_s": round(recorder.began_s - birth_s, 3) if recorder.began_s else None,
        "round_s": {"median": _percentile(rounds_s, 50), "p95": _percentile(rounds_s, 95)} if rounds_s else None,
        "wall_s": round(wall_s, 3),
        "peer_memory_mb": {"median": _percentile(memory_mb, 50), "max": max(memory_mb)} if memory_mb else None,
    }


def _percentile(values: list[float], percent: float) -> float:
    return round(float(numpy.percentile(values, percent)), 6)


def _tested(recorder: Recorder, tested: list[Row]) -> dict[str, dict[str, float]]:
    """Accuracy on the test set, and `auc` where there are two classes, of the peers that lived to the end."""
    lost = {peer_name(i) for i in recorder.killed | recorder.crashed}
    final = [*{row["peer"]: row for row in tested if str(row["peer"]) not in lost}.values()]  # the last of each
    living = [x_D for i, x_D in recorder.models.items() if peer_name(i) not in lost]
    measured: Mapping[str, Figure] = {}
    if len(living) == len(final) > 1:
        task = recorder.world.task(next(iter(recorder.models)), Seeds(bytes(32)))
        measured = task.evaluate(consensus_model(living).to(task.device), "test")
    elif len(final) == 1:
        measured = {name: final[0].get(f"test_{name}") for name in TESTED}
    summed = {}
    for name in TESTED:
        if told := [row[f"test_{name}"] for row in final if f"test_{name}" in row]:
            summed[name] = {"mean": sum(told) / len(told), "min": min(told), "max": max(told)}
            if isinstance(of_mean := measured.get(name), float):
                summed[name]["consensus_model"] = of_mean
    return summed


def _validation_accuracy(recorder: Recorder, rows: list[Row]) -> dict[str, float] | None:
    """When last evaluated on the validation split, of the peers that lived to the end."""
    lost = {peer_name(i) for i in recorder.killed | recorder.crashed}
    found = [row for row in rows if row.get("validation_accuracy") is not None and str(row["peer"]) not in lost]
    last = [*{row["peer"]: row["validation_accuracy"] for row in found}.values()]
    return {"mean": sum(last) / len(last), "min": min(last), "max": max(last)} if last else None


def _loss(recorder: Recorder, rows: list[Row]) -> dict[str, float] | None:
    """The mean over peers of the training loss in the last round of each that lived to the end."""
    lost = {peer_name(i) for i in recorder.killed | recorder.crashed}
    told = [row for row in rows if row.get("loss") is not None and str(row["peer"]) not in lost]
    last = {row["peer"]: row["loss"] for row in told}
    return {"mean": sum(last.values()) / len(last)} if last else None


def _rounds_to_target(rows: list[Row], split: str, target: float | None) -> int | None:
    """The first round whose mean accuracy reaches it."""
    if target is None:
        return None
    means = _means(rows, f"{split}_accuracy")
    return next((r for r in means if means[r] >= target), None)


def _rounds_to_loss(rows: list[Row], loss: float | None) -> int | None:
    """The first round whose mean training loss, over the peers that trained in it, comes down to it."""
    if loss is None:
        return None
    means = _means(rows, "loss")
    return next((r for r in means if means[r] <= loss), None)


def _means(rows: list[Row], column: str) -> dict[int, float]:
    """The mean over peers of what they said, by round, in order."""
    found: dict[int, list[float]] = {}
    for row in rows:
        if row.get(column) is not None:
            found.setdefault(row["round"], []).append(row[column])
    return {r: sum(found[r]) / len(found[r]) for r in sorted(found)}


def _sent(recorder: Recorder, rows: list[Row], reached: int | None) -> dict[str, Any]:
    last: dict[Any, Row] = {row["peer"]: row for row in rows}
    sent = sum(max(row["sent_bytes"], sum(recorder.links(row["peer"]).values())) for row in last.values())
    rounds = recorder.world.settings.peers * max((row["round"] for row in rows), default=0)
    if rounds == 0:
        return {}
    tensors = sum(row["tensor_bytes"] for row in last.values())
    per_round = {"sent_per_peer_round": sent / rounds, "minimum_per_peer_round": tensors / rounds}
    found = {"sent": sent} | per_round | ({} if reached is None else {"to_target": _by(rows, reached, "sent_bytes")})
    return {"bytes": found, "vectors_sent": sum(row["vectors"] for row in last.values())}


def _by(rows: list[Row], end: int, column: str) -> int:
    """What all peers had sent by the end of a round; who is silent stays where it was."""
    return sum({row["peer"]: row[column] for row in rows if row["round"] <= end}.values())


def _faults(recorder: Recorder) -> dict[str, int]:
    """Rules broken, by who broke them, as counted by all others."""
    found: Counter[str] = Counter()
    for figures in recorder.left.values():
        faults = figures.get("faults", {})
        assert isinstance(faults, Mapping)
        found.update({peer_name(PeerId(j)): int(str(count)) for j, count in faults.items()})
    return dict(found)


def _absent(rows: list[Row]) -> dict[str, int]:
    """How often each peer was absent, summed over rounds and over those who missed it."""
    return dict(Counter(peer_name(j) for row in rows for j in row.get("absent", ())))
