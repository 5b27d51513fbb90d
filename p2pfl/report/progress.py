"""What one peer of a running experiment last said, as a line of a live table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rich.table import Table
from rich.text import Text

from p2pfl.report.units import number, numbers, share, size

SAID = ("loss", "sent_bytes", "compute_s", "epsilon")
"""The figures of a row that are kept as they come."""
LONGEST = 100
"""How much is shown of what an attack is about."""


@dataclass
class Progress:
    """What one peer last said. Altered in place by `take`."""

    name: str
    round: int = 0
    accuracies: dict[int, float] = field(default_factory=dict)  # by round
    figures: dict[str, float] = field(default_factory=dict)
    """`accuracy`, and what is SAID: each as last heard."""
    budget_spent: bool = False

    @property
    def evaluated(self) -> int:
        """The last round in which it was evaluated; 0 before."""
        return max(self.accuracies, default=0)


def take(peer: Progress, row: Mapping[str, Any]) -> bool:
    """Take a row into what a peer last said; whether the row has an evaluation."""
    round_ = row.get("round")
    if type(round_) is int and round_ > peer.round:
        peer.round = round_
    for key in SAID:
        if (figure := number(row.get(key))) is not None:
            peer.figures[key] = figure
    peer.budget_spent = peer.budget_spent or row.get("budget_spent") is True
    of_its_round = "validation_accuracy" in row or "round_s" in row  # else the test set was read afterwards
    accuracy = number(row.get("validation_accuracy", row.get("test_accuracy"))) if of_its_round else None
    if accuracy is None:
        return False
    peer.figures["accuracy"] = peer.accuracies[peer.round] = accuracy
    return True


def spies(row: Mapping[str, Any]) -> str | None:
    """How far an attack is, in a few words: of a row that says so; nothing once it is through, None of other rows."""
    told = row.get("spying")
    if not isinstance(told, Mapping):
        return None
    done, loss = (numbers(told).get(key) for key in ("done", "loss"))
    if done is not None and done >= 1:
        return ""
    said = [str(told.get("about", ""))[:LONGEST], *([] if done is None else [share(done, 0)])]
    return "  ".join([*said, *([] if loss is None else [f"loss {loss:.3g}"])])


def table(peers: Iterable[Progress], private: bool, absent: Iterable[str]) -> Table:
    """A line for each peer, those that are absent in red; with `private`, what each has spent of its privacy."""
    drawn = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for head in ("peer", "round", "loss", "accuracy", "sent", *(("epsilon",) if private else ())):
        drawn.add_column(head, justify="left" if head == "peer" else "right")
    for peer in peers:
        cells = _cells(peer)
        drawn.add_row(*(cells if private else cells[:-1]), style="red" if peer.name in absent else "")
    return drawn


def _cells(peer: Progress) -> list[Text]:
    loss, accuracy, sent = (peer.figures.get(key) for key in ("loss", "accuracy", "sent_bytes"))
    epsilon = peer.figures.get("epsilon")
    return [
        Text(peer.name),
        Text(str(peer.round)),
        Text("" if loss is None else f"{loss:.3g}"),
        Text("" if accuracy is None else f"{accuracy:.3f}"),
        Text("" if sent is None else size(sent)),
        Text("" if epsilon is None else f"{epsilon:.3f}{', spent' if peer.budget_spent else ''}"),
    ]
