"""A small run of an algorithm in which everything that is said is written down, and mail may be lost.

Flows are watched from within: the algorithm is wrapped, and the engines run it as any other.
Shapes: N examples, D parameters.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from p2pfl import plugins, scenario
from p2pfl.learning.data import Data
from p2pfl.messages import Collect, Exchange, Mail, Message, Pause, PeerId, Step
from p2pfl.peer import Flow, Peer, Role
from p2pfl.plugins import Choice
from p2pfl.runtime.plan import Engine, Plan, Watcher
from p2pfl.runtime.spying import relayed
from p2pfl.scenario import SLOTS, Scenario
from p2pfl.seeds import Seeds

LOST = 0.3
"""The share of mail that is lost, where some is."""
LIMIT_S = 60.0
"""A run takes a tenth of a second."""
TRAINING = {"batch": 4, "lr": 0.05, "momentum": 0.5, "weight_decay": 0.01, "local_steps": 2, "device": "cpu"}


@dataclass(frozen=True)
class Tiny:
    """Sixty random images of 4 x 4 in three classes, for training and as many for each of the others."""

    def check(self) -> None:
        """Nothing can be missing."""

    def load(self) -> Data:
        """Three times the same number of examples, apart."""
        draw = torch.Generator().manual_seed(1)
        train_x, validation_x, test_x = (torch.randn(60, 1, 4, 4, generator=draw) for _ in range(3))
        labels = torch.arange(60) % 3
        return Data(train_x, labels, validation_x, labels, test_x, labels, classes=3)

    def checksums(self) -> dict[str, str]:
        """There are no files."""
        return {}


@dataclass(frozen=True)
class Post:
    """What one peer posted to another in a round of its own, and its tensors as they were then."""

    by: PeerId
    to: PeerId
    round: int
    message: Message
    tensors: Mapping[str, Tensor]


@dataclass
class Ledger:
    """What was seen: posts, rests and questions, each peer's flow and itself by round, models after each round,
    and who failed.
    """

    lossy: bool = False
    posts: list[Post] = field(default_factory=list)
    rests: list[tuple[PeerId, Pause | Collect]] = field(default_factory=list)
    flows: dict[PeerId, Flow] = field(default_factory=dict)
    mes: dict[PeerId, dict[int, Peer]] = field(default_factory=dict)
    models: dict[tuple[PeerId, int], Tensor] = field(default_factory=dict)
    errors: list[Exception] = field(default_factory=list)
    rows: list[tuple[PeerId, int, Mapping[str, Any]]] = field(default_factory=list)
    plan: Plan | None = None

    def hear(self, peer: PeerId, message: Message) -> None:
        """See Watcher: keep the rows, but for what may differ between engines."""
        if message.kind == "row":
            kept = {k: v for k, v in message.figures.items() if not k.endswith(("_s", "_bytes"))}
            self.rows.append((peer, message.round, kept))


@dataclass(frozen=True)
class Watched:
    """An algorithm whose every flow is watched."""

    algorithm: Any
    ledger: Ledger = field(compare=False)

    def roles(self, learners: int) -> dict[PeerId, Role]:
        """Those of the algorithm, their flows watched."""
        roles = self.algorithm.roles(learners)
        self.ledger.flows = {i: role.flow for i, role in roles.items()}
        return {i: dataclasses.replace(role, flow=WatchedFlow(role.flow, self.ledger)) for i, role in roles.items()}

    def __getattr__(self, name: str) -> Any:
        return getattr(self.algorithm, name)


@dataclass(frozen=True)
class WatchedFlow:
    """A flow between which and the engine somebody stands, who writes everything down."""

    flow: Flow
    ledger: Ledger = field(compare=False)

    def start(self, me: Peer) -> Any:
        """As the flow does."""
        try:
            return self.flow.start(me)
        except Exception as error:  # told after the run, with its own traceback
            self.ledger.errors.append(error)
            raise

    def round(self, me: Peer, state: Any, r: int) -> Generator[Step, Mail, Any]:
        """The flow's round; what fails in it is kept, and mail may be lost on its way in."""
        self.ledger.mes.setdefault(me.id, {})[r] = me
        try:
            state = yield from self._watched(me, state, r)
            self.ledger.models[me.id, r] = self.flow.model(state).clone()
            return state
        except Exception as error:  # told after the run, with its own traceback
            self.ledger.errors.append(error)
            raise

    def _watched(self, me: Peer, state: Any, r: int) -> Generator[Step, Mail, Any]:
        draw = Seeds(bytes(32)).numpy("lost", me.id, r)

        def see(step: Step) -> None:
            for to, message in step.post.items() if isinstance(step, Exchange) else ():
                tensors = {name: tensor.clone() for name, tensor in message.tensors.items()}
                self.ledger.posts.append(Post(me.id, to, r, message, tensors))
            if isinstance(step, Pause | Collect):
                self.ledger.rests.append((me.id, step))

        def let_in(mail: Mail) -> Mail:
            return {j: m for j, m in mail.items() if not (self.ledger.lossy and draw.random() < LOST)}

        return relayed(self.flow.round(me, state, r), see, let_in)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.flow, name)


def played(
    algorithm: Any,
    sketch: Any = "dense",
    engine: str = "simulate",
    lossy: bool = False,
    killed: Sequence[PeerId] = (),
    rounds: int = 3,
    still: bool = False,
    defences: Sequence[Choice] = (),
) -> Ledger:
    """A run of four peers on the algorithm's own topology; `killed` die in round 2.

    Where all is `still`, peers begin apart and their own steps are as good as none.
    Raises what a flow raised, and AssertionError when the run does not come to its end.
    """
    ledger = Ledger(lossy)
    churn = [{"round": 2, "kill": list(killed)}] if killed else []
    settings = _settings(Watched(algorithm, ledger), sketch, rounds, churn)
    settings = dataclasses.replace(settings, defences=tuple(defences))
    if still:
        settings = dataclasses.replace(settings, init="own", training=dataclasses.replace(settings.training, lr=1e-9))
    ledger.plan = plan = Plan(settings, Seeds.of(5).root, bytes(8))
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        asyncio.run(_run(plan, plugins.build("engines", engine, {}), Watcher(ledger.hear)))
    except TimeoutError:
        raise AssertionError(f"after {LIMIT_S:g} s somebody still waits for mail that nobody sends") from None
    finally:
        torch.set_num_threads(before)
    if ledger.errors:
        raise ledger.errors[0]
    return ledger


async def _run(plan: Plan, engine: Engine, watcher: Watcher) -> None:
    await asyncio.wait_for(engine.run(plan, watcher, asyncio.Event()), LIMIT_S)


def _settings(watched: Watched, sketch: Any, rounds: int, churn: list[dict[str, Any]]) -> Scenario:
    written = {"name": "conformance", "seed": 5, "peers": 4, "rounds": rounds, "sketch": sketch, "training": TRAINING}
    written |= {"model": {"mlp": {"hidden": [6]}}, "evaluate": {"every": 1}, "churn": churn, "algorithm": "local_only"}
    return dataclasses.replace(
        scenario.read(written),
        algorithm=Choice("watched", watched),
        topology=SLOTS["topology"].choose(watched.topology),
        data=Choice("tiny", Tiny()),
    )
