"""Which decision acts in which frame of an episode: pure counting, without an environment.

A schedule is asked for each frame in turn, from 0 on; it answers with the source frame of the decision that acts then,
or None where the default behaviour does. ``pending(frame)`` is asked once an episode ended at ``frame``.
"""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np

from offbeat.envs.delay_config import DelayConfig, recorded_frames
from offbeat.envs.seeding import pack_generator, unpack_generator
from offbeat.types import ArrayDict


class Schedule(Protocol):
    """When decisions act in an episode."""

    def reset(self, generator: np.random.Generator) -> None:
        """A run begins; delays are drawn from ``generator`` (PCG64)."""

    def start(self) -> None:
        """An episode begins; decisions of the one before never act."""

    def source(self, frame: int) -> int | None:
        """The source of the decision that acts in ``frame``; frames are asked for in order, each once. Below 0: zeros
        are what it is made from.
        """

    def pending(self, frame: int) -> int:
        """The source, at most ``frame``, of the next decision that would have acted from ``frame`` on."""

    def state(self) -> ArrayDict:
        """All of it."""

    def load_state(self, state: ArrayDict) -> None:
        """Go on from ``state()``."""


def make_schedule(delay: DelayConfig) -> Schedule:
    """The schedule that ``delay`` asks for."""
    if delay.semantics == "published":
        return Published(delay.inference_frames, delay.noops)
    if delay.mode == "async":
        return Asynchronous(Delays(delay), delay.period)
    learn = 0 if delay.mode == "background" else delay.learn_frames
    return InTurn(Delays(delay), learn, learn if delay.mode == "learn_first" else 0)


class Delays:
    """How many frames each decision takes."""

    def __init__(self, delay: DelayConfig) -> None:
        self._draw: str = "never" if delay.distribution == "constant" else delay.draw
        self._low, self._high, self._now = delay.low, delay.high, delay.inference_frames
        self._recorded: np.ndarray | None = None
        if delay.distribution == "recorded":
            self._recorded = recorded_frames(delay.recorded, delay.fps)
        self._generator = np.random.default_rng(0)

    def reset(self, generator: np.random.Generator) -> None:
        """A run begins."""
        self._generator = generator
        if self._draw == "run":
            self._now = self._drawn()

    def start(self) -> None:
        """An episode begins."""
        if self._draw == "episode":
            self._now = self._drawn()

    def next(self) -> int:
        """Frames that the next decision takes."""
        return self._drawn() if self._draw == "step" else self._now

    def _drawn(self) -> int:
        if self._recorded is not None:
            return int(self._recorded[self._generator.integers(len(self._recorded))])
        return int(self._generator.integers(self._low, self._high + 1))

    def state(self) -> ArrayDict:
        """The delay in force and the generator."""
        return {"now": np.array([self._now]), "generator": pack_generator(self._generator)}

    def load_state(self, state: ArrayDict) -> None:
        """Go on from ``state()``."""
        self._now = int(state["now"][0])
        self._generator = unpack_generator(np.asarray(state["generator"]))


