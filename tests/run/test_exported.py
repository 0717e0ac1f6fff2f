"""Exported policies speak as the environment does, as loaded agents do: the same actions for what ``reset`` gives."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

import offbeat
from offbeat.agents.make import agent_config_class, make_agent
from offbeat.envs.base import EnvConfig
from offbeat.envs.registry import env_spec, translator
from offbeat.run.export import DESCRIPTION, example_inputs, export_agent
from offbeat.run.load import LoadedAgent
from offbeat.types import LEGAL

VECTOR = spaces.Box(-1.0, 1.0, (3,), np.float64)
OBSERVATIONS = {
    "vector": VECTOR,
    "integers": spaces.Box(0, 4, (2,), int),
    "pictures": spaces.Dict({"camera": spaces.Box(0, 255, (40, 40, 3), np.uint8), "speed": VECTOR}),
    "grey": spaces.Box(0, 255, (40, 40), np.uint8),
    "number": spaces.Discrete(5, start=-2),
    "numbers": spaces.MultiDiscrete([[2, 3], [4, 2]], start=[[1, 0], [-3, 0]]),
    "nested": spaces.Dict(
        {"b": spaces.Tuple((spaces.Discrete(3), spaces.MultiBinary((2, 2)))), "a": spaces.Dict({"x": VECTOR})}
    ),
    "tuple": spaces.Tuple((spaces.Box(0.0, 1.0, (8, 8, 2), np.float32), spaces.Discrete(2))),
    "masked": spaces.Dict({"vector": VECTOR, "action_mask": spaces.MultiBinary(3)}),
}
ACTIONS = {
    "discrete": spaces.Discrete(3, start=-1),
    "several": spaces.MultiDiscrete([[2, 3], [4, 2]], start=[[1, 0], [-3, 0]]),
    "bits": spaces.MultiBinary((2, 2)),
    "box": spaces.Box(np.array([[0.0, -0.01]]), np.array([[0.01, 2.0]]), dtype=np.float64),
}
LSTM = {"core": "lstm", "core_size": 8, "last_action": True, "last_reward": True}


class Own(gymnasium.Env[Any, Any]):
    """Shows random members of its space."""

    def __init__(self, observation: str = "vector", action: str = "discrete", told: bool = False) -> None:
        self.observation_space, self.action_space = OBSERVATIONS[observation], ACTIONS[action]
        self.told = told

    def _show(self) -> Any:
        seen: Any = self.observation_space.sample()
        if isinstance(seen, dict) and "action_mask" in seen:
            seen["action_mask"][0] = 1
        if isinstance(seen, dict) and "camera" in seen:  # a tint: noise looks the same to any network
            seen["camera"] = (seen["camera"] * self.np_random.random(3)).astype(np.uint8)
        if isinstance(seen, tuple):
            seen = (seen[0] * np.float32(self.np_random.random()), *seen[1:])
        if isinstance(seen, dict):
            seen = {key: seen[key] for key in reversed(seen)}
        return seen, {"action_mask": np.eye(3, dtype=np.int8)[self.np_random.integers(3)]} if self.told else {}

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
        return self._show()

    def step(self, action: Any) -> Any:
        assert self.action_space.contains(action)
        observation, info = self._show()
        return observation, self.np_random.random(), bool(self.np_random.random() < 0.2), False, info


def as_tensors(given: Any) -> Any:
    """What an environment gives as an exported policy takes it, [1, 1, ...]: all that a user needs to write."""
    if isinstance(given, dict):
        return {key: as_tensors(given[key]) for key in sorted(given)}
    if isinstance(given, tuple):
        return tuple(as_tensors(part) for part in given)
    return torch.as_tensor(given)[None, None]


def compare(
    tmp_path: Path, factory: Callable[[], Own], agent_name: str, options: dict[str, Any], seed: int = 0
) -> None:
    """Play with the loaded agent, and ask the exported one too. ``seed``: of weights that choose several actions."""
    torch.manual_seed(seed)
    config, env = EnvConfig(id="mine", frame_skip=1), factory()
    agent = make_agent(agent_name, agent_config_class(agent_name)(**options), env_spec(config, factory))
    with torch.no_grad():
        for weights in agent.network.parameters():
            weights.normal_(0, 0.5)
    own = translator(config, factory)
    assert own is not None
    export_agent(agent, tmp_path / "policy.pt2", translator=own)
    extra = {DESCRIPTION: ""}
    program = torch.export.load(tmp_path / "policy.pt2", extra_files=extra).module()
    description = json.loads(extra[DESCRIPTION])
    loaded = LoadedAgent(agent, translator=own)
    inputs = example_inputs(agent, 1, own)
    assert list(inputs) == description["order"] and description["spaces"]["action"] == str(env.action_space)
    (observation, info), first, reward = env.reset(seed=3), True, 0.0
    chosen = []
    for _ in range(30):
        row = inputs | {"observation": as_tensors(observation), "first": torch.tensor([[first]])}
        if agent.wants_last:
            row["last_reward"] = torch.tensor([[reward]], dtype=torch.float32)
        if env.told:
            row["action_mask"] = as_tensors(info["action_mask"]).bool()
        positional = [value for name, value in row.items() if name != "action_mask"]
        output = program(*positional, **{name: row[name] for name in row.keys() & {"action_mask"}})
        if first:
            loaded.reset()
        action = loaded.act(observation, reward, action_mask=info.get("action_mask"))
        got = output["action"][0, 0].numpy()
        np.testing.assert_allclose(got, action, rtol=1e-5)
        assert env.action_space.contains(got if got.shape else got.item())
        assert got.dtype == np.asarray(action).dtype
        chosen.append(np.array(action))
        observation, reward, first, _, info = env.step(action)
        if first:
            (observation, info), reward = env.reset(), 0.0
        inputs |= {"state": output["state"]} | ({"last_action": output["last_action"]} if agent.wants_last else {})
    assert len(np.unique(chosen, axis=0)) > 1, "always the same: nothing was compared"


@pytest.mark.parametrize("observation", OBSERVATIONS)
def test_observations_are_taken_as_the_environment_gives_them(tmp_path: Path, observation: str) -> None:
    compare(tmp_path, partial(Own, observation), "impala", {}, seed=int(observation == "tuple"))


@pytest.mark.parametrize("action", ACTIONS)
def test_actions_are_those_that_it_takes(tmp_path: Path, action: str) -> None:
    compare(tmp_path, partial(Own, action=action), "impala", LSTM)


@pytest.mark.parametrize(("agent", "options"), [("dqn", {}), ("r2d2", {"core_size": 8}), ("impala", {})])
def test_masks_that_info_holds_are_an_input(tmp_path: Path, agent: str, options: dict[str, Any]) -> None:
    make = partial(Own, "masked" if agent == "r2d2" else "vector", told=agent != "r2d2")
    assert LEGAL in env_spec(EnvConfig(id="mine", frame_skip=1), make).observation
    compare(tmp_path, make, agent, options)


PROGRAM = """
import sys

