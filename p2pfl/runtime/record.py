"""What a run leaves: a folder with the scenario, the environment, a row for every report, and the summary."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

from torch import Tensor

from p2pfl.messages import HUB, Figure, Message, PeerId, peer_name
from p2pfl.metrics.consensus import consensus_distance, squared_norm
from p2pfl.runtime import findings
from p2pfl.runtime.life import asynchronous
from p2pfl.runtime.newest import Newest
from p2pfl.runtime.world import World

Row = dict[str, Any]
APART = 10
"""Peers further from their mean than so many times what a model first measured do not learn together."""


@dataclass
class Recorder:
    """Writes what peers say as it comes, and keeps what the summary needs. One per run.

    `show(row)` sees every row, `tell(text)` every event worth a line on the screen.
    """

    folder: Path
    world: World
    show: Callable[[Row], None]
    tell: Callable[[str], None]
    rows: list[Row] = field(default_factory=list)
    left: dict[PeerId, Mapping[str, Figure]] = field(default_factory=dict)
    killed: set[PeerId] = field(default_factory=set)
    crashed: set[PeerId] = field(default_factory=set)
    spent_out: set[PeerId] = field(default_factory=set)
    devices: dict[PeerId, str] = field(default_factory=dict)
    began_s: float = 0.0
    models: dict[PeerId, Tensor] = field(default_factory=dict)
    ended_by: str | None = None
    failure: OSError | None = None
    stop: Callable[[], object] = lambda: None
    _drifting: bool = False
    _norm: float = 0.0
    _pending: dict[int, dict[PeerId, Tensor]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._voices = {i for i, role in self.world.roles.items() if role.evaluated}
        apart = any(asynchronous(role.flow) for role in self.world.roles.values())
        self._latest = Newest(self.world.settings.evaluate.split) if apart else None

    def __enter__(self) -> Recorder:
        self._records: TextIO = (self.folder / "records.jsonl").open("w", buffering=1)
        self._log: TextIO = (self.folder / "log.txt").open("w", buffering=1)
        return self

    def __exit__(self, *_: object) -> None:
        self._records.close()
        self._log.close()

    def watch(self, peer: PeerId, message: Message) -> None:
        """See Watcher."""
        figures = message.figures
        match message.kind:
            case "seated":
                self.devices[peer] = str(figures["device"])
                self.log(peer, f"seated on {self.devices[peer]}")
                if len(self.devices) == len(self.world.roles):
                    self.tell(_seating(self.devices))
            case "began":
                self.began_s = max(self.began_s, float(str(figures["at_s"])))
            case "spying":
                self.show({"peer": _label(peer), "round": message.round, "spying": dict(figures)})
            case "found":
                self._hear_finding(peer, message)
            case "row":
                self._hear_row(peer, message)
            case "left":
                self.left[peer] = figures
                for j, count in self.links(_label(peer)).items():
                    self.add({"peer": _label(peer), "round": message.round, "to": _label(j), "link_bytes": count})
                self.log(peer, "through all rounds")
                if self._latest is not None and self.left.keys() >= self._living:  # once more, as they ended
                    self._compare_latest(self._latest, self._latest.round, self._latest.time_s)
            case "killed":
                self.killed.add(peer)
                self._lose(peer, f"killed in round {message.round}, as the scenario says")
            case "crashed":
                self.crashed.add(peer)
                self.log(peer, str(figures["traceback"]))
                self._lose(peer, f"crashed: {(str(figures['traceback']).strip().splitlines() or ['?'])[-1]}")

    def add(self, row: Row) -> None:
        """A row of the record."""
        row = {key: _finite(value) for key, value in row.items()}
        self.rows.append(row)
        try:
            self._records.write(json.dumps(row, allow_nan=False) + "\n")
        except OSError as error:
            self._fail(error)
        self.show(row)

    def links(self, label: int | str) -> Mapping[PeerId, int]:
        """Bytes that a peer sent, by neighbour, once it is through."""
        links = self.left.get(HUB if isinstance(label, str) else label, {}).get("links", {})
        assert isinstance(links, Mapping)
        return {int(j): int(str(count)) for j, count in links.items()}

    def log(self, peer: PeerId | None, text: str) -> None:
        """Lines of the log, each with its peer."""
        stamp = datetime.now(UTC).isoformat(timespec="milliseconds")
        name = "launcher" if peer is None else f"peer {peer_name(peer)}"
        for line in text.rstrip().splitlines():
            self._log.write(f"{stamp} {name}: {line}\n")

    def _say(self, peer: PeerId, what: str) -> None:
        self.log(peer, what)
        self.tell(f"peer {peer_name(peer)} {what}")

    def _lose(self, peer: PeerId, what: str) -> None:
        self._say(peer, what)
        for round in sorted(self._pending):
            self._complete(round)

    def _hear_row(self, peer: PeerId, message: Message) -> None:
        self.add({"peer": _label(peer), "round": message.round, **message.figures})
        if message.figures.get("budget_spent") and peer not in self.spent_out:
            self.spent_out.add(peer)
            self._say(peer, f"has spent its privacy budget by round {message.round}, and trains no more")
        if self._latest is not None:
            self._hear_latest(self._latest, peer, message)
        elif "model" in message.tensors:
            self._hear_model(peer, message.round, message.tensors["model"])

    def _hear_finding(self, peer: PeerId, message: Message) -> None:
        """Keep what a curious peer found, and tell of it in a row."""
        told = message.figures["spied"]
        assert isinstance(told, Mapping)
        try:
            findings.write(self.folder, told, message.tensors)
        except OSError as error:
            self._fail(error)
        short = {key: told[key] for key in ("victim", "method", "reading", "failed") if key in told}
        self.add({"peer": _label(peer), "round": message.round, "spied": short})
        if "failed" in told:
            self._say(
                peer, f"failed to attack, {told.get('method')!s} on peer {told.get('victim')!s}: {told['failed']!s}"
            )

    def _fail(self, error: OSError) -> None:
        """A full disk: there is no use in learning on unrecorded."""
        self.failure = self.failure or error
        self.stop()

    def _hear_model(self, peer: PeerId, round: int, x_D: Tensor) -> None:
        self._pending.setdefault(round, {})[peer] = x_D
        self._complete(round)

    def _hear_latest(self, latest: Newest, peer: PeerId, message: Message) -> None:
        latest.hear(peer, message)
        if "model" in message.tensors and peer == min(self._living, default=None):
            self._compare_latest(latest, message.round, float(str(message.figures["time_s"])))

    def _compare_latest(self, latest: Newest, round: int, time_s: float) -> None:
        if self._living and latest.models.keys() >= self._living:
            self.models = {i: latest.models[i] for i in sorted(self._living)}
            self._compare(round, time_s, **latest.mean_accuracy(self._living))

    @property
    def _living(self) -> set[PeerId]:
        return self._voices - self.killed - self.crashed if self.killed or self.crashed else self._voices

    def _complete(self, round: int) -> None:
        if len(self._pending[round]) >= len(self._living) and self._pending[round].keys() >= self._living:
            self._consensus(round)

    def _consensus(self, round: int) -> None:
        self.models = dict(sorted(self._pending.pop(round).items()))
        times_s = [row["time_s"] for row in self.rows if row["round"] == round and "time_s" in row]
        self._compare(round, max(times_s, default=0.0))

    def _compare(self, round: int, time_s: float, **more: float) -> None:
        distance = consensus_distance(list(self.models.values()))
        self.add({"peer": "all", "round": round, "time_s": time_s, "consensus_distance": distance, **more})
        self._warn_of_drift(round, distance)

    def _warn_of_drift(self, round: int, distance: float) -> None:
        """Say once that peers do not learn together."""
        if not self.world.settings.sketch.value.keyed or self._drifting:
            return
        self._norm = self._norm or min(squared_norm(model_D.double()) for model_D in self.models.values()) ** 0.5
        if distance > APART * self._norm:
            self._drifting = True
            text = f"peers drift apart: in round {round} their consensus distance is {distance:.3g}"
            self.log(None, f"{text}, when a model had a norm of {self._norm:.3g} as they were first measured")
            self.tell(f"{text}: what they send sketched must be damped, see a sketch's relaxation")


def _finite(value: Any) -> Any:
    """JSON knows no number that is not finite."""
    if isinstance(value, list):
        return [_finite(part) for part in value]
    if isinstance(value, Mapping):
        return {key: _finite(part) for key, part in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _seating(devices: Mapping[PeerId, str]) -> str:
    """`8 peers on cpu`, or which peers sit on which GPU."""
    by_device: dict[str, list[str]] = {}
    for peer in sorted(devices):
        by_device.setdefault(devices[peer], []).append(peer_name(peer))
    if len(by_device) == 1:
        return f"{len(devices)} peers on {next(iter(by_device))}"
    return "; ".join(f"peers {' '.join(names)} on {device}" for device, names in by_device.items())


def _label(peer: PeerId) -> int | str:
    return peer if peer >= 0 else peer_name(peer)
