"""What is served of an agent: what clients send is what its environment gives, and what they get is what it takes."""

from __future__ import annotations

import json
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

from offbeat.agents.make import make_agent
from offbeat.config.run_config import apply_overrides, load_preset
from offbeat.envs.base import EnvConfig
from offbeat.envs.registry import env_spec, translator
from offbeat.run.load import LoadedAgent
from offbeat.serving.client import named
from offbeat.serving.connection import Refusal
from offbeat.serving.policy import PREFIX, ServedPolicy, example
from offbeat.types import ArraySpec
from tests.serving.parts import Remembers, observed


class Everything(gymnasium.Env[Any, Any]):
    """Parts of every kind, nested, and a mask in ``info``."""

    observation_space = spaces.Dict(
        {
            "camera": spaces.Box(0, 255, (12, 12, 3), np.uint8),
            "arm": spaces.Dict({"angles": spaces.Box(-4, 4, (3,), np.float64), "grip": spaces.Discrete(4, start=2)}),
            "pair": spaces.Tuple((spaces.MultiDiscrete([2, 5]), spaces.MultiBinary(3))),
        }
    )
    action_space = spaces.Discrete(5, start=10)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.observation_space.seed(seed)
        return self.observation_space.sample(), {"action_mask": np.array([1, 0, 1, 1, 0], np.int8)}

    def step(self, action: Any) -> Any:
        return self.observation_space.sample(), 0.0, False, False, {"action_mask": np.array([1, 1, 0, 0, 1], np.int8)}


def served(env: Any = None, preset: str = "own", slots: int = 4, **options: Any) -> tuple[ServedPolicy, LoadedAgent]:
    """The policy of an agent with random weights, and the same agent as ``offbeat.load`` gives it."""
    config = apply_overrides(load_preset(preset), options.items())
    env_config = EnvConfig(id="mine") if env is not None else config.eval_env
    torch.manual_seed(0)
    agent = make_agent(config.agent_name, config.agent, env_spec(env_config, env), "cpu")
    between = translator(env_config, env)
    return ServedPolicy(agent, translator=between, slots=slots), LoadedAgent(agent, translator=between)


def sent(observation: Any, **more: Any) -> dict[str, np.ndarray]:
    """A question's arrays, as the client makes them of what the environment gives."""
    return {f"{PREFIX}{name}": np.asarray(part) for name, part in {**named(observation), **more}.items()}


def test_parts_of_every_kind_are_sent_as_the_environment_gives_them() -> None:
    policy, twin = served(Everything)
    env = Everything()
    observation, info = env.reset(seed=3)
    actions, first = set(), True
    for _ in range(40):
        mask = info["action_mask"].astype(bool)
        asked = policy.read({"first": str(int(first))}, sent(observation, legal_actions=mask))
        (action,) = policy.act([2], [asked])
        assert action == twin.act(observation, action_mask=mask) and action.shape == () and mask[int(action) - 10]
        actions.add(int(action))
        observation, _, _, _, info = env.step(action)
        first = False
    assert len(actions) > 1
    asks = json.loads(policy.about["observation"])
    assert asks == {
        "camera": {"shape": [12, 12, 3], "dtype": "uint8", "example": 0},
        "arm.angles": {"shape": [3], "dtype": "float64", "example": 0},
        "arm.grip": {"shape": [], "dtype": "int64", "example": 2},
        "pair.0": {"shape": [2], "dtype": "int64", "example": [0, 0]},
        "pair.1": {"shape": [3], "dtype": "int8", "example": 0},
        "legal_actions": {"shape": [5], "dtype": "bool", "example": 1},
    }
    assert json.loads(policy.about["action"]) == {"kind": "discrete", "shape": [], "dtype": "int64"}


def test_numbers_outside_of_their_space_are_refused() -> None:
    policy, _ = served(Everything)
    observation, info = Everything().reset(seed=0)
    arrays = sent(observation, legal_actions=info["action_mask"].astype(bool))
    policy.read({}, arrays)
    with pytest.raises(Refusal, match="must belong to Discrete") as caught:
        policy.read({}, arrays | {f"{PREFIX}arm.grip": np.int64(1)})
    assert caught.value.code == "request" and not caught.value.closes