sys.modules["offbeat"] = None
import gymnasium, torch

policy = torch.export.load("run/policy.pt2").module()
env = gymnasium.make("CartPole-v1")
observation, _ = env.reset(seed=0)
first, steps = torch.ones(1, 1, dtype=torch.bool), 0
while True:
    output = policy(torch.as_tensor(observation)[None, None], first, {})
    observation, _, terminated, truncated, _ = env.step(output["action"].item())
    first, steps = torch.zeros(1, 1, dtype=torch.bool), steps + 1
    if terminated or truncated:
        break
print(steps)
"""


def test_a_run_plays_on_without_offbeat(tmp_path: Path) -> None:
    options: dict[str, Any] = {"log": {"tensorboard": False}, "engine": "inline", "evaluation": {"every_frames": 0}}
    run = offbeat.train("impala-cartpole", total_frames=2000, out=str(tmp_path / "run"), **options).run
    offbeat.export(run)
    done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=tmp_path, capture_output=True, text=True, check=True)
    agent, env = offbeat.load(run), gymnasium.make("CartPole-v1")
    observation, _ = env.reset(seed=0)
    steps, over = 0, False
    while not over:
        observation, _, terminated, truncated, _ = env.step(agent.act(observation))
        steps, over = steps + 1, terminated or truncated
    assert int(done.stdout) == steps
