"""How long this machine kept a process waiting for a processor. Linux only; elsewhere there is nothing to read."""

from __future__ import annotations

import os
from contextlib import suppress


def run_queue_s() -> float:
    """Seconds that this thread was ready to run and did not, since it started; NaN: unknown.

    From ``/proc/thread-self/schedstat``.
    """
    with suppress(OSError, ValueError, IndexError), open("/proc/thread-self/schedstat", encoding="ascii") as file:
        return int(file.read().split()[1]) / 1e9
    return float("nan")


def steal_s() -> float:
    """Seconds, of all processors together, that the machine below this one took for others (``/proc/stat``); NaN:
    unknown.
    """
    with suppress(OSError, ValueError, IndexError, AttributeError), open("/proc/stat", encoding="ascii") as file:
        return int(file.readline().split()[8]) / os.sysconf("SC_CLK_TCK")
    return float("nan")
