"""The keys of a scenario, as typed values with every default: what the rest of the project sees of a YAML file."""

from __future__ import annotations

import dataclasses
import re
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

import pydantic

from p2pfl.contracts import Training
from p2pfl.messages import PeerId
from p2pfl.plugins import Choice, Slot


def _well_named(name: str) -> str:
    if re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}", name) is None:
        raise ValueError("must be of 1 to 100 letters, digits, '-', '_' and '.', and not begin with '.'")
    return name


Count = Annotated[int, pydantic.Field(ge=1)]


@dataclass(frozen=True)
class Churn:
    """Who is killed in which round."""

    round: Count
    kill: tuple[Annotated[PeerId, pydantic.Field(ge=0)], ...]


@dataclass(frozen=True)
class Evaluate:
    """Every how many rounds models are evaluated, on what, and the accuracy that is waited for."""

    every: Count = 5
    target: Annotated[float, pydantic.Field(ge=0, le=1)] | None = None
    split: Literal["validation", "test"] = "validation"


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """One experiment, every default filled in."""

    name: Annotated[str, pydantic.AfterValidator(_well_named)]
    seed: int | None = None
    peers: Annotated[int, pydantic.Field(ge=1, le=10_000)] = 8
    rounds: Count = 30
    init: Literal["shared", "own"] = "shared"
    topology: Annotated[Choice, Slot("topology", "topologies")]
    data: Annotated[Choice, Slot("data", "datasets", "digits")]
    partition: Annotated[Choice, Slot("partition", "partitions", "iid")]
    model: Annotated[Choice, Slot("model", "models", "mlp")]
    training: Training = dataclasses.field(default_factory=Training)
    algorithm: Annotated[Choice, Slot("algorithm", "algorithms", "dpsgd")]
    sketch: Annotated[Choice, Slot("sketch", "sketches", "dense")]
    aggregator: Annotated[Choice, Slot("aggregator", "aggregators", "mean")]
    churn: tuple[Churn, ...] = ()
    evaluate: Evaluate = Evaluate()
    wait: Literal["learned", "all"] = "learned"
    transport: Literal["auto", "ipc", "tcp"] = "auto"
    engine: Annotated[Choice, Slot("engine", "engines", "local")]


SLOTS: Mapping[str, Slot] = {
    key: hint.__metadata__[0]
    for key, hint in typing.get_type_hints(Scenario, include_extras=True).items()
    if typing.get_origin(hint) is Annotated and isinstance(hint.__metadata__[0], Slot)
}