class Asynchronous:
    """A decision starts at every frame, or every ``period`` frames; the newest that is ready acts, older ones are
    dropped.

    With a constant delay d and period 1 frame e is acted in from ``o_{e - d}``, and frames 0 to d - 1 by the default
    behaviour. Decision k starts at frame ceil(k ``period``).
    """

    def __init__(self, delays: Delays, period: float = 1.0) -> None:
        self._delays, self._period = delays, period
        self._running: list[tuple[int, int]] = []  # source, frame from which it may act; oldest first
        self._newest = -1

    def reset(self, generator: np.random.Generator) -> None:
        """A run begins."""
        self._delays.reset(generator)
        self.start()

    def start(self) -> None:
        """An episode begins."""
        self._delays.start()
        self._running, self._newest = [], -1

    def source(self, frame: int) -> int | None:
        """The newest decision that is ready in ``frame`` and newer than all that acted."""
        self._begin(frame)
        for place in range(len(self._running) - 1, -1, -1):
            source, ready = self._running[place]
            if ready <= frame:
                del self._running[: place + 1]
                return source
        return None

    def pending(self, frame: int) -> int:
        """The newest of those that are ready at ``frame`` or, if none is, as early as any; ``frame`` if none runs."""
        self._begin(frame)
        if not self._running:
            return frame
        until = max(frame, min(ready for _, ready in self._running))
        return max(source for source, ready in self._running if ready <= until)

    def _begin(self, frame: int) -> None:
        if frame > self._newest and _starts(frame, self._period):
            self._running.append((frame, frame + self._delays.next()))
            self._newest = frame

    def state(self) -> ArrayDict:
        """The decisions that are running, and how long the next take."""
        running = np.array(self._running, np.int64).reshape(-1, 2)
        return {"running": running, "newest": np.array([self._newest])} | self._delays.state()

    def load_state(self, state: ArrayDict) -> None:
        """Go on from ``state()``."""
        self._running = [(int(source), int(ready)) for source, ready in state["running"]]
        self._newest = int(state["newest"][0])
        self._delays.load_state(state)


def _starts(frame: int, period: float) -> bool:
    """Whether ``frame`` is ceil(k ``period``) for some k, whichever way 63 / 2.1 is rounded."""
    return math.ceil(math.floor(frame / period + 1e-9) * period - 1e-6) == frame


class InTurn:
    """One decision after the other: it takes its delay, acts, and the next starts ``learn`` frames later.

    The period is delay + ``learn``, at least 1. The first decision starts at frame ``begin``.
    """

    def __init__(self, delays: Delays, learn: int, begin: int) -> None:
        self._delays, self._learn, self._begin = delays, learn, begin
        self._source = self._acts = 0

    def reset(self, generator: np.random.Generator) -> None:
        """A run begins."""
        self._delays.reset(generator)
        self.start()

    def start(self) -> None:
        """An episode begins."""
        self._delays.start()
        self._source = self._begin
        self._acts = self._begin + self._delays.next()

    def source(self, frame: int) -> int | None:
        """Where the decision that acts in ``frame`` began."""
        if frame != self._acts:
            return None
        source, takes = self._source, self._delays.next()
        self._source = frame + self._learn + (0 if self._learn + takes else 1)
        self._acts = self._source + takes
        return source

    def pending(self, frame: int) -> int:
        """Where the decision began that is not over, or the newest observation where none has begun."""
        return min(self._source, frame)

    def state(self) -> ArrayDict:
        """The decision that is running, and how long the next take."""
        return {"running": np.array([self._source, self._acts])} | self._delays.state()

    def load_state(self, state: ArrayDict) -> None:
        """Go on from ``state()``."""
        self._source, self._acts = map(int, state["running"])
        self._delays.load_state(state)


class Published:
    """As in the simulators published with Riemer et al. 2025: a queue of ``max(delay, 1)`` observations, zeros at the
    reset, of which the oldest is acted on; the action takes one frame, then ``noops`` frames go by.

    So what is acted on is ``max(delay, 1) - 1`` such macro steps old: delays 0 and 1 are the same.
    """

    def __init__(self, delay: int, noops: int) -> None:
        self._behind, self._step = max(delay, 1) - 1, noops + 1

    def reset(self, generator: np.random.Generator) -> None:
        """Nothing is drawn."""

    def start(self) -> None:
        """Nothing is kept."""

    def source(self, frame: int) -> int | None:
        """Every macro step begins with a decision."""
        return None if frame % self._step else max(-1, frame - self._behind * self._step)

    def pending(self, frame: int) -> int:
        """That of the next macro step."""
        begins = -(-frame // self._step) * self._step
        return min(frame, max(-1, begins - self._behind * self._step))

    def state(self) -> ArrayDict:
        """Nothing is kept."""
        return {}

    def load_state(self, state: ArrayDict) -> None:
        """Nothing is kept."""
