"""Specs and hand-made unrolls for tests of agents."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from offbeat.types import ActionSpec, ArraySpec, EnvSpec, Inputs, Unroll

DISCRETE = ActionSpec("discrete", 3)
BOX = ActionSpec("continuous", shape=(2,), low=(-2.0, 0.0), high=(2.0, 4.0))
OBSERVATIONS = {
    "image": {"observation": ArraySpec((1, 84, 84), "uint8", 0, 255)},
    "grid": {"observation": ArraySpec((4, 10, 10), "uint8", 0, 1)},
    "vector": {"observation": ArraySpec((5,))},
    "dictionary": {
        "image": ArraySpec((1, 84, 84), "uint8", 0, 255),
        "speed": ArraySpec((2,)),
        "gear": ArraySpec((), "int64", 0, 4),
    },
}


def make_spec(observation: str = "vector", action: ActionSpec = DISCRETE) -> EnvSpec:
    """An environment spec; images are stacks of four frames."""
    specs = OBSERVATIONS[observation]
    stacked = tuple(key for key, spec in specs.items() if spec.shape == (1, 84, 84))
    return EnvSpec("test", specs, action, frame_stack=4, stacked=stacked)


def make_inputs(spec: EnvSpec, rows: int, batch: int, first: Tensor | None = None, seed: int = 0) -> Inputs:
    """Random observations, last actions and last rewards."""
    random = np.random.default_rng(seed)
    observation = {}
    for key, item in spec.network_observation.items():
        if item.dtype == "float32":
            observation[key] = torch.from_numpy(random.standard_normal((rows, batch, *item.shape), dtype=np.float32))
        else:
            drawn = random.integers(int(item.high) + 1, size=(rows, batch, *item.shape), dtype=item.dtype)
            observation[key] = torch.from_numpy(drawn)
    first = torch.zeros(rows, batch, dtype=torch.bool) if first is None else first
    action = make_action(spec, (rows, batch), random)
    reward = torch.from_numpy(3 * random.standard_normal((rows, batch), dtype=np.float32))
    return Inputs(observation, first, action, reward)


def make_action(spec: EnvSpec, lead: tuple[int, ...], random: np.random.Generator) -> Tensor:
    """Random actions [*lead, ...]."""
    if spec.action.kind == "discrete":
        return torch.from_numpy(random.integers(spec.action.num_actions, size=lead))
    return torch.from_numpy(random.standard_normal((*lead, *spec.action.shape), dtype=np.float32))


def row(inputs: Inputs, t: int) -> Inputs:
    """Row ``t`` alone, T = 1."""
    observation = {key: item[t : t + 1] for key, item in inputs.observation.items()}
    last_action = None if inputs.last_action is None else inputs.last_action[t : t + 1]
    last_reward = None if inputs.last_reward is None else inputs.last_reward[t : t + 1]
    return Inputs(observation, inputs.first[t : t + 1], last_action, last_reward)


def make_unroll(agent, inputs: Inputs, valid: Tensor, truncated: Tensor | None = None, seed: int = 0) -> Unroll:
    """Step ``agent`` through ``inputs`` by ``act`` and lay its rows out as an unroll; random rewards.

    A row before an invalid one ended an episode, by termination unless ``truncated`` [T, B] says so.
    """
    rows, batch = inputs.shape
    length = rows - 1
    generator = torch.Generator().manual_seed(seed)
    state = start = agent.initial_state(batch)
    outputs = []
    for t in range(length):
        outputs.append(agent.act(row(inputs, t), state, generator))
        state = outputs[-1].state
    truncated = torch.zeros(length, batch, dtype=torch.bool) if truncated is None else truncated
    terminated = ~valid[1:] & ~truncated
    discount = agent.discount * (~terminated & valid[:-1]).float()
    return Unroll(
        inputs=inputs,
        valid=valid,
        action=torch.stack([output.action for output in outputs]),
        reward=torch.randn(length, batch, generator=generator) * valid[:-1],
        discount=discount,
        terminated=terminated,
        truncated=truncated,
        extras={key: torch.stack([output.extras[key] for output in outputs]) for key in agent.row_extras()},
        core_state=start,
        param_version=torch.zeros(length, batch, dtype=torch.int64),
        stream=torch.arange(batch),
        row=torch.zeros(batch, dtype=torch.int64),
        source=torch.zeros(batch, dtype=torch.int64),
    )


def with_episode_ends(spec: EnvSpec, length: int = 7, batch: int = 3, seed: int = 0) -> tuple[Inputs, Tensor]:
    """Inputs with T + 1 rows and their ``valid``: episodes end early, late, on the last row and not at all."""
    valid = torch.ones(length + 1, batch, dtype=torch.bool)
    first = torch.zeros(length + 1, batch, dtype=torch.bool)
    for stream, final in ((0, 2), (0, length), (1, length - 1)):
        valid[final, stream] = False
        if final < length:
            first[final + 1, stream] = True
    first[0, 1] = True
    return make_inputs(spec, length + 1, batch, first, seed), valid


def change(batch: Unroll, **fields) -> Unroll:
    """A copy of an unroll with some fields replaced."""
    return replace(batch, **fields)
