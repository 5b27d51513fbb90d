"""`p2pfl report`: write the page of a run again, from its folder."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
def report(folder: Path) -> None:
    """Write the report of a run again, from its folder."""
    from p2pfl.report.page import write

    click.echo(f"{write(folder)}")
