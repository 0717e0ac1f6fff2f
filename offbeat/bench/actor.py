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

import torch

from offbeat.agents.base import Agent
from offbeat.agents.make import make_agent
from offbeat.config.auto import decide
from offbeat.config.run_config import RunConfig
from offbeat.envs.registry import env_spec
from offbeat.run.actor_times import actor_loop, block_times, rounds_of
from offbeat.run.inference_times import threads

COUNTS = (16, 64, 256)
"""Numbers of environments that are measured."""
PARTS = ("stage", "observe", "act", "step", "append", "account", "loop")
"""Unfinished blocks; what the network sees; the network and drawing; environments; streams; scores and counters;
all that is between these."""
COUNTED = 2
"""Blocks whose calls are counted."""
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

    def watch(self, parts: dict[str, Any]) -> None:
        """Meter every public method of an actor's parts."""
        work = parts["work"]
        owners = {"act": parts["policy"], "step": parts["envs"], "append": parts["writer"]}
        for part, owner in (owners | {"stage": work.staging, "observe": work.observer}).items():
            for name in dir(type(owner)):
                if not name.startswith("_") and callable(getattr(type(owner), name)):
                    vars(owner)[name] = self.wrapped(getattr(owner, name), part)
        vars(work)["account"] = self.wrapped(work.account, "account")

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
    spec, length = env_spec(config.env), rounds_of(config)
    found, meter = Round(count, length), _Meter()

    def make() -> Agent:
        torch.manual_seed(config.seed)
        return make_agent(config.agent_name, config.agent, spec, "cpu")

    with actor_loop(config, spec, make(), count) as loop:
        found.us = 1e6 * median(block_times(loop, seconds / 2, LEAST_TIMED)) / length
    with actor_loop(config, spec, make(), count, watch=meter.watch) as loop:
        with meter.counting():
            for _ in range(COUNTED):
                next(loop)
        with meter.timing():
            blocks = len(block_times(loop, seconds / 2, LEAST_TIMED))
    found.calls = {name: number / (COUNTED * length) for name, number in meter.calls.items()}
    found.calls["all"] = sum(found.calls.values())
    found.part_us = {name: 1e6 * took / (blocks * length) for name, took in meter.seconds.items()}
    return found


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
