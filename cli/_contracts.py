"""The contracts of the rooms on the plug-ins of a folder, by line or as a table: what `p2pfl check --plugins` shows."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from p2pfl.conformance.findings import Finding


def kept(folder: Path) -> bool:
    """Run every check on every plug-in in `folder`, and show what came of it. Whether none failed.

    Raises ScenarioError where there is no plug-in.
    """
    from p2pfl import own_code, plugins
    from p2pfl.errors import ScenarioError

    if not folder.is_dir():
        raise ScenarioError(f"no folder {str(folder)!r}", "give the one that holds a folder a room", where="--plugins")
    plugins.adopt(folder)
    if not (named := own_code.named()):
        remedy = f"put them into the folders of their rooms: {', '.join(plugins.ROOMS)}"
        raise ScenarioError(f"{str(folder)!r} holds no plug-in", remedy, where="--plugins")
    show = table if sys.stdout.isatty() else lines
    verdicts = [finding.verdict for finding in show(named)]
    failed = verdicts.count("failed")
    click.echo(f"{len(named)} plug-ins, {len(verdicts)} checks, {failed} failed")
    return failed == 0


def found(named: tuple[tuple[str, str], ...]) -> Iterator[Finding]:
    """What comes of every check, as it comes."""
    from p2pfl.conformance.findings import findings

    for room, name in named:
        yield from findings(room, name)


def lines(named: tuple[tuple[str, str], ...]) -> Iterator[Finding]:
    """A line each."""
    width = max(len(f"{room}/{name}.py") for room, name in named)
    for finding in found(named):
        click.echo(f"{f'{finding.room}/{finding.name}.py':<{width}}  {said(finding)}  {verdict(finding)}")
        yield finding


def table(named: tuple[tuple[str, str], ...]) -> Iterator[Finding]:
    """A table that grows."""
    from rich.live import Live
    from rich.table import Table
    from rich.text import Text

    drawn = Table("plug-in", "contract", "", expand=False)
    colours = {"ok": "green", "failed": "red", "skipped": "yellow"}
    with Live(drawn, vertical_overflow="visible"):
        for finding in found(named):
            told = Text(verdict(finding), colours[finding.verdict])
            drawn.add_row(Text(f"{finding.room}/{finding.name}.py"), Text(said(finding)), told)
            yield finding


def said(finding: Finding) -> str:
    """The sentence, and the options it was said of where these are not the defaults."""
    return finding.sentence + (f", as {finding.options}" if finding.options else "")


def verdict(finding: Finding) -> str:
    """`ok`, or what is wrong."""
    return finding.verdict + (f": {finding.why}" if finding.why else "")
