"""Gymnasium's vector environments: the same rows as single ones, in training and after it."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv

import offbeat
from offbeat.envs.base import EnvConfig, Misbehaved, StateUnsupported
from offbeat.envs.registry import make_env
from offbeat.types import LEGAL
from tests.envs.test_components_and_masks import Combination, Masked, Told
from tests.zoo.vectors import FAULTS, Lamps


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
    with pytest.raises(
        StateUnsupported,
        match=r"its envs\[0\] is of TimeLimit, kept are .*; deterministic runs need that, or a factory of",
    ):
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


class Steps(gymnasium.Env[Any, Any]):
    """Shows copy, steps and what was done; ends after as many steps as were action 2 in the first three, and 4 more. It
    refuses to go on after its end.
    """

    observation_space = spaces.Dict({"seen": spaces.Box(-1, 99, (3,), np.float32), "told": spaces.Discrete(4)})
    action_space = spaces.Discrete(3)

    def __init__(self, limit: int = 6) -> None:
        self.limit = limit

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.steps = self.sum = self.late = 0
        return self.shown(), {}

    def shown(self) -> dict[str, Any]:
        return {"seen": np.array([self.limit, self.steps, self.sum], np.float32), "told": self.steps % 4}

    def step(self, action: Any) -> Any:
        assert self.steps < 4 + self.late, "it has ended"
        self.steps, self.sum = self.steps + 1, self.sum + int(action)
        self.late += action == 2 and self.steps <= 3
        return self.shown(), float(self.sum + 1), self.steps == 4 + self.late, self.steps == self.limit, {}


LIMITS = (1, 5, 7, 8)
"""Of the environments of a batch; the first ends at each step."""


class MaskedSteps(Steps):
    """Only one action is legal, and it raises at others."""

    def reset(self, **options: Any) -> Any:
        return super().reset(**options)[0], self.told()

    def told(self) -> dict[str, Any]:
        return {"action_mask": np.eye(3, dtype=np.int8)[(self.steps + self.limit) % 3]}

    def step(self, action: Any) -> Any:
        assert action == (self.steps + self.limit) % 3
        return *super().step(action)[:4], self.told()


@pytest.mark.parametrize("kind", [SyncVectorEnv, AsyncVectorEnv])
@pytest.mark.parametrize("mode", list(AutoresetMode))
@pytest.mark.parametrize("env", [Steps, MaskedSteps])
def test_rows_do_not_depend_on_the_mode_of_resetting(kind: Any, mode: AutoresetMode, env: Any) -> None:
    """They are those of the environments alone."""

    def many(config: EnvConfig, num_envs: int, **_: Any) -> Any:
        return kind([partial(env, limit) for limit in LIMITS], autoreset_mode=mode)

    limits = iter(LIMITS)
    several = make_env(EnvConfig(id="mine"), 4, factory=many)
    alone = make_env(EnvConfig(id="mine"), 4, factory=lambda: env(next(limits)))
    several.reset(0)
    alone.reset(0)
    random, ends = np.random.default_rng(0), 0
    for _ in range(120):
        one, two = several.recv(), alone.recv()
        for name in ("env_ids", "reward", "raw_reward", "terminated", "truncated", "first", "valid"):
            np.testing.assert_array_equal(getattr(one, name), getattr(two, name), err_msg=name)
        for key in ("seen", "told", LEGAL):
            if key in two.observation:
                playing = two.valid if key == LEGAL else slice(None)
                np.testing.assert_array_equal(one.observation[key][playing], two.observation[key][playing])
        ends += int((~one.valid).sum())
        action = random.integers(3, size=4)
        if env is MaskedSteps:
            action = one.observation[LEGAL].argmax(-1)
        several.send(action)
        alone.send(action)
    assert ends > 50
    several.close()
    alone.close()


class Deaf(SyncVectorEnv):
    """It resets everything, whatever it is asked for."""

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        return super().reset(seed=seed)


class Raising(SyncVectorEnv):
    """Its reset takes no options."""

    def reset(self, *, seed: Any = None) -> Any:  # type: ignore[override]
        return super().reset(seed=seed)


class Silent(SyncVectorEnv):
    """It does not give final observations."""

    def step(self, actions: Any) -> Any:
        return *super().step(actions)[:4], {}


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        (Deaf, "in mode SAME_STEP, in which offbeat .*, but it reset others as well; make it with .*NEXT_STEP"),
        (Raising, "but it raised TypeError: .*; make it with autoreset_mode=gymnasium.vector.AutoresetMode.NEXT_STEP"),
        (Silent, r"mine resets in the step of an end, and gives no info\['final_obs'\] then"),
    ],
)
def test_those_that_cannot_have_such_rows_are_refused(kind: Any, why: str) -> None:
    def many(config: EnvConfig, num_envs: int, **_: Any) -> Any:
        return kind([Steps] * num_envs, autoreset_mode=AutoresetMode.SAME_STEP)

    def play() -> None:
        envs = make_env(EnvConfig(id="mine"), 2, factory=many)
        envs.reset(0)
        for _ in range(8):
            envs.recv()
            envs.send(np.ones(2, np.int64))

    with pytest.raises(Misbehaved, match=why):
        play()


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("count", [1, 3])
def test_a_value_for_each_copy_is_asked_for(fault: str, count: int) -> None:
    """Right after the reset or step that did not have it; with one copy, too."""

    def play() -> None:
        envs = make_env(EnvConfig(id="mine"), count, factory=partial(Lamps, fault=fault))
        assert not fault.startswith("reset"), "seen where it is made"
        envs.reset(0)
        envs.recv()
        envs.send(np.ones(count, np.int64))

    with pytest.raises(Misbehaved, match=f"^mine: {FAULTS[fault]}"):
        play()


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault not in ("reward-text", "ends-half")])
def test_so_it_is_at_later_steps_and_resets(fault: str) -> None:
    made: list[Lamps] = []

    def many(num_envs: int) -> Lamps:
        made.append(Lamps(num_envs))
        return made[-1]

    envs = make_env(EnvConfig(id="mine"), 3, factory=many)
    envs.reset(0)
    for step in range(20):
        rows = envs.recv()
        assert step % 7 == 0 or (rows.raw_reward == step % 3).all(), "of the copy's own action"
        envs.send(np.full(3, (step + 1) % 3))
    made[0].fault = fault
    with pytest.raises(Misbehaved, match=FAULTS[fault]):
        envs.reset(0) if fault.startswith("reset") else envs.send(np.ones(3, np.int64))


def test_lists_of_as_many_values_are_taken() -> None:
    class Lists(Lamps):
        def step(self, actions: Any) -> Any:
            *each, info = super().step(actions)
            return *(value.tolist() for value in each), info

    rows = []
    for kind in (Lists, Lamps):
        envs = make_env(EnvConfig(id="mine"), 3, factory=kind)
        envs.reset(0)
        envs.send(np.array([0, 1, 2]))
        rows.append(envs.recv())
    np.testing.assert_array_equal(rows[0].raw_reward, [0, 1, 2])
    for name in ("raw_reward", "terminated", "truncated"):
        np.testing.assert_array_equal(getattr(rows[0], name), getattr(rows[1], name))
    np.testing.assert_allclose(rows[0].observation["observation"], rows[1].observation["observation"])


def test_a_mode_that_is_none_is_named() -> None:
    def many(config: EnvConfig, num_envs: int, **_: Any) -> Any:
        envs = SyncVectorEnv([Steps] * num_envs)
        envs.metadata = {"autoreset_mode": "sometimes"}
        return envs

    with pytest.raises(Misbehaved, match=r"mine: metadata\['autoreset_mode'\] is 'sometimes'; allowed are .*NEXT_STEP"):
        make_env(EnvConfig(id="mine"), 2, factory=many)
