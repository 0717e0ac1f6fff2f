"""Gymnasium's vector environments: the same rows as single ones, in training and after it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv

import offbeat
from offbeat.envs.base import EnvConfig, Misbehaved, StateUnsupported
from offbeat.envs.registry import make_env
from offbeat.types import LEGAL
from tests.envs.test_components_and_masks import Combination, Masked, Told


def cart_poles(config: EnvConfig, num_envs: int, **_: Any) -> Any:
    return gymnasium.make_vec("CartPole-v1", num_envs=num_envs, vectorization_mode="sync")


def test_rows_are_those_of_the_environments_alone() -> None:
    """Played beside copies that get the same seeds and actions."""
    envs = make_env(EnvConfig(id="mine"), 3, factory=cart_poles)
    alone = [gymnasium.make("CartPole-v1") for _ in range(3)]
    envs.reset(7)
    rows, random = envs.recv(), np.random.default_rng(0)
    seen = [env.reset(seed=7 + index)[0] for index, env in enumerate(alone)]
    over, ends = [False] * 3, 0
    for _ in range(200):
        np.testing.assert_array_equal(rows.observation["observation"], seen)
        action = random.integers(2, size=3)
        envs.send(action)
        rows = envs.recv()
        for index, env in enumerate(alone):
            if over[index]:
                seen[index], over[index] = env.reset()[0], False
                assert rows.first[index] and rows.raw_reward[index] == 0 and rows.valid[index]
                continue
            seen[index], reward, terminated, truncated, _ = env.step(action[index])
            over[index] = terminated or truncated
            ends += over[index]
            assert (rows.raw_reward[index], rows.terminated[index]) == (reward, terminated)
            assert rows.valid[index] == (not over[index]) and not rows.first[index]
    assert ends > 10
    with pytest.raises(StateUnsupported, match="deterministic runs need a factory of single ones"):
        envs.state()
    envs.close()
    envs.close()


@pytest.mark.parametrize("kind", [SyncVectorEnv, AsyncVectorEnv])
@pytest.mark.parametrize("env", [Combination, Masked, Told])
def test_components_and_masks(kind: Any, env: Any) -> None:
    envs = make_env(EnvConfig(id="mine"), 2, factory=lambda config, num_envs, **_: kind([env] * num_envs))
    envs.reset(0)
    rows = envs.recv()
    assert (LEGAL in envs.spec.observation) == (env is not Combination)
    for _ in range(30):
        if env is Combination:
            action = np.zeros((2, 3), np.int64)
        else:
            assert rows.observation[LEGAL].dtype == bool
            action = rows.observation[LEGAL].argmax(-1)
        envs.send(action)
        rows = envs.recv()
    envs.close()


def test_a_run_trains_on_them_and_is_scored(tmp_path: Path) -> None:
    options: dict[str, Any] = {"total_frames": 2000, "log": {"tensorboard": False}, "evaluation": {"every_frames": 0}}
    run = offbeat.train("impala-cartpole", env_factory=cart_poles, out=str(tmp_path / "run"), **options).run
    assert offbeat.evaluate(run, episodes=4, env_factory=cart_poles).complete
    agent, env = offbeat.load(run, env_factory=cart_poles), gymnasium.make_vec("CartPole-v1", num_envs=3)
    assert env.action_space.contains(agent.act(env.reset()[0]))
    assert offbeat.resume(run, 3000, env_factory=cart_poles).finished


class Forgetful(Told):
    """Its first step tells no mask, or one of another length."""

    def given(self) -> dict[str, Any]:
        return {}

    def step(self, action: Any) -> Any:
        *outcome, _ = super().step(action)
        return *outcome, self.given()


class Short(Forgetful):
    def given(self) -> dict[str, Any]:
        return {"action_mask": np.ones(2, bool)}


def test_masks_that_are_missing_or_of_another_shape() -> None:
    """Vectors fill in zeros for those that tell none: no action would be legal."""
    kinds = [Told, Forgetful]
    envs = make_env(EnvConfig(id="mine"), 2, factory=lambda config, num_envs, **_: SyncVectorEnv(kinds))
    envs.reset(0)
    action = envs.recv().observation[LEGAL].argmax(-1)
    envs.send(action)
    legal = envs.recv().observation[LEGAL]
    assert legal[1].all() and legal[0].any() and not legal[0].all()
    envs.close()
    envs = make_env(EnvConfig(id="mine"), 1, factory=lambda config, num_envs, **_: SyncVectorEnv([Short]))
    envs.reset(0)
    action = envs.recv().observation[LEGAL].argmax(-1)
    with pytest.raises(Misbehaved, match=r"mine: info\['action_mask'\] must have the shape \[1, .\], got \[1, 2\]"):
        envs.send(action)


@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.DISABLED])
def test_other_modes_of_resetting_are_refused(mode: AutoresetMode) -> None:
    def make(config: EnvConfig, num_envs: int, **_: Any) -> Any:
        return SyncVectorEnv([Combination] * num_envs, autoreset_mode=mode)

    with pytest.raises(Misbehaved, match=f"in mode {mode.name}; make it with autoreset_mode=.*NEXT_STEP"):
        make_env(EnvConfig(id="mine"), 2, factory=make)
