"""`p2pfl list`: which plug-ins there are, and their options."""

from __future__ import annotations

from pathlib import Path

import click

from . import _words

Row = tuple[str, str, str]


@click.command("list")
@click.argument("room", required=False, shell_complete=_words.rooms)
@click.option(
    "--plugins",
    "folder",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="List those of your own in DIR too, which runs their code.",
)
def show(room: str | None, folder: Path | None) -> None:
    """List plug-ins with their options, of one ROOM or of all."""
    from p2pfl import plugins
    from p2pfl.errors import ScenarioError

    plugins.adopt(folder)
    if room is not None and room not in plugins.ROOMS:
        raise ScenarioError(f"no room {room!r}", plugins.nearest(room, list(plugins.ROOMS)))
    for each in plugins.ROOMS if room is None else (room,):
        rows = [described(each, name) for name in plugins.names(each)]
        draw(each, rows)
        if also := offered_elsewhere(each, room is not None):
            click.echo(also)
        click.echo()


def described(room: str, name: str) -> Row:
    """A plug-in's name, its options as `name: type = default`, and the first line of its docstring."""
    import dataclasses

    from p2pfl import own_code, plugins

    cls = plugins.find(room, name)
    name += " (your own)" if own_code.file_of(cls) else ""
    options = []
    for option in plugins.options_of(cls):
        default = plugins.default_of(option)
        kind = plugins.kind_of(cls, option.name)
        options.append(
            f"{option.name}: {kind}" + ("" if default is dataclasses.MISSING else f" = {plugins.shown(default)}")
        )
    return name, "\n".join(options), (cls.__doc__ or "").strip().partition("\n")[0]


def offered_elsewhere(room: str, named: bool) -> str:
    """What a room offers beyond its files; with all names when it was asked for by name."""
    import importlib

    from p2pfl import plugins

    package = importlib.import_module(plugins.ROOMS[room])
    if not hasattr(package, "elsewhere_names"):
        return ""
    names = package.elsewhere_names()
    return f"also: {', '.join(names)}" if named else f"also {len(names)} more: p2pfl list {room}"


def draw(room: str, rows: list[Row]) -> None:
    """A table on a terminal, plain lines elsewhere."""
    import sys

    if not sys.stdout.isatty():
        click.echo(room)
        for name, options, doc in rows:
            click.echo(f"  {name}: {doc}")
            for line in options.splitlines():
                click.echo(f"    {line}")
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("name", "options", "what it is", title=room, title_justify="left", expand=False)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    Console().print(table)
