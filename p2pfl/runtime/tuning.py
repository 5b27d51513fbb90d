"""What a peer's process asks of the system: to be let compute in peace, and to keep its memory.

With more peers than cores each switch between two peers costs a cache full of model: all threads of a peer ask for
SCHED_BATCH (who wakes up does not push aside who computes), and those that compute for a long time slice
(sched_setattr(2), since Linux 6.12; older kernels ignore it). On two cores a round of eight peers took 0.93 of the
time with both. It takes no privileges; where it cannot be had nothing changes.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import sys
import threading
from contextlib import suppress

SLICE_NS = 100_000_000
CALLS = {"x86_64": 314, "aarch64": 274}
"""The number of sched_setattr, by machine: glibc has no function for it."""


def be_patient() -> None:
    """For the calling thread and those it will start: do not interrupt others when woken."""
    if sys.platform == "linux":
        with suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def take_long() -> None:
    """For the calling thread: a long time slice."""
    number = CALLS.get(platform.machine())
    if sys.platform == "linux" and number is not None:
        size, policy, flags, priority = 56, os.SCHED_BATCH, 0, 0  # struct sched_attr of linux/sched/types.h
        attributes = struct.pack("=IIQiIQQQII", size, policy, flags, os.nice(0), priority, SLICE_NS, 0, 0, 0, 0)
        ctypes.CDLL(None).syscall(number, 0, ctypes.create_string_buffer(attributes, size), 0)


def give_way() -> None:
    """For the calling thread: compute only when nobody else wants to, as far as there is such a thing."""
    if sys.platform == "linux":
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)


def keep_memory() -> None:
    """Have glibc reuse freed memory instead of returning it: else every vector of every round is faulted in anew.

    Of a round of 10M parameters that was half the time. Elsewhere than on glibc nothing is done.
    """
    trim_threshold, top_pad, mmap_max, arena_max = -1, -2, -4, -8  # malloc.h
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    for option, value in ((arena_max, 1), (mmap_max, 0), (trim_threshold, 1 << 30), (top_pad, 1 << 20)):
        if mallopt is not None:
            mallopt(option, value)
