"""What a step costs an actor here, before anything is spawned, and how many environments it is best to step at once.

What is timed is the actor's own loop, over streams in this process that nobody reads and that are never full.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

from offbeat.agents.base import Explores, trains_on
from offbeat.agents.contract import check_agent
from offbeat.envs.registry import make_env
from offbeat.errors import UserError
from offbeat.replay.layout import layout_for
from offbeat.replay.streams import StreamStore
from offbeat.run.inference_times import threads
from offbeat.run.nobody import Nobody, NoWeights
from offbeat.runtime.actor import ActorWork, acting_precision, run_actor
from offbeat.runtime.policy import LocalPolicy
from offbeat.runtime.world import plan_layout
from offbeat.runtime.writer import StoreWriter
from offbeat.types import EnvSpec

if TYPE_CHECKING:
    from offbeat.agents.base import Agent
    from offbeat.config.run_config import RunConfig

TRIED = (8, 16, 32, 64, 128, 256)
"""Numbers of environments of an actor that a run chooses from."""
NEAR = 1.15
"""The fewest are chosen whose step costs at most so many times the least."""
GAINS = 0.95
"""More are tried only while a step costs less than this times what it cost with half as many."""
MOST_BATCHES = 32
"""Environments of all actors per unroll of a batch, at most: so many updates are made from what is acted at once."""
WITHIN_S, WARM_UPS, LEAST = 0.1, 2, 3
"""Each number is measured for so long, after so many blocks, and so many blocks at least. Unit: seconds."""


def choose_envs(
    config: RunConfig, spec: EnvSpec, make: Callable[[str], Agent], factory: Callable[..., Any] | None = None
) -> tuple[RunConfig, str]:
    """``config`` with the environments of each actor that ``actor.envs_per_worker=0`` stands for here, and a line that
    says so and why; as it is, with no line, where it names a number. Batches and unrolls stay as they are.

    ``make``: makes the run's agent on a device. UserError where none of ``TRIED`` fits the run.
    """
    if config.actor.envs_per_worker:
        return config, ""
    agent, costs, refused = make("cpu"), dict[int, float](), "more than a run of this kind may have"
    for count in TRIED:
        if why := _unfit(config, spec, agent, count):
            refused = why
            continue
        with actor_loop(config, spec, make("cpu"), count, factory) as loop, threads(config.actor.threads):
            seconds = median(block_times(loop, WITHIN_S)) / rounds_of(config) / count
        gains = not costs or seconds < GAINS * min(costs.values())
        costs[count] = seconds
        if not gains:
            break
    if not costs:
        raise UserError(f"actor.envs_per_worker=0: none of {', '.join(map(str, TRIED))} fits: {refused}")
    chosen = fewest(costs)
    others = ", ".join(f"{count}: {1e6 * cost:.3g}" for count, cost in costs.items() if count != chosen)
    line = (
        f"actor.envs_per_worker = {chosen}: a step takes {1e6 * costs[chosen]:.3g} µs of a core with so many"
        + (f" ({others})" if others else "")
        + f"; the fewest within {NEAR - 1:.0%} of the least"
    )
    return replace(config, actor=replace(config.actor, envs_per_worker=chosen)), line


def fewest(costs: dict[int, float]) -> int:
    """The fewest environments whose step costs at most ``NEAR`` times the least. ``costs``: count -> seconds a step."""
    least = min(costs.values())
    return min(count for count, cost in costs.items() if cost <= NEAR * least)


def _unfit(config: RunConfig, spec: EnvSpec, agent: Agent, count: int) -> str:
    """Why actors cannot have ``count`` environments each; empty: they can."""
    actor = config.actor
    streams = actor.workers * count
    if count % spec.players or count < actor.batch or streams < len(config.env.ids):
        return f"{count} do not fit the games' players, actor.batch or env.ids"
    most = MOST_BATCHES * config.learner.batch_size
    if trains_on(agent).kind == "unroll" and streams > most and count > TRIED[0]:
        return f"{streams} streams are more than {MOST_BATCHES} for each of learner.batch_size"
    try:
        plan_layout(replace(config, actor=replace(actor, envs_per_worker=count)), spec, agent)
    except UserError as error:
        return str(error)
    return ""


def rounds_of(config: RunConfig) -> int:
    """Rounds of a block; once in so many an actor appends its rows."""
    return config.actor.append_rows or config.learner.unroll_length


@contextmanager
def actor_loop(
    config: RunConfig,
    spec: EnvSpec,
    agent: Agent,
    count: int,
    factory: Callable[..., Any] | None = None,
    watch: Callable[[dict[str, Any]], None] = lambda parts: None,
) -> Iterator[Iterator[None]]:
    """The loop of an actor with ``count`` environments, which has played ``WARM_UPS`` blocks; ``next`` plays one.

    ``watch`` is called before it begins with its parts: ``work``, ``policy``, ``envs``, ``writer``.
    """
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
    streams, nobody = np.arange(count), Nobody()
    explore = (lambda made: agent.exploration(streams, count, made)) if isinstance(agent, Explores) else None
    precision = acting_precision(config.actor, config.learner)
    policy = LocalPolicy(agent, NoWeights(), count, seed=0, precision=precision)
    batch, native = config.actor.batch or None, config.actor.env_threads or 1
    envs = make_env(config.env, count, batch_size=batch, threads=native, factory=factory)
    try:
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
        watch({"work": work, "policy": policy, "envs": envs, "writer": writer})
        loop = run_actor(envs, policy, writer, nobody, nobody, work)
        for _ in range(WARM_UPS):
            next(loop)
        yield loop
    finally:
        envs.close()


def block_times(loop: Iterator[None], seconds: float, least: int = LEAST) -> list[float]:
    """Processor seconds of each block that ``loop`` plays in about ``seconds`` of time, and of ``least`` at least."""
    times: list[float] = []
    deadline = time.perf_counter() + seconds
    while len(times) < least or time.perf_counter() < deadline:
        started = time.process_time()
        next(loop)
        times.append(time.process_time() - started)
    return times


class _Replay:
    """No samplers: streams that are as short as can be, and never full."""

    capacity = 0
    samplers: tuple[Any, ...] = ()
