"""Long time slices for the threads that compute: with more peers than cores, each switch costs a cache full of model.

Linux lets a thread ask for its slice (sched_setattr(2), since 6.12; older kernels ignore it). The threads that talk
keep the short one, and with it the right to go first. Eight peers' steps on two cores took 0.86 of the time with it.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import sys

SLICE_NS = 100_000_000
CALLS = {"x86_64": 314, "aarch64": 274}
"""The number of sched_setattr, by machine: glibc has no function for it."""


def take_long() -> None:
    """Ask for a long slice for the calling thread; where that cannot be had, nothing changes."""
    number = CALLS.get(platform.machine())
    if sys.platform != "linux" or number is None:
        return
    size, policy, flags, priority = 56, os.SCHED_OTHER, 0, 0  # struct sched_attr of linux/sched/types.h
    attributes = struct.pack("=IIQiIQQQII", size, policy, flags, os.nice(0), priority, SLICE_NS, 0, 0, 0, 0)
    ctypes.CDLL(None).syscall(number, 0, ctypes.create_string_buffer(attributes, size), 0)
