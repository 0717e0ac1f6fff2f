"""Made-up batches have fields, shapes, types and memory layouts of those that learners get, and losses read them."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import pytest
import torch

from offbeat.agents.base import Agent
from offbeat.agents.make import make_agent
from offbeat.bench.batches import make_batch, make_inputs
from offbeat.config.run_config import RunConfig, load_preset
from offbeat.envs.registry import env_spec, make_env
from offbeat.networks.flat import flat_size
from offbeat.replay.make import make_mixture
from offbeat.replay.streams import StreamStore
from offbeat.runtime.actor import ActorWork, run_actor
from offbeat.runtime.policy import LocalPolicy
from offbeat.runtime.world import plan_layout
from offbeat.runtime.writer import StoreWriter
from offbeat.types import LEGAL, UNROLL, EnvSpec, Sequence, Transition, Unroll
from tests.agents.items import masked_spec
from tests.runtime.parts import Metrics, StopAfter, item_config, private_params

AGENTS = ("dqn", "rainbow", "apex", "r2d2")
UNROLLS = ("impala-catch", "impala-tmaze", "impala-pendulum")


def build(config: RunConfig) -> tuple[EnvSpec, Agent]:
    """The spec and the agent of a configuration."""
    spec = env_spec(config.env)
    return spec, make_agent(config.agent_name, config.agent, spec)


def replayed(config: RunConfig, spec: EnvSpec, agent: Agent) -> Transition | Sequence:
    """A batch that a learner of ``config`` gets, of rows that its actor made."""
    layout = plan_layout(config, spec, agent)
    store = StreamStore.allocate(layout)
    streams = np.arange(layout.num_streams)
    work = ActorWork(layout, streams, block=layout.block, discount=agent.discount, wants_last=agent.wants_last, seed=0)
    policy = LocalPolicy(agent, private_params(flat_size(agent.network)), len(streams), seed=0)
    envs = make_env(config.env, len(streams))
    for _ in run_actor(envs, policy, StoreWriter(store, None), Metrics(), StopAfter(60), work):
        pass
    batch = make_mixture(
        store, config.replay, config.learner.batch_size, agent.wants_last, seed=0, hold_writers=False
    ).sample()
    assert isinstance(batch, Transition | Sequence)
    return batch


def outline(value: Any) -> Any:
    """Shape, type and strides of every tensor in ``value``, by name; all else as it is."""
    if isinstance(value, torch.Tensor):
        return tuple(value.shape), value.dtype, value.stride()
    if isinstance(value, dict):
        return {name: outline(item) for name, item in value.items()}
    if is_dataclass(value):
        return type(value), {field.name: outline(getattr(value, field.name)) for field in fields(value)}
    return value


@pytest.mark.parametrize("name", AGENTS)
def test_made_items_are_like_those_of_replay(name: str) -> None:
    config = item_config(name)
    spec, agent = build(config)
    made = make_batch(spec, agent, config.learner.unroll_length, config.learner.batch_size)
    assert outline(made) == outline(replayed(config, spec, agent))


@pytest.mark.parametrize("name", AGENTS)
def test_losses_read_made_items_and_give_priorities(name: str) -> None:
    config = item_config(name)
    spec, agent = build(config)
    batch = make_batch(spec, agent, unroll_length=5, width=3)
    output = agent.loss(batch, 0.0)
    output.loss.backward()
    assert torch.isfinite(output.loss)
    assert output.feedback["priority"].shape == (3,)
    assert any(bool(weight.grad.any()) for weight in agent.network.parameters() if weight.grad is not None)
    assert batch.rows == 3 * agent.items.trained


def test_a_sequence_trains_on_its_rows_between_burn_in_and_tail() -> None:
    spec, agent = build(item_config("r2d2"))  # burn-in 2, 4 rows, 2 steps
    batch = make_batch(spec, agent, unroll_length=5, width=3)
    assert isinstance(batch, Sequence)
    assert batch.mask.int().tolist() == [[0] * 3] * 2 + [[1] * 3] * 4 + [[0] * 3] * 2
    assert batch.inputs.shape == (9, 3) and batch.burn_in == 2


@pytest.mark.parametrize("preset", UNROLLS)
def test_losses_read_made_unrolls(preset: str) -> None:
    config = load_preset(preset)
    spec, agent = build(config)
    assert agent.items == UNROLL
    unroll = make_batch(spec, agent, 5, 3)
    assert isinstance(unroll, Unroll) and unroll.rows == 15
    assert unroll.reward.shape == (5, 3) and unroll.inputs.shape == (6, 3)
    assert torch.isfinite(agent.loss(unroll, 0.0).loss)
    for key, item in spec.network_observation.items():
        assert unroll.inputs.observation[key].shape == (6, 3, *item.shape)
        assert unroll.inputs.observation[key].dtype == getattr(torch, item.dtype)


def test_masks_are_there_only_where_the_environment_has_them() -> None:
    config = item_config("dqn")
    masked = masked_spec()
    agent = make_agent("dqn", config.agent, masked)
    legal = make_inputs(masked, agent, 2, 3).observation[LEGAL]
    assert legal.shape == (2, 3, masked.action.num_actions) and legal.dtype == torch.bool and legal.all()
    assert torch.isfinite(agent.loss(make_batch(masked, agent, 5, 4), 0.0).loss)
    spec, agent = build(config)
    assert LEGAL not in make_inputs(spec, agent, 2, 3).observation
