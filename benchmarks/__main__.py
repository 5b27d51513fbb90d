"""All measurements against their limits, one after the other: `python benchmarks`. Takes about ten minutes.

MNIST must be where P2PFL_DATA says. Every figure is a ratio, or is measured beside its limit in the same minutes; the
machine should have nothing else to do. `python benchmarks/modes.py FILE` measures accuracy, and takes an hour.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
SCRIPTS = (
    ("rounds.py", "small"),
    ("rounds.py", "large", "--repeats", "3"),
    ("startup.py",),
    ("transport.py",),
    ("scale.py",),
    ("sketches.py",),
    ("private.py",),
)


def seconds(*command: str) -> float:
    """The median time of five runs of a command."""
    found = []
    for _ in range(5):
        began_s = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        found.append(time.perf_counter() - began_s)
    return statistics.median(found)


def main() -> None:
    """Run everything, each in a process of its own."""
    bare_s = seconds(sys.executable, "-c", "pass")
    help_s = seconds(sys.executable, "-m", "p2pfl.cli", "--help")
    print(f"p2pfl --help: {help_s:.2f} s (reach 0.3), of which {bare_s:.2f} s are Python's own", flush=True)
    for script in SCRIPTS:
        print(f"\n== {' '.join(script)}", flush=True)
        subprocess.run([sys.executable, str(HERE / script[0]), *script[1:]], check=True)


if __name__ == "__main__":
    main()
