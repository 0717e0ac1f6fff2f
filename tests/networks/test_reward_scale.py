"""Rewards by the spread of the return so far: against a slow transcription, and through runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import offbeat
from offbeat.agents.base import learner_states
from offbeat.agents.make import agent_config_class, make_agent
from offbeat.config.run_config import RunConfig, apply_overrides, load_preset
from offbeat.networks.normaliser import EPSILON
from offbeat.networks.reward_scale import RewardScale
from offbeat.run.train import train
from offbeat.run.verify import compare_checkpoints, verify_resume
from offbeat.types import Unroll
from tests.agents.items import make_transition
from tests.agents.unrolls import make_spec, make_unroll, with_episode_ends


def unrolls(agent: Any, count: int) -> tuple[list[Unroll], np.ndarray]:
    """``count`` unrolls of the same streams, one after the other, and the returns so far in their rows, in order."""
    made, returns = [], []
    so_far = np.zeros(0)
    for index in range(count):
        unroll = make_unroll(agent, *with_episode_ends(agent.spec), seed=index)
        length, streams = unroll.reward.shape
        unroll = replace(unroll, reward=1000 * unroll.reward, row=torch.full((streams,), index * length))
        so_far = so_far if len(so_far) else np.zeros(streams)
        for t in range(length):
            for b in range(streams):
                so_far[b] += float(unroll.reward[t, b])
                if unroll.valid[t, b]:
                    returns.append(so_far[b])
                so_far[b] *= float(unroll.discount[t, b])
        made.append(unroll)
    return made, np.array(returns)


def test_it_is_the_magnitude_of_the_return_so_far() -> None:
    agent = make_agent("impala", agent_config_class("impala")(), make_spec("vector"))
    made, returns = unrolls(agent, 5)
    scale = RewardScale(clip=2.0)
    for unroll in made:
        scaled = scale.scaled(unroll)
    assert isinstance(scaled, Unroll) and len(returns) == float(scale.rows)
    assert float(scale.variance) == pytest.approx(returns.var(), rel=1e-5)
    expected = (made[-1].reward.double() / np.sqrt(np.square(returns).mean() + EPSILON)).clamp(-2, 2)
    torch.testing.assert_close(scaled.reward.double(), expected, rtol=1e-5, atol=1e-6)
    assert (made[-1].reward.abs() > 100).any(), "the batch itself is left as it is"


def test_what_does_not_follow_begins_anew() -> None:
    agent = make_agent("impala", agent_config_class("impala")(), make_spec("vector"))
    (first, second), _ = unrolls(agent, 2)
    carried, apart = RewardScale(10.0), RewardScale(10.0)
    carried.scaled(first)
    apart.scaled(first)
    carried.scaled(second)
    apart.scaled(replace(second, row=second.row + 1))
    assert float(carried.variance) != float(apart.variance)
    replayed = replace(second, replayed=torch.ones(second.reward.shape[1], dtype=torch.bool))
    before = {name: value.clone() for name, value in carried.state().items()}
    carried.scaled(replayed)
    assert all(torch.equal(value, carried.state()[name]) for name, value in before.items())


def test_of_transitions_it_is_what_their_rewards_would_add_up_to() -> None:
    """Against returns that were played out: rewards of mean 2 and variance 9, one in ten of which is an episode's."""
    agent = make_agent("dqn", agent_config_class("dqn")(), make_spec("vector"))
    scale, transition = RewardScale(100.0), make_transition(agent)
    generator = torch.Generator().manual_seed(0)
    so_far, squares, returns = torch.zeros(400), [], 0
    for step in range(300):
        reward = 2 + 3 * torch.randn(400, generator=generator)
        discount = 0.97 * (torch.rand(400, generator=generator) > 0.1)
        scaled = scale.scaled(replace(transition, reward=reward, discount=discount))
        so_far = reward + discount * so_far
        squares += [so_far.square().mean()] if step > 100 else []
        returns += len(reward)
    assert float(scale.rows) == returns
    assert scale.magnitude() == pytest.approx(float(torch.stack(squares).mean()) ** 0.5, rel=0.03)
    torch.testing.assert_close(scaled.reward, reward / scale.magnitude())


@pytest.mark.parametrize(("discount", "expected"), [(0.0, 1.0), (0.97, 0.03), (1.0, 1e-3 / 2**0.5)])
def test_constant_rewards_are_not_blown_up(discount: float, expected: float) -> None:
    """Their variance is nothing: each step of CartPole earns 1."""
    agent = make_agent("dqn", agent_config_class("dqn")(), make_spec("vector"))
    scale, transition = RewardScale(10.0), make_transition(agent)
    ones = torch.ones_like(transition.reward)
    for _ in range(10):
        scaled = scale.scaled(replace(transition, reward=ones, discount=discount * ones))
    torch.testing.assert_close(scaled.reward, expected * ones, rtol=1e-4, atol=1e-6)


def test_rewards_that_are_not_finite_do_not_spoil_it() -> None:
    agent = make_agent("dqn", agent_config_class("dqn")(), make_spec("vector"))
    scale, transition = RewardScale(10.0), make_transition(agent)
    bad = transition.reward.clone()
    bad[0] = torch.nan
    assert scale.scaled(replace(transition, reward=bad)).reward.isnan().any(), "the learner is to see it"
    assert float(scale.rows) == 0


@pytest.mark.parametrize("name", ["impala", "dqn", "r2d2", "rainbow", "apex"])
def test_every_agent_keeps_it_in_its_weights(name: str) -> None:
    agent = make_agent(name, agent_config_class(name)(normalise_reward=True), make_spec("vector"))
    assert learner_states(agent)["reward_scale"] is agent.network.reward_scale
    assert "reward_scale.variance" in agent.network.state_dict()


def config(out: Path | str, **options: Any) -> RunConfig:
    """A short inline run of Catch whose rewards are those of another planet."""
    short = {
        "out": str(out), "engine": "inline", "log.tensorboard": False, "evaluation.every_frames": 0,
        "agent.normalise_reward": True, "env.reward_scale": 1e4, "total_frames": 3000, "evaluation.episodes": 40,
        "evaluation.envs": 10,
    }  # fmt: skip
    return apply_overrides(load_preset("debug"), (short | options).items())


def test_inline_and_lockstep_are_the_same_bit_for_bit(tmp_path: Path) -> None:
    inline = train(config(tmp_path / "inline", deterministic=True))
    lockstep = train(config(tmp_path / "lockstep", deterministic=True, engine="local"))
    result = compare_checkpoints(inline.run, lockstep.run)
    assert inline.updates > 5 and result.equal, result.differing


@pytest.mark.slow
def test_killed_and_resumed_equals_never_killed(tmp_path: Path) -> None:
    assert verify_resume(replace(config("", **{"checkpoint.every_updates": 10}), out=""), kills=1, folder=tmp_path)


def test_rewards_of_any_size_are_learnt_from_with_it(tmp_path: Path) -> None:
    """With values of 10,000 the value's loss drowns the policy's."""
    long = {"total_frames": 30_000, "learner.learning_rate": 2e-3}
    run = train(config(tmp_path / "with", **long)).run
    scores = offbeat.evaluate(run, episodes=40, policy="greedy").returns
    assert scores.mean() > 0.5, "a random policy scores -0.6"
