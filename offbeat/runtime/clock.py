"""Time as a port: whoever measures or waits is handed a clock, so that tests and virtual runs can move it."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Gives the time and passes it. One moment is the same number in all processes of a machine."""

    def now(self) -> float:
        """Seconds since some fixed moment; never goes back."""

    def sleep(self, seconds: float) -> None:
        """Let so much time go by."""


class WallClock:
    """The machine's own monotonic clock, which all of its processes share."""

    now = staticmethod(time.monotonic)  # as they are: roles ask for the time several times in each step
    sleep = staticmethod(time.sleep)


class VirtualClock:
    """A clock that stands still until somebody sleeps on it, so that schedules are repeatable and cost no time."""

    def __init__(self, start_s: float = 0.0) -> None:
        self._now = start_s

    def now(self) -> float:
        """Seconds since the start."""
        return self._now

    def sleep(self, seconds: float) -> None:
        """Move on at once. ValueError for a negative time."""
        if seconds < 0:
            raise ValueError(f"seconds={seconds} is out of range; allowed: 0 or above")
        self._now += seconds


WALL = WallClock()
"""What everybody uses who is not handed another one."""
