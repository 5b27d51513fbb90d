"""`p2pfl launch`: run a scenario for real, and leave a folder with its figures and pictures."""

from __future__ import annotations

from pathlib import Path

import click

from . import BORN_S

CRASHED, STOPPED = 3, 130


@click.command()
@click.argument("file")
@click.option("--out", type=click.Path(path_type=Path), help="Where to leave the run; else a new folder in runs/.")
@click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="Override a key, as in training.lr=0.1.")
@click.option("--engine", metavar="NAME", help="What runs the peers: local (processes), simulate or inproc.")
@click.pass_context
def launch(ctx: click.Context, file: str, out: Path | None, sets: tuple[str, ...], engine: str | None) -> None:
    """Run a scenario: a file, or the name of one that comes along."""
    import rich.console

    import p2pfl
    from p2pfl import scenario as door
    from p2pfl.messages import peer_name
    from p2pfl.report.live import Live, table
    from p2pfl.runtime.launch import Screen

    sets += () if engine is None else (f"engine={engine}",)
    scenario = door.read(file, sets)
    peers = [peer_name(peer) for peer in scenario.algorithm.value.roles(scenario.peers)]
    console = rich.console.Console()
    with Live(console, scenario.name, peers, scenario.rounds, scenario.evaluate.target) as live:
        screen = Screen(lambda row: live.hear(str(row["peer"]), row), live.note)
        record = p2pfl.launch(file, out, sets, screen, BORN_S)
    console.print(table(record.summary))
    if record.stopped:
        click.echo(f"stopped before the end; what was recorded is kept in {record.folder}")
    if record.crashed:
        names = ", ".join(peer_name(peer) for peer in record.crashed)
        click.echo(f"crashed: peer {names}; the traceback is in {record.folder / 'log.txt'}")
    click.echo(f"{record.folder}: open {record.folder / 'report.html'}, or run 'p2pfl report {record.folder}' again")
    ctx.exit(CRASHED if record.crashed else STOPPED if record.stopped else 0)
