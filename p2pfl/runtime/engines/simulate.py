"""All peers in one thread, without a bus: the same generators, the same figures, no processes."""

from __future__ import annotations

import asyncio
import time
import traceback
from collections import Counter, defaultdict, deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from p2pfl.messages import Exchange, Mail, Message, PeerId, Report
from p2pfl.runtime.life import Killed, Life, Now, life
from p2pfl.runtime.plan import Plan, Watcher


@dataclass(frozen=True)
class Simulate:
    """All peers in one thread of this process, without a wire: figures as on processes, bit for bit."""

    async def run(self, plan: Plan, watch: Watcher, stop: asyncio.Event) -> None:
        """See Engine."""
        world = plan.world
        stage = _Stage(watch)
        for i in world.roles:
            stage.lives[i] = life(world.seat(i), plan.course(i))
            stage.ready.append((i, None))
            watch(i, Message("seated", 0, figures={"device": world.device(i)}))
        while stage.turn() and not stop.is_set():  # noqa: ASYNC110 - it works, it does not wait
            await asyncio.sleep(0)  # Ctrl-C and the screen have their turn


@dataclass
class _Stage:
    """Who can go on with which mail, who waits for what, and who is gone."""

    watch: Watcher
    lives: dict[PeerId, Life] = field(default_factory=dict)
    ready: deque[tuple[PeerId, Mail | None]] = field(default_factory=deque)
    waiting: dict[PeerId, Exchange] = field(default_factory=dict)
    rounds: Counter[PeerId] = field(default_factory=Counter)
    mail: dict[PeerId, dict[tuple[str, int], dict[PeerId, Message]]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(dict))
    )
    sent: dict[PeerId, Counter[PeerId]] = field(default_factory=lambda: defaultdict(Counter))
    born_s: float = field(default_factory=time.monotonic)

    def turn(self) -> bool:
        """One peer goes on until it waits; false when all are through."""
        if not self.ready:
            self.wake(list(self.waiting))
        if not self.ready:  # who waits for each other gives up on each other, as in real time
            self.wake(list(self.waiting), at_last=True)
        if self.ready:
            self.go_on(*self.ready.popleft())
        return bool(self.ready or self.waiting)

    def go_on(self, i: PeerId, mail: Mail | None) -> None:
        """Peer `i` computes until it waits for mail or a new round begins, is killed, crashes or is through."""
        try:
            step = next(self.lives[i]) if mail is None else self.lives[i].send(mail)
            while not (isinstance(step, Killed) or (isinstance(step, Exchange) and step.expect)):
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
            if isinstance(step, Exchange):
                self.handle(i, step)
                self.waiting[i] = step
                self.wake([i])
                return
            end = Message("killed", self.rounds[i])
        del self.lives[i]
        self.watch(i, end)

    def handle(self, i: PeerId, step: Exchange | Report | Now) -> None:
        """Do what a step asks for."""
        match step:
            case Exchange():
                for to, message in step.post.items():
                    if to in self.lives:
                        self.mail[to][message.kind, message.round][i] = message
                    self.sent[i][to] += sum(t.nbytes for t in message.tensors.values())
                self.wake(step.post)
            case Now():
                if step == Now(1):
                    self.watch(i, Message("began", 1, figures={"at_s": time.time()}))
                self.rounds[i] = step.round
                for late in [key for key in self.mail[i] if key[1] < step.round]:
                    del self.mail[i][late]
            case Report():
                sent = {"time_s": time.monotonic() - self.born_s, "sent_bytes": self.sent[i].total()}
                self.watch(i, Message("row", step.round, step.tensors, {**step.figures, **sent}))

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
                self.ready.append((i, {j: came[j] for j in sorted(step.expect) if j in came}))
