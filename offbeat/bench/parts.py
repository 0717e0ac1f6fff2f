"""A run's parts alone: stepping environments, the acting forward, the training step, each on one thread of one core.

Times are CPU seconds of the process, all its threads together, so that other work on the machine hardly moves them; the
training step on a GPU is timed by the clock instead. What is trained on is made up once, so that reading replay is no
part of it.
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

from offbeat.agents.base import Agent, Explores, trains_on
from offbeat.agents.make import make_agent
from offbeat.bench.batches import make_batch, make_inputs, random_action
from offbeat.config.run_config import RunConfig
from offbeat.envs.registry import env_spec, make_env
from offbeat.run.nobody import NoWeights
from offbeat.runtime.actor import acting_precision
from offbeat.runtime.learner import LearnerWork
from offbeat.runtime.policy import LocalPolicy
from offbeat.runtime.spawning import native_threads
from offbeat.types import LEGAL, EnvSpec, EnvStep, ItemSpec

FORWARD_BATCHES = (32, 128, 512)
"""Batches that the acting forward is timed at, beside the preset's own."""
TRAIN_ROWS = (128, 320, 640)
"""Rows, about, that the training step is timed at, beside the preset's own, where it trains on unrolls."""
ITEM_ROWS = (128, 512, 2048)
"""The same for transitions and sequences, where that is more than the preset's own."""
WARM_S = 0.3
"""Each measurement runs so long before it counts. Unit: seconds."""


@dataclass
class Parts:
    """Seconds of one core per agent step or trained row, by batch or number of rows; the preset's own come first."""

    env_s: float = 0.0
    forward_s: dict[int, float] = field(default_factory=dict)
    train_s: dict[int, float] = field(default_factory=dict)

    @property
    def batch_rows(self) -> int:
        """Rows that a batch of the preset's own size trains on."""
        return next(iter(self.train_s))

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
    items = trains_on(_agent(config, spec, "cpu"))
    length = trained_rows(config, items)
    widths = train_widths(config.learner.batch_size, length, items)
    for width in widths:
        parts.train_s[width * length] = time_train(config, spec, width, seconds / len(widths))
    return parts


def rows_of_update(config: RunConfig) -> int:
    """Rows that an update of ``config`` trains on."""
    items = trains_on(_agent(config, env_spec(config.env), "cpu"))
    return config.learner.batch_size * trained_rows(config, items)


def trained_rows(config: RunConfig, items: ItemSpec) -> int:
    """Rows trained on of one column of a batch."""
    return config.learner.unroll_length if items.kind == "unroll" else items.trained


def train_widths(own: int, length: int, items: ItemSpec) -> list[int]:
    """Batch sizes that the training step is timed at, ``own`` first. ``length``: rows trained on of one column."""
    if items.kind == "unroll":
        others = [max(1, round(rows / length)) for rows in TRAIN_ROWS]
    else:
        others = [rows // length for rows in ITEM_ROWS if rows // length > own]
    return list(dict.fromkeys((own, *others)))


def time_env(config: RunConfig, seconds: float) -> float:
    """Seconds per agent step of the preset's environments with random actions, legal ones where they are masked."""
    actor = config.actor
    envs = make_env(config.env, actor.envs_per_worker, batch_size=actor.batch or None, threads=1)
    random = np.random.default_rng(0)
    envs.reset(0)
    rows = envs.recv()
    count, action = len(rows.env_ids), envs.spec.action
    masked = LEGAL in envs.spec.observation
    drawn = [random.random((count, sum(action.choices))) if masked else None for _ in range(64)]
    actions = [random_action(action, random, count) for _ in drawn]

    def choose(turn: int, rows: EnvStep) -> np.ndarray:
        order = drawn[turn % len(drawn)]
        if order is None:
            return actions[turn % len(actions)]
        parts = np.split(np.where(rows.observation[LEGAL], order, -1.0), np.cumsum(action.choices)[:-1], -1)
        chosen = np.stack([part.argmax(-1) for part in parts], -1)
        return chosen[:, 0] if action.kind == "discrete" else chosen

    def step(turn: int) -> None:
        nonlocal rows
        envs.send(choose(turn, rows))
        rows = envs.recv()

    try:
        return per_call_s(step, seconds) / count
    finally:
        envs.close()


def time_forward(config: RunConfig, spec: EnvSpec, batch: int, seconds: float) -> float:
    """Seconds per row of choosing actions for ``batch`` environments, exploration included."""
    agent = _agent(config, spec, "cpu")
    precision = acting_precision(config.actor, config.learner)
    policy = LocalPolicy(agent, NoWeights(), batch, seed=0, precision=precision)
    inputs = make_inputs(spec, agent, 1, batch)
    env_ids = np.arange(batch)
    streams = max(batch, config.actor.workers * config.actor.envs_per_worker)

    def act(turn: int) -> None:
        if isinstance(agent, Explores):
            epsilon = agent.exploration(env_ids, streams, turn * streams)
            inputs.epsilon = torch.from_numpy(epsilon).unsqueeze(0)
        policy.act(env_ids, inputs)

    return per_call_s(act, seconds) / batch


def time_train(config: RunConfig, spec: EnvSpec, width: int, seconds: float) -> float:
    """Seconds per row of training on ``width`` unrolls, transitions or sequences, as the learner does it.

    That includes every forward of the loss, renewing the target network when it is due, and the new priorities'
    way to the processor. By the clock where the learner has a GPU.
    """
    step, rows, device = training_step(config, spec, width)
    clock = time.process_time if device == "cpu" else time.perf_counter
    return per_call_s(step, seconds, clock) / rows


def training_step(config: RunConfig, spec: EnvSpec, width: int) -> tuple[Callable[[int], None], int, str]:
    """An update as ``time_train`` does it, the rows that it trains on, and the kind of device that does it."""
    name = config.learner.device if config.learner.device != "auto" else config.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    agent = _agent(config, spec, name)
    work = LearnerWork(agent, config.learner, total_frames=2**62)
    batch = make_batch(spec, agent, config.learner.unroll_length, width).to(work.device)

    def step(turn: int) -> None:
        output = work.train_step(agent, batch)
        if output is None:
            return  # counted by ``work``, which raises if it goes on
        for state in work.states.values():
            state.trained(batch, work.updates)
        for found in output.feedback.values():
            found.cpu().numpy()

    return step, batch.rows, work.device.type


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


def _agent(config: RunConfig, spec: EnvSpec, device: str) -> Agent:
    agent = make_agent(config.agent_name, config.agent, spec, device)
    if hasattr(agent.network, "channels_last"):
        network: Any = agent.network
        network.channels_last = config.learner.channels_last
    return agent
