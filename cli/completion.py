"""`p2pfl completion`: the script by which a shell completes the command."""

from __future__ import annotations

import click


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the script by which a shell completes p2pfl.

    It completes verbs, options, scenarios, engines, and the keys and values of --set. Where it belongs:

    \b
    bash  p2pfl completion bash > ~/.local/share/bash-completion/completions/p2pfl
          or, in ~/.bashrc:  eval "$(p2pfl completion bash)"
    zsh   in ~/.zshrc, after compinit:  eval "$(p2pfl completion zsh)"
    fish  p2pfl completion fish > ~/.config/fish/completions/p2pfl.fish

    The first two take effect in the next shell.
    """
    from click.shell_completion import get_completion_class

    from . import ASKED, _shells

    _shells.ready()
    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(ctx.find_root().command, {}, "p2pfl", ASKED).source(), nl=False)
