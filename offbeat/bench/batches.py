"""Made-up batches of every kind that losses read, and what actors see: random observations, no episode ends."""

from __future__ import annotations

import numpy as np
import torch

from offbeat.agents.base import Agent, trains_on
from offbeat.replay.stacking import packs
from offbeat.types import LEGAL, ActionSpec, ArraySpec, Batch, EnvSpec, Inputs, ItemSpec, Sequence, Transition, Unroll


def make_batch(spec: EnvSpec, agent: Agent, unroll_length: int, width: int) -> Batch:
    """``width`` of what the agent trains on: unrolls, transitions or sequences."""
    items = trains_on(agent)
    if items.kind == "unroll":
        return make_unroll(spec, agent, unroll_length, width)
    if items.kind == "transition":
        return make_transitions(spec, agent, items, width)
    return make_sequences(spec, agent, items, width)


def make_unroll(spec: EnvSpec, agent: Agent, length: int, width: int) -> Unroll:
    """An unroll [length, width]."""
    random = np.random.default_rng(0)
    lead = (length, width)
    return Unroll(
        inputs=make_inputs(spec, agent, length + 1, width),
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
        elapsed=torch.ones(lead, dtype=torch.int32),
    )


def make_transitions(spec: EnvSpec, agent: Agent, items: ItemSpec, width: int) -> Transition:
    """``width`` transitions of ``items.n`` steps, all of one importance."""
    unroll = make_unroll(spec, agent, 1, width)
    return Transition(
        inputs=make_inputs(spec, agent, 1, width),
        action=unroll.action[0],
        reward=unroll.reward[0],
        discount=unroll.discount[0] ** items.n,
        next_inputs=make_inputs(spec, agent, 1, width, seed=2),
        steps=torch.full((width,), items.n),
        extras={name: extra[0] for name, extra in unroll.extras.items()},
        param_version=unroll.param_version[0],
        stream=unroll.stream,
        row=unroll.row,
        source=unroll.source,
        weight=torch.ones(width),
        replayed=torch.ones(width, dtype=torch.bool),
        elapsed=torch.ones(width, dtype=torch.int32),
    )


def make_sequences(spec: EnvSpec, agent: Agent, items: ItemSpec, width: int) -> Sequence:
    """``width`` whole sequences: burn-in, ``items.length`` rows to train on, n more; all of one importance."""
    unroll = make_unroll(spec, agent, items.burn_in + items.length + items.n, width)
    mask = torch.zeros(unroll.reward.shape, dtype=torch.bool)
    mask[items.burn_in : items.burn_in + items.length] = True
    unroll.weight, unroll.replayed = torch.ones(width), torch.ones(width, dtype=torch.bool)
    return Sequence(**vars(unroll), mask=mask, burn_in=items.burn_in)


def make_inputs(spec: EnvSpec, agent: Agent, rows: int, batch: int, seed: int = 1) -> Inputs:
    """Random observations [rows, batch, ...] as the network sees them; where actions are masked, all are legal."""
    random = np.random.default_rng(seed)
    observation = {}
    for key, item in spec.network_observation.items():
        values = np.ones((rows, batch, *item.shape), item.dtype) if key == LEGAL else None
        if values is None:
            values = _random_array(item, random, rows, batch)
        if key in spec.stacked and packs(spec.observation[key], spec.frame_stack):
            values = np.moveaxis(np.ascontiguousarray(np.moveaxis(values, -3, -1)), -1, -3)  # laid out as stacks are
        observation[key] = torch.from_numpy(values)
    inputs = Inputs(observation, torch.zeros(rows, batch, dtype=torch.bool))
    if agent.wants_last:
        inputs.last_action = torch.from_numpy(random_action(spec.action, random, rows, batch))
        inputs.last_reward = torch.zeros(rows, batch)
    return inputs


def random_action(spec: ActionSpec, random: np.random.Generator, *lead: int) -> np.ndarray:
    """Actions [*lead, ...] drawn uniformly."""
    if spec.kind == "discrete":
        return random.integers(spec.num_actions, size=lead)
    if spec.kind == "multi_discrete":
        return random.integers(spec.nvec, size=(*lead, len(spec.nvec)))
    return random.uniform(spec.low, spec.high, (*lead, *spec.shape)).astype(np.float32)


def _random_array(spec: ArraySpec, random: np.random.Generator, *lead: int) -> np.ndarray:
    if np.issubdtype(np.dtype(spec.dtype), np.floating):
        return random.standard_normal((*lead, *spec.shape)).astype(spec.dtype)
    return random.integers(int(spec.high or 1) + 1, size=(*lead, *spec.shape)).astype(spec.dtype)
