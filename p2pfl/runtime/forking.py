"""How peers become processes: forked from a server that is warm, so that each costs milliseconds and few megabytes."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import sys
import tempfile
import time
import types
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import connection, current_process, forkserver, resource_tracker
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from pathlib import Path

from p2pfl.runtime.plan import VARIABLE

NURSERY = "p2pfl.runtime.nursery"
LONGEST_TMPDIR = 70
"""What the 104 bytes of a socket's path leave, /p2pfl-12345678/listener-12345678 taken off."""


def context() -> BaseContext:
    """Forked from a warm server where there is such a thing, else spawned."""
    method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    return multiprocessing.get_context(method)


def private_folder() -> Path:
    """A new folder that only this user may enter; in /tmp where TMPDIR is too long for the path of a socket."""
    fits = len(tempfile.gettempdir()) <= LONGEST_TMPDIR
    return Path(tempfile.mkdtemp(prefix="p2pfl-", dir=None if fits else "/tmp"))


def server_pid() -> int | None:
    """The fork server's process, while it runs."""
    pid: int | None = forkserver._forkserver._forkserver_pid  # type: ignore[attr-defined]
    return pid


def stop_server() -> None:
    """End the fork server: it prepared for one plan."""
    forkserver._forkserver._stop()  # type: ignore[attr-defined]


async def joined(processes: list[BaseProcess], seconds: float) -> None:
    """Wait until all of them have ended, or the time is over."""
    until_s = time.monotonic() + seconds
    left = {process.sentinel for process in processes}
    while left and (remaining_s := until_s - time.monotonic()) > 0:
        left -= set(await asyncio.to_thread(connection.wait, left, remaining_s))


@contextmanager
def main_hidden() -> Iterator[None]:
    """Children need nothing of the caller's `__main__`: a script or notebook without a guard is not run again."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


@contextmanager
def server_prepared(plan: Path, *modules: str) -> Iterator[None]:
    """A fork server that starts within this context prepares for this plan, and imports further modules before."""
    stop_server()  # one that prepared for another
    multiprocessing.set_forkserver_preload([*modules, NURSERY])
    before = {name: os.environ.get(name) for name in (VARIABLE, "PYTHONSAFEPATH")}
    os.environ |= {VARIABLE: str(plan), "PYTHONSAFEPATH": "1"}  # no module is taken from where the user stands
    kept = current_process()._config  # type: ignore[attr-defined]
    elsewhere = kept.get("tempdir")
    kept["tempdir"] = str(plan.parent)  # where the server's own socket will lie
    try:
        resource_tracker.ensure_running()  # first, since it unblocks what is blocked
        heard = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # a terminal sends Ctrl-C to all
        try:
            forkserver.ensure_running()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, heard)
        yield
    finally:
        kept["tempdir"] = elsewhere
        multiprocessing.set_forkserver_preload([])
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


@contextmanager
def many_descriptors() -> Iterator[None]:
    """Within, this process and its children may open as many files as the system lets them: a hub needs many."""
    import resource  # not everywhere

    before, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    for limit in (most, 65_536, 10_240):  # macOS says there is no limit, and refuses to be asked for none
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(limit, before) if limit > 0 else limit, most))
            break
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (before, most))
