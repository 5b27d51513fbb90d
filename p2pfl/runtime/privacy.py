"""What a run gave away of its peers' examples: `privacy` in summary.json, from the rows of private peers.

The guarantee is the accountant's, which each peer keeps for itself. Beside it stands what canaries prove of the same
run. They are pooled over peers: each belongs to one peer, and nothing that a run sends is less private than its least
private peer. Source: Steinke, Nasr & Jagielski 2023, "Privacy Auditing with One (1) Training Run".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from p2pfl.runtime.record import Row
from p2pfl.scenario import Scenario

Privacy = dict[str, Any]
AUDITED = {"right": "canaries_right", "guessed": "canaries_guessed", "canaries": "canaries"}
"""The counts of an audit, and the columns of a peer's last row that hold them."""


def privacy(settings: Scenario, rows: Sequence[Row], reached: int | None) -> Privacy | None:
    """The epsilon of all peers at the end, and what it is worth; None where none is private.

    `rows` are in the order of rounds. `reached` is the round in which the target was: `to_target` is the largest
    epsilon by its end. `claimed` is epsilon by a paper's reckoning, where a defence knows one that does not hold.
    Peers that died count too, as of their last row: what they sent is sent.
    """
    spent = _last(rows, "epsilon")
    if not spent:
        return None
    defence = next((choice.value for choice in settings.defences if hasattr(choice.value, "delta")), None)
    delta = getattr(defence, "delta", None)
    claimed = _last(rows, "epsilon_claimed")
    by_target = _last([row for row in rows if row["round"] <= (reached or 0)], "epsilon")
    found: Privacy = {
        "epsilon": _over_peers(spent),
        "claimed": _over_peers(claimed) if claimed else None,
        "to_target": max(by_target.values(), default=None),
        "delta": delta,
        "unit": getattr(defence, "unit", "example"),
        "accountant": ", ".join(sorted({*_last(rows, "epsilon_by").values()})) or None,
        "replayable": settings.seed is not None,
        "audit": _audit(rows, delta or 0.0),
        "spent_out": sorted({row["peer"] for row in rows if row.get("budget_spent")}, key=_order) or None,
    }
    return {key: value for key, value in found.items() if value is not None}


def _over_peers(spent: Mapping[int | str, float]) -> Privacy:
    return {"mean": sum(spent.values()) / len(spent), "max": max(spent.values())}


def _last(rows: Iterable[Row], column: str) -> dict[int | str, Any]:
    """What each peer said last in a column; nothing of those that never did."""
    return {row["peer"]: row[column] for row in rows if row.get(column) is not None}


def _order(peer: int | str) -> int:
    """Peers by their numbers, a hub first."""
    return -1 if isinstance(peer, str) else peer


def _audit(rows: Sequence[Row], delta: float) -> Privacy | None:
    """The counts of all peers together, and the largest epsilon that they refute at 95 %."""
    counts = {name: sum(_last(rows, column).values()) for name, column in AUDITED.items()}
    if not counts["canaries"]:
        return None
    from p2pfl.defences._audit import lower_bound  # only where there is an audit

    return {"epsilon": lower_bound(counts["canaries"], counts["guessed"], counts["right"], delta), **counts}
