"""The command line: one file per verb, found by listing the folder and imported when it is needed; no logic."""

from __future__ import annotations

import importlib
import os
import pkgutil
import time
from typing import Any

import click

from p2pfl.errors import P2PFLError, ScenarioError

BORN_S = time.time()
"""When this launcher was born, an interpreter's start (some 20 ms) earlier."""

ASKED = "_P2PFL_COMPLETE"
"""What a shell sets in the environment when it asks for completions: click's name for it."""


class Verbs(click.Group):
    """The verbs are the files of this folder; what the user did wrong is one line and exit code 2."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run the command line, or tell a shell how it may go on."""
        if ASKED in os.environ:
            from . import _shells

            _shells.ready()
        else:
            from . import _unrelated

            _unrelated.ready()
        return super().main(*args, **kwargs)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of the files."""
        return sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command that the file of this name holds."""
        if cmd_name not in self.list_commands(ctx):
            return None
        held = vars(importlib.import_module(f".{cmd_name}", __name__)).values()
        return next(value for value in held if isinstance(value, click.Command))

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        """The verb and its arguments; ends with the nearest name when there is no such verb."""
        verbs = self.list_commands(ctx)
        if args and not args[0].startswith("-") and args[0] not in verbs and not ctx.resilient_parsing:
            from p2pfl.plugins import nearest

            raise ScenarioError(f"no verb {args[0]!r}", nearest(args[0], verbs))
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the verb."""
        try:
            return super().invoke(ctx)
        except P2PFLError as error:
            click.echo(str(error), err=True)
            ctx.exit(2 if isinstance(error, ScenarioError) else 3)
        except BrokenPipeError:  # whoever read it has enough: click ends quietly
            raise
        except OSError as error:
            click.echo(f"the system refused: {error}", err=True)
            ctx.exit(3)
        except KeyboardInterrupt:
            click.echo("stopped", err=True)
            ctx.exit(130)


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="p2pfl-zmq", prog_name="p2pfl")
def main() -> None:
    """Decentralised learning and its security, run for real."""
