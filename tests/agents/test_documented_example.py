"""The agents printed in docs/adding_an_algorithm.md work as they stand there."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from offbeat.agents.contract import check_agent, check_output
from offbeat.types import LEGAL
from tests.agents.items import any_inputs, make_transition, masked_spec
from tests.agents.unrolls import make_spec, make_unroll, with_episode_ends
from tests.outside.document import AGENTS, module


def made(name: str, source: Any) -> tuple[Any, Any]:
    """An agent of the page and a batch for it."""
    torch.manual_seed(0)
    agent = source.Agent(source.Config(), make_spec("grid" if name == "reinforce" else "vector"))
    if name == "munchausen":
        return agent, make_transition(agent)
    inputs, valid = with_episode_ends(agent.spec)
    return agent, make_unroll(agent, inputs, valid)


@pytest.mark.parametrize("name", AGENTS)
def test_a_documented_agent_acts_and_learns(name, tmp_path, monkeypatch):
    source = module(name, tmp_path, monkeypatch)
    agent, batch = made(name, source)
    check_agent(agent, agent.spec)
    optimiser = torch.optim.Adam(agent.network.parameters(), lr=1e-3)
    losses = []
    for _ in range(20):
        optimiser.zero_grad()
        output = agent.loss(batch, 0.0)
        check_output(output, batch)
        output.loss.backward()
        optimiser.step()
        losses.append(output.loss.item())
    assert all(weight.grad.abs().sum() > 0 for weight in agent.network.parameters())
    assert min(losses) < losses[0]
    masked = source.Agent(source.Config(), masked_spec())
    inputs = any_inputs(masked.spec, 1, 100)
    inputs.epsilon = torch.full((1, 100), 0.5)
    for greedy in (False, True):
        action = masked.act(inputs, {}, torch.Generator().manual_seed(0), greedy).action
        assert inputs.observation[LEGAL][0].gather(-1, action[:, None]).all()


@pytest.mark.parametrize("name", AGENTS)
def test_it_computes_in_float64_where_its_parameters_are(name, tmp_path, monkeypatch):
    source = module(name, tmp_path, monkeypatch)
    (single, batch), (double, _) = made(name, source), made(name, source)
    double.network.double()
    if name == "munchausen":
        double.target.network.double()
    losses = [agent.loss(batch, 0.5).loss for agent in (single, double)]
    assert losses[1].dtype == torch.float64
    torch.testing.assert_close(losses[1].float(), losses[0], rtol=1e-4, atol=1e-5)


def test_munchausens_targets_are_those_of_the_equation(tmp_path, monkeypatch):
    """By loops over Python's floats, with the sum over actions written out."""
    source = module("munchausen", tmp_path, monkeypatch)
    agent, batch = made("munchausen", source)
    config, width = agent.config, len(batch.reward)
    for weight in agent.network.parameters():
        weight.data.mul_(0.2)  # some bonuses are cut off, some are not
    q, now, then = (source._values(net, inputs).tolist() for net, inputs in (
        (agent.network, batch.inputs), (agent.target.network, batch.inputs), (agent.target.network, batch.next_inputs)
    ))  # fmt: skip

    def log_policy(values: list[float], action: int) -> float:
        top = max(values)
        return (values[action] - top) / config.temperature - math.log(
            sum(math.exp((value - top) / config.temperature) for value in values)
        )

    total, bonuses = 0.0, []
    for i in range(width):
        action = int(batch.action[i])
        bonuses.append(max(config.lowest_bonus, config.temperature * log_policy(now[i], action)))
        value = 0.0
        for other, one in enumerate(then[i]):
            log_pi = log_policy(then[i], other)
            value += math.exp(log_pi) * (one - config.temperature * log_pi)
        y = float(batch.reward[i]) + config.bonus * bonuses[-1] + float(batch.discount[i]) * value
        error = abs(y - q[i][action])
        total += float(batch.weight[i]) * (0.5 * error**2 if error < 1 else error - 0.5)
    assert len(set(bonuses)) > 1
    output = agent.loss(batch, 0.25)
    assert output.total.item() == pytest.approx(total, rel=1e-4)
    assert output.count == width
    assert agent.network.warmth.item() == 0.75


def test_munchausen_explores_less_as_the_run_goes_on_and_each_environment_by_itself(tmp_path, monkeypatch):
    source = module("munchausen", tmp_path, monkeypatch)
    agent, batch = made("munchausen", source)
    epsilon = agent.exploration(torch.arange(4).numpy(), 4, 0)
    assert epsilon[0] == pytest.approx(0.4) and (epsilon[1:] < epsilon[:-1]).all()
    inputs = any_inputs(agent.spec, 1, 2000)
    inputs.epsilon = torch.ones(1, 2000)
    best = agent.act(inputs, {}, None, greedy=True).action
    changed = []
    for progress in (0.0, 0.5, 1.0):
        agent.loss(batch, progress)
        action = agent.act(inputs, {}, torch.Generator().manual_seed(0)).action
        changed.append((action != best).float().mean().item())
    others = 1 - 1 / agent.spec.action.num_actions
    assert changed[0] == pytest.approx(others, abs=0.05)
    assert changed[1] == pytest.approx(others / 2, abs=0.05)
    assert changed[2] == 0


def test_munchausens_target_starts_from_weights_that_were_loaded_and_follows(tmp_path, monkeypatch):
    source = module("munchausen", tmp_path, monkeypatch)
    agent, _ = made("munchausen", source)
    with torch.no_grad():
        agent.network.head.bias.fill_(3.0)  # as weights of a checkpoint are loaded
    target = agent.learner_states()["target"]
    assert (target.network.head.bias == 3.0).all()
    with torch.no_grad():
        agent.network.head.bias.fill_(5.0)
    target.trained(None, 1)
    torch.testing.assert_close(target.network.head.bias, torch.full_like(agent.network.head.bias, 3.02))
    again, _ = made("munchausen", source)
    again.target.load_state(target.state())
    assert torch.equal(again.target.network.head.bias, target.network.head.bias)
