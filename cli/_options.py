"""Options that several verbs share."""

from __future__ import annotations

import click

from . import _words

sets = click.option(
    "--set",
    "sets",
    multiple=True,
    metavar="KEY=VALUE",
    shell_complete=_words.settings,
    help="Override a key, as in training.lr=0.1.",
)
allow_code = click.option(
    "--allow-code", is_flag=True, help="Let plug-ins in the folder plugins/ beside FILE run as your code."
)
