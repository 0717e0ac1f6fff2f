"""How long this machine kept a process waiting for a processor. Linux only; elsewhere there is nothing to read."""

from __future__ import annotations

import os
from contextlib import suppress


class RunQueue:
    """How long the thread that made this was ready to run and did not, asked often: the file stays open."""

    def __init__(self) -> None:
        self._file: int | None = None
        with suppress(OSError):
            self._file = os.open("/proc/thread-self/schedstat", os.O_RDONLY | os.O_CLOEXEC)

    def seconds(self) -> float:
        """Since the thread started; NaN: unknown."""
        if self._file is None:
            return float("nan")
        return int(os.pread(self._file, 96, 0).split()[1]) / 1e9

    def close(self) -> None:
        """Close the file; harmless when called twice."""
        if self._file is not None:
            os.close(self._file)
        self._file = None


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
