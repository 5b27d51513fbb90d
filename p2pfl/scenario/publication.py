"""What a paper reports of the experiment that a scenario describes: figures to be shown beside one's own.

They change nothing that runs, so they are no part of a Scenario and of no digest, and no sweep varies them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import pydantic

from p2pfl import plugins
from p2pfl.errors import ScenarioError
from p2pfl.evidence import HEAD, MATCHED, MEMORYLESS, PLAIN, SERVER, STATEFUL
from p2pfl.yaml_marks import Document
from p2pfl.yaml_settings import assign

PUBLISHED = "published"
"""The key."""
LEAKED = (
    *("images", "recovered", "recovered_low", "recovered_high", "mse", "psnr_db", "ssim"),
    *("label_accuracy", "property_auc", "membership_auc", "seconds"),
)
"""What is told of what leaked in a run, and of each reading of it."""
READINGS = (PLAIN, MEMORYLESS, SERVER, STATEFUL, MATCHED, HEAD, "linear")
FIGURES = (
    *("accuracy.mean", "accuracy.min", "accuracy.max", "accuracy.consensus_model", "loss.mean"),
    *("auc.mean", "auc.min", "auc.max", "auc.consensus_model"),
    *("validation_accuracy.mean", "validation_accuracy.min", "validation_accuracy.max"),
    *("rounds_to_target", "bytes.to_target", "rounds", "consensus_distance", "spectral_gap"),
    *("rounds_to_loss", "vectors_to_loss"),
    *("bytes.sent", "bytes.sent_per_peer_round", "bytes.minimum_per_peer_round", "vectors_sent", "parameters"),
    *("privacy.epsilon.max", "privacy.epsilon.mean", "privacy.to_target", "privacy.delta"),
    *("privacy.claimed.max", "privacy.claimed.mean"),
    *("privacy.audit.epsilon", "privacy.audit.right", "privacy.audit.guessed", "privacy.audit.canaries"),
    *(f"leak.{figure}" for figure in LEAKED),
    *(f"leak.{reading}.{figure}" for reading in READINGS for figure in LEAKED),
    *("startup_s", "round_s.median", "round_s.p95", "wall_s", "peer_memory_mb.median", "peer_memory_mb.max"),
)
"""The numbers of summary.json that may be compared, by dotted key."""
ALIKE = ("name", "seed", PUBLISHED)
"""Keys that do not tell what is compared: runs that differ in nothing else are one group."""


def _known(figure: str) -> str:
    if figure not in FIGURES:
        shown = [known for known in FIGURES if known.count(".") < 2 or not known.startswith("leak.")]
        raise ValueError(plugins.nearest(figure, shown, FIGURES))
    return figure


@dataclass(frozen=True)
class PublishedFigure:
    """A published value.

    `figure` is what it is called in summary.json, dotted: rounds_to_target, accuracy.mean. `when` are the settings that
    it was measured with, by dotted keys as in matrix; what it does not name may be anything.
    """

    figure: Annotated[str, pydantic.AfterValidator(_known)]
    value: float
    when: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True)
class Published:
    """What a paper reports, to be shown beside our own figures in the report of a sweep; it changes no run.

    `source` says where it stands: authors, and the number of the table. `figures` are the values.
    """

    source: str
    figures: tuple[PublishedFigure, ...]


def written(document: Document) -> Published | None:
    """What a scenario says was published, if it does. Raises ScenarioError with the path of the culprit."""
    given = document.value.get(PUBLISHED)
    if given in ({}, None):
        return None
    if not isinstance(given, dict):
        raise ScenarioError(f"{PUBLISHED} is {plugins.brief(given)}", "must be a mapping", (PUBLISHED,))
    try:
        found: Published = plugins.fill(Published, given)
    except ScenarioError as error:
        raise error.under(PUBLISHED) from None
    return found


def assigned(document: Document, at: int, to: Document, slots: Mapping[str, Any]) -> Document:
    """`to` with the settings of the `at`-th figure set in it. Raises ScenarioError, located."""
    path = (PUBLISHED, "figures", at, "when")
    for key, value in document.value[PUBLISHED]["figures"][at].get("when", {}).items():
        mark = document.mark((*path, key))
        if key.partition(".")[0] in ALIKE:
            problem = f"{'.'.join(map(str, path))} names {key!r}"
            raise ScenarioError(problem, "leave it out: groups of runs do not differ in it", where=mark)
        try:
            to = assign(to, key.split("."), Document(value, {(): mark}), slots)
        except ScenarioError as error:
            raise error.located(mark) from None
    return to


def spelled(asked: Any, found: Any) -> Any:
    """The settings that were `asked` for as a resolved scenario has them; a first option given alone by its name."""
    if isinstance(asked, list) and _plugins(found) and len(asked) == len(found):
        return [spelled(one, resolved) for one, resolved in zip(asked, found, strict=True)]
    if not isinstance(found, dict):
        return found
    if isinstance(asked, dict):
        return {key: spelled(part, found[key]) if key in found else part for key, part in asked.items()}
    first = next(iter(found))
    return asked if asked is None or asked in list(found) else {first: found[first]}


def _plugins(found: Any) -> bool:
    """Whether it is a list of plug-ins, each resolved to its name and options."""
    named = isinstance(found, list) and all(isinstance(each, dict) and len(each) == 1 for each in found)
    return named and all(isinstance(options, dict) for each in found for options in each.values())
