"""A run's parts alone: stepping environments, the acting forward, the training step, each on one thread of one core.

Times are CPU seconds of the process, all its threads together, so that other work on the machine hardly moves them; the
training step on a GPU is timed by the clock instead.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from offbeat.agents.base import Agent
from offbeat.agents.make import make_agent
from offbeat.config import RunConfig
from offbeat.envs.registry import env_spec, make_env
from offbeat.replay.stacking import packs
from offbeat.runtime.learner import LearnerWork
from offbeat.runtime.policy import LocalPolicy
from offbeat.runtime.process import native_threads
from offbeat.types import ActionSpec, ArraySpec, EnvSpec, Inputs, Unroll

FORWARD_BATCHES = (32, 128, 512)
"""Batches that the acting forward is timed at, beside the preset's own."""
TRAIN_ROWS = (128, 320, 640)
"""Rows, about, that the training step is timed at, beside the preset's own."""
WARM_S = 0.3
"""Each measurement runs so long before it counts. Unit: seconds."""


@dataclass
class Parts:
    """Seconds of one core per agent step or trained row, by batch or number of rows; the preset's own come first."""

    env_s: float = 0.0
    forward_s: dict[int, float] = field(default_factory=dict)
    train_s: dict[int, float] = field(default_factory=dict)

    @property
    def best_forward_s(self) -> float:
        """Per row at the batch where it is least."""
        return min(self.forward_s.values())

    @property
    def best_train_s(self) -> float:
        """Per row at the size where it is least."""
        return min(self.train_s.values())


def measure_parts(config: RunConfig, seconds: float) -> Parts:
    """Time every part in a process of its own on one core; ``seconds`` for each of env, forward and train."""
    context = multiprocessing.get_context("spawn")
    with native_threads(1), ProcessPoolExecutor(max_workers=1, mp_context=context) as pool:
        return pool.submit(_measure, config, seconds).result()


def _measure(config: RunConfig, seconds: float) -> Parts:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    spec = env_spec(config.env)
    parts = Parts(env_s=time_env(config, seconds))
    count = config.actor.batch or config.actor.envs_per_worker
    batches = dict.fromkeys((count, *FORWARD_BATCHES))
    for batch in batches:
        parts.forward_s[batch] = time_forward(config, spec, batch, seconds / len(batches))
    length = config.learner.unroll_length
    widths = dict.fromkeys((config.learner.batch_size, *(max(1, round(rows / length)) for rows in TRAIN_ROWS)))
    for width in widths:
        parts.train_s[width * length] = time_train(config, spec, width, seconds / len(widths))
    return parts


def time_env(config: RunConfig, seconds: float) -> float:
    """Seconds per agent step of the preset's environments with random actions."""
    actor = config.actor
    envs = make_env(config.env, actor.envs_per_worker, batch_size=actor.batch or None, threads=1)
    random = np.random.default_rng(0)
    envs.reset(0)
    rows = envs.recv()
    actions = [random_action(envs.spec.action, random, len(rows.env_ids)) for _ in range(64)]

    def step(turn: int) -> None:
        envs.send(actions[turn % len(actions)])
        envs.recv()

    try:
        return per_call_s(step, seconds) / len(rows.env_ids)
    finally:
        envs.close()


def time_forward(config: RunConfig, spec: EnvSpec, batch: int, seconds: float) -> float:
    """Seconds per row of choosing actions for ``batch`` environments."""
    agent = _agent(config, spec, "cpu")
    policy = LocalPolicy(agent, _NoWeights(), batch, seed=0, precision=config.learner.precision)
    inputs = _inputs(spec, agent, 1, batch)
    env_ids = np.arange(batch)
    return per_call_s(lambda _: policy.act(env_ids, inputs), seconds) / batch


def time_train(config: RunConfig, spec: EnvSpec, width: int, seconds: float) -> float:
    """Seconds per row of training on unrolls of ``width`` columns; by the clock where the learner has a GPU."""
    name = config.learner.device if config.learner.device != "auto" else config.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    agent = _agent(config, spec, name)
    work = LearnerWork(agent, config.learner, total_steps=2**62, frame_skip=spec.frame_skip)
    unroll = make_unroll(spec, agent, config.learner.unroll_length, width).to(work.device)
    clock = time.process_time if work.device.type == "cpu" else time.perf_counter
    return per_call_s(lambda _: work.train_step(agent, unroll), seconds, clock) / unroll.reward.numel()


