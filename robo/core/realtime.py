"""Absolute deadlines, real-time scheduling and what the machine stole. Linux; no numpy."""

from __future__ import annotations

import ctypes
import gc
import os
import time
from dataclasses import dataclass
from pathlib import Path

_CLOCK_MONOTONIC, _TIMER_ABSTIME = 1, 1
_MCL_CURRENT, _MCL_FUTURE = 1, 2


class _Timespec(ctypes.Structure):
    _fields_ = [("tv_sec", ctypes.c_long), ("tv_nsec", ctypes.c_long)]


_libc = ctypes.CDLL(None, use_errno=True)
_libc.clock_nanosleep.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.POINTER(_Timespec), ctypes.c_void_p]


def sleep_until(deadline_s: float, spin_s: float = 0.0) -> float:
    """Sleep until a time on the monotonic clock; returns the time it is then [s].

    Args:
        deadline_s: Absolute time (``time.monotonic``) [s].
        spin_s: Wake this much earlier and spin the rest; bounded, because a spinning
            thread under a real-time scheduler starves everybody else.

    A signal does not cut the sleep short, but its Python handler runs in between.
    """
    wake_s = deadline_s - spin_s
    seconds = int(wake_s)
    spec = _Timespec(seconds, int((wake_s - seconds) * 1e9))
    while _libc.clock_nanosleep(_CLOCK_MONOTONIC, _TIMER_ABSTIME, ctypes.byref(spec), None):
        pass  # interrupted by a signal
    now = time.monotonic()
    while now < deadline_s:
        now = time.monotonic()
    return now


@dataclass(frozen=True, kw_only=True)
class Scheduling:
    """What the system granted.

    Attributes:
        fifo: Whether the process runs under ``SCHED_FIFO``.
        locked: Whether its memory stays in RAM (``mlockall``).
    """

    fifo: bool
    locked: bool


def go_realtime(priority: int, fifo: bool = True) -> Scheduling:
    """Freeze the garbage collector, and ask for real-time scheduling and locked memory.

    Neither needs to be granted: without privileges the loop runs as an ordinary process.
    Processes started later do not inherit the scheduling.

    Args:
        priority: ``SCHED_FIFO`` priority, 1 .. 99.
        fifo: False asks for neither scheduling nor locking.
    """
    gc.collect()
    gc.freeze()
    gc.disable()
    if not fifo:
        return Scheduling(fifo=False, locked=False)
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(priority))
        granted = True
    except PermissionError:
        granted = False
    locked = _libc.mlockall(_MCL_CURRENT | _MCL_FUTURE) == 0
    return Scheduling(fifo=granted, locked=locked)


def go_ahead_of_others(niceness: int = -10) -> bool:
    """Ask for a larger share of the processor than ordinary processes; returns whether it was granted."""
    try:
        os.setpriority(os.PRIO_PROCESS, 0, niceness)
    except PermissionError:
        return False
    return True


def cpu_times() -> tuple[int, int]:
    """Ticks of all cores since boot: stolen by the hypervisor, and in total (proc(5), ``/proc/stat``)."""
    fields = [int(x) for x in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return fields[7], sum(fields)


def steal_fraction(before: tuple[int, int], after: tuple[int, int]) -> float:
    """Share of time, 0..1, stolen between two `cpu_times`."""
    return (after[0] - before[0]) / max(after[1] - before[1], 1)
