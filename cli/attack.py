"""`p2pfl attack`: work on the mail that a run kept, at any time after it, without learning again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import _words

if TYPE_CHECKING:
    import rich.console
    import rich.status
    import rich.table

    from p2pfl.messages import Message

STOPPED = 130
COLUMNS = {
    **{"victim": "victim", "round": "round", "reading": "reading", "psnr_db": "PSNR", "ssim": "SSIM", "mse": "MSE"},
    **{"recovered": "found", "label_accuracy": "labels", "auc": "AUC", "seconds": "took"},
}
"""What the table shows of a finding, where any has it, and how that is called there."""


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("file", shell_complete=_words.entries)
@click.option(
    "--as",
    "peers",
    metavar="PEER",
    multiple=True,
    required=True,
    shell_complete=_words.keepers,
    help="Who attacks: a peer whose mail the run kept, or hub. Several share what they know.",
)
@click.option("--device", default="auto", metavar="NAME", help="Where it computes: auto, cpu, cuda or cuda:1.")
@click.option(
    "--set",
    "sets",
    multiple=True,
    metavar="KEY=VALUE",
    shell_complete=_words.attack_settings,
    help="Override a key of FILE, as in seconds=30.",
)
@click.option("--allow-code", is_flag=True, help="Let the plug-ins that RUN kept in its plugins/ run as your code.")
@click.pass_context
def attack(
    ctx: click.Context,
    run: Path,
    file: str,
    peers: tuple[str, ...],
    device: str,
    sets: tuple[str, ...],
    allow_code: bool,
) -> None:
    """Attack the run in the folder RUN from the mail that it kept, as FILE says, and write its report anew.

    FILE is one entry of a scenario's 'attacks', without 'peers': {attack: {idlg: {}}, rounds: [1, 5], victims: [2]}.
    """
    import rich.console

    from p2pfl.report import page
    from p2pfl.runtime import asked

    raid = asked.prepared(run, peers, file, sets, device, allow_code)
    console = rich.console.Console()
    with console.status("reading the mail") as status:
        outcome = raid.run(lambda _, message: show(console, status, message))
    if outcome.entries:
        console.print(table(outcome.entries))
    if outcome.stopped:
        click.echo("stopped before the end; what was found is kept")
    click.echo(f"{run}: open {page.write(run)}")
    ctx.exit(STOPPED if outcome.stopped else 0)


def show(console: rich.console.Console, status: rich.status.Status, message: Message) -> None:
    """How far the attack is, in one line that changes; each finding in a line of its own."""
    from rich.markup import escape

    from p2pfl.report.live import printable

    told: Any = message.figures.get("spied")
    if told is None:
        figures: Any = message.figures
        loss = figures["loss"]
        beside = "" if loss is None else f", loss {loss:.3g}"
        status.update(escape(printable(f"{figures['about']}: {100 * figures['done']:.0f} %{beside}")))
        return
    said = told.get("failed") or told.get("why") or told.get("reading") or "nothing can be read"
    line = f"{told['method']} on peer {told['victim']}, round {message.round}: {said}"
    console.print(escape(printable(line)), highlight=False, soft_wrap=True)


def table(entries: Any) -> rich.table.Table:
    """The findings with what they are worth."""
    import rich.box
    import rich.table
    from rich.text import Text

    from p2pfl.report.units import humane

    shown = [key for key in COLUMNS if any(key in entry for entry in entries)]
    made = rich.table.Table(box=rich.box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for key in shown:
        made.add_column(COLUMNS[key], no_wrap=True)
    for entry in entries:
        made.add_row(*(Text(humane(key, entry[key]) if key in entry else "") for key in shown))
    return made
