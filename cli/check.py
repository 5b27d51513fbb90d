"""`p2pfl check`: what a scenario comes to, without starting anything."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from . import _contracts, _options, _words

if TYPE_CHECKING:
    from p2pfl.runtime.sweeps.matrix import Sweep
    from p2pfl.scenario import Scenario


@click.command()
@click.argument("file", required=False, shell_complete=_words.scenarios)
@_options.sets
@_options.allow_code
@click.option(
    "--plugins",
    "folder",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Test the plug-ins in DIR against the contracts of their rooms, which runs their code; FILE may name them.",
)
@click.pass_context
def check(ctx: click.Context, file: str | None, sets: tuple[str, ...], allow_code: bool, folder: Path | None) -> None:
    """Validate a scenario; show its defaults and its figures."""
    from p2pfl import scenario as door
    from p2pfl.report import visibility_figures
    from p2pfl.runtime.sweeps.matrix import cases

    if folder is not None and not _contracts.kept(folder):
        ctx.exit(2)
    if file is None:
        if folder is None:
            raise click.UsageError("Missing argument 'FILE'.")
        return
    if folder is None:
        door.allow_code(file, allow_code)
    if (sweep := cases(file, sets)) is not None:
        return outline(sweep)
    with door.located(file, sets):
        scenario = door.read(file, sets)
        parameters, numbers = sizes(scenario)
    rows = [("scenario", f"{scenario.name} {door.digest(scenario)}"), *figures(scenario)]
    rows += [("parameters", f"{parameters:,}"), ("numbers in a message", f"{numbers:,}"), *traffic(scenario, numbers)]
    rows += mail(scenario)
    rows += visibility_figures.figures(scenario)
    click.echo(door.dump(scenario))
    width = max(len(label) for label, _ in rows)
    for label, value in rows:
        click.echo(f"{label:<{width}}  {value}")


def outline(sweep: Sweep) -> None:
    """Say what cases a sweep has, once all of them are known to be possible. Raises ScenarioError."""
    from p2pfl.runtime.sweeps.matrix import label
    from p2pfl.runtime.sweeps.sweep import survey

    survey(sweep.settings)
    tried = sum(candidate.trial is not None for setting in sweep.settings for candidate in setting.candidates)
    click.echo(f"sweep     {sweep.name} {sweep.digest}")
    click.echo(f"settings  {len(sweep.settings):,}" + (f", tuned by {tried:,} runs" if tried else ""))
    click.echo(f"cases     {len(sweep.cases):,}")
    for case in sweep.cases:
        values = {key: value for key, value in case.settings.items() if key not in sweep.tuned}
        click.echo(f"{case.number:>8}  {label(values) or sweep.name}")


def sizes(scenario: Scenario) -> tuple[int, int]:
    """D parameters of the model on these data, and S numbers of its sketch. Raises ScenarioError."""
    from p2pfl.runtime.survey import insist
    from p2pfl.runtime.world import World
    from p2pfl.seeds import Seeds

    world = World(scenario, Seeds.of(scenario.seed))
    insist(world)
    return sum(slot.size for slot in world.layout), world.pair.size


def figures(scenario: Scenario) -> list[tuple[str, str]]:
    """The figures of the peer graph, and of its rounds where its links change, as labels and values."""
    from p2pfl import scenario as door
    from p2pfl.report import graph_figures
    from p2pfl.seeds import Seeds

    root = Seeds.of(scenario.seed)
    rounds = door.graphs(scenario, root) if door.varies(scenario) else ()
    return graph_figures.figures(graph_figures.Seen(scenario.topology.name, door.graph(scenario, root), rounds))


def traffic(scenario: Scenario, numbers: int) -> list[tuple[str, str]]:
    """Expected bytes of parameters a round, where the algorithm can tell, as labels and values."""
    from statistics import fmean

    from p2pfl.scenario import graphs
    from p2pfl.seeds import Seeds

    if not hasattr(scenario.algorithm.value, "vectors"):
        return []
    drawn, *others = graphs(scenario, Seeds.of(scenario.seed))
    vectors = fmean(scenario.algorithm.value.vectors(tuple(each.edges)) for each in (drawn, *others))
    round_bytes = 4 * numbers * vectors
    return [
        ("expected bytes a round", f"{round_bytes:,.0f}"),
        ("expected bytes a round and peer", f"{round_bytes / len(drawn):,.0f}"),
    ]


def mail(scenario: Scenario) -> list[tuple[str, str]]:
    """How much mail a run keeps at most, and of whom, as label and value; nothing where it keeps none."""
    from p2pfl.runtime import capture
    from p2pfl.runtime.world import World
    from p2pfl.seeds import Seeds

    said = capture.notice(World(scenario, Seeds.of(scenario.seed)))
    return [("mail kept", said)] if said else []
