"""``offbeat bench actor``: what a round of an actor costs, by part, in Python calls and processor time.

The loop of an actor runs over streams in this process that nobody reads and that are never full, so nothing waits.
A round is one step of all environments. Calls are those of functions, Python's and compiled ones, as a profiler sees
them; NumPy's arithmetic is not among them. Time is that of the thread; the parts' is measured around each of their
calls, the whole round's in rounds without that.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from statistics import median
from types import FrameType
from typing import Any

import numpy as np
import torch

from offbeat.agents.base import Explores, trains_on
from offbeat.agents.contract import check_agent
from offbeat.agents.make import make_agent
from offbeat.config.auto import decide
from offbeat.config.run_config import RunConfig
from offbeat.envs.registry import env_spec, make_env
from offbeat.replay.layout import layout_for
from offbeat.replay.streams import StreamStore
from offbeat.run.inference_times import NoWeights, threads
from offbeat.runtime.actor import ActorWork, acting_precision, run_actor
from offbeat.runtime.policy import LocalPolicy
from offbeat.runtime.writer import StoreWriter

COUNTS = (16, 64, 256)
"""Numbers of environments that are measured."""
PARTS = ("stage", "observe", "act", "step", "append", "account", "loop")
"""Unfinished blocks; what the network sees; the network and drawing; environments; streams; scores and counters;
all that is between these."""
WARM_UPS, COUNTED = 3, 2
"""Blocks that are played before anything is measured, and blocks whose calls are counted."""
LEAST_TIMED = 5
"""So many blocks are timed, at least."""


@dataclass
class Round:
    """What one round of an actor with so many environments costs, in the mean over whole blocks of them."""

    envs: int
    length: int
    """Rounds of a block; once in so many its rows are appended."""
    us: float = 0.0
    """Processor time of the whole round. Unit: microseconds."""
    calls: dict[str, float] = field(default_factory=dict)
    """Of each part, and of all as ``all``."""
    part_us: dict[str, float] = field(default_factory=dict)
    """Processor time of each part, with what it takes to look at the time. Unit: microseconds."""


class _Replay:
    """No samplers: streams that are as short as can be, and never full."""

    capacity = 0
    samplers: tuple[Any, ...] = ()


class _NoMetrics:
    """Takes records and forgets them."""

    def write(self, kind: str, values: dict[str, float]) -> None:
        """Nothing is kept."""


class _Never:
    """A signal to stop that never comes."""

    def is_set(self) -> bool:
        """Go on."""
        return False


class _Meter:
    """Knows which part is at work, and what each has cost so far."""

    def __init__(self) -> None:
        self.calls = dict.fromkeys(PARTS, 0)
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self._part, self._since = "loop", 0.0
        self._own: set[Any] = {self.wrapped(len, "loop").__code__}  # type: ignore[attr-defined]

    def wrapped(self, call: Callable[..., Any], part: str) -> Callable[..., Any]:
        """``call``, whose cost is that of ``part``, what it calls included."""

        @wraps(call)
        def metered(*arguments: Any, **named: Any) -> Any:
            before = self._enter(part)
            try:
                return call(*arguments, **named)
            finally:
                self._enter(before)

        return metered

    def _enter(self, part: str) -> str:
        now = time.thread_time()
        before, self._part = self._part, part
        self.seconds[before] += now - self._since
        self._since = now
        return before

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Count calls meanwhile; not the meter's own."""
        own = {*self._own, _Meter._enter.__code__}

        def seen(frame: FrameType, event: str, argument: Any) -> None:
            if event in ("call", "c_call") and frame.f_code not in own:
                self.calls[self._part] += 1

        sys.setprofile(seen)
        try:
            yield
        finally:
            sys.setprofile(None)

    @contextmanager
    def timing(self) -> Iterator[None]:
        """Begin with no time at all."""
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self._part, self._since = "loop", time.thread_time()
        yield
        self._enter("loop")


def bench_actor(
    config: RunConfig, *, counts: tuple[int, ...] = COUNTS, seconds: float = 2.0, file: Path | None = None
) -> list[Round]:
    """Measure an actor of ``config`` with each number of environments, for about ``seconds``; print and return it."""
    config = decide(config)
    found = []
    with threads(config.actor.threads):
        for count in counts:
            found.append(measure_round(config, count, seconds))
    print(as_text(config, found))
    if file is not None:
        file.write_text(json.dumps([vars(one) for one in found], indent=1) + "\n")
    return found


