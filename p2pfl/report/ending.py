"""How a run came to its end, and what its times and links are: what its summary and its scenario say beside figures."""

from __future__ import annotations

import re
from functools import lru_cache

from p2pfl import scenario
from p2pfl.errors import ScenarioError
from p2pfl.report.folder import Run, crashed, last_round, spent_out
from p2pfl.report.units import count, number
from p2pfl.scenario import Scenario

REASONS = {
    "target": "the target was reached",
    "seconds": "its time was up",
    "bytes": "its bytes were spent",
    "plateau": "accuracy rose no more",
}
"""What `ended_by` in summary.json says, in words."""
MOST_NAMED = 20
"""How many peers a sentence names."""


def settings(run: Run) -> Scenario | None:
    """The scenario as typed values; None where it cannot be read here, or names plug-ins that are not here."""
    return _settings(run.scenario)


@lru_cache(maxsize=1)
def _settings(text: str) -> Scenario | None:
    try:
        return scenario.parse(text)
    except ScenarioError:
        return None


def virtual(run: Run) -> bool:
    """Whether the times of rounds were counted, not measured. `wall_s` is measured all the same."""
    known = settings(run)
    return known is not None and getattr(known.engine.value, "virtual", False)


def looked_at(run: Run) -> int:
    """Of how many rounds `spectral_gap` is the contraction, where links change from round to round; else 0."""
    known = settings(run)
    return min(known.rounds, scenario.LOOKED_AT) if known is not None and scenario.varies(known) else 0


def rounds(run: Run) -> int:
    """The last round that anybody reported."""
    return max((last_round(run, peer) for peer in run.peers), default=0) or int(number(run.summary.get("rounds")) or 0)


def planned(run: Run) -> int:
    """How many rounds there were to be; those that there were, where nobody says."""
    said = re.search(r"^rounds:[ \t]*(\d{1,9})\b", run.scenario, re.MULTILINE)
    return max(rounds(run), int(said.group(1)) if said else 0, int(number(run.summary.get("rounds")) or 0))


def reason(run: Run) -> str:
    """Why it ended before its last round, in a few words; nothing where it did not, or nobody knows."""
    ended_by = run.summary.get("ended_by")
    if rounds(run) >= planned(run):
        return ""
    if run.summary.get("stopped") is True:
        return "it was stopped"
    if isinstance(ended_by, str):
        return REASONS.get(ended_by, f"ended by {ended_by}")
    return "every peer crashed" if run.peers and set(crashed(run)) >= set(run.peers) else ""


def notices(run: Run) -> list[str]:
    """What a reader must know before any figure: who crashed, and that and why rounds are missing."""
    said: list[str] = []
    if not run.finished:
        said.append("This run did not finish: it left no summary. What follows is what the peers had recorded by then.")
    if run.summary.get("stopped") is True:
        where = f"after {count(rounds(run), 'round')} of {planned(run):,}"
        said.append(f"This run was stopped {where}. What follows is what the peers had recorded by then.")
    elif isinstance(run.summary.get("ended_by"), str) and reason(run):
        said.append(f"This run ended after {count(rounds(run), 'round')} of {planned(run):,}: {reason(run)}.")
    if gone := crashed(run):
        rest = "" if len(gone) >= len(run.peers) else " Accuracies at the end are of those that came to it."
        said.append(f"{_named(gone)} crashed: the log, below, ends with why, and log.txt has all of it.{rest}")
    if spent := spent_out(run):
        first = min(spent.values())
        when = f"in round {first:,}" if len(set(spent.values())) == 1 else f"from round {first:,} on"
        rest = "What they sent since is what was learned by then, and what others taught: it costs no more."
        said.append(f"{_named(tuple(spent))} stopped training {when}: the privacy budget was spent. {rest}")
    if run.unreadable:
        are = "are" if run.unreadable > 1 else "is"
        lines = count(run.unreadable, "line")
        said.append(f"{lines} of records.jsonl could not be read and {are} left out.")
    return said


def _named(peers: tuple[str, ...]) -> str:
    """`Peer 3`, `Peers 1, 2 and 3`, or how many where they are very many."""
    if len(peers) == 1:
        return "The hub" if peers[0] == "hub" else f"Peer {peers[0]}"
    if len(peers) > MOST_NAMED:
        return count(len(peers), "peer")
    return f"Peers {', '.join(peers[:-1])} and {peers[-1]}"
