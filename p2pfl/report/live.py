"""A run as it happens: a live display in a terminal, plain lines elsewhere.

Peers share the cores with this: nothing is drawn but from `hear` and `note`, four times a second at most,
and never more than a twenty-fifth of the time.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from statistics import median
from types import TracebackType
from typing import Any, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live as Screen
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from p2pfl.report import progress
from p2pfl.report.notebook import Cell, cell
from p2pfl.report.progress import Progress
from p2pfl.report.units import duration, flat, humane, numbers, peer_label, plain, size

REFRESH_S = 0.25
LINE_S = 2.0
SHARE = 25
"""A refresh that took t seconds is not followed by another for `SHARE * t`."""
MOST_ROWS, SLOWEST, MOST_SPIES = 16, 8, 6
STRAGGLES = 1.5
STRAGGLES_S = 0.05
"""A peer straggles when it computed so many times the median for its last round, and more than a moment."""
SUMMED_UP = (
    *("accuracy", "auc", "loss", "rounds_to_target", "rounds_to_loss", "vectors_to_loss", "consensus_distance"),
    *("bytes", "round_s", "startup_s", "wall_s", "peer_memory_mb"),
)
"""What of summary.json the table at the end has."""


class Live:
    """A context within which the run is shown. Names, notes and rows are untrusted, and shown as text only."""

    def __init__(self, console: Console, name: str, peers: list[str], rounds: int, target: float | None) -> None:
        self.console, self.name, self.rounds, self.target = console, printable(name), rounds, target
        self.peers = {peer: Progress(printable(peer)) for peer in peers}
        self.absent: set[str] = set()
        self.spying: dict[str, str] = {}
        self._screen: Screen | Cell | None = (
            Screen(console=console, auto_refresh=False)
            if console.is_terminal and not console.is_dumb_terminal
            else cell(console)
        )
        self._began_s = time.monotonic()
        self._due_s = 0.0
        self._line_of_round = 0
        self._said = ""

    def __enter__(self) -> Self:
        self._began_s = time.monotonic()
        if self._screen is not None:
            self._screen.start()
            self._refresh()
        else:
            aim = f", target accuracy {self.target:g}" if self.target is not None else ""
            self._print(f"{self.name}: {len(self.peers)} peers, {self.rounds} rounds{aim}")
            self._due_s = time.monotonic() + LINE_S
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._screen is not None:
            self._refresh()
            self._screen.stop()
        elif (line := self.line()) != self._said:
            self._print(line)

    def hear(self, peer_name: str, row: Mapping[str, Any]) -> None:
        """Take in a row of the record, and show it if it is time to."""
        peer = self.peers.get(peer_name)
        evaluated = False
        if (spies := progress.spies(row)) is not None:
            self.spying[peer_name] = spies.replace("\n", " ")
        elif peer is not None and "link_bytes" not in row and "spied" not in row:
            evaluated = progress.take(peer, row)
            self.absent.discard(peer_name)
            if row.get("absent"):
                self._miss(row["absent"], peer.round)
        now_s = time.monotonic()
        if self._screen is not None:
            if now_s >= self._due_s:
                self._refresh()
        elif now_s >= self._due_s or (evaluated and peer is not None and self._all_evaluated(peer.evaluated)):
            self._said = self.line()
            self._print(self._said)
            self._due_s = time.monotonic() + LINE_S

    def note(self, text: str) -> None:
        """Say something out of turn: `peer 3 crashed: ...`."""
        self._print(printable(text), "bold yellow")

    def line(self) -> str:
        """Where the run is, in one line."""
        slowest, fastest = self._span()
        ahead = f" (fastest {fastest})" if fastest > slowest + 1 else ""
        told = [f"slow: {', '.join(stragglers)}"] if (stragglers := self._stragglers()) else []
        told += [f"budget spent: {', '.join(spent)}"] if (spent := self._spent()) else []
        return "  ".join([f"round {slowest}/{self.rounds}{ahead}", *self._figures(), *told, *self._spies()])

    def _miss(self, absent: object, round_: int) -> None:
        for label in map(peer_label, absent if isinstance(absent, list) else []):
            if label is not None and label in self.peers and self.peers[label].round < round_:
                self.absent.add(label)

    def _all_evaluated(self, round_: int) -> bool:
        """Whether this is news: everybody who evaluates (in a star, the hub) has come to the end of this round."""
        if round_ <= self._line_of_round or any(peer.evaluated < round_ for peer in self._voices()):
            return False
        self._line_of_round = round_
        return True

    def _voices(self) -> list[Progress]:
        """Whose rounds and accuracies count: the hub's, else those of all who are there."""
        if "hub" in self.peers:
            return [self.peers["hub"]]
        there = [peer for label, peer in self.peers.items() if label not in self.absent]
        return there or list(self.peers.values())

    def _span(self) -> tuple[int, int]:
        rounds = [peer.round for peer in self._voices()] or [0]
        return min(rounds), max(rounds)

    def _figures(self) -> list[str]:
        losses = [peer.figures["loss"] for peer in self.peers.values() if "loss" in peer.figures]
        found = self._accuracies()
        sent = sum(peer.figures.get("sent_bytes", 0.0) for peer in self.peers.values())
        said = [f"loss {sum(losses) / len(losses):.3g}"] if losses else []
        if found:
            low, high = f"{min(found):.3f}", f"{max(found):.3f}"
            said.append(f"accuracy {sum(found) / len(found):.3f}" + (f" ({low}-{high})" if low != high else ""))
        said += [f"{size(sent)} sent"] if sent else []
        epsilons = [peer.figures["epsilon"] for peer in self.peers.values() if "epsilon" in peer.figures]
        return [*said, f"epsilon {max(epsilons):.3f}"] if epsilons else said

    def _accuracies(self) -> list[float]:
        """Of the latest round that as many were evaluated in as in any: not of who happens to be ahead."""
        voices = self._voices()
        counts = Counter(round_ for peer in voices for round_ in peer.accuracies)
        latest = max((round_ for round_, count in counts.items() if count == max(counts.values())), default=0)
        return [peer.accuracies[latest] for peer in voices if latest in peer.accuracies]

    def _stragglers(self) -> list[str]:
        spans = {peer.name: peer.figures["compute_s"] for peer in self.peers.values() if "compute_s" in peer.figures}
        bound_s = max(STRAGGLES * median(spans.values()), STRAGGLES_S) if spans else 0.0
        slow = sorted((name for name in spans if spans[name] > bound_s), key=lambda name: -spans[name])
        return [f"{name} ({duration(spans[name])} a round)" for name in slow[:4]]

    def _spent(self) -> list[str]:
        """Who has stopped training, its privacy budget being spent."""
        return [peer.name for peer in self.peers.values() if peer.budget_spent]

    def _spies(self) -> list[str]:
        """How far the attack is that each peer is at, and that the run waits for them, where it does."""
        at_work = [f"peer {printable(peer)} spies: {printable(said)}" for peer, said in self.spying.items() if said]
        more = [f"and {len(at_work) - MOST_SPIES} others spy"] if len(at_work) > MOST_SPIES else []
        waits = ["the run ends when attacks are through"] if at_work and self._span()[0] >= self.rounds else []
        return [*at_work[:MOST_SPIES], *more, *waits]

    def _refresh(self) -> None:
        if self._screen is not None:
            began_s = time.monotonic()
            self._screen.update(self._view(), refresh=True)
            ended_s = time.monotonic()
            self._due_s = ended_s + max(REFRESH_S, SHARE * (ended_s - began_s))

    def _view(self) -> RenderableType:
        slowest, fastest = self._span()
        head = Table.grid(padding=(0, 2))
        ahead = f", fastest {fastest}" if fastest > slowest else ""
        bar = ProgressBar(total=max(self.rounds, 1), completed=min(slowest, self.rounds), width=32)
        took = duration(time.monotonic() - self._began_s)
        head.add_row(Text(self.name, "bold"), bar, Text(f"round {slowest}/{self.rounds}{ahead}"), Text(took, "dim"))
        aim = [f"target {self.target:g}"] if self.target is not None else []
        told: list[RenderableType] = [head, Text("   ".join([*self._figures(), *aim]))]
        if slow := self._stragglers():
            told.append(Text(f"slow: {', '.join(slow)}", "yellow"))
        if spent := self._spent():
            told.append(Text(f"budget spent: {', '.join(spent)}", "yellow"))
        told += [Text(said, "magenta") for said in self._spies()]
        if self.absent:
            told.append(Text(f"absent: {', '.join(sorted(self.absent, key=lambda peer: (len(peer), peer)))}", "red"))
        return Group(*told, *self._table())

    def _table(self) -> list[RenderableType]:
        """A line for each peer; of many, the slowest, and how many are not shown."""
        peers = list(self.peers.values())
        if few := len(peers) > MOST_ROWS:
            peers = sorted(peers, key=lambda peer: (peer.round, -peer.figures.get("compute_s", 0.0)))[:SLOWEST]
        private = any("epsilon" in peer.figures for peer in self.peers.values())
        table = progress.table(peers, private, self.absent)
        rest = Text(f"and {len(self.peers) - len(peers)} others, further on", "dim")
        return [table, rest] if few else [table]

    def _print(self, text: str, style: str = "") -> None:
        self.console.print(Text(text, style), soft_wrap=True)


