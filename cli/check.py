"""`p2pfl check`: what a scenario comes to, without starting anything."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from p2pfl.scenario import Scenario


@click.command()
@click.argument("file")
@click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="Override a key, as in training.lr=0.1.")
def check(file: str, sets: tuple[str, ...]) -> None:
    """Validate a scenario; show its defaults and its figures."""
    from p2pfl import scenario as door

    with door.located(file, sets):
        scenario = door.read(file, sets)
        parameters, numbers = sizes(scenario)
    rows = [("scenario", f"{scenario.name} {door.digest(scenario)}"), *figures(scenario)]
    rows += [("parameters", f"{parameters:,}"), ("numbers in a message", f"{numbers:,}"), *traffic(scenario, numbers)]
    click.echo(door.dump(scenario))
    width = max(len(label) for label, _ in rows)
    for label, value in rows:
        click.echo(f"{label:<{width}}  {value}")


def sizes(scenario: Scenario) -> tuple[int, int]:
    """D parameters of the model on these data, and S numbers of its sketch. Raises ScenarioError."""
    from p2pfl.runtime.world import World
    from p2pfl.seeds import Seeds

    world = World(scenario, Seeds.of(scenario.seed))
    world.survey()
    return sum(slot.size for slot in world.layout), scenario.sketch.value.bind(world.layout).size


def figures(scenario: Scenario) -> list[tuple[str, str]]:
    """The figures of the peer graph, as labels and values."""
    import networkx as nx

    from p2pfl.mixing import spectral_gap
    from p2pfl.scenario import graph

    drawn = graph(scenario)
    degrees = [degree for _, degree in drawn.degree]
    return [
        ("peers", f"{len(drawn):,}" + (" with the hub" if len(drawn) > scenario.peers else "")),
        ("links", f"{drawn.number_of_edges():,}"),
        ("degree", f"min {min(degrees)}, mean {sum(degrees) / len(degrees):.4g}, max {max(degrees)}"),
        ("diameter", f"{nx.diameter(drawn)}"),
        ("spectral gap", f"{spectral_gap(drawn):.4g}"),
    ]


def traffic(scenario: Scenario, numbers: int) -> list[tuple[str, str]]:
    """Expected bytes of parameters a round, where the algorithm can tell, as labels and values."""
    from p2pfl.scenario import graph

    if not hasattr(scenario.algorithm.value, "vectors"):
        return []
    drawn = graph(scenario)
    round_bytes = 4 * numbers * scenario.algorithm.value.vectors(tuple(drawn.edges))
    return [
        ("expected bytes a round", f"{round_bytes:,.0f}"),
        ("expected bytes a round and peer", f"{round_bytes / len(drawn):,.0f}"),
    ]
