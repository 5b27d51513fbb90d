"""`p2pfl launch`: run a scenario for real, and leave a folder with its figures and pictures."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import BORN_S, _options, _words

if TYPE_CHECKING:
    from p2pfl.runtime.sweeps.sweep import SweepRecord
    from p2pfl.scenario import Scenario

CRASHED, STOPPED = 3, 130


@click.command()
@click.argument("file", shell_complete=_words.scenarios)
@click.option("--out", type=click.Path(path_type=Path), help="Where to leave the run; else a new folder in runs/.")
@_options.sets
@click.option(
    "--engine",
    metavar="NAME",
    shell_complete=_words.engines,
    help="What runs the peers: local (processes), simulate or inproc.",
)
@_options.allow_code
@click.option("--jobs", type=click.IntRange(min=1), default=1, metavar="N", help="Of a sweep: cases that run at once.")
@click.option("--case", type=int, metavar="K", help="Of a sweep: run just the K-th case, as in a job array.")
@click.option("--retry/--no-retry", default=True, help="Of a sweep: whether cases that failed before run again.")
@click.pass_context
def launch(
    ctx: click.Context,
    file: str,
    out: Path | None,
    sets: tuple[str, ...],
    engine: str | None,
    allow_code: bool,
    jobs: int,
    case: int | None,
    retry: bool,
) -> None:
    """Run a scenario: a file, or the name of one that comes along. With a matrix it is a sweep: the same command goes
    on where it was stopped.
    """
    import p2pfl
    from p2pfl import scenario as door
    from p2pfl.runtime.sweeps.matrix import is_sweep

    sets += () if engine is None else (f"engine={engine}",)
    door.allow_code(file, allow_code)
    run = partial(
        p2pfl.launch, file, out, sets, born_s=BORN_S, allow_code=allow_code, jobs=jobs, case=case, retry=retry
    )
    ctx.exit(sweep(run, case) if is_sweep(file, sets) else one(run, door.read(file, sets)))


def one(run: Callable[..., Any], scenario: Scenario) -> int:
    """Run a scenario, and show it as it goes; the exit code."""
    import rich.console

    from p2pfl.messages import peer_name
    from p2pfl.report.live import Live, table
    from p2pfl.runtime.launch import Screen

    peers = [peer_name(peer) for peer in scenario.algorithm.value.roles(scenario.peers)]
    console = rich.console.Console()
    live = Live(console, scenario.name, peers, scenario.rounds, scenario.evaluate.target)
    with ExitStack() as shown:
        hear = Screen(lambda row: live.hear(str(row["peer"]), row), live.note, lambda: shown.enter_context(live))
        record = run(screen=hear)
    console.print(table(record.summary))
    if reason := record.summary.get("ended_by"):
        click.echo(f"ended after round {record.summary['rounds']} of {scenario.rounds}, as 'stop' says: {reason}")
    if record.stopped:
        click.echo(f"stopped before the end; what was recorded is kept in {record.folder}")
    if record.crashed:
        names = ", ".join(peer_name(peer) for peer in record.crashed)
        click.echo(f"crashed: peer {names}; the traceback is in {record.folder / 'log.txt'}")
    click.echo(f"{record.folder}: open {record.folder / 'report.html'}, or run 'p2pfl report {record.folder}' again")
    return CRASHED if record.crashed else STOPPED if record.stopped else 0


def sweep(run: Callable[..., Any], case: int | None) -> int:
    """Run a sweep, or the one `case` of it, and show it as it goes; the exit code."""
    import rich.console

    from p2pfl.report.comparison import edges
    from p2pfl.report.live_sweep import LiveSweep
    from p2pfl.runtime.sweeps.sweep import Audience

    with LiveSweep(rich.console.Console()) as live:
        record = run(audience=Audience(live.begin, live.hear))
    for number, reason in record.failed.items():
        click.echo(f"case {number} failed: {reason}")
    if case is not None and case not in record.failed:
        before = not any(news.job.case.number == case and not news.job.trial for news in live.over)
        click.echo(f"case {case} {came_to(record, before)}")
    if said := edges.sentence(record.ledger.index()):
        click.echo(said)
    found = f"{record.finished} of {len(record.ledger.sweep.cases)} cases are finished"
    if record.stopped:
        click.echo(f"stopped: {found}; the same command goes on")
    page = record.folder / "report.html"
    click.echo(f"{record.folder}: {found}" + (f", open {page}" if page.is_file() else ""))
    return STOPPED if record.stopped else CRASHED if record.failed else 0


def came_to(record: SweepRecord, before: bool) -> str:
    """What became of the one case that was asked for, if it did not fail; `before` this call, or now."""
    if not record.cases:
        return "is not finished"
    return f"{'was finished before' if before else 'is finished'}, in {record.cases[0].folder}"
