"""The keys of a scenario, as typed values with every default: what the rest of the project sees of a YAML file."""

from __future__ import annotations

import dataclasses
import re
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pydantic

from p2pfl.contracts import Training
from p2pfl.messages import HUB, PeerId, peer_name
from p2pfl.plugins import Choice, Slot
from p2pfl.scenario.marks import Count, Entries, Rounds, Several, Share, Start, StartOrWord, Who


def _well_named(name: str) -> str:
    if re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}", name) is None:
        raise ValueError("must be of 1 to 100 letters, digits, '-', '_' and '.', and not begin with '.'")
    return name


@dataclass(frozen=True)
class Malice:
    """Who attacks whom, how, and in which rounds.

    `victims` are all others that a peer's mail tells of, by default. Peers that `collude` share what reached them, and
    attack after the run. With `score` the victims' record says which examples they held, by which the attack is judged
    after the run. One reading of one victim's round takes `seconds` at most.
    """

    peers: tuple[Who, ...]
    attack: Annotated[Choice, Slot("attack", "attacks")]
    rounds: Rounds = (1,)
    victims: tuple[Who, ...] = ()
    collude: bool = False
    score: bool = True
    seconds: Annotated[float, pydantic.Field(gt=0)] = 30.0


@dataclass(frozen=True)
class Group:
    """Some peers that differ from the others: how fast they compute, how much data they keep, how they train.

    `speed` 0.1 is ten times slower; `share` is the part they keep of the examples that the partition gives them;
    `training` names what differs from the scenario's.
    """

    peers: tuple[Annotated[PeerId, pydantic.Field(ge=0)], ...]
    speed: Share = 1.0
    share: Share = 1.0
    training: Training = dataclasses.field(default_factory=Training)


@dataclass(frozen=True)
class Churn:
    """Who is killed in which round."""

    round: Count
    kill: tuple[Who, ...]


@dataclass(frozen=True)
class Stop:
    """A reason to stop before the last round: exactly one of these. Looked at whenever models are evaluated.

    `target`: the mean accuracy has reached evaluate.target. `seconds` since the peers set out, `bytes` sent by all
    peers. `plateau`: for so many rounds the mean accuracy has not risen above its best.
    """

    target: Literal[True] | None = None
    seconds: Annotated[float, pydantic.Field(gt=0)] | None = None
    bytes: Annotated[float, pydantic.Field(gt=0)] | None = None
    plateau: Count | None = None

    def __post_init__(self) -> None:
        given = [field.name for field in dataclasses.fields(self) if getattr(self, field.name) is not None]
        if len(given) != 1:
            raise ValueError("give exactly one of target, seconds, bytes and plateau: one entry of the list each")


@dataclass(frozen=True)
class Save:
    """What a run keeps beside its record: of each peer the models of its last `checkpoints` checkpoints.

    A checkpoint is made every `every` rounds (as models are evaluated, by default) and after the last. Of each peer in
    `mail` all that it says and hears is kept, for attacks after the run: `mail_bytes` at most, of all of them.
    """

    checkpoints: Annotated[int, pydantic.Field(ge=0)] = 0
    every: Count | None = None
    mail: tuple[Who, ...] = ()
    mail_bytes: Annotated[float, pydantic.Field(gt=0)] = 2e9


@dataclass(frozen=True)
class Evaluate:
    """Every how many rounds models are evaluated, on what, the accuracy and the mean training loss that are waited for,
    and whether the test set is read after the last round.
    """

    every: Count = 5
    target: Annotated[float, pydantic.Field(ge=0, le=1)] | None = None
    loss: Annotated[float, pydantic.Field(gt=0)] | None = None
    split: Literal["validation", "test"] = "validation"
    test: bool = True


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """One experiment, every default filled in."""

    name: Annotated[str, pydantic.AfterValidator(_well_named)]
    seed: int | None = None
    peers: Annotated[int, pydantic.Field(ge=1, le=10_000)] = 8
    rounds: Count = 30
    init: Annotated[Start | str, StartOrWord()] = "shared"
    topology: Annotated[Choice, Slot("topology", "topologies")]
    data: Annotated[Choice, Slot("data", "datasets", "digits")]
    partition: Annotated[Choice, Slot("partition", "partitions", "iid")]
    model: Annotated[Choice, Slot("model", "models", "mlp")]
    training: Training = dataclasses.field(default_factory=Training)
    algorithm: Annotated[Choice, Slot("algorithm", "algorithms", "dpsgd")]
    sketch: Annotated[Choice, Slot("sketch", "sketches", "dense")]
    aggregator: Annotated[Choice, Slot("aggregator", "aggregators", "mean")]
    defences: Annotated[tuple[Choice, ...], Several("defences", "defences")] = ()
    attacks: Annotated[tuple[Malice, ...], Entries("attacks", Malice)] = ()
    groups: Mapping[str, Group] = dataclasses.field(default_factory=dict)
    churn: tuple[Churn, ...] = ()
    evaluate: Evaluate = Evaluate()
    stop: tuple[Stop, ...] = ()
    save: Save = Save()
    wait: Literal["learned", "all"] = "learned"
    transport: Literal["auto", "ipc", "tcp"] = "auto"
    engine: Annotated[Choice, Slot("engine", "engines", "local")]

    def group(self, peer: PeerId) -> Group:
        """What is particular to a peer: its group's, or nothing."""
        found = (group for group in self.groups.values() if peer in group.peers)
        return next(found, Group((peer,), training=self.training))

    def named(self, who: tuple[PeerId | str, ...]) -> tuple[PeerId, ...]:
        """Peers by number, where some are named by their group, or as the hub."""
        return tuple(i for each in who for i in self._meant(each))

    def _meant(self, who: PeerId | str) -> tuple[PeerId, ...]:
        if not isinstance(who, str):
            return (who,)
        return (HUB,) if who == peer_name(HUB) else self.groups[who].peers


def _slots(cls: type[Any]) -> Iterator[Slot]:
    for hint in typing.get_type_hints(cls, include_extras=True).values():
        if typing.get_origin(hint) is Annotated and isinstance(hint.__metadata__[0], Slot):
            yield hint.__metadata__[0]
        elif isinstance(hint, type) and dataclasses.is_dataclass(hint):
            yield from _slots(hint)


SLOTS: Mapping[str, Slot] = {slot.key: slot for slot in _slots(Scenario)}
"""Where plug-ins are chosen, by the key; that of one further in is dotted."""
