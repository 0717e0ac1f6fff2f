"""The agent for delayed decisions: its loss against a slow loop, and that nobody acts on what is privileged."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from offbeat.agents.delayed_dqn import HISTORY, NOW, Agent, Config
from offbeat.agents.dqn import Agent as Dqn
from offbeat.agents.dqn import Config as DqnConfig
from offbeat.envs import decisions
from offbeat.envs.decisions import delayed_spec
from offbeat.envs.delay_config import DelayConfig
from offbeat.types import LEGAL, EnvSpec, Inputs, Transition
from tests.agents.items import gradients, make_transition, masked_spec, unlike
from tests.agents.unrolls import make_inputs, make_spec

DELAY = DelayConfig(privileged=True, history=3, history_until="publish", stack=2)


def spec_of(masked: bool = False) -> EnvSpec:
    """Of a delayed environment whose rows show what there was."""
    return delayed_spec(masked_spec() if masked else make_spec(), DELAY)


def make_agent(masked: bool = False, **options: Any) -> Agent:
    torch.manual_seed(0)
    small: dict[str, Any] = {"hidden_size": (8,), "head_size": 6, "n_step": 3, "torso": "mlp", "model_width": 9}
    agent = Agent(Config(**(small | {"model_rows": 5} | options)), spec_of(masked))
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
    made = make_transition(Agent(agent.config, spec_of()), batch)
    spec = agent.spec
    return replace(
        made, inputs=inputs_of(spec, batch, 0), next_inputs=inputs_of(spec, batch, 1), reward=4 * made.reward
    )


def slow_loss(agent: Agent, batch: Any) -> tuple[Tensor, list[float]]:
    """One transition after the other, and the absolute TD errors."""
    total, errors, network, target = torch.zeros(()), [], agent.network, agent.target

    def huber(delta: Tensor) -> Tensor:
        return 0.5 * delta**2 if abs(delta.item()) < 1 else delta.abs() - 0.5

    for i in range(len(batch.action)):

        def values(network: Any, inputs: Any, now: bool, i: int = i) -> Tensor:
            """Of what was there, or of what the model says of what was seen."""
            there = {k.removeprefix(NOW): v[:, i : i + 1] for k, v in inputs.observation.items() if k.startswith(NOW)}
            if not now:
                seen = {k: v[:, i : i + 1] for k, v in inputs.observation.items()}
                there |= network.model(seen)
            return network(there, inputs.first[:, i : i + 1], {}).value[0, 0]

        allowed = list(range(3))
        if NOW + LEGAL in batch.next_inputs.observation:
            allowed = [a for a in range(3) if batch.next_inputs.observation[NOW + LEGAL][0, i, a]]
        valued = values(target, batch.next_inputs, now=True).tolist()
        chooser = values(network, batch.next_inputs, now=agent.config.bootstrap == "critic").tolist()
        best = max(allowed, key=lambda a, chooser=chooser: chooser[a])
        if not agent.config.double:
            best = max(allowed, key=lambda a, valued=valued: valued[a])
        y = batch.reward[i].item() + batch.discount[i].item() * valued[best]
        delta = y - values(network, batch.inputs, now=True)[batch.action[i]]
        errors.append(abs(delta.item()))
        total = total + huber(delta) * batch.weight[i] / len(batch.action)
    rows = min(agent.config.model_rows, len(batch.action))
    for j in range(rows):
        seen = {k: v[:, j : j + 1] for k, v in batch.inputs.observation.items()}
        found = network.model.raw(seen)["observation"][0, 0]
        wrong = 0.5 * (found - seen[NOW + "observation"][0, 0]).square().sum()
        total = total + agent.config.model_weight * wrong / rows
    return total, errors


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(
    "options",
    [{}, {"bootstrap": "critic"}, {"model_weight": 0.25}, {"dueling": False, "head_size": 0}, {"double": False},
     {"model_rows": 100}],
)  # fmt: skip
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


def test_it_acts_on_what_the_model_says() -> None:
    agent = make_agent()
    inputs = inputs_of(agent.spec, 5, 0)
    model: Any = agent.network.model
    value = agent.forward(agent.network, replace(inputs, observation=model(inputs.observation)), {}).value[0]
    assert torch.equal(agent.act(inputs, {}, None).action, value.argmax(-1))


def test_without_a_delay_it_is_dqn() -> None:
    assert (NOW, HISTORY) == (decisions.NOW, decisions.HISTORY)
    options: dict[str, Any] = {"hidden_size": (8,), "torso": "mlp", "n_step": 3}
    agents = []
    for made, config in ((Agent, Config(**options)), (Dqn, DqnConfig(**options))):
        torch.manual_seed(0)
        agents.append(made(config, make_spec()))  # type: ignore[operator]
    batch = make_transition(agents[0], 6)
    mine, theirs = (agent.loss(batch, 0.0) for agent in agents)
    assert torch.equal(mine.total, theirs.total)
    assert torch.equal(mine.feedback["priority"], theirs.feedback["priority"])


def test_what_is_missing_is_said() -> None:
    for options in ({"model_width": 0}, {"model_rows": 0}, {"model_weight": 0.0}):
        with pytest.raises(ValueError, match=rf"{next(iter(options))}=.* is out of range"):
            Config(**options)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"needs the actions on their way; set delay\.history"):
        Agent(Config(), delayed_spec(make_spec(), DelayConfig(privileged=True)))
