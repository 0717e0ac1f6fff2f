"""``offbeat realtime scaling``: how many inference processes suffice, by how long an inference takes; found by search.

The loops of the runtime themselves are run, ``run_realtime_env`` and N times ``run_realtime_actor``, with their
stagger, mailbox and action slots, on a virtual clock in one process. The policy costs nothing and is everybody's; what
an inference takes is drawn from times that were measured of a real network, scaled to the mean that is asked for. A
number suffices if after settling no more than a given share of frames is left to the default behaviour.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from offbeat.agents.make import make_agent
from offbeat.config.run_config import RunConfig, agent_config
from offbeat.envs.base import EnvConfig
from offbeat.envs.decisions import DecisionRows, delayed_spec
from offbeat.envs.delay_config import DelayConfig
from offbeat.envs.registry import make_env
from offbeat.run.nobody import Nobody
from offbeat.runtime.clock import VirtualClock
from offbeat.runtime.events import Events
from offbeat.runtime.pacing import Drawn, Punctual, Timing
from offbeat.runtime.policy import LocalPolicy
from offbeat.runtime.realtime import Realtime, make_realtime, realtime_arrays
from offbeat.runtime.realtime_actor import RealtimeActorWork, run_realtime_actor
from offbeat.runtime.realtime_config import RealtimeConfig
from offbeat.runtime.realtime_env import RealtimeEnvWork, run_realtime_env
from offbeat.runtime.world import plan_layout
from offbeat.types import ActOutput, ArrayDict, Inputs

ENV = -1
"""The environment among the roles; inference processes are 0 to N - 1."""
ENDLESS = 10**6
"""Steps of an episode, about: the first one is longer than what is simulated."""
CYCLES = 3.0
"""Frames that do not count at first, in mean inference times; twice as many as the longest of all in any case."""
LEAST_FRAMES = 2000
"""At least so many frames do not count."""
COUNTED_CYCLES = 8.0
"""Frames that count, in mean inference times. With estimators other than the largest time, one late inference can cost
a large part of a cycle, and not every cycle has one."""
LEAST_COUNTED = 5000
"""At least so many frames count."""


@dataclass(frozen=True)
class Found:
    """The smallest number of inference processes that suffices, and what it was found by."""

    estimator: str
    frames: float
    """Mean inference time. Unit: frames."""
    processes: int | None
    """None: not even the most that was tried suffices."""
    inaction: float
    """Share of frames that the default behaviour had with so many; NaN where none suffices: counting ended early."""
    tried: int
    """Numbers of processes that were tried."""


class Redrawn:
    """Durations drawn from a recording [n] with repetition, in the recording's unit times ``factor``."""

    def __init__(self, recording: np.ndarray, factor: float, generator: np.random.Generator) -> None:
        self._seconds, self._generator = np.asarray(recording, np.float64) * factor, generator
        self._block, self._at = np.zeros(0), 0

    def next(self) -> float:
        """Seconds of the next one."""
        if self._at == len(self._block):
            self._block, self._at = self._generator.choice(self._seconds, 4096), 0
        self._at += 1
        return float(self._block[self._at - 1])

    def state(self) -> ArrayDict:
        """Not kept: nothing of a search is resumed."""
        return {}

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Nothing was kept."""


class Free:
    """A policy that costs nothing: always the same action, which the default behaviour never takes."""

    def __init__(self) -> None:
        self._output = ActOutput(torch.ones(1, dtype=torch.int64), {}, {})

    def refresh(self) -> int:
        """Its version never changes."""
        return 0

    def release(self) -> None:
        """Nothing is held."""

    def act(self, env_ids: np.ndarray, inputs: Inputs) -> ActOutput:
        """Action 1."""
        return self._output


class Staggered:
    """A realtime run of N inference processes on a virtual clock, in this process.

    Args:
        config: of the realtime runtime; ``inference`` is N.
        recording: inference times [n], of any unit.
        frames: their mean is to be so many frames.
        seed: of the draws.
    """

    def __init__(self, config: RealtimeConfig, recording: np.ndarray, frames: float, seed: int = 0) -> None:
        self.config, self.clock = config, VirtualClock()
        factor = frames * config.period_s / float(np.mean(recording))
        longest = float(np.max(recording)) * factor
        self.settled = int(max(CYCLES * frames, 2 * longest / config.period_s, LEAST_FRAMES))
        """Frames that do not count."""
        drawn = Redrawn(recording, factor, np.random.default_rng([seed, config.inference]))
        self._none, nobody = Drawn(0.0, 0.0, 0), Nobody()
        self._run = RunConfig(
            env=EnvConfig(id="toy/counting", length=ENDLESS, frame_skip=1, frame_stack=1),
            agent_name="noop",
            agent=agent_config("noop")(),
            realtime=config,
        )
        actor, learner = replace(self._run.actor, workers=1, envs_per_worker=1), self._run.learner
        self._run = replace(self._run, actor=actor, learner=replace(learner, batch_size=1))
        envs = make_env(self._run.env, 1)
        keep = int(max(4 * longest / config.period_s, 8 * frames)) + 64  # an action is never lost for its age
        self.rows = DecisionRows(envs, DelayConfig(), 0, keep=keep)
        self.realtime, layout = self._shared(drawn)
        work = RealtimeEnvWork(
            layout, np.zeros(1, np.int64), config, discount=0.99, seed=0, clock=self.clock, frame_skip=1,
            timing=(Timing(self.clock, self._none), Punctual(self.clock, self._none)),
        )  # fmt: skip
        self._loops: dict[int, Iterator[float]] = {
            ENV: run_realtime_env(self.rows, self.realtime, nobody, nobody, nobody, work)
        }
        policy = cast(LocalPolicy, Free())
        for worker in range(config.inference):
            timing = Timing(self.clock, drawn), Punctual(self.clock, self._none)
            own = RealtimeActorWork(worker, config, self._spec, self._agent, clock=self.clock, timing=timing)
            self._loops[worker] = run_realtime_actor(policy, self.realtime, nobody, nobody, own)
        self._events: Events[int] = Events(self.clock)
        for role in self._loops:  # the environment begins before anybody waits for it
            self._events.add(0.0, role)

    def _shared(self, drawn: Redrawn) -> tuple[Realtime, Any]:
        """What the roles share, in memory of this process, each process warmed up by one inference; the layout."""
        self._spec = delayed_spec(make_env(self._run.env, 1).spec, DelayConfig())
        self._agent = make_agent("noop", self._run.agent, self._spec)
        layout = plan_layout(self._run, self._spec, self._agent)
        arrays = {name: part.zeros() for name, part in realtime_arrays(self.config, layout).items()}
        shared: dict[str, Any] = {"folder": Path(), "ring": lambda: None, "lock": nullcontext(), "guard": None}
        realtime = make_realtime(self.config, arrays, **shared)
        realtime.shared["warm"][:] = [drawn.next() for _ in range(self.config.inference)]
        return realtime, layout

    def play(self, until: int, enough: Callable[[], bool] = lambda: False) -> None:
        """Let time go by until so many frames were played, or until ``enough`` after one."""
        events, loops, before = self._events, self._loops, self.rows.frames
        while self.rows.frames < until:
            role = events.next()
            events.passed(role, next(loops[role]))
            events.wake(role)
            if role == ENV and self.rows.frames != before:
                before = self.rows.frames
                if enough():
                    return

    def inaction(self, counted: int, most: float = 1.0) -> float:
        """Share of ``counted`` frames after settling that the default behaviour had.

        Ends early, with 1.0, when it is certain to be more than ``most``.
        """
        self.play(self.settled)
        assert not self.rows.over and self.rows.frame == self.rows.frames, "the first episode goes on"
        start, allowed = self.rows.inaction, most * counted
        self.play(self.settled + counted, lambda: self.rows.inaction - start > allowed)
        left_over = self.rows.inaction - start
        return 1.0 if left_over > allowed else left_over / counted


Share = Callable[[int], float]
"""The share of frames that the default behaviour has with so many processes; 1.0 for more than is allowed."""


def smallest(
    share: Share, allowed: float, most: int, *, start: int = 1, precision: float = 0.0
) -> tuple[int | None, float, int]:
    """The smallest N up to ``most`` with ``share(N) <= allowed``, its share, and how many N were tried.

    In steps that double, up or down from ``start``, until one number suffices and another does not; then by bisection,
    which takes a larger N to be no worse, until the one is at most ``precision`` of itself, or 1, above the other.
    None: ``most`` does not suffice either.
    """
    seen: dict[int, float] = {}

    def enough(count: int) -> bool:
        seen[count] = share(count)
        return seen[count] <= allowed

    start = min(start, most)
    step = max(1, math.floor(precision * start))
    low = high = start
    if enough(start):
        low = max(0, high - step)
        while low > 0 and enough(low):
            high, step = low, 2 * step
            low = max(0, high - step)
    else:
        while True:
            if low >= most:
                return None, math.nan, len(seen)
            high = min(low + step, most)
            if enough(high):
                break
            low, step = high, 2 * step
    while high - low > max(1.0, precision * high):
        middle = (low + high + 1) // 2
        if enough(middle):
            high = middle
        else:
            low = middle
    return high, seen[high], len(seen)


@dataclass(frozen=True)
class Wanted:
    """What is searched for."""

    allowed: float = 0.01
    """A number of processes suffices that leaves no larger share of the frames to the default behaviour."""
    most: int = 20_000
    """No more processes are tried."""
    per_frame: int = 32
    """Nor more for each frame of the mean inference time: so many actions would come in a frame."""
    precision: float = 0.01
    """The number that is found is at most so large a share too large."""
    seed: int = 0
    """Of the draws from the recording."""


def search(config: RealtimeConfig, recording: np.ndarray, frames: float, wanted: Wanted, start: int = 1) -> Found:
    """The smallest number of inference processes for a mean inference time of ``frames`` frames.

    ``start``: the first number that is tried, of a shorter time for instance.
    """
    counted = int(max(COUNTED_CYCLES * frames, LEAST_COUNTED))

    def share(processes: int) -> float:
        run = Staggered(replace(config, inference=processes), recording, frames, wanted.seed)
        return run.inaction(counted, wanted.allowed)

    most = min(wanted.most, math.ceil(wanted.per_frame * frames))
    processes, inaction, tried = smallest(share, wanted.allowed, most, start=start, precision=wanted.precision)
    return Found(config.estimator, frames, processes, inaction, tried)


def computed(config: RealtimeConfig, recording: np.ndarray, frames: float) -> int:
    """ceil(T / tau), T by the estimator from the recording, scaled to a mean of ``frames`` frames."""
    scaled = np.asarray(recording, np.float64) * (frames / float(np.mean(recording)))
    shares = {"max": float(scaled.max()), "mean": frames, "quantile": float(np.quantile(scaled, config.quantile))}
    return max(1, math.ceil(shares[config.estimator] - 1e-9))
