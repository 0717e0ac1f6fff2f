"""The agent for delayed decisions: its loss against a slow loop, and that nobody acts on what is privileged."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from offbeat.agents.delayed_dqn import NOW, Agent, Config
from offbeat.envs.decisions import NOW as WRITTEN
from offbeat.envs.decisions import delayed_spec
from offbeat.envs.delay_config import DelayConfig
from offbeat.types import LEGAL, EnvSpec, Inputs, Transition
from tests.agents.items import gradients, make_transition, masked_spec, unlike
from tests.agents.unrolls import make_inputs, make_spec


def spec_of(masked: bool = False) -> EnvSpec:
    """Of a delayed environment whose rows show what there was."""
    return delayed_spec(masked_spec() if masked else make_spec(), DelayConfig(privileged=True, history=2))


def make_agent(masked: bool = False, **options: Any) -> Agent:
    torch.manual_seed(0)
    small: dict[str, Any] = {"hidden_size": (8,), "head_size": 6, "n_step": 3, "torso": "mlp"}
    agent = Agent(Config(**(small | options)), spec_of(masked))
    unlike(agent)
    return agent


def inputs_of(spec: EnvSpec, batch: int, seed: int) -> Inputs:
    """Random inputs; every mask leaves two of the actions."""
    masks = [key for key, part in spec.observation.items() if part.dtype == "bool"]
    rest = {key: part for key, part in spec.observation.items() if key not in masks}
    inputs = make_inputs(replace(spec, observation=rest), 1, batch, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    for key in masks:
        barred = torch.randint(spec.action.num_actions, (1, batch, 1), generator=generator)
        legal = torch.ones(1, batch, spec.action.num_actions, dtype=torch.bool)
        inputs.observation[key] = legal.scatter(-1, barred, False)
    return inputs


def transition_of(agent: Agent, batch: int) -> Transition:
    """Random transitions."""
    plain = Agent(agent.config, spec_of())
    made = make_transition(plain, batch)
    spec = agent.spec
    return replace(
        made, inputs=inputs_of(spec, batch, 0), next_inputs=inputs_of(spec, batch, 1), reward=4 * made.reward
    )


def slow_loss(agent: Agent, batch: Any) -> tuple[Tensor, list[float]]:
    """One transition after the other, and the critic's absolute TD errors."""
    total, errors, network, target = torch.zeros(()), [], agent.network, agent.target

    def huber(delta: Tensor) -> Tensor:
        return 0.5 * delta**2 if abs(delta.item()) < 1 else delta.abs() - 0.5

    for i in range(len(batch.action)):

        def values(network: Any, inputs: Any, now: bool, i: int = i) -> Tensor:
            there = {k.removeprefix(NOW) if now else k: v[:, i : i + 1] for k, v in inputs.observation.items()
                     if k.startswith(NOW) == now}  # fmt: skip
            return network(there, inputs.first[:, i : i + 1], {}).value[0, 0]

        allowed = list(range(3))
        if NOW + LEGAL in batch.next_inputs.observation:
            allowed = [a for a in range(3) if batch.next_inputs.observation[NOW + LEGAL][0, i, a]]
        if agent.config.bootstrap == "policy":
            chooser = values(network, batch.next_inputs, now=False).tolist()
        else:
            chooser = values(network.critic, batch.next_inputs, now=True).tolist()
        best = max(allowed, key=lambda a, chooser=chooser: chooser[a])
        valued = values(target.critic, batch.next_inputs, now=True)[best].item()
        y = batch.reward[i].item() + batch.discount[i].item() * valued
        critic = values(network.critic, batch.inputs, now=True)
        delta = y - critic[batch.action[i]]
        errors.append(abs(delta.item()))
        seen = values(network, batch.inputs, now=False)
        fit = sum((huber(seen[a] - critic[a].detach()) for a in range(3)), torch.zeros(())) / 3
        total = total + (huber(delta) + agent.config.fit * fit) * batch.weight[i]
    return total / len(batch.action), errors


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("options", [{}, {"bootstrap": "critic"}, {"fit": 0.25}, {"dueling": False, "head_size": 0}])
def test_the_loss_is_the_slow_loops(options: dict[str, Any], masked: bool) -> None:
    agent = make_agent(masked, **options)
    batch = transition_of(agent, 9)
    output = agent.loss(batch, 0.0)
    assert output.count == 9
    wanted, errors = slow_loss(agent, batch)
    torch.testing.assert_close(output.total / 9, wanted)
    torch.testing.assert_close(output.feedback["priority"], torch.tensor(errors))
    found, expected = (gradients(agent, value) for value in (output.total / 9, wanted))
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, msg=name)


def test_the_policy_reads_nothing_that_is_privileged() -> None:
    agent = make_agent()
    inputs = inputs_of(agent.spec, 5, 0)
    first = agent.act(inputs, {}, None)
    for key in agent.spec.privileged:
        inputs.observation[key] = torch.randn_like(inputs.observation[key]) * 100
    second = agent.act(inputs, {}, None)
    assert torch.equal(first.action, second.action)
    assert torch.equal(first.extras["q_max"], second.extras["q_max"])
    assert not set(agent.spec.features) & set(agent.spec.privileged)


def test_without_a_delay_the_critic_reads_what_the_policy_reads() -> None:
    assert NOW == WRITTEN
    agent = Agent(Config(hidden_size=(8,), torso="mlp", n_step=3), make_spec())
    output = agent.loss(make_transition(agent, 6), 0.0)
    output.total.backward()
    assert all(weight.grad is not None for weight in agent.network.parameters())
    with pytest.raises(ValueError, match=r"fit=0"):
        Config(fit=0.0)
