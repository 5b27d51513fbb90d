"""When a run stops before its last round: the referee hears what peers report, and says at each gate who goes on.

A run with reasons to stop has a gate wherever models are evaluated: nobody goes on before everybody who lives has come
so far, so that all stop after the same round, whatever carries the messages. Who is silent is not waited for for ever.
Peers without rounds in common have no gates: each stops by its own clock, and the referee only learns why.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import fmean

from p2pfl.messages import Message, PeerId
from p2pfl.runtime.plan import Watcher
from p2pfl.runtime.record import Recorder
from p2pfl.scenario import Scenario, Stop

VERDICT = "verdict"
START_S, PATIENCE = 60.0, 3.0


class Verdict:
    """A peer's side of the gates: it says that it has come through a round, and waits for what the referee says."""

    def __init__(self) -> None:
        self._latest = Message(VERDICT, 0, figures={"last": False})
        self._changed = asyncio.Event()

    def hear(self, message: Message) -> None:
        """The referee has decided on a round."""
        self._latest = message
        self._changed.set()

    async def ask(self, say: Callable[[Message], None], round: int) -> bool:
        """Whether the run ends here; at once where others were told already."""
        say(Message("gate", round))
        while self._latest.round < round:
            self._changed.clear()
            await self._changed.wait()
        return bool(self._latest.figures["last"])


@dataclass
class Referee:
    """What it knows of the run so far. Altered in place by `hear`; `reason` is why the run stopped, once it did."""

    settings: Scenario
    living: set[PeerId]
    waiting: dict[PeerId, int] = field(default_factory=dict)
    decided: int = 0
    accuracies: dict[int, list[float]] = field(default_factory=dict)
    sent_bytes: dict[PeerId, int] = field(default_factory=dict)
    clock_s: dict[PeerId, float] = field(default_factory=dict)
    reason: str | None = None

    def hear(self, peer: PeerId, message: Message) -> Message | None:
        """What every peer is to be told now, if anything: whether the round that all have come through was the last."""
        match message.kind:
            case "row":
                self.living.add(peer)  # again, if it was given up on
                self._read(peer, message)
            case "gate":
                self.living.add(peer)
                if message.round > self.decided:  # who comes too late knows the verdict already
                    self.waiting[peer] = message.round
            case "left" | "killed" | "crashed":
                self.living.discard(peer)
                early = message.kind == "left" and message.round < self.settings.rounds
                if early and self.reason is None and any(stop.seconds for stop in self.settings.stop):
                    self.reason = "seconds"  # nobody told it to stop: its own clock did
        return self.decide() if self.waiting and self.living <= self.waiting.keys() else None

    def decide(self) -> Message:
        """The verdict on the round that those who wait have come through."""
        self.decided = max(self.waiting.values())
        self.waiting.clear()
        self.reason = next((name for stop in self.settings.stop if (name := self._met(stop))), None)
        return Message(VERDICT, self.decided, figures={"last": self.reason is not None})

    def give_up(self) -> Message:
        """The verdict without those who did not come; none of them is waited for again before it speaks."""
        self.living &= self.waiting.keys()
        return self.decide()

    def _read(self, peer: PeerId, message: Message) -> None:
        figures = message.figures
        accuracy = figures.get(f"{self.settings.evaluate.split}_accuracy")
        if isinstance(accuracy, float):
            self.accuracies.setdefault(message.round, []).append(accuracy)
        self.sent_bytes[peer], self.clock_s[peer] = int(str(figures["sent_bytes"])), float(str(figures["time_s"]))

    def _met(self, stop: Stop) -> str | None:
        """The name of the reason to stop, where it holds now."""
        means = {r: fmean(self.accuracies[r]) for r in sorted(self.accuracies)}
        latest = max(means, default=0)
        best = max(means, key=lambda r: means[r], default=0)
        holds = {
            "target": stop.target and bool(means) and means[latest] >= (self.settings.evaluate.target or 0.0),
            "seconds": stop.seconds is not None and max(self.clock_s.values(), default=0.0) >= stop.seconds,
            "bytes": stop.bytes is not None and sum(self.sent_bytes.values()) >= stop.bytes,
            "plateau": stop.plateau is not None and latest - best >= stop.plateau,
        }
        return next((name for name, is_so in holds.items() if is_so), None)


class Overseer:
    """The launcher's ears: hands what peers say to the recorder and the referee, and the verdict to the peers.

    Who does not come to a gate is given up on when nobody has said anything for longer than `START_S`, and than
    `PATIENCE` times the longest silence that a peer has broken so far. With `wait: all` nobody ever is.
    """

    def __init__(self, recorder: Recorder) -> None:
        settings = recorder.world.settings
        self._recorder, self._referee = recorder, Referee(settings, set(recorder.world.roles))
        self._loop = asyncio.get_running_loop()
        self._learned, self._patience_s = settings.wait == "learned", START_S
        self._heard_s = dict.fromkeys(recorder.world.roles, self._loop.time())
        self._timer: asyncio.TimerHandle | None = None
        self.watcher = Watcher(self.hear)

    def hear(self, peer: PeerId, message: Message) -> None:
        """Something happened to a peer."""
        self._recorder.watch(peer, message)
        now_s = self._loop.time()
        self._patience_s = max(self._patience_s, PATIENCE * (now_s - self._heard_s[peer]))
        self._heard_s[peer] = now_s
        self.end()
        verdict = self._referee.hear(peer, message)
        self._recorder.ended_by = self._referee.reason
        if verdict:
            self._tell(verdict)
        elif self._referee.waiting and self._learned:
            self._timer = self._loop.call_later(self._patience_s, self._lose_patience)

    def _lose_patience(self) -> None:
        self._tell(self._referee.give_up())

    def _tell(self, verdict: Message) -> None:
        self.end()
        self._heard_s |= dict.fromkeys(self._referee.living, self._loop.time())  # they were silent since they waited
        self._recorder.ended_by = self._referee.reason
        self.watcher.tell(verdict)

    def end(self) -> None:
        """Nobody is waited for any more."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
