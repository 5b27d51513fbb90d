"""What is known of one neighbour: where it stands, since when, what came of it, and how slow it was."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from p2pfl.messages import Message


@dataclass
class Link:
    """What is known of one neighbour. Times in seconds of the mailbox's clock."""

    heard_s: float
    progress_s: float
    excused_s: float = 0.0
    """Of the time since its last progress: what it is not to blame for."""
    spent_s: float = 0.0
    """Of its round, up to its last progress: what it is to blame for."""
    slowest_s: float = math.nan
    round: int = 0
    learning: bool = True
    spoke: bool = False
    closed: bool = False
    mail: dict[tuple[str, int], Message] = field(default_factory=dict)
    seen: set[tuple[str, int]] = field(default_factory=set)

    def blamed_s(self, now_s: float) -> float:
        """For how long it has made no progress, and is to blame for that."""
        return now_s - self.progress_s - self.excused_s

    def progress(self, now_s: float, round: int) -> None:
        """It is in `round` now, or still. A round in which it spoke tells how slow it can be."""
        self.spent_s += self.blamed_s(now_s)
        if round > self.round:
            if self.spoke and self.round > 0:
                self.slowest_s = max(self.spent_s, 0.0 if math.isnan(self.slowest_s) else self.slowest_s)
            self.round, self.spent_s, self.spoke = round, 0.0, False
        self.heard_s, self.progress_s, self.excused_s = now_s, now_s, 0.0
