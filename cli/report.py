"""`p2pfl report`: write the page of a run again, or compare several, from their folders."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("folders", metavar="DIR...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--out", metavar="FILE", type=click.Path(path_type=Path), help="Where a comparison goes.")
def report(folders: tuple[Path, ...], out: Path | None) -> None:
    """Write the report of a run again, or compare runs.

    Of one run: report.html in its folder. Of several: comparison.html here, which tells what differs between them and
    how sure their figures are, and runs.csv beside it. Of a sweep: report.html and runs.csv in its folder, its cases
    side by side.
    """
    from p2pfl.report.comparison.request import answer

    for written in answer(folders, out):
        click.echo(str(written))
