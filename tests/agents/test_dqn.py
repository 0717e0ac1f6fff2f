"""DQN's loss against a slow loop and the reference's worked example."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from offbeat.agents.dqn import Agent, Config, td_loss
from offbeat.types import LEGAL
from tests.agents.items import Injected, gradients, injected_target, make_transition, masked_spec, unlike
from tests.agents.unrolls import make_spec


def make_agent(masked: bool = False, **options: Any) -> Agent:
    torch.manual_seed(0)
    small: dict[str, Any] = {"hidden_size": (8,), "head_size": 6, "n_step": 3}
    agent = Agent(Config(**(small | options)), masked_spec() if masked else make_spec())
    unlike(agent)
    return agent


def slow_loss(agent: Agent, batch: Any) -> tuple[Tensor, list[float]]:
    """One transition after the other, and their absolute TD errors."""
    total, errors = torch.zeros(()), []
    count = len(batch.action)
    for i in range(count):

        def values(network: Any, inputs: Any, i: int = i) -> Tensor:
            observation = {key: value[:, i : i + 1] for key, value in inputs.observation.items()}
            return network(observation, inputs.first[:, i : i + 1], {}).value[0, 0]

        allowed = list(range(3))
        if LEGAL in batch.next_inputs.observation:
            allowed = [a for a in range(3) if batch.next_inputs.observation[LEGAL][0, i, a]]
        target = values(agent.target, batch.next_inputs).tolist()
        chooser = values(agent.network, batch.next_inputs).tolist() if agent.config.double else target
        best = max(allowed, key=lambda a: chooser[a])
        y = batch.reward[i].item() + batch.discount[i].item() * target[best]
        delta = y - values(agent.network, batch.inputs)[batch.action[i]]
        errors.append(abs(delta.item()))
        if agent.config.loss == "huber":
            loss = 0.5 * delta**2 if errors[-1] < 1 else delta.abs() - 0.5
        else:
            loss = 0.5 * delta**2
        total = total + loss * (1.0 if batch.weight is None else batch.weight[i])
    return total / count, errors


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("options", [{}, {"loss": "square"}, {"double": False}, {"dueling": False, "head_size": 0}])
def test_the_loss_is_the_slow_loops(options: dict[str, Any], weighted: bool, masked: bool) -> None:
    agent = make_agent(masked, **options)
    batch = make_transition(agent, 9)
    batch = replace(batch, reward=4 * batch.reward, weight=batch.weight if weighted else None)
    output = agent.loss(batch, 0.0)
    slow, errors = slow_loss(agent, batch)
    torch.testing.assert_close(output.loss, slow)
    assert not output.feedback["priority"].requires_grad
    torch.testing.assert_close(output.feedback["priority"], torch.tensor(errors))
    assert min(errors) < 1 < max(errors), "both sides of Huber's threshold"
    known = gradients(agent, slow)
    for name, gradient in gradients(agent, agent.loss(batch, 0.0).loss).items():
        torch.testing.assert_close(gradient, known[name])
    assert all(metric.isfinite() and not metric.requires_grad for metric in output.metrics.values())


@pytest.mark.parametrize("terminated", [False, True])
def test_the_loss_of_the_worked_example(terminated: bool) -> None:
    d = torch.float64
    agent = make_agent(loss="huber")
    batch = make_transition(agent, 1)
    online, target = torch.tensor([[[1.5, 2.75, 2.5]]], dtype=d), torch.tensor([[[3, 1.2, 4]]], dtype=d)
    batch = replace(
        batch,
        action=torch.tensor([1]),
        reward=torch.tensor([2.98 if terminated else 0.0199], dtype=d),
        discount=torch.tensor([0.0 if terminated else 0.99**3], dtype=d),
        weight=None,
    )
    agent.network = Injected(online, torch.tensor([[[9, 0.25, 9]]], dtype=d))
    agent._target = injected_target(target)
    output = agent.loss(batch, 0.0)
    delta = 2.98 - 0.25 if terminated else 0.9342588
    assert output.feedback["priority"].item() == pytest.approx(delta, abs=1e-9)
    assert output.loss.item() == pytest.approx(2.73 - 0.5 if terminated else 0.4364197527, abs=1e-9)


def test_truncation_bootstraps_and_termination_does_not() -> None:
    agent = make_agent()
    batch = make_transition(agent, 9)
    with torch.no_grad():
        for value in batch.next_inputs.observation.values():
            value += 1.0
    before = agent.loss(batch, 0.0).feedback["priority"]
    with torch.no_grad():
        for weight in agent.target.parameters():
            weight += 0.5
    after = agent.loss(batch, 0.0).feedback["priority"]
    assert before is not None and after is not None
    terminated = torch.arange(9) % 3 == 1
    assert torch.equal(before[terminated], after[terminated])
    assert (before[~terminated] != after[~terminated]).all()


def test_no_gradient_comes_from_the_target() -> None:
    """Weights of an item of 0: nothing of it is learnt, whatever its error is."""
    agent = make_agent()
    batch = replace(make_transition(agent), weight=torch.zeros(6))
    output = agent.loss(batch, 0.0)
    assert output.loss == 0
    assert all((gradient == 0).all() for gradient in gradients(agent, output.loss).values())
    assert (output.feedback["priority"] > 0).all()
    agent.loss(make_transition(agent), 0.0).loss.backward()
    assert all(weight.grad is None for weight in agent.target.parameters())


@pytest.mark.parametrize("kind", ["huber", "square"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_td_losses(kind: Any, dtype: torch.dtype) -> None:
    value = torch.tensor([0.0, 1.0, -3.0, 5.0], dtype=dtype, requires_grad=True)
    target = torch.tensor([0.5, 0.0, 1.0, 5.0], dtype=dtype)
    loss = td_loss(value, target, kind)
    known = [0.125, 0.5, 3.5, 0.0] if kind == "huber" else [0.125, 0.5, 8.0, 0.0]
    torch.testing.assert_close(loss, torch.tensor(known, dtype=dtype))
    loss.sum().backward()
    slope = [-0.5, 1.0, -1.0, 0.0] if kind == "huber" else [-0.5, 1.0, -4.0, 0.0]
    torch.testing.assert_close(value.grad, torch.tensor(slope, dtype=dtype))


@pytest.mark.parametrize("observation", ["image", "grid", "dictionary"])
def test_trains_on_every_kind_of_observation(observation: str) -> None:
    torch.manual_seed(0)
    agent = Agent(Config(head_size=6), make_spec(observation))
    found = gradients(agent, agent.loss(make_transition(agent), 0.0).loss)
    assert all(gradient.abs().sum() > 0 for gradient in found.values())
    assert len(found) == len(list(agent.network.parameters()))


def test_autocast_is_close_to_float32_and_the_loss_compiles() -> None:
    torch.manual_seed(0)
    agent = Agent(Config(head_size=6), make_spec("image"))
    batch = make_transition(agent)
    exact = agent.loss(batch, 0.0).loss
    with torch.autocast("cpu", torch.bfloat16):
        rounded = agent.loss(batch, 0.0).loss
    assert rounded.dtype == torch.float32
    torch.testing.assert_close(rounded, exact, rtol=0.05, atol=0.05)
    compiled = torch.compile(agent.loss, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(batch, 0.0).loss, exact, rtol=1e-4, atol=1e-4)
