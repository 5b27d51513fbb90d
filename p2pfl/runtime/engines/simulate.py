"""All peers in one thread, without a bus: the same generators, the same figures, no processes, and a virtual clock.

Where peers rest, and take what mail has come since, it is a discrete-event simulation: whoever rests or asks goes on
only when nobody else can still do anything earlier. So who knows what when is a matter of their clocks alone.
"""

from __future__ import annotations

import asyncio
import gc
import time
import traceback
from collections import Counter, defaultdict, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from heapq import heappop, heappush
from typing import ClassVar

from p2pfl.messages import Aside, Collect, Exchange, Mail, Message, Pause, PeerId, Report
from p2pfl.runtime.beside import reports
from p2pfl.runtime.drive import kind_of
from p2pfl.runtime.life import Asked, Gate, Keep, Killed, Life, Now, life
from p2pfl.runtime.pace import EXAMPLES_A_SECOND, paced
from p2pfl.runtime.plan import Plan, Watcher
from p2pfl.runtime.spying import Noted

Answer = Mail | bool | None


@dataclass(frozen=True)
class Simulate:
    """All peers in one thread of this process, without a wire: figures as on processes, bit for bit.

    Times are virtual: a peer of speed 1 trains on 10,000 examples a second, and nothing else takes time.
    """

    virtual: ClassVar[bool] = True

    async def run(self, plan: Plan, watch: Watcher, stop: asyncio.Event) -> None:
        """See Engine."""
        stage = _Stage(plan, watch)
        for i in plan.world.roles:
            stage.enter(i)
        gc.freeze()  # what a thousand peers consist of is not searched for garbage again and again: 0.92 of the time
        try:
            going = True
            while going and not stop.is_set():
                going = stage.turn()
                await asyncio.sleep(0)  # Ctrl-C and the screen have their turn
                while stage.asides and not stop.is_set():
                    await stage.work_beside(stop)
        finally:
            gc.unfreeze()


