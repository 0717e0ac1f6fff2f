"""How long an inference takes on this machine, before anything is spawned, and how many inference processes that needs.

What is timed is the inference process's own code: reading the mailbox, what the network sees of it, the forward, and
the action as it is published; batch 1, one thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from offbeat.algorithms.stagger import WINDOW
from offbeat.errors import UserError
from offbeat.run.nobody import NoWeights
from offbeat.runtime.actor import acting_precision
from offbeat.runtime.clock import WALL
from offbeat.runtime.mailbox import ENDED, READ
from offbeat.runtime.pacing import Drawn, Punctual, Timing
from offbeat.runtime.policy import LocalPolicy
from offbeat.runtime.realtime import make_realtime, realtime_arrays
from offbeat.runtime.realtime_actor import RealtimeActorWork
from offbeat.runtime.realtime_config import MOST, RealtimeConfig
from offbeat.runtime.world import plan_layout
from offbeat.types import LEGAL, ArrayDict, EnvSpec

if TYPE_CHECKING:
    from offbeat.agents.base import Agent
    from offbeat.config.run_config import RunConfig

WARM_UP_S, LEAST = 2.0, 32
"""A run that chooses its inference processes measures for so long, and so many inferences at least."""
DROPPED = 4
"""The first inferences, in which libraries get ready, do not count."""


def inference_times(
    config: RunConfig,
    spec: EnvSpec,
    agent: Agent,
    *,
    seconds: float,
    least: int,
    progress: Callable[[int, float], object] = lambda count, left_s: None,
) -> np.ndarray:
    """Float64 [n] seconds from reading an observation to the action that can be published, one after the other.

    Args:
        config: of the run, with ``realtime.fps``.
        spec: what networks see.
        agent: of the device where it infers.
        seconds: for how long.
        least: so many in any case.
        progress: called after each with how many there are, and the seconds that are left.

    UserError for agents that read last actions and rewards, which inference processes cannot give: their action may
    not have acted.
    """
    if agent.wants_last:
        raise UserError(
            f"{config.agent_name} reads its last action and reward, and realtime inference processes have none: "
            "whether an action acts is not known when the next one is inferred; use a simulated delay "
            "(--delay.inference-frames)"
        )
    alone = replace(config.realtime, inference=1, mode="async", inference_s=0.0, first_estimate_s=1e-3)
    layout = plan_layout(config, spec, agent)
    arrays = {name: part.zeros() for name, part in realtime_arrays(alone, layout).items()}
    shared: dict[str, Any] = {"folder": Path(), "ring": lambda: None, "lock": nullcontext(), "guard": None}
    realtime = make_realtime(alone, arrays, **shared)
    realtime.mailbox.put(0, 0, 0, WALL.now, _made_up(spec))
    realtime.begin(WALL.now())
    policy = LocalPolicy(agent, NoWeights(), 1, seed=0, precision=acting_precision(config.actor, config.learner))
    timing = Timing(WALL, Drawn(0.0, 0.0, 0)), Punctual(WALL, Drawn(0.0, 0.0, 0))
    work = RealtimeActorWork(0, alone, spec, agent, clock=WALL, timing=timing)
    work.join(realtime)
    taken: list[float] = []
    with threads(1):
        deadline = time.monotonic() + seconds
        while len(taken) < DROPPED + least or time.monotonic() < deadline:
            work.infer(policy, realtime)
            work.finish()
            assert work.pending is not None, "infer() leaves what it has decided"
            taken.append(float(work.pending.times[ENDED] - work.pending.times[READ]))
            work.publish(realtime)
            progress(len(taken), deadline - time.monotonic())
    return np.array(taken[DROPPED:])


def estimate_s(config: RealtimeConfig, times: np.ndarray) -> float:
    """T of the run's estimator, from inference times [n]. Unit: seconds."""
    if config.estimator == "max":
        return float(times.max())
    newest = times[-WINDOW:]
    return float(newest.mean() if config.estimator == "mean" else np.quantile(newest, config.quantile))


def choose_inference(config: RunConfig, spec: EnvSpec, make: Callable[[str], Agent]) -> tuple[RunConfig, str]:
    """``config`` with the number of inference processes that ``realtime.inference=0`` stands for here, and a line that
    says so; as it is, with no line, where it names one.

    ``make``: makes the run's agent on a device.
    """
    realtime = config.realtime
    if not realtime.fps or realtime.inference:
        return config, ""
    device = config.inference.device[0]
    times = inference_times(config, spec, make(device), seconds=WARM_UP_S, least=LEAST)
    times = np.maximum(times, realtime.inference_s)
    estimate = estimate_s(realtime, times)
    needed = realtime.needed(estimate)
    chosen = min(needed, MOST)
    line = (
        f"realtime.inference = {chosen}: the {realtime.estimator} of {len(times)} inferences is "
        f"{1e3 * estimate:.3g} ms, a frame {1e3 * realtime.period_s:.3g} ms"
    )
    if needed > chosen:
        line += f"; an action in every frame needs {needed}, so some frames are left to the default behaviour"
    return replace(config, realtime=replace(realtime, inference=chosen)), line


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Torch computes with so many threads meanwhile."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _made_up(spec: EnvSpec) -> ArrayDict:
    """A random observation, key -> [1, ...]; where actions are masked, all are legal."""
    random, found = np.random.default_rng(0), {}
    for key, part in spec.observation.items():
        lead = (1, *part.shape)
        if key == LEGAL:
            found[key] = np.ones(lead, part.dtype)
        elif np.issubdtype(np.dtype(part.dtype), np.floating):
            found[key] = random.standard_normal(lead).astype(part.dtype)
        else:
            found[key] = random.integers(int(part.high or 1) + 1, size=lead).astype(part.dtype)
    return found
