"""``offbeat realtime probe``: what one inference, one update and one frame take here, for what that is enough.

Each is measured alone, by the wall clock, as its process does it: one thread for an inference of batch 1, the learner's
threads for an update of the preset's batch, one environment with random actions. So processes that share cores or
memory are slower in a run than here.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from offbeat.agents.base import Agent, trains_on
from offbeat.agents.make import make_agent
from offbeat.bench.batches import random_action
from offbeat.bench.needs import Measured, times_of
from offbeat.bench.parts import trained_rows, training_step
from offbeat.config.auto import decide, usable_cores
from offbeat.config.memory import available_memory
from offbeat.config.run_config import RunConfig
from offbeat.config.validation import validate
from offbeat.envs.closing import close_env
from offbeat.envs.decisions import DecisionRows
from offbeat.envs.delay import undelayed
from offbeat.envs.delay_config import DelayConfig
from offbeat.envs.registry import env_spec, frame_rate, make_env, specs_kept
from offbeat.errors import UserError
from offbeat.networks.flat import flat_size
from offbeat.replay.make import copies_nbytes, split_batch
from offbeat.replay.rate_limiter import ratio_of
from offbeat.run.inference_times import estimate_s, inference_times, threads
from offbeat.runtime.topology import topology
from offbeat.runtime.world import holds_writers, learners_nbytes, plan_layout
from offbeat.types import EnvSpec

COPY_BYTES = 2**28
"""Memory bandwidth is that of copies so large, which no cache holds."""
LEAST = 16
"""Each thing is measured so often at least."""
WARM_UPS = 2
"""Times that do not count."""

Factory = Callable[..., Any]


@dataclass(frozen=True)
class Probe:
    """What was measured, of which run."""

    config: RunConfig
    """As it would run, with the frame rate."""
    inference: np.ndarray
    """Seconds of each inference."""
    measured: Measured


def realtime_of(config: RunConfig, fps: float, factory: Factory | None = None) -> RunConfig:
    """``config`` as a realtime run with ``fps`` steps per second; 0: its own, or those of the environment.

    UserError where none of them says how many.
    """
    found = fps or config.realtime.fps or frame_rate(config.env, factory)
    if not found:
        raise UserError(
            f"{config.env.id} does not say how many steps per second its world makes (Gymnasium environments do, as "
            "render_fps of their metadata, and Atari makes 60 frames); give --fps, e.g. --fps 30"
        )
    realtime = replace(config.realtime, fps=found, inference=config.realtime.inference or 1)
    return replace(config, engine="local", realtime=realtime)


def one_stream(config: RunConfig) -> RunConfig:
    """``config`` with a batch that one environment can fill: a fifo takes at most one unroll of each stream."""
    if not config.replay.paced:
        return config
    counts = split_batch(config.replay, config.learner.batch_size)
    fresh = max(count for one, count in zip(config.replay.samplers, counts, strict=True) if one.paces)
    size = max(1, config.learner.batch_size // fresh)
    return replace(config, learner=replace(config.learner, batch_size=size))


@specs_kept()
def probe(config: RunConfig, *, fps: float = 0.0, seconds: float = 3.0, factory: Factory | None = None) -> Probe:
    """Measure everything for ``seconds`` each, with a line on stderr for each thing that is measured.

    Args:
        config: of the run.
        fps: steps of the environment per second; 0: as ``realtime_of`` says.
        seconds: for each of inference, update and frame.
        factory: a user's own environment.
    """
    config = realtime_of(config, fps, factory)
    config = decide(config)
    try:
        env_spec(config.env, factory)
    except ValueError as error:  # a game of several players
        raise UserError(str(error)) from error
    # What a realtime run would refuse, such as a fifo, can be measured all the same.
    validate(replace(config, out="", realtime=replace(config.realtime, fps=0.0)), env_factory=factory)
    config = one_stream(config)
    spec = env_spec(config.env, factory)
    agent = make_agent(config.agent_name, config.agent, spec, config.inference.device[0])
    told = Told()
    inference = told.measuring(
        "one inference",
        lambda shown: inference_times(config, spec, agent, seconds=seconds, least=LEAST, progress=shown),
    )
    learning = told.measuring("one update", lambda shown: learning_times(config, spec, seconds, shown))
    frames = told.measuring("one frame", lambda shown: frame_times(config, seconds, factory, shown))
    bandwidth = told.measuring("copying memory", lambda shown: np.array([copy_bandwidth(shown)]))
    ratio, why = updates_per_step(config, agent)
    weights = sum(weight.numel() * weight.element_size() for weight in agent.network.parameters())
    measured = Measured(
        fps=config.realtime.fps,
        estimator=config.realtime.estimator,
        estimate_s=max(estimate_s(config.realtime, inference), config.realtime.inference_s),
        inference=times_of(inference),
        learning=times_of(learning),
        frame=times_of(frames),
        updates_per_step=ratio,
        updates_why=why,
        learner_threads=config.learner.threads,
        learner_on_gpu=config.learner.device.startswith("cuda"),
        weights=sum(weight.numel() for weight in agent.network.parameters()),
        weight_bytes=weights,
        copied_bytes_per_s=float(bandwidth[0]),
        cores=usable_cores(),
        memory_bytes=0,
        available_bytes=available_memory(),
    )
    measured = replace(measured, memory_bytes=memory_of(config, spec, agent, measured.inference_processes))
    return Probe(config, inference, measured)


def updates_per_step(config: RunConfig, agent: Agent) -> tuple[float, str]:
    """u: updates per environment step with an action in each, and where that comes from; 0 where none is set."""
    items = trains_on(agent)
    rows = trained_rows(config, items)
    if config.replay.paced:
        counts = split_batch(config.replay, config.learner.batch_size)
        fresh, one = next((n, one) for one, n in zip(config.replay.samplers, counts, strict=True) if one.paces)
        uses = getattr(one, "uses", 1)
        times = "once" if uses == 1 else f"up to {uses} times"
        return uses / (fresh * rows), f"a batch has {fresh * rows} new rows, each trained on {times}"
    ratio = ratio_of(config.replay.samples_per_insert, holds_writers(config))
    trained = config.learner.batch_size * rows
    if not ratio:
        return 0.0, "replay.samples_per_insert is 0: updates are made as fast as they go"
    return ratio / trained, f"replay.samples_per_insert {ratio:g}, of {trained} rows in an update"


def learning_times(
    config: RunConfig, spec: EnvSpec, seconds: float, progress: Callable[[int, float], object]
) -> np.ndarray:
    """Float64 [n] seconds of updates of the preset's batch, on made-up data, in the learner's threads."""
    with threads(max(1, config.learner.threads)):
        step, _, device = training_step(config, spec, config.learner.batch_size)
        if device == "cpu":
            return each_s(step, seconds, progress)
        import torch

        def waited(turn: int) -> None:
            step(turn)
            torch.cuda.synchronize()

        return each_s(waited, seconds, progress)


def frame_times(
    config: RunConfig, seconds: float, factory: Factory | None, progress: Callable[[int, float], object]
) -> np.ndarray:
    """Float64 [n] seconds of frames of one environment, as the realtime environment plays them: random actions, the
    row that a decision leaves, the newest observation.
    """
    env = undelayed(config.env)
    envs = make_env(env, 1, factory=factory)
    random = np.random.default_rng(0)
    try:
        rows = DecisionRows(envs, DelayConfig(), 0, keep=64)
        rows.reset(0)

        def play(turn: int) -> None:
            rows.decide(rows.frame)
            rows.step(random_action(envs.spec.action, random, 1))
            if rows.over:
                rows.end(rows.frame)
                rows.restart()
            rows.observation(rows.frame)

        return each_s(play, seconds, progress)
    finally:
        close_env(envs, env.id)


def copy_bandwidth(progress: Callable[[int, float], object] = lambda count, left_s: None) -> float:
    """Bytes per second, read and written, of a copy that no cache holds, on one core."""
    source, target = np.ones(COPY_BYTES // 8), np.zeros(COPY_BYTES // 8)
    times = each_s(lambda turn: np.copyto(target, source), 0.5, progress)
    return float(2 * COPY_BYTES / np.median(times))


def memory_of(config: RunConfig, spec: EnvSpec, agent: Agent, inference: int) -> int:
    """Bytes that the run takes with so many inference processes: streams, weights, processes."""
    config = replace(config, realtime=replace(config.realtime, inference=inference))
    layout = plan_layout(config, spec, agent)
    shared = layout.nbytes() + copies_nbytes(config.replay, layout) + learners_nbytes(config, flat_size(agent.network))
    return shared + topology(config, layout.items).nbytes(inline=False)


def each_s(
    call: Callable[[int], object], seconds: float, progress: Callable[[int, float], object] = lambda count, left_s: None
) -> np.ndarray:
    """Float64 [n] seconds of each ``call(turn)``, for about ``seconds``; the first do not count."""
    taken: list[float] = []
    deadline = time.perf_counter() + seconds
    while len(taken) < LEAST + WARM_UPS or time.perf_counter() < deadline:
        started = time.perf_counter()
        call(len(taken))
        taken.append(time.perf_counter() - started)
        progress(len(taken), deadline - time.perf_counter())
    return np.array(taken[WARM_UPS:])


class Told:
    """Says on stderr what is being measured; where that is a terminal, also how far it is."""

    def __init__(self) -> None:
        self._live = sys.stderr.isatty()
        self._shown = 0.0

    def measuring(self, what: str, measure: Callable[[Callable[[int, float], object]], np.ndarray]) -> np.ndarray:
        """What ``measure`` finds; it is given a function to call with how often it has measured and seconds left."""
        if not self._live:
            print(f"measuring: {what}", file=sys.stderr, flush=True)
        try:
            return measure(lambda count, left_s: self._tell(what, count, left_s))
        finally:
            if self._live:
                print("\r\033[K", end="", file=sys.stderr, flush=True)

    def _tell(self, what: str, count: int, left_s: float) -> None:
        now = time.monotonic()
        if self._live and now - self._shown > 0.2:
            self._shown = now
            print(f"\rmeasuring: {what}, {count:,} times, {max(0.0, left_s):.0f} s left\033[K", end="", file=sys.stderr)
            sys.stderr.flush()
