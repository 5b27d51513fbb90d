"""`p2pfl schema`: the JSON Schema of a scenario, for editors."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE", help="Write it there, not to the screen.")
def schema(out: Path | None) -> None:
    """Print the JSON Schema of a scenario, for editors.

    With 'p2pfl schema --out scenario.json', an editor that speaks the YAML language server (VS Code with its YAML
    extension, Neovim, Emacs and others) completes, explains and checks every scenario that begins with the line

    \b
    # yaml-language-server: $schema=scenario.json

    the file being named as seen from the scenario. Write it again when plug-ins are added.
    """
    import json

    from p2pfl.errors import ScenarioError
    from p2pfl.schema import document

    text = json.dumps(document(), indent=2)
    if out is None:
        click.echo(text)
        return
    try:
        out.write_text(text + "\n")
    except OSError as error:
        problem = f"cannot write the schema to {str(out)!r}, {error.strerror}"
        raise ScenarioError(problem, "name another file", where="--out") from None
    click.echo(f"{out}: begin a scenario beside it with '# yaml-language-server: $schema={out.name}'")
