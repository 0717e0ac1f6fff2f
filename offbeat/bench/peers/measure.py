"""The rate of something that trains, in steady state, by its own counter and clock; the same for offbeat and peers."""

from __future__ import annotations

import time
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol

from offbeat.bench.live import LONGEST_START_S, LiveRun
from offbeat.config.run_config import RunConfig
from offbeat.errors import UserError

WARM_UP_S = 8.0
"""Training after the first counter that does not count. Unit: seconds."""
LONGEST_SILENCE_S = 120.0
"""A peer whose counter has not moved for so long counts as hung. Unit: seconds."""
LOOK_S = 0.2
"""The counter is looked at so often where it is due. Unit: seconds."""
SELDOM_S = 5.0
"""... and so often where it is not, so that looking costs the run nothing. Unit: seconds."""


class RunFailed(Exception):
    """What is to be measured has ended or hangs."""

    def __init__(self, reason: str, output: list[str]) -> None:
        """``output``: the last lines that it printed."""
        super().__init__(reason)
        self.output = output


@dataclass(frozen=True)
class Point:
    """A counter at a time."""

    seconds: float
    """By the run's own clock."""
    frames: int


class Live(Protocol):
    """Something that trains until it is left."""

    started: float
    """``time.monotonic()`` at its start."""
    patience_s: float
    """Its counter never stands still for longer, unless it hangs. Unit: seconds."""

    def __enter__(self) -> Live: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def point(self) -> Point | None:
        """The newest counter above 0. Raises ``RunFailed`` if it has ended."""

    def last_lines(self) -> list[str]:
        """The end of what it printed."""

    def memory_bytes(self) -> int:
        """Memory of all its processes."""

    def processor_s(self) -> float:
        """Processor time of all its processes that are alive."""


class OffbeatRun:
    """A run of offbeat; frames are counted where environments are stepped."""

    patience_s = LONGEST_START_S

    def __init__(self, config: RunConfig) -> None:
        self._run = LiveRun(config)
        self.started = self._run.started
        self.memory_bytes = self._run.memory_bytes
        self.processor_s = self._run.processor_s

    def __enter__(self) -> OffbeatRun:
        self._run.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._run.__exit__(kind, error, trace)

    def point(self) -> Point | None:
        """Where the learner last reported. Raises ``RunFailed`` if the run has ended."""
        try:
            point = self._run.point()
        except UserError as error:
            reason, *output = str(error).splitlines()
            raise RunFailed(reason, output) from error
        return None if point is None else Point(point.seconds, point.frames)

    def last_lines(self) -> list[str]:
        """Nothing: a run that hangs has said what it waits for in a log that ends with its folder."""
        return []


@dataclass(frozen=True)
class Sample:
    """What one run reached."""

    frames_per_s: float
    cores_used: float
    """Processor seconds of all processes per second; 0 where unknown."""
    memory_bytes: int
    """Proportional set size of all processes at the end; 0 where unknown."""
    start_s: float
    """From the command to the first counter. Unit: seconds."""


def measure(live: Live, seconds: float) -> Sample:
    """Let it run for ``WARM_UP_S`` after its first counter and ``seconds`` more; what happened in the latter.

    Both ends of the window are reports of the run's own with its own times. Raises ``RunFailed``.
    """
    first = reach(live, float("-inf"))
    start_s = time.monotonic() - live.started
    begin = reach(live, first.seconds + WARM_UP_S)
    began_s, cpu_s = time.monotonic(), live.processor_s()
    end = reach(live, begin.seconds + seconds)
    took_s, cpu_s = time.monotonic() - began_s, live.processor_s() - cpu_s
    return Sample(
        frames_per_s=(end.frames - begin.frames) / (end.seconds - begin.seconds),
        cores_used=cpu_s / took_s,
        memory_bytes=live.memory_bytes(),
        start_s=start_s,
    )


def reach(live: Live, target_s: float) -> Point:
    """The first counter seen at or after ``target_s`` of the run's clock. Raises ``RunFailed`` if it stands still."""
    last = live.point()
    moved_s = time.monotonic()
    while last is None or last.seconds < target_s:
        due_s = 0.0 if last is None else target_s - last.seconds - (time.monotonic() - moved_s)
        time.sleep(min(max(due_s, LOOK_S), SELDOM_S))
        point = live.point()
        if point != last:
            last, moved_s = point, time.monotonic()
        elif time.monotonic() - moved_s > live.patience_s:
            what = "no counter" if last is None else f"its counter has stood at {last.frames}"
            raise RunFailed(f"{what} for {live.patience_s:g} s: it hangs", live.last_lines())
    return last
