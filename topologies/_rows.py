"""How many rows and columns so many peers make."""

from __future__ import annotations

import math

from p2pfl.errors import ScenarioError


def shape(rows: int | None, peers: int) -> tuple[int, int]:
    """Rows and columns; without `rows` as square as the peers allow (a prime number of them is one row).

    Raises ScenarioError when the peers do not fill so many rows.
    """
    if rows is None:
        rows = next(part for part in range(math.isqrt(peers), 0, -1) if peers % part == 0)
    if peers % rows:
        below, above = peers - peers % rows, peers - peers % rows + rows
        nearest = f"{below} or {above}" if below else f"{above}"
        remedy = f"take {nearest} peers, or leave rows out"
        raise ScenarioError(f"rows is {rows}, which {peers} peers do not fill", remedy, ("rows",))
    return rows, peers // rows
