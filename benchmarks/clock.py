"""What a process has used: CPU time of all its threads, and memory. Linux."""

from __future__ import annotations

import ctypes
import os
import threading
import time
from pathlib import Path

LONG = 0.1
"""Seconds beyond which a tick of the process clock is no more than 10 %."""


class Stopwatch:
    """Measures from its creation on. The thread's own clock is read next to what is measured: asking for those of the
    others takes as long as a small kernel, which would be counted."""

    def __init__(self) -> None:
        self.others, self.process = cpu_seconds_of_others(), time.process_time()
        self.start, self.own = time.perf_counter(), time.thread_time()

    def stop(self) -> tuple[float, float]:
        """CPU and wall seconds. Threads that have begun and ended meanwhile are counted where there were more than
        LONG seconds: only the process clock knows them."""
        own, wall = time.thread_time() - self.own, time.perf_counter() - self.start
        process = time.process_time() - self.process
        cpu = own + cpu_seconds_of_others() - self.others
        return (max(cpu, process) if wall > LONG else cpu), wall


def cpu_seconds_of_others() -> float:
    """CPU time of all living threads of this process but the one that asks, to the nanosecond.

    The process clock is up to one tick (1 to 10 ms) late on threads that are running now, those that spin included;
    the clock of a single thread is not. Its id follows from the thread id: clock_getcpuclockid(3).
    """
    total, own = 0.0, str(threading.get_native_id())
    for thread in os.listdir("/proc/self/task"):
        if thread == own:
            continue
        try:
            total += time.clock_gettime((~int(thread) << 3) | 6)
        except OSError:  # the thread has ended since it was listed
            continue
    return total


def keep_freed_memory() -> None:
    """Ask the C library (glibc; elsewhere nothing happens) to reuse large freed blocks rather than return them.

    Else every output of some MiB is mapped anew in each call, and clearing its pages is what is measured.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        trim_threshold, mmap_threshold = -1, -3
        mallopt(mmap_threshold, 1 << 30)
        mallopt(trim_threshold, (1 << 31) - 1)


def return_freed_memory() -> None:
    """Ask glibc for the opposite: every large block is mapped anew and returned at once, so that peaks can be seen."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        mmap_threshold = -3
        libc.mallopt(mmap_threshold, 1 << 16)


def restart_peak() -> int:
    """Let the peak resident size start again from what is resident now, which is returned, in bytes."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    return peak_bytes()


def peak_bytes() -> int:
    """Peak resident size of this process in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024
