"""`p2pfl data`: which data sets are on this machine, and bring those that are not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

from . import _words

Row = tuple[str, str, str, str, str]


@click.command()
@click.argument("name", required=False, shell_complete=_words.datasets)
@click.option("--all", "everything", is_flag=True, help="Fetch every data set that can be fetched.")
def data(name: str | None, everything: bool) -> None:
    """Show which data sets are here; fetch and check the one of this NAME."""
    from p2pfl import plugins
    from p2pfl.errors import ScenarioError

    if name is not None and everything:
        raise click.UsageError("a name and --all exclude each other")
    if name is None and not everything:
        draw([described(each) for each in plugins.names("datasets")])
        return
    failed: list[ScenarioError] = []
    for each in plugins.names("datasets") if name is None else (name,):
        cls = plugins.find("datasets", each)
        if not hasattr(cls, "fetch"):
            _, _, state, _, how = described(each)
            click.echo(f"{each}: nothing to fetch, {state}; {how}")
            continue
        try:
            with heard() as hear:
                said = cls.fetch(hear)
            click.echo("\n".join(said))
        except ScenarioError as error:  # the next one may lie on a server that answers
            failed.append(error)
    for failure in failed[:-1]:
        click.echo(str(failure), err=True)
    if failed:
        raise failed[-1]


def described(name: str) -> Row:
    """A data set's name, what it is, whether it is here, where and how large, and what to write to have it."""
    import dataclasses
    import os

    from p2pfl import plugins
    from p2pfl.report.units import size

    cls = plugins.find("datasets", name)
    what = (cls.__doc__ or "").strip().partition("\n")[0]
    if needed := [each.name for each in plugins.options_of(cls) if plugins.default_of(each) is dataclasses.MISSING]:
        return name, what, "for files of your own", "", f"to use it: data: {{{name}: {{{needed[0]}: ...}}}}"
    use = f"to use it: data: {name}"
    if not hasattr(cls, "kept"):
        return name, what, "here, it comes along", "", use
    paths = cls.kept()
    there = [path for path in paths if path.is_file()]
    state = "here" if len(there) == len(paths) else f"{len(there)} of {len(paths)} files" if there else "not here"
    where = f"{os.path.commonpath([path.parent for path in paths])}"
    held = f" ({size(sum(path.stat().st_size for path in there))})" if there else ""
    fetch = f"to fetch {'the rest' if there else 'it'}: p2pfl data {name}"
    return name, what, state, f"{where}{held}", use if len(there) == len(paths) else fetch


def draw(rows: list[Row]) -> None:
    """A table on a terminal, plain lines elsewhere."""
    import sys

    if not sys.stdout.isatty():
        for name, what, state, where, how in rows:
            click.echo(f"{name}: {what}")
            click.echo("  " + "; ".join(part for part in (state, where, how) if part))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("name", "what it is", "is it here", "where", "what to write")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    Console().print(table)


@contextmanager
def heard() -> Iterator[Callable[[str, int, int], None]]:
    """What shows a download: a bar for each file on a terminal, else a line for each tenth of it."""
    import rich.console

    console = rich.console.Console()
    if not console.is_terminal or console.is_dumb_terminal:
        yield lines()
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TransferSpeedColumn

    bars: dict[str, TaskID] = {}
    columns = TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TransferSpeedColumn()
    with Progress(*columns, console=console) as progress:

        def hear(path: str, here: int, whole: int) -> None:
            if path not in bars:
                bars[path] = progress.add_task(path, total=whole or None)
            progress.update(bars[path], completed=here)

        yield hear


def lines() -> Callable[[str, int, int], None]:
    """Says how far a file is each time that another tenth of it is here."""
    said: dict[str, int] = {}

    def hear(path: str, here: int, whole: int) -> None:
        tenth = 10 * here // whole if whole else 0
        if said.get(path) != tenth:
            said[path] = tenth
            click.echo(f"{path}: {10 * tenth} %" if whole else f"{path}: on its way, this may take minutes")

    return hear
