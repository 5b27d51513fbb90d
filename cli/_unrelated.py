"""The unrelated project called p2pfl: both it and ours own the package and the command of that name.

Whichever is installed last overwrites files of the other, and whichever is removed takes some of the other's along.
Looking costs a list of the folders that Python imports from; nothing more is imported unless it is found.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import click

OURS, THEIRS = "p2pfl-zmq", "p2pfl"
REMEDY = f"run 'pip uninstall {THEIRS}', then install {OURS} again"


def ready() -> None:
    """Say in one line that it is there; exit with code 2 where it has broken ours."""
    theirs = f"the unrelated distribution {THEIRS} {version}" if (version := _version()) else ""
    if (broken := _package()) or (broken := next(_overwritten(), "") if theirs else ""):
        who = f", overwritten by {theirs}" if theirs else ""
        click.echo(f"{broken} is not that of {OURS}{who}: {REMEDY}", err=True)
        sys.exit(2)
    if theirs:
        where = "is installed beside ours, and has the same package and command"
        click.echo(f"{theirs} {where}: {REMEDY}", err=True)


def _version() -> str:
    """The version of theirs that lies in a folder that Python imports from; empty if there is none."""
    for folder in sys.path:
        try:
            found = os.listdir(folder or ".")
        except OSError:  # a zip file, or no folder at all
            continue
        for name in found:
            if name.startswith(f"{THEIRS}-") and name.endswith((".dist-info", ".egg-info")):
                return name.removeprefix(f"{THEIRS}-").rpartition(".")[0].partition("-")[0]
    return ""


def _package() -> str:
    """What is wrong with the package that holds this file: the path of its first file; empty if nothing is."""
    package = sys.modules[THEIRS]
    if hasattr(package, "launch") and hasattr(package, "load"):
        return ""
    return package.__file__ or os.path.join(next(iter(package.__path__)), "__init__.py, which is missing,")


def _overwritten() -> Iterator[str]:
    """The paths of files that both say are theirs, and that are not as ours were installed."""
    import base64
    import hashlib
    from importlib import metadata  # 20 ms: only where there is something to be said
    from pathlib import Path

    shared = {str(path) for path in metadata.distribution(THEIRS).files or ()}
    for file in metadata.distribution(OURS).files or ():
        if file.hash is not None and str(file) in shared:
            there = Path(str(file.locate())).absolute()
            held = there.read_bytes() if there.is_file() else b""
            digest = base64.urlsafe_b64encode(hashlib.new(file.hash.mode, held).digest()).rstrip(b"=")
            if digest.decode() != file.hash.value:
                yield str(there)
