"""Gymnasium environments: spaces, ends of episodes, seeds, and restoring by replay."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

import offbeat
from offbeat.cli import main
from offbeat.envs.base import EnvConfig, EnvUnavailable, StateUnsupported, VectorEnv
from offbeat.envs.gymnasium import GymnasiumVector
from offbeat.envs.registry import check_exact, env_spec, make_env
from offbeat.envs.spaces import action_decoder, action_spec, flatten, flatten_space
from offbeat.types import OBSERVATION, ActionSpec


def random_action(env: VectorEnv, generator: np.random.Generator) -> np.ndarray:
    spec = env.spec.action
    if spec.kind == "discrete":
        return generator.integers(spec.num_actions, size=env.num_envs)
    return generator.uniform(-2, 2, (env.num_envs, *spec.shape)).astype(np.float32)


def test_rows_are_those_of_the_environment_played_by_hand() -> None:
    """CartPole with 3 environments against a plain loop over ``gymnasium.make``, with the same seeds and actions."""
    env = make_env(EnvConfig(id="CartPole-v1", max_steps=30), 3)
    assert isinstance(env, GymnasiumVector)
    env.reset(4)
    twins = [gymnasium.make("CartPole-v1") for _ in range(3)]
    generator = np.random.default_rng(0)
    steps = np.zeros(3, int)
    rows = env.recv()
    ended = np.ones(3, bool)
    action = np.zeros(3, np.int64)
    kinds = set()
    for _ in range(300):
        for index, twin in enumerate(twins):
            if ended[index]:
                seen, _ = twin.reset(seed=env._slots[index].seed)
                expected = (0.0, False, False, True)
                steps[index] = 0
            else:
                seen, reward, over, cut, _ = twin.step(int(action[index]))
                steps[index] += 1
                expected = (reward, over, (cut or steps[index] == 30) and not over, False)
            got = (rows.raw_reward[index], rows.terminated[index], rows.truncated[index], rows.first[index])
            assert got == expected
            assert np.array_equal(rows.observation[OBSERVATION][index], seen)
            ended[index] = expected[1] or expected[2]
            assert rows.valid[index] != ended[index]
            kinds.add(expected[1:])
        balancing = (rows.observation[OBSERVATION][:, 2] > 0).astype(np.int64)
        action = np.where(generator.random(3) < 0.6, balancing, generator.integers(2, size=3))
        env.send(action)
        rows = env.recv()
    assert {(True, False, False), (False, True, False), (False, False, True)} <= kinds
    env.close()
    env.close()


def test_time_limit_of_the_id_truncates() -> None:
    env = make_env(EnvConfig(id="Pendulum-v1"), 2)
    assert env.spec.max_episode_steps == 200
    assert env.spec.action == ActionSpec("continuous", shape=(1,), low=(-2.0,), high=(2.0,))
    env.reset(0)
    env.recv()
    for step in range(1, 202):
        env.send(np.zeros((2, 1), np.float32))
        rows = env.recv()
        assert (rows.truncated == (step == 200)).all() and not rows.terminated.any()
        assert (rows.first == (step == 201)).all()


def test_environments_start_differently_and_seeds_repeat() -> None:
    starts = []
    for seed in (1, 1, 2):
        env = make_env(EnvConfig(id="CartPole-v1"), 4)
        env.reset(seed)
        starts.append(env.recv().observation[OBSERVATION])
    assert np.array_equal(starts[0], starts[1])
    assert len(np.unique(np.concatenate([starts[0], starts[2]]), axis=0)) == 8


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1", "FrozenLake-v1", "Blackjack-v1"])
def test_state_goes_on_exactly(env_id: str) -> None:
    one, two = (make_env(EnvConfig(id=env_id), 3, deterministic=True) for _ in range(2))
    generator = np.random.default_rng(0)
    one.reset(7)
    one.recv()
    for _ in range(57):
        one.send(random_action(one, generator))
        one.recv()
    saved = one.state()
    two.load_state(saved)
    for _ in range(120):
        action = random_action(one, generator)
        one.send(action)
        two.send(action)
        a, b = one.recv(), two.recv()
        for name in ("raw_reward", "terminated", "truncated", "first", "valid"):
            assert np.array_equal(getattr(a, name), getattr(b, name))
        assert all(np.array_equal(a.observation[key], b.observation[key]) for key in a.observation)


class Moody(gymnasium.Env[np.ndarray, np.int64]):
    """Draws from a generator of its own, whatever seed it is given."""

    observation_space = spaces.Box(0, 1, (2,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self) -> None:
        self._generator = np.random.default_rng()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        return self._generator.random(2, np.float32), {}

    def step(self, action: np.int64):
        return self._generator.random(2, np.float32), 0.0, False, False, {}


def test_an_environment_that_cannot_be_replayed_is_refused_by_name() -> None:
    config = EnvConfig(id="moody")
    with pytest.raises(StateUnsupported, match="moody cannot be saved exactly: the same seed and actions"):
        check_exact(config, Moody)
    env = GymnasiumVector(config, 2, Moody)
    env.reset(0)
    env.recv()
    saved = env.state()
    with pytest.raises(StateUnsupported, match="moody cannot be saved exactly"):
        env.load_state(saved)


class Mixed(gymnasium.Env[Any, Any]):
    """Every kind of observation at once."""

    def __init__(self) -> None:
        speed = spaces.Box(-np.inf, np.inf, (2,), np.float64)
        self.observation_space = spaces.Dict(
            {
                "camera": spaces.Box(0, 255, (6, 5, 3), np.uint8),
                "body": spaces.Dict({"speed": speed, "gear": spaces.Discrete(3, start=-1)}),
                "pair": spaces.Tuple((spaces.MultiBinary(4), spaces.MultiDiscrete([2, 3]))),
            }
        )
        self.action_space = spaces.Discrete(3, start=5)
        self.taken: list[int] = []

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        return self._observe(), {}

    def step(self, action: int):
        self.taken.append(action)
        return self._observe(), 2.5, len(self.taken) > 3, False, {}

    def _observe(self) -> dict[str, Any]:
        camera = np.arange(90, dtype=np.uint8).reshape(6, 5, 3)
        body = {"speed": np.array([0.5, -2.0]), "gear": 1}
        return {"camera": camera, "body": body, "pair": (np.array([1, 0, 1, 1], np.int8), np.array([1, 2]))}


def test_nested_observations_become_flat() -> None:
    made: list[Mixed] = []

    def make() -> Mixed:
        made.append(Mixed())
        return made[-1]

    env = make_env(EnvConfig(id="mixed", reward_clip="clamp", reward_scale=0.5), 2, factory=make)
    assert {key: (spec.shape, spec.dtype) for key, spec in env.spec.observation.items()} == {
        "camera": ((3, 6, 5), "uint8"),
        "body.speed": ((2,), "float32"),
        "body.gear": ((3,), "float32"),
        "pair.0": ((4,), "float32"),
        "pair.1": ((5,), "float32"),
    }
    env.reset(0)
    seen = env.recv().observation
    assert seen["camera"][1, 2, 4, 3] == np.arange(90).reshape(6, 5, 3)[4, 3, 2]
    assert seen["body.speed"][0].tolist() == [0.5, -2.0] and seen["body.gear"][0].tolist() == [0, 0, 1]
    assert seen["pair.0"][0].tolist() == [1, 0, 1, 1] and seen["pair.1"][0].tolist() == [0, 1, 0, 0, 1]
    env.send(np.array([0, 2]))
    rows = env.recv()
    assert [one.taken[-1:] for one in made[-2:]] == [[5], [7]]
    assert rows.raw_reward.tolist() == [2.5, 2.5] and rows.reward.tolist() == [0.5, 0.5]


def test_actions_of_a_box_are_clipped_to_it() -> None:
    space = spaces.Box(np.array([-1.0, 0.0]), np.array([1.0, 3.0]), dtype=np.float64)
    assert action_spec(space, "x") == ActionSpec("continuous", shape=(2,), low=(-1.0, 0.0), high=(1.0, 3.0))
    decoded = action_decoder(space)(np.array([-5.0, 2.0], np.float32))
    assert decoded.tolist() == [-1.0, 2.0] and decoded.dtype == np.float64


@pytest.mark.parametrize("space", [spaces.Dict({}), spaces.Box(0, 5, (2,), np.int32), spaces.Text(3)])
def test_unsupported_actions_are_named(space: spaces.Space[Any]) -> None:
    with pytest.raises(ValueError, match=r"mine has the action space .*; supported are Discrete, Multi"):
        action_spec(space, "mine")


def test_unsupported_observations_are_named() -> None:
    with pytest.raises(ValueError, match="mine has the observation space Text"):
        flatten_space(spaces.Dict({"a": spaces.Text(3)}), "mine")
    with pytest.raises(ValueError, match="at most 4096 values"):
        flatten_space(spaces.Discrete(5000), "mine")
    leaves = flatten_space(spaces.Box(0, 9, (4, 5), np.uint8), "mine")
    assert flatten(leaves, np.full((4, 5), 7, np.uint8))[OBSERVATION].shape == (1, 4, 5)


def test_a_missing_dependency_is_one_line() -> None:
    pytest.importorskip("gymnasium")
    try:
        import Box2D  # noqa: F401
    except ImportError:
        with pytest.raises(EnvUnavailable, match="Gymnasium cannot make LunarLander-v3") as error:
            env_spec(EnvConfig(id="LunarLander-v3"))
        assert "\n" not in str(error.value)


def test_a_factory_that_gives_something_else_is_named() -> None:
    with pytest.raises(ValueError, match=r"the env factory .* gave int; expected a gymnasium\.Env"):
        make_env(EnvConfig(id="mine"), 1, factory=lambda: 3)


def test_an_id_with_a_vector_entry_point_alone_says_what_is_needed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    says = "no entry_point: register a single entry_point beside it, or name its class, --env tests.zoo.vectors:Lamps"
    gymnasium.register("Lamp-v0", vector_entry_point="tests.zoo.vectors:Lamps")
    try:
        with pytest.raises(EnvUnavailable, match=says):
            offbeat.check_env("Lamp-v0")
        for name in ("Lamp-v0", "Lamp", "gymnasium:Lamp-v0"):
            assert main(["train", "debug", "--env", name, "--out", str(tmp_path / "run")]) == 2
            (line,) = capsys.readouterr().err.splitlines()
            assert says in line, line
    finally:
        del gymnasium.registry["Lamp-v0"]