@dataclass
class _Stage:
    """Who can go on with which answer, who waits for what, who is gone, and what each peer's clock shows."""

    plan: Plan
    watch: Watcher
    lives: dict[PeerId, Life] = field(default_factory=dict)
    ready: deque[tuple[PeerId, Answer]] = field(default_factory=deque)
    waiting: dict[PeerId, Exchange] = field(default_factory=dict)
    due: list[tuple[float, PeerId, Pause | Collect]] = field(default_factory=list)
    """A heap of who goes on at which time of its own clock, resting or asking until then."""
    gated: list[PeerId] = field(default_factory=list)
    rounds: Counter[PeerId] = field(default_factory=Counter)
    clock_s: defaultdict[PeerId, float] = field(default_factory=lambda: defaultdict(float))
    mail: dict[PeerId, dict[tuple[str, int], dict[PeerId, tuple[Message, float]]]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(dict))
    )
    """What lies ready for a peer, by kind, round and sender, and when it was sent."""
    sent: dict[PeerId, Counter[PeerId]] = field(default_factory=lambda: defaultdict(Counter))
    asides: deque[tuple[PeerId, Aside]] = field(default_factory=deque)
    """What is still to be computed, on which nothing in the rounds hangs."""

    def __post_init__(self) -> None:
        self.watch.tell = self.tell

    def enter(self, i: PeerId) -> None:
        """A peer takes its seat."""
        seat = self.plan.world.seat(i, one_thread=True)
        seat = paced(seat, partial(self.pass_time, i, seat.speed))
        self.lives[i] = life(seat, self.plan.course(i), lambda: self.clock_s[i])
        self.ready.append((i, None))
        self.watch(i, Message("seated", 0, figures={"device": self.plan.world.device(i)}))

    def pass_time(self, i: PeerId, speed: float, examples: int, _: float) -> None:
        """Peer `i` has trained on so many examples."""
        self.clock_s[i] += examples / (EXAMPLES_A_SECOND * speed)

    def turn(self) -> bool:
        """One peer goes on until it waits; false when all are through."""
        if not self.ready:
            self.wake(list(self.waiting))
        if not self.ready and self.due:
            self.ready.append(self.fall_due())
        if not self.ready:  # who waits for each other gives up on each other, as in real time
            self.wake(list(self.waiting), at_last=True)
        if self.ready:
            self.go_on(*self.ready.popleft())
        return bool(self.ready or self.waiting or self.due)

    def fall_due(self) -> tuple[PeerId, Mail]:
        """Who of those that rest or ask is the first to go on, and what had been posted to it by then."""
        now_s, i, step = heappop(self.due)
        if isinstance(step, Pause):
            return i, {}
        lies = self.mail[i][step.kind, 0]
        come = sorted(j for j, (_, sent_s) in lies.items() if sent_s <= now_s)
        return i, {j: lies.pop(j)[0] for j in come}

    def go_on(self, i: PeerId, answer: Answer) -> None:
        """Peer `i` computes until it waits for mail or a new round begins, is killed, crashes or is through."""
        try:
            step = next(self.lives[i]) if answer is None else self.lives[i].send(answer)
            while not (isinstance(step, Asked) and (not isinstance(step, Exchange) or step.expect)):
                self.handle(i, step)
                if isinstance(step, Now) and step.learning:
                    self.ready.append((i, {}))  # others, and Ctrl-C, have their turn
                    return
                step = self.lives[i].send({})
        except StopIteration:
            links = {str(j): count for j, count in self.sent[i].items()}
            end = Message("left", self.rounds[i], figures={"links": dict(links)})
        except Exception:  # whatever a peer dies of, the others go on
            end = Message("crashed", self.rounds[i], figures={"traceback": traceback.format_exc()})
        else:
            if not isinstance(step, Killed):
                self.wait(i, step)
                return
            end = Message("killed", self.rounds[i])
        del self.lives[i]
        self.watch(i, end)

    def wait(self, i: PeerId, step: Exchange | Pause | Collect | Gate) -> None:
        """Peer `i` can go on only with an answer."""
        match step:
            case Gate():
                self.gated.append(i)
                self.watch(i, Message("gate", step.round))
            case Exchange():
                self.handle(i, step)
                self.waiting[i] = step
                self.wake([i])
            case _:
                self.clock_s[i] += step.seconds if isinstance(step, Pause) else 0.0
                heappush(self.due, (self.clock_s[i], i, step))

    def tell(self, verdict: Message) -> None:
        """Whoever waits at the gate may go on, or is through."""
        self.ready.extend((i, bool(verdict.figures["last"])) for i in self.gated)
        self.gated.clear()

    async def work_beside(self, stop: asyncio.Event) -> None:
        """Compute the next aside, in a thread, so that the loop can hear."""
        loop = asyncio.get_running_loop()
        i, aside = self.asides.popleft()

        def say(said: Report | Message) -> None:
            loop.call_soon_threadsafe(self.watch, i, said if isinstance(said, Message) else self.row(i, said))

        def compute() -> None:
            for report in reports(aside, say, stop.is_set):
                say(report)

        await loop.run_in_executor(None, compute)

    def row(self, i: PeerId, report: Report) -> Message:
        """A report as a row of the record."""
        sent = {"time_s": self.clock_s[i], "sent_bytes": self.sent[i].total()}
        return Message(kind_of(report), report.round, report.tensors, {**report.figures, **sent})

    def handle(self, i: PeerId, step: Exchange | Report | Now | Keep | Noted | Aside) -> None:
        """Do what a step asks for."""
        match step:
            case Aside():
                self.asides.append((i, step))
            case Exchange():
                for to, message in step.post.items():
                    if to in self.lives:
                        came = self.mail[to][message.kind, message.round]
                        if message.round or i not in came:  # of no round: one, until it is taken
                            came[i] = message, self.clock_s[i]
                    self.sent[i][to] += sum(t.nbytes for t in message.tensors.values())
                self.wake(step.post)
            case Now():
                if step == Now(1):
                    self.watch(i, Message("began", 1, figures={"at_s": time.time()}))
                self.rounds[i] = step.round
                for late in [key for key in self.mail[i] if 0 < key[1] < step.round]:
                    del self.mail[i][late]
            case Keep() | Noted():
                self.plan.keep(i, step)
            case Report():
                self.watch(i, self.row(i, step))

    def wake(self, peers: Iterable[PeerId], at_last: bool = False) -> None:
        """Those of `peers` whose mail is complete, or can no longer become so (or `at_last`), may go on."""
        for i in peers:
            step = self.waiting.get(i)
            if step is None:
                continue
            came = self.mail[i][step.kind, step.round]
            settled = (j in came or j not in self.lives or self.rounds[j] > step.round for j in step.expect)
            if at_last or all(settled):
                del self.waiting[i]
                del self.mail[i][step.kind, step.round]
                heard = {j: came[j] for j in sorted(step.expect) if j in came}
                self.clock_s[i] = max(self.clock_s[i], *(sent_s for _, sent_s in heard.values()), 0.0)
                self.ready.append((i, {j: message for j, (message, _) in heard.items()}))