def measure_round(config: RunConfig, count: int, seconds: float) -> Round:
    """The cost of a round of an actor with ``count`` environments."""
    plain, close = actor_loop(config, count)
    length = config.actor.append_rows or config.learner.unroll_length
    found = Round(count, length)
    try:
        found.us = 1e6 * median(_times(plain, seconds / 2)) / length
    finally:
        close()
    meter = _Meter()
    metered, close = actor_loop(config, count, meter)
    try:
        _times(metered, 0.0)
        with meter.counting():
            for _ in range(COUNTED):
                next(metered)
        with meter.timing():
            blocks = len(_times(metered, seconds / 2))
    finally:
        close()
    found.calls = {name: number / (COUNTED * length) for name, number in meter.calls.items()}
    found.calls["all"] = sum(found.calls.values())
    found.part_us = {name: 1e6 * took / (blocks * length) for name, took in meter.seconds.items()}
    return found


def actor_loop(config: RunConfig, count: int, meter: _Meter | None = None) -> tuple[Iterator[None], Callable[[], None]]:
    """The loop of an actor with ``count`` environments, which has played ``WARM_UPS`` blocks; and what closes them."""
    spec = env_spec(config.env)
    torch.manual_seed(config.seed)
    agent = make_agent(config.agent_name, config.agent, spec, "cpu")
    layout = layout_for(
        spec,
        agent.row_extras(),
        check_agent(agent, spec),
        num_streams=count,
        replay=_Replay(),
        unroll_length=config.learner.unroll_length,
        block=config.actor.append_rows,
        items=trains_on(agent),
    )
    streams = np.arange(count)
    explore = (lambda made: agent.exploration(streams, count, made)) if isinstance(agent, Explores) else None
    precision = acting_precision(config.actor, config.learner)
    policy = LocalPolicy(agent, NoWeights(), count, seed=0, precision=precision)
    envs = make_env(config.env, count, batch_size=config.actor.batch or None, threads=config.actor.env_threads or 1)
    work = ActorWork(
        layout,
        streams,
        block=layout.block,
        discount=agent.discount,
        wants_last=agent.wants_last,
        seed=0,
        frame_skip=spec.frame_skip,
        players=spec.players,
        explore=explore,
    )
    writer = StoreWriter(StreamStore.allocate(layout), None, None, (), streams)
    if meter is not None:
        parts = {"stage": work.staging, "observe": work.observer, "act": policy, "step": envs, "append": writer}
        for part, owner in parts.items():
            _meter_all(meter, owner, part)
        vars(work)["account"] = meter.wrapped(work.account, "account")
    loop = run_actor(envs, policy, writer, _NoMetrics(), _Never(), work)
    for _ in range(WARM_UPS):
        next(loop)
    return loop, envs.close


def _meter_all(meter: _Meter, owner: Any, part: str) -> None:
    """Meter every public method of ``owner``."""
    for name in dir(type(owner)):
        if not name.startswith("_") and callable(getattr(type(owner), name)):
            vars(owner)[name] = meter.wrapped(getattr(owner, name), part)


def _times(loop: Iterator[None], seconds: float) -> list[float]:
    """Processor seconds of each block, for about ``seconds`` of time."""
    times: list[float] = []
    deadline = time.perf_counter() + seconds
    while len(times) < LEAST_TIMED or time.perf_counter() < deadline:
        started = time.thread_time()
        next(loop)
        times.append(time.thread_time() - started)
    return times


def as_text(config: RunConfig, found: list[Round]) -> str:
    """A table for people: calls and microseconds of each part of a round, by number of environments."""
    lines = [
        f"{config.preset or 'run'} ({config.env.id}), {config.learner.unroll_length} rounds a block: "
        "Python's calls and processor time of a round"
    ]
    lines.append(f"{'':<20}" + "".join(f"{f'{one.envs} environments':>22}" for one in found))
    lines.append(f"{'':<20}" + f"{'calls':>11}{'µs':>11}" * len(found))
    for name in (*PARTS, "all"):
        cells = ((one.calls[name], one.us if name == "all" else one.part_us[name]) for one in found)
        lines.append(f"{name:<20}" + "".join(f"{calls:>11,.1f}{us:>11,.1f}" for calls, us in cells))
    rates = (1e6 * one.envs / one.us for one in found)
    lines.append(f"{'steps/s of one core':<20}" + "".join(f"{rate:>22,.0f}" for rate in rates))
    return "\n".join(lines)
