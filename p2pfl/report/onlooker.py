"""Who looks on when a run is started from Python: at a prompt or in a notebook it is shown, in a script nothing is."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from p2pfl.messages import peer_name
from p2pfl.report import headline
from p2pfl.report.folder import read
from p2pfl.runtime.launch import Screen
from p2pfl.runtime.sweeps.sweep import Audience
from p2pfl.scenario import Scenario


@contextmanager
def watching(settings: Scenario, screen: Screen | None) -> Iterator[Screen]:
    """Within, the run is shown on the screen that was given; without one, to whoever looks on."""
    if screen is not None or not _asked_by_hand():
        yield screen or Screen()
        return
    from rich.console import Console

    from p2pfl.report.live import Live

    peers = [peer_name(peer) for peer in settings.algorithm.value.roles(settings.peers)]
    live = Live(Console(), settings.name, peers, settings.rounds, settings.evaluate.target)
    with ExitStack() as shown:
        yield Screen(lambda row: live.hear(str(row["peer"]), row), live.note, lambda: shown.enter_context(live))


@contextmanager
def watching_sweep(audience: Audience | None) -> Iterator[Audience]:
    """As `watching`, for a sweep."""
    if audience is not None or not _asked_by_hand():
        yield audience or Audience()
        return
    from rich.console import Console

    from p2pfl.report.live_sweep import LiveSweep

    with LiveSweep(Console()) as live:
        yield Audience(live.begin, live.hear)


def conclude(folder: Path, screen: Screen | None) -> None:
    """Say what a run came to, and where its report is, if it was shown."""
    if screen is None and _asked_by_hand():
        from rich.console import Console
        from rich.text import Text

        from p2pfl.report.live import printable

        console = Console()
        for said in (headline.sentence(read(folder)), str(folder / "report.html")):
            console.print(Text(printable(said)), soft_wrap=not console.is_jupyter)


def _asked_by_hand() -> bool:
    """Whether somebody sits at the prompt of Python, or at a notebook, and not in front of a script."""
    if not (hasattr(sys, "ps1") or sys.flags.interactive):
        return False
    return sys.stdout.isatty() or "ipykernel" in sys.modules
