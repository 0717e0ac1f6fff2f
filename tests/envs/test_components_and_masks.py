"""Actions of several components, and masks that users' environments give in observations or in ``info``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import SyncVectorEnv

import offbeat
from offbeat.envs.base import EnvConfig, Misbehaved
from offbeat.envs.registry import env_spec, make_env
from offbeat.errors import UserError
from offbeat.types import LEGAL

STEPS = 10


class Combination(gymnasium.Env[Any, Any]):
    """Each component that shows the digit it is asked for earns 1."""

    action_space: spaces.Space[Any] = spaces.MultiDiscrete([3, 2, 4], start=[1, 0, -1])
    observation_space: spaces.Space[Any] = spaces.MultiDiscrete([3, 2, 4])

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.t = 0
        return self._ask(), {}

    def step(self, action: Any) -> Any:
        assert self.action_space.contains(action), action
        start = getattr(self.action_space, "start", 0)
        earned = float((np.ravel(action - start) == np.ravel(self.asked)).sum())
        self.t += 1
        return self._ask(), earned, False, self.t == STEPS, {}

    def _ask(self) -> Any:
        self.asked = self.np_random.integers(self.observation_space.nvec)  # type: ignore[attr-defined]
        return self.asked


class Switches(Combination):
    """The same with four binary ones in a square."""

    action_space = spaces.MultiBinary((2, 2))
    observation_space = spaces.MultiDiscrete([2, 2, 2, 2])


OPTIONS: dict[str, Any] = {
    "env__max_steps": 0, "log": {"tensorboard": False}, "engine": "inline", "evaluation": {"every_frames": 0},
    "agent": {"hidden_size": [32], "entropy_cost": 0.001, "discount": 0.0},
    "learner": {"learning_rate": 3e-3, "optimizer": "adam"},
}  # fmt: skip


@pytest.mark.parametrize(("env", "most", "chance"), [(Combination, 30.0, 10.8), (Switches, 40.0, 20.0)])
def test_an_actor_critic_learns_every_component(env: Any, most: float, chance: float, tmp_path: Path) -> None:
    run = offbeat.train("impala-catch", env_factory=env, out=str(tmp_path / "run"), total_frames=60_000, **OPTIONS).run
    score = offbeat.evaluate(run, episodes=40, policy="greedy", env_factory=env).mean
    assert score > 0.9 * most > 1.5 * chance
    agent, one = offbeat.load(run, env_factory=env), env()
    observation, _ = one.reset(seed=1)
    assert one.action_space.contains(agent.act(observation))
    assert offbeat.export(run, env_factory=env).exists()
    assert offbeat.resume(run, 61_000, env_factory=env).finished


@pytest.mark.parametrize("preset", ["apex-catch", "r2d2-tmaze"])
def test_value_agents_refuse_them_in_one_line(preset: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="value-based agents need discrete actions, but those"):
        offbeat.train(preset, env_factory=Combination, out=str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


class Masked(gymnasium.Env[Any, Any]):
    """Only one or two of five actions are legal at a time; the least of them earns 1. Illegal ones raise."""

    action_space = spaces.Discrete(5, start=2)
    inside = True

    def __init__(self) -> None:
        seen = {"observation": spaces.Box(0, 1, (5,))}
        mask = {"action_mask": spaces.Box(0, 1, (5,), np.int8)} if self.inside else {}
        self.observation_space = spaces.Dict(seen | mask)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.t = 0
        return self._next()

    def step(self, action: Any) -> Any:
        choice = int(action) - 2
        assert self.mask[choice], f"{choice} of {self.mask}"
        self.t += 1
        earned = float(choice == np.flatnonzero(self.mask)[0])
        observation, info = self._next()
        return observation, earned, False, self.t == STEPS, info

    def _next(self) -> Any:
        self.mask = np.zeros(5, np.int8)
        self.mask[self.np_random.integers(5, size=2)] = 1
        seen = {"observation": self.mask.astype(np.float32)}
        return (seen | {"action_mask": self.mask}, {}) if self.inside else (seen, {"action_mask": self.mask})


class Told(Masked):
    inside = False


@pytest.mark.parametrize("env", [Masked, Told])
@pytest.mark.parametrize("preset", ["impala-catch", "apex-catch", "random"])
def test_masks_are_honoured_wherever_they_are_given(env: Any, preset: str, tmp_path: Path) -> None:
    spec = env_spec(EnvConfig(id="mine", frame_skip=1), env)
    assert spec.observation[LEGAL].dtype == "bool" and LEGAL not in spec.features
    options = {name: value for name, value in OPTIONS.items() if name in ("log", "engine", "evaluation")}
    run = offbeat.train(preset, env_factory=env, out=str(tmp_path / "run"), total_frames=2000, **options).run
    assert offbeat.evaluate(run, episodes=20, env_factory=env).complete
    if preset == "random":
        return
    agent, one = offbeat.load(run, env_factory=env), env()
    observation, info = one.reset(seed=3)
    for _ in range(STEPS):
        action = agent.act(observation, action_mask=info.get("action_mask"))
        observation, _, _, _, info = one.step(action)
    assert offbeat.export(run, env_factory=env).exists()


class Late(Told):
    """Tells its mask from the first step on only."""

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        seen, _ = super().reset(seed=seed)
        self.mask[:] = 1
        return seen, {}


def test_a_mask_that_the_first_reset_did_not_give_is_refused() -> None:
    says = r"info\['action_mask'\] is there now and was not at the first reset"
    kinds: list[Any] = [Late, lambda config, num_envs, **_: SyncVectorEnv([Late] * num_envs)]
    for factory in kinds:
        envs = make_env(EnvConfig(id="mine"), 2, factory=factory)
        envs.reset(0)
        envs.recv()
        with pytest.raises(Misbehaved, match=says):
            envs.send(np.zeros(2, np.int64))
        envs.close()


def test_a_loaded_agent_asks_for_the_mask(tmp_path: Path) -> None:
    options = {name: value for name, value in OPTIONS.items() if name in ("log", "engine", "evaluation")}
    run = offbeat.train("impala-catch", env_factory=Told, out=str(tmp_path / "run"), total_frames=400, **options).run
    agent = offbeat.load(run, env_factory=Told)
    observation, info = Told().reset(seed=0)
    with pytest.raises(ValueError, match=r"call act\(observation, action_mask=info\['action_mask'\]\)"):
        agent.act(observation)
    assert info["action_mask"][agent.act(observation, action_mask=info["action_mask"]) - 2]


def test_masks_of_several_components_are_those_of_each() -> None:
    class Both(Combination):
        observation_space = spaces.Dict(
            {"digits": spaces.MultiDiscrete([3, 2, 4]), "action_mask": spaces.MultiBinary(9)}
        )

        def _ask(self) -> Any:
            self.asked = self.np_random.integers([3, 2, 4])
            return {"digits": self.asked, "action_mask": np.ones(9, np.int8)}

    spec = env_spec(EnvConfig(id="mine"), Both)
    assert spec.action.choices == (3, 2, 4) and spec.observation[LEGAL].shape == (9,)
