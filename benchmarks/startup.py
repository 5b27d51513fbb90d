"""From the command to the first round of 64 real peers, and the memory of each.

    python benchmarks/startup.py [--repeats 3]

`startup_s` runs from the birth of the launcher to the last peer starting round 1; memory is each peer's PSS after
the last round (pages shared by k processes count 1/k), the shared server counted once by that. Beside it, so that a
slow hour shows: the time of a bare `python -c "import torch"`.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click

SETTINGS = ("peers=64", "rounds=3", "data=mnist", "model.mlp.hidden=[200,200]", "evaluate.every=3", "sketch=dense")


@click.command()
@click.option("--repeats", default=3)
def main(repeats: int) -> None:
    """Measure and print a line a repeat, then the medians."""
    found: list[tuple[float, float, float]] = []
    for _ in range(repeats):
        began_s = time.perf_counter()
        subprocess.run([sys.executable, "-c", "import torch"], check=True)
        import_s = time.perf_counter() - began_s
        with tempfile.TemporaryDirectory() as folder:
            sets = [part for setting in SETTINGS for part in ("--set", setting)]
            command = [sys.executable, "-m", "p2pfl.cli", "launch", "quickstart", *sets, "--out", f"{folder}/run"]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            summary = json.loads(Path(folder, "run", "summary.json").read_text())
        found.append((summary["startup_s"], summary["peer_memory_mb"]["median"], import_s))
        click.echo("  first round after {:.1f} s, {:.1f} MB a peer (import torch: {:.1f} s)".format(*found[-1]))
    startup_s, memory_mb, _ = (statistics.median(column) for column in zip(*found, strict=True))
    click.echo(f"startup: {startup_s:.1f} s (reach 8), {memory_mb:.1f} MB a peer (reach 35)")


if __name__ == "__main__":
    main()
