"""`p2pfl topology`: the figures of a peer graph, and a picture of it, before any scenario is written."""

from __future__ import annotations

from pathlib import Path

import click

from . import _words

SOME = click.IntRange(min=1)


@click.command()
@click.argument("spec", shell_complete=_words.topologies)
@click.option("--peers", type=click.IntRange(1, 10_000), help="How many; else 8, or those that a graph file names.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of random graphs; as a scenario's.")
@click.option("--rounds", type=SOME, help="How many are looked at of a graph that changes; else 20.")
@click.option("--parameters", type=SOME, default=100_000, show_default=True, help="Of the model, to count bytes.")
@click.option("--out", type=click.Path(path_type=Path), help="Draw the graph into this .png, .svg or .pdf file.")
def topology(spec: str, peers: int | None, seed: int, rounds: int | None, parameters: int, out: Path | None) -> None:
    """Show what a peer graph comes to, and draw it.

    SPEC is a family ('torus'), one with options ('{small_world: {k: 4, p: 0.2}}'), or the path of a graph file.
    """
    from p2pfl.topologies import chosen

    from p2pfl.report import graph_figures, visibility_figures
    from p2pfl.scenario import LOOKED_AT

    seen = graph_figures.look(chosen(spec), peers, seed, rounds or LOOKED_AT)
    rows = graph_figures.figures(seen) + visibility_figures.of_graph(seen)
    if out is not None:
        from p2pfl.report import graph_drawing

        graph_drawing.write(seen, rows, out)
    click.echo(graph_figures.aligned(rows + graph_figures.traffic(seen, parameters)))
    if out is not None:
        click.echo(f"drawn into {out}")