def printable(text: str) -> str:
    """Text without what would steer a terminal; lines stay lines."""
    return "".join(letter if letter.isprintable() or letter == "\n" else "\N{REPLACEMENT CHARACTER}" for letter in text)


def table(summary: Mapping[str, Any]) -> RenderableType:
    """The short table at the end of a run."""
    grid = Table(box=None, padding=(0, 3, 0, 0), show_header=False)
    for key, value in summary.items():
        figures = list(flat({key: value})) if key in SUMMED_UP else []
        if figures:
            words = [f"{path.removeprefix(f'{key}.')} {humane(path, item)}" for path, item in figures if path != key]
            text = "   ".join(words) if words else humane(key, value)
            label = key.removesuffix("_s").removesuffix("_mb").replace("_", " ")
            grid.add_row(Text(label, "dim"), Text(printable(text).replace("_", " ")))
    if isinstance(privacy := summary.get("privacy"), Mapping):
        grid.add_row(Text("privacy", "dim"), Text(printable(_private(privacy))))
        if spent := privacy.get("spent_out"):
            grid.add_row(Text("budget spent", "dim"), Text(printable(humane("", spent)), "yellow"))
    for key in ("absent", "faults"):
        if counts := numbers(summary.get(key)):
            told = ", ".join(f"{peer} ({plain(count)})" for peer, count in counts.items())
            grid.add_row(Text(key, "dim"), Text(printable(told), "yellow"))
    return grid


def _private(privacy: Mapping[str, Any]) -> str:
    """The epsilon of a run, and what it is worth, in a few words."""
    figures = dict(flat(privacy))
    words = {"epsilon.max": "epsilon", "epsilon.mean": "mean", "to_target": "to target", "delta": "delta"}
    words |= {"audit.epsilon": "audit, at least"}
    told = [f"{word} {humane(path, figures[path])}" for path, word in words.items() if path in figures]
    return "   ".join([*told, *(["replayable, not for release"] if privacy.get("replayable") else [])])
