"""Hand-made transitions and sequences for tests of value-based agents."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from offbeat.agents.q_agent import QAgent
from offbeat.agents.target import TargetNetwork
from offbeat.networks.q_network import QOutput
from offbeat.types import LEGAL, ArraySpec, EnvSpec, Inputs, Sequence, TensorDict, Transition
from tests.agents.unrolls import make_inputs, make_spec


def masked_spec(observation: str = "vector") -> EnvSpec:
    """A spec whose observations say which actions are legal."""
    spec = make_spec(observation)
    return replace(spec, observation=spec.observation | {LEGAL: ArraySpec((spec.action.num_actions,), "bool")})


def plain(spec: EnvSpec) -> EnvSpec:
    """``spec`` without its mask."""
    return replace(spec, observation={key: item for key, item in spec.observation.items() if key != LEGAL})


def any_inputs(spec: EnvSpec, rows: int, batch: int, seed: int = 0) -> Inputs:
    """Random inputs, with a mask that leaves two of the actions or more where ``spec`` has one."""
    inputs = make_inputs(plain(spec), rows, batch, seed=seed)
    if LEGAL in spec.observation:
        generator = torch.Generator().manual_seed(seed)
        barred = torch.randint(spec.action.num_actions, (rows, batch, 1), generator=generator)
        legal = torch.ones(rows, batch, spec.action.num_actions, dtype=torch.bool)
        inputs.observation[LEGAL] = legal.scatter(-1, barred, False)
    return inputs


def make_transition(agent: QAgent, batch: int = 6, seed: int = 0, n: int = 3) -> Transition:
    """Random transitions of three kinds in turn: ``n`` steps, terminated after two, truncated after one."""
    generator = torch.Generator().manual_seed(seed)
    kind = torch.arange(batch) % 3
    steps = torch.tensor([n, 2, 1])[kind]
    number = torch.arange(batch)
    return Transition(
        inputs=any_inputs(agent.spec, 1, batch, seed),
        action=torch.randint(agent.spec.action.num_actions, (batch,), generator=generator),
        reward=torch.randn(batch, generator=generator),
        discount=torch.where(kind == 1, 0.0, agent.discount**steps).float(),
        next_inputs=any_inputs(agent.spec, 1, batch, seed + 1),
        steps=steps,
        extras={},
        param_version=torch.zeros(batch, dtype=torch.int64),
        stream=number,
        row=10 * number,
        source=torch.zeros(batch, dtype=torch.int64),
        weight=torch.rand(batch, generator=generator) + 0.1,
    )


def make_sequence(agent: QAgent, columns: list[tuple[int, int | None, str]], seed: int = 0) -> Sequence:
    """One column for each (lead, end, how).

    ``lead`` rows of padding come before the row that starts the episode; 0: the sequence starts in its middle, from a
    random state. ``end``: the row with the final observation, None: not in the sequence; ``how``: ``terminated`` or
    ``truncated``.
    """
    config: Any = agent.config
    burn_in, batch = config.burn_in, len(columns)
    length = burn_in + config.length + config.n_step
    generator = torch.Generator().manual_seed(seed)
    inputs = any_inputs(agent.spec, length + 1, batch, seed)
    assert inputs.last_action is not None and inputs.last_reward is not None
    valid = torch.zeros(length + 1, batch, dtype=torch.bool)
    terminated = torch.zeros(length, batch, dtype=torch.bool)
    truncated = torch.zeros(length, batch, dtype=torch.bool)
    state = {name: torch.randn(value.shape, generator=generator) for name, value in agent.initial_state(batch).items()}
    seen = [*inputs.observation.values(), inputs.last_action, inputs.last_reward]
    for b, (lead, end, how) in enumerate(columns):
        final = length + 1 if end is None else end
        valid[lead:final, b] = True
        if lead:
            inputs.first[lead, b] = True
            inputs.last_action[lead, b], inputs.last_reward[lead, b] = 0, 0.0
            for value in state.values():
                value[b] = 0
        if end is not None:
            (terminated if how == "terminated" else truncated)[end - 1, b] = True
        for value in seen:
            value[:lead, b] = value[lead, b].clone()
            value[final:, b] = value[min(final, length), b].clone()
    mask = valid[:-1].clone()
    mask[:burn_in] = False
    mask[burn_in + config.length :] = False
    return Sequence(
        inputs=inputs,
        valid=valid,
        action=torch.randint(agent.spec.action.num_actions, (length, batch), generator=generator),
        reward=3 * torch.randn(length, batch, generator=generator) * valid[:-1],
        discount=agent.discount * (valid[:-1] & ~terminated).float(),
        terminated=terminated,
        truncated=truncated,
        extras={name: torch.randn(length, batch, generator=generator) for name in agent.row_extras()},
        core_state=state,
        param_version=torch.zeros(length, batch, dtype=torch.int64),
        stream=torch.arange(batch),
        row=torch.zeros(batch, dtype=torch.int64),
        source=torch.zeros(batch, dtype=torch.int64),
        weight=torch.rand(batch, generator=generator) + 0.1,
        mask=mask,
        burn_in=burn_in,
    )


def unlike(agent: QAgent, seed: int = 1) -> None:
    """Give the target network weights of its own."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in agent.target.parameters():
            weight += 0.3 * torch.randn(weight.shape, generator=generator)


class Injected(nn.Module):
    """A network that returns given values, in turn the last one for ever."""

    channels_last = False

    def __init__(self, *values: Tensor) -> None:
        super().__init__()
        self.values = list(values)

    def cast(self, observation: TensorDict) -> TensorDict:
        """As they are."""
        return observation

    def forward(self, *_: Any) -> QOutput:
        """The next values."""
        value = self.values.pop(0) if len(self.values) > 1 else self.values[0]
        return QOutput(value, {})


def injected_target(*values: Tensor) -> TargetNetwork:
    """A target network that returns given values."""
    network: Any = Injected(*values)
    kept = TargetNetwork(network, 1, 1.0)
    kept._copy = network
    return kept


def gradients(agent: QAgent, loss: Tensor) -> dict[str, Tensor]:
    """The gradient of each weight."""
    agent.network.zero_grad()
    loss.backward()
    return {name: weight.grad.clone() for name, weight in agent.network.named_parameters() if weight.grad is not None}
