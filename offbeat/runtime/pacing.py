"""How realtime roles pass the time: loops say until when, a driver lets it be so, on the wall clock or a virtual one.

A realtime loop yields moments of its clock, never seconds to sleep: what makes it late is made up for by itself, and
nothing adds up. Where it waits for somebody else it yields ``WAIT``.
"""

from __future__ import annotations

import ctypes
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Protocol

import numpy as np

from offbeat.runtime.clock import Clock
from offbeat.runtime.ports import Waiter
from offbeat.types import ArrayDict

WAIT = math.inf
"""Yielded by a loop that goes on when somebody has done something for it."""
COARSE_S = 0.003
"""Sleep that a bell can end goes to so long before a moment; the rest is slept to the microsecond. Unit: seconds."""
GROWTH = 4096


class Durations(Protocol):
    """How long computations take at least, one after the other."""

    def next(self) -> float:
        """Seconds of the next one."""

    def state(self) -> ArrayDict:
        """Where it is."""

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Back to where it was."""


class Drawn:
    """Evenly drawn from ``mean_s`` (1 - ``jitter``) to ``mean_s`` (1 + ``jitter``)."""

    def __init__(self, mean_s: float, jitter: float, seed: int) -> None:
        if mean_s < 0 or not 0 <= jitter < 1:
            raise ValueError(f"mean_s={mean_s}, jitter={jitter}: allowed: 0 or above, and 0 up to below 1")
        self._mean, self._jitter, self._seed, self._drawn = mean_s, jitter, seed, 0
        self._generator = np.random.default_rng(seed)

    def next(self) -> float:
        """Seconds of the next one."""
        if not self._jitter:
            return self._mean
        self._drawn += 1
        return self._mean * (1.0 + self._jitter * (2.0 * float(self._generator.random()) - 1.0))

    def state(self) -> ArrayDict:
        """How many were drawn."""
        return {"drawn": np.array([self._drawn])}

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Draw those again."""
        self._drawn = int(state["drawn"][0])
        self._generator = np.random.default_rng(self._seed)
        self._generator.random(self._drawn)


class Recorded:
    """Those of a recording [n], from its start; after its end from the start again."""

    def __init__(self, seconds: np.ndarray) -> None:
        if seconds.ndim != 1 or not len(seconds) or not (np.isfinite(seconds) & (seconds >= 0)).all():
            raise ValueError("a recording must be a list of seconds, each 0 or above, and not empty")
        self._seconds, self._at = np.asarray(seconds, np.float64), 0

    def next(self) -> float:
        """Seconds of the next one."""
        value = float(self._seconds[self._at % len(self._seconds)])
        self._at += 1
        return value

    def state(self) -> ArrayDict:
        """How many were given."""
        return {"at": np.array([self._at])}

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Back to there."""
        self._at = int(state["at"][0])


class Record:
    """Numbers that come one by one, kept in arrays."""

    def __init__(self) -> None:
        self._values, self._count = np.zeros(GROWTH), 0

    def add(self, value: float) -> None:
        """One more."""
        if self._count == len(self._values):
            self._values = np.concatenate([self._values, np.zeros_like(self._values)])
        self._values[self._count] = value
        self._count += 1

    def values(self) -> np.ndarray:
        """All of them, float64 [n]."""
        return self._values[: self._count]


class Timing:
    """When a computation is over: when it is, but not before what ``durations`` says. Notes how long each took."""

    def __init__(self, clock: Clock, durations: Durations, record: bool = False) -> None:
        self.clock, self.durations = clock, durations
        self.taken = Record() if record else None

    def ends(self, started_s: float) -> float:
        """When the computation that began at ``started_s``, and whose result is there, is over."""
        least, now = started_s + self.durations.next(), self.clock.now()
        moment = max(now, least)
        if self.taken is not None:
            self.taken.add(moment - started_s)
        return moment


class Punctual:
    """Waits for moments, and is as late as it is: on a virtual clock by what ``lateness`` says.

    Args:
        clock: the run's.
        lateness: how much later than asked for a role does what it waited for.
        record: whether to note how late it was.
    """

    def __init__(self, clock: Clock, lateness: Durations, record: bool = False) -> None:
        self._clock, self._lateness = clock, lateness
        self._late: float | None = None  # of the wait that it is in
        self.noted = Record() if record else None

    def until(self, ask: Callable[[], float]) -> Iterator[float]:
        """Let time go by until the moment that ``ask`` names, which may move meanwhile. Yields once in any case."""
        late = self._late = self._lateness.next() if self._late is None else self._late
        yield ask() + late
        while self._clock.now() < (moment := ask() + late):
            yield moment
        self._late = None

    def done(self, due_s: float, at_s: float) -> None:
        """What was due at ``due_s`` was done at ``at_s``."""
        if self.noted is not None:
            self.noted.add(max(0.0, at_s - due_s))

    def state(self) -> ArrayDict:
        """Where its lateness is, and how late the wait will end that it is in."""
        return self._lateness.state() | {"late": np.array([np.nan if self._late is None else self._late])}

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Back to there; the next ``until`` goes on with the wait that was under way."""
        self._lateness.load_state(state)
        late = float(state["late"][0])
        self._late = None if math.isnan(late) else late


class WallPace:
    """Sleeps until the moments that a loop yields, to the microsecond.

    Args:
        wait: how the role sleeps; it wakes when the run ends.
        clock: the wall clock.
    """

    def __init__(self, wait: Waiter, clock: Clock) -> None:
        self._wait, self._clock = wait, clock
        fine_timers()

    def now(self) -> float:
        """The time."""
        return self._clock.now()

    def sleep(self, moment: float) -> None:
        """Until ``moment``; ``WAIT``: until somebody rings. Raises ``Stopped`` when the run ends."""
        if moment == WAIT:
            self._wait.until("others", _Once())
            return
        now = self._clock.now()
        if moment - now > COARSE_S:
            self._wait.until("its moment", lambda: self._clock.now() > moment - COARSE_S, moment - COARSE_S - now)
            now = self._clock.now()
        if moment > now:
            self._clock.sleep(moment - now)


class _Once:
    """False, then true: waits for one ring."""

    def __init__(self) -> None:
        self._asked = False

    def __call__(self) -> bool:
        asked, self._asked = self._asked, True
        return asked


def fine_timers() -> None:
    """Have the kernel wake this thread when it asks to be woken, not up to 50 microseconds later. Linux only."""
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None, use_errno=True).prctl(29, 1, 0, 0, 0)  # PR_SET_TIMERSLACK, 1 ns
