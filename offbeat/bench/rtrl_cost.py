"""``offbeat bench rtrl``: what exact gradients cost: an eLSTM by RTRL beside the same one truncated, in the same run.

The core alone is timed forward, backward and with its sensitivities carried on; then whole updates of an agent on the
same rows. Both take turns, so that a busy machine is busy for both.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch

from offbeat.config.run_config import RunConfig
from offbeat.errors import UserError
from offbeat.networks.elstm import ELSTM

HIDDEN, INPUTS, ROWS, EPISODES = 512, 257, 50, 32
"""Sizes of the core that is timed alone: those of R2AC on DMLab, in unrolls of 50."""
FIRST = 0.01
"""Share of rows that start an episode."""


@dataclass(frozen=True)
class Cost:
    """Of one thing done in both ways, in turns."""

    what: str
    truncated_ms: float
    """Median. Unit: milliseconds, as all below."""
    rtrl_ms: float
    ratio: float
    """Median of the ratios of neighbouring pairs."""
    ratio_low: float
    """A quarter of them lie below."""
    ratio_high: float
    """A quarter of them lie above."""


def core_steps(gradient: str) -> Callable[[], None]:
    """Forward, backward and carrying on of the core alone, with the same weights and rows for both gradients."""
    torch.manual_seed(0)
    core = ELSTM(INPUTS, HIDDEN, gradient)  # type: ignore[arg-type]
    x, weight = torch.randn(ROWS, EPISODES, INPUTS), torch.randn(ROWS, EPISODES, HIDDEN)
    first = torch.rand(ROWS, EPISODES) < FIRST
    carry, trace, at = core.initial_carry(EPISODES), core.initial_trace(EPISODES), list(range(EPISODES))

    def step() -> None:
        nonlocal carry
        rows = x.clone().requires_grad_()
        if trace:
            output, after, steps = core.follow(rows, carry, first, trace, at, ROWS)
        else:
            output, after = core(rows, carry, first)
        (output * weight).sum().backward()
        core.zero_grad()
        if trace:
            core.advance(trace, at, steps)
        carry = {name: value.detach() for name, value in after.items()}

    return step


def agent_steps(config: RunConfig, core: str) -> Callable[[], None]:
    """Whole updates of an agent with ``core`` on consecutive unrolls of random rows."""
    from offbeat.agents.base import learner_states
    from offbeat.agents.make import make_agent
    from offbeat.bench.batches import make_batch
    from offbeat.envs.registry import env_spec
    from offbeat.runtime.learner import LearnerWork

    torch.manual_seed(0)
    spec = env_spec(config.env)
    agent: Any = make_agent(config.agent_name, replace(config.agent, core=core), spec)
    work = LearnerWork(agent, config.learner, total_frames=10**12)
    batch: Any = make_batch(spec, agent, config.learner.unroll_length, config.learner.batch_size)
    states = learner_states(agent)

    def step() -> None:
        assert work.train_step(agent, batch) is not None
        for state in states.values():
            state.trained(batch, work.updates)
        batch.row = batch.row + len(batch.action)

    return step


def in_turns(what: str, truncated: Callable[[], None], rtrl: Callable[[], None], seconds: float) -> Cost:
    """Time both, one after the other, for about ``seconds``."""
    for _ in range(2):
        truncated()
        rtrl()
    times: list[tuple[float, float]] = []
    began = time.perf_counter()
    while len(times) < 5 or time.perf_counter() - began < seconds:
        start = time.perf_counter()
        truncated()
        middle = time.perf_counter()
        rtrl()
        times.append((middle - start, time.perf_counter() - middle))
    ratios = sorted(after / before for before, after in times)
    quarter = len(ratios) // 4
    halves = [1e3 * median(column) for column in zip(*times)]
    return Cost(what, halves[0], halves[1], median(ratios), ratios[quarter], ratios[-1 - quarter])


def bench_rtrl(config: RunConfig, *, seconds: float = 20.0, file: Path | None = None) -> list[Cost]:
    """Print both costs, and the memory that sensitivities take. ``config``: of the agent, which must have cores."""
    core = getattr(config.agent, "core", "none")
    if not hasattr(config.agent, "trace_decay") or core not in ("elstm-rtrl", "elstm-tbptt"):
        raise UserError(
            f"agent {config.agent_name} with agent.core={core!r} has no eLSTM, of which both gradients could be timed; "
            "name a preset of r2ac, with agent.core elstm-rtrl"
        )
    torch.set_num_threads(config.learner.threads or torch.get_num_threads())
    found = [in_turns("core", core_steps("tbptt"), core_steps("rtrl"), seconds)]
    pair = [agent_steps(config, core) for core in ("elstm-tbptt", "elstm-rtrl")]
    found.append(in_turns(f"update of {config.preset}", pair[0], pair[1], seconds))
    print(f"{torch.get_num_threads()} threads; core: N = {HIDDEN}, D = {INPUTS}, T = {ROWS}, B = {EPISODES}, float32")
    print(f"{'':<32}{'truncated':>12}{'RTRL':>12}{'ratio':>8}   median and middle half, of pairs")
    for cost in found:
        print(
            f"{cost.what:<32}{cost.truncated_ms:>9.1f} ms{cost.rtrl_ms:>9.1f} ms{cost.ratio:>8.2f}   "
            f"{cost.ratio_low:.2f} to {cost.ratio_high:.2f}"
        )
    numbers = sum(value.numel() for value in ELSTM(INPUTS, HIDDEN).initial_trace(1).values())
    print(f"sensitivities of the core: {numbers:,} numbers, {4 * numbers / 2**20:.2f} MiB for each environment")
    if file is not None:
        file.write_text(json.dumps([asdict(cost) for cost in found], indent=1) + "\n")
    return found