def test_examples_are_questions() -> None:
    """What a benchmark sends is in order, whatever the spaces."""
    for policy, _ in (served(Everything), served(preset="impala-catch"), served(preset="impala-pendulum")):
        asks = json.loads(policy.about["observation"])
        arrays = {
            f"{PREFIX}{n}": example(ArraySpec(tuple(a["shape"]), a["dtype"]), a["example"]) for n, a in asks.items()
        }
        (action,) = policy.act([0], [policy.read({"first": "1"}, arrays)])
        said = json.loads(policy.about["action"])
        assert list(action.shape) == said["shape"] and action.dtype.name == said["dtype"]


def test_continuous_actions_are_within_their_bounds() -> None:
    policy, twin = served(preset="impala-pendulum")
    for seed in range(5):
        observation = np.random.default_rng(seed).normal(size=3).astype(np.float32)
        arrays = {f"{PREFIX}observation": observation}
        (action,) = policy.act([0], [policy.read({}, arrays)])
        np.testing.assert_allclose(action, twin.act(observation), rtol=1e-6)
        assert np.abs(action).max() <= 2 and action.dtype == np.float32


def test_a_recurrent_network_has_a_state_for_each_place() -> None:
    policy, _ = served(preset="impala-tmaze", slots=3)
    assert policy.about["recurrent"] == "1"
    agent = policy._agent
    twins = [LoadedAgent(agent) for _ in range(3)]
    generator, fresh = np.random.default_rng(0), [True] * 3
    for _ in range(60):
        slots = sorted(generator.choice(3, generator.integers(1, 4), replace=False))
        shown = [generator.normal(size=agent.spec.observation["observation"].shape).astype(np.float32) for _ in slots]
        asked = []
        for slot, seen in zip(slots, shown, strict=True):
            arrays = {f"{PREFIX}observation": seen, "reward": np.float32(1)}
            asked.append(policy.read({"first": str(int(fresh[slot]))}, arrays))
            fresh[slot] = False
        for slot, seen, action in zip(slots, shown, policy.act(slots, asked), strict=True):
            assert action == twins[slot].act(seen, 1.0)
    held, other = policy._player._state, [twin._player for twin in twins]
    for name, value in held.items():
        for slot, twin in enumerate(other):
            assert twin is not None
            torch.testing.assert_close(value[slot], twin._state[name][0], rtol=1e-5, atol=1e-6)
    assert any(not torch.equal(value[0], value[1]) for value in held.values())


def test_a_hello_says_what_is_served() -> None:
    policy = ServedPolicy(Remembers(), slots=5, version=7, told={"run": "x"})
    about = policy.about
    assert (about["version"], about["clients"], about["run"], about["needs_reward"]) == ("7", "5", "x", "1")
    assert (
        about["env"] == "remembering" and about["policy"] == "greedy" and int(about["most_bytes"]) == policy.most_bytes
    )
    assert policy.most_bytes < 6000
    assert all(isinstance(value, str) for value in about.values())


def test_weights_are_told_apart() -> None:
    one, other = Remembers(), Remembers()

    def told(agent: Remembers) -> str:
        return ServedPolicy(agent).about["weights"]

    assert told(one) == told(other) and len(told(one)) == 64
    with torch.no_grad():
        next(other.network.parameters())[0] = 1.0000001
    assert told(one) != told(other)


def test_warming_up_leaves_nothing_behind() -> None:
    """Neither state nor drawn numbers."""
    arrays = {f"{PREFIX}{name}": array for name, array in observed(np.random.default_rng(0)).items()}
    policy = ServedPolicy(Remembers())
    asked = policy.read({}, arrays | {"reward": np.float32(0)})
    twin = LoadedAgent(Remembers())
    assert policy.act([0], [asked])[0] == twin.act(observed(np.random.default_rng(0)))
