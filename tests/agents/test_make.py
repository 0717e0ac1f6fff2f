"""Finding agents by name, and the two agents that learn nothing."""

from __future__ import annotations

import types
from importlib.metadata import EntryPoint

import pytest
import torch

from offbeat.agents import impala, make, noop, random
from offbeat.agents.make import agent_config_class, list_agents, make_agent
from offbeat.errors import UserError
from offbeat.networks.flat import flatten_parameters
from offbeat.types import ActionSpec
from tests.agents.unrolls import BOX, DISCRETE, make_inputs, make_spec, make_unroll


def test_finds_every_agent():
    assert {"impala", "random", "noop"} <= set(list_agents())
    assert not {"base", "make"} & set(list_agents())
    for name in list_agents():
        config = agent_config_class(name)()
        agent = make_agent(name, config, make_spec("image"))
        assert agent.config is config
        assert agent.discount == config.discount
        assert flatten_parameters(agent.network).numel() > 0


def test_unknown_names_get_the_nearest():
    with pytest.raises(ValueError, match=r"unknown agent 'imapla'; did you mean 'impala'\? allowed: .*impala"):
        agent_config_class("imapla")
    with pytest.raises(ValueError, match="unknown agent 'base'"):
        make_agent("base", None, make_spec())
    with pytest.raises(ValueError, match=r"unknown agent 'os\.path'"):
        agent_config_class("os.path")


def test_rejects_the_configuration_of_another_agent():
    with pytest.raises(ValueError, match=r"agent 'impala' takes a offbeat.agents.impala.Config, got Config"):
        make_agent("impala", noop.Config(), make_spec())


def test_a_network_that_is_larger_than_any_memory_is_refused_in_a_line():
    large = impala.Config(core="lstm", core_size=10_000_000)
    with pytest.raises(UserError, match=r"agent 'impala' does not fit .* of cpu: .*; use smaller .*core_size"):
        make_agent("impala", large, make_spec())


def test_entry_points_add_agents(monkeypatch):
    """A package of a user names an object with ``Config`` and ``Agent``."""
    point = EntryPoint("theirs", "offbeat.agents.impala", make.ENTRY_POINT_GROUP)
    broken = EntryPoint("broken", "offbeat.agents.base", make.ENTRY_POINT_GROUP)
    monkeypatch.setattr(make, "entry_points", lambda group: [point, broken] if group == "offbeat.agents" else [])
    assert "theirs" in list_agents()
    assert agent_config_class("theirs") is impala.Config
    assert isinstance(make_agent("theirs", impala.Config(), make_spec()), impala.Agent)
    with pytest.raises(ValueError, match="defines no Config and Agent"):
        agent_config_class("broken")
    assert isinstance(make._agent_module("theirs"), types.ModuleType)


@pytest.mark.parametrize("action", [DISCRETE, BOX])
@pytest.mark.parametrize("name", ["random", "noop"])
def test_agents_that_learn_nothing(name, action):
    agent = make_agent(name, agent_config_class(name)(), make_spec("vector", action))
    inputs = make_inputs(agent.spec, 4, 5)
    batch = make_unroll(agent, inputs, torch.ones(4, 5, dtype=torch.bool))
    assert batch.action.shape == (3, 5, *action.shape)
    assert batch.action.dtype == getattr(torch, action.array.dtype)
    assert batch.extras == {} and batch.core_state == {}
    loss = agent.loss(batch, 0.0).loss
    loss.backward()
    assert loss.item() == 0.0
    assert all((weight.grad == 0).all() for weight in agent.network.parameters())
    if name == "noop":
        assert (batch.action == 0).all()


def test_random_is_uniform_and_follows_the_generator():
    inputs = make_inputs(make_spec(), 1, 9000)
    agent = make_agent("random", random.Config(), make_spec())
    draws = [agent.act(inputs, {}, torch.Generator().manual_seed(seed)).action for seed in (1, 1, 2)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    torch.testing.assert_close(torch.bincount(draws[0]) / 9000, torch.full((3,), 1 / 3), rtol=0, atol=0.02)
    agent = make_agent("random", random.Config(), make_spec("vector", BOX))
    action = agent.act(inputs, {}, torch.Generator().manual_seed(1)).action
    low, high = torch.tensor(BOX.low), torch.tensor(BOX.high)
    assert ((action >= low) & (action <= high)).all()
    torch.testing.assert_close(action.mean(0), (low + high) / 2, rtol=0, atol=0.1)
    unbounded = ActionSpec("continuous", shape=(2,), low=(-float("inf"),) * 2, high=(float("inf"),) * 2)
    agent = make_agent("random", random.Config(), make_spec("vector", unbounded))
    assert agent.act(inputs, {}, None).action.isfinite().all()