def per_call_s(call: Callable[[int], object], seconds: float, clock: Callable[[], float] = time.process_time) -> float:
    """Mean seconds of ``call(turn)`` by ``clock``, over about ``seconds`` of time after a warm-up."""
    turn, deadline = 0, time.perf_counter() + WARM_S
    while turn < 2 or time.perf_counter() < deadline:
        call(turn)
        turn += 1
    first, started, deadline = turn, clock(), time.perf_counter() + seconds
    while turn < first + 3 or time.perf_counter() < deadline:
        call(turn)
        turn += 1
    return (clock() - started) / (turn - first)


def make_unroll(spec: EnvSpec, agent: Agent, length: int, width: int) -> Unroll:
    """An unroll [length, width] of random observations and actions, without episode ends."""
    random = np.random.default_rng(0)
    lead = (length, width)
    return Unroll(
        inputs=_inputs(spec, agent, length + 1, width),
        valid=torch.ones(length + 1, width, dtype=torch.bool),
        action=torch.from_numpy(random_action(spec.action, random, *lead)),
        reward=torch.from_numpy(random.integers(-1, 2, lead).astype(np.float32)),
        discount=torch.full(lead, agent.discount),
        terminated=torch.zeros(lead, dtype=torch.bool),
        truncated=torch.zeros(lead, dtype=torch.bool),
        extras={name: torch.from_numpy(extra.zeros(*lead)) for name, extra in agent.row_extras().items()},
        core_state=agent.initial_state(width),
        param_version=torch.zeros(lead, dtype=torch.int64),
        stream=torch.arange(width),
        row=torch.zeros(width, dtype=torch.int64),
        source=torch.zeros(width, dtype=torch.int64),
    )


def random_action(spec: ActionSpec, random: np.random.Generator, *lead: int) -> np.ndarray:
    """Actions [*lead, ...] drawn uniformly."""
    if spec.kind == "discrete":
        return random.integers(spec.num_actions, size=lead)
    return random.uniform(spec.low, spec.high, (*lead, *spec.shape)).astype(np.float32)


def _inputs(spec: EnvSpec, agent: Agent, rows: int, batch: int) -> Inputs:
    """Random observations [rows, batch, ...] as the network sees them."""
    random = np.random.default_rng(1)
    observation = {}
    for key, item in spec.network_observation.items():
        values = _random_array(item, random, rows, batch)
        if key in spec.stacked and packs(spec.observation[key], spec.frame_stack):
            values = np.moveaxis(np.ascontiguousarray(np.moveaxis(values, -3, -1)), -1, -3)  # laid out as stacks are
        observation[key] = torch.from_numpy(values)
    inputs = Inputs(observation, torch.zeros(rows, batch, dtype=torch.bool))
    if agent.wants_last:
        inputs.last_action = torch.from_numpy(random_action(spec.action, random, rows, batch))
        inputs.last_reward = torch.zeros(rows, batch)
    return inputs


def _random_array(spec: ArraySpec, random: np.random.Generator, *lead: int) -> np.ndarray:
    if np.issubdtype(np.dtype(spec.dtype), np.floating):
        return random.standard_normal((*lead, *spec.shape)).astype(spec.dtype)
    return random.integers(int(spec.high or 1) + 1, size=(*lead, *spec.shape)).astype(spec.dtype)


def _agent(config: RunConfig, spec: EnvSpec, device: str) -> Agent:
    agent = make_agent(config.agent_name, config.agent, spec, device)
    if hasattr(agent.network, "channels_last"):
        network: Any = agent.network
        network.channels_last = config.learner.channels_last
    return agent


class _NoWeights:
    """A reader of weights that never has newer ones."""

    def version(self) -> int:
        """Always the version that a policy starts with."""
        return -1

    def pull(self, flat: torch.Tensor) -> int:
        """Leaves the weights as they are."""
        return -1
