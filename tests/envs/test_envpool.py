"""EnvPool's tasks: the rows of Gymnasium, ends that coincide with limits, partial batches, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

import offbeat
from offbeat.envs.base import EnvConfig, EnvUnavailable, StateUnsupported, VectorEnv
from offbeat.envs.envpool import EnvPoolVector, find_task
from offbeat.envs.gymnasium import GymnasiumVector, random_actions
from offbeat.envs.listing import list_envs
from offbeat.envs.module_ids import module_id
from offbeat.envs.registry import env_spec, make_env
from offbeat.types import LEGAL, OBSERVATION
from tests.envs.playing import FLAGS, by_id

CARTPOLE = EnvConfig(id="envpool:CartPole-v1")


def test_names() -> None:
    """Without the package."""
    assert find_task("envpool:HalfCheetah-v5") == "HalfCheetah-v5"
    assert find_task("envpool:") is find_task("my:HalfCheetah-v5") is find_task("envpool:a:b") is None
    assert module_id("envpool:HalfCheetah-v5") is None, "it names no module"
    assert [one.id for one in list_envs("envpool:")] == ["envpool:<task>"]


def still(task: str, count: int, max_steps: int) -> tuple[VectorEnv, VectorEnv]:
    """EnvPool's and Gymnasium's, which start every episode from the same state: MuJoCo's without noise."""
    pytest.importorskip("envpool")
    pytest.importorskip("mujoco")
    config = EnvConfig(id=f"envpool:{task}", max_steps=max_steps)
    quiet: dict[str, Any] = {"reset_noise_scale": 0.0}
    own = EnvConfig(id=task, max_steps=max_steps)
    return (
        EnvPoolVector(config, task, count, count, 1, quiet),
        GymnasiumVector(own, count, partial(gymnasium.make, task, **quiet)),
    )


@pytest.mark.parametrize(
    ("task", "max_steps", "steps"),
    [("HalfCheetah-v5", 25, 100), ("Hopper-v5", 0, 150), ("Walker2d-v5", 30, 120), ("InvertedPendulum-v5", 0, 60)],
)
def test_rows_are_those_of_gymnasium(task: str, max_steps: int, steps: int) -> None:
    """Over several episodes, from equal starts. MuJoCo's versions differ in last digits, which contacts make more of:
    episodes are short.
    """
    pool, own = still(task, 3, max_steps)
    assert pool.spec.action == own.spec.action
    assert pool.spec.observation[OBSERVATION].shape == own.spec.observation[OBSERVATION].shape
    assert pool.spec.max_episode_steps == own.spec.max_episode_steps
    generator = np.random.default_rng(0)
    pool.reset(0)
    own.reset(0)
    ended = 0
    for step in range(steps):
        one, two = by_id(pool.recv()), own.recv()
        for name in ("env_ids", "terminated", "truncated", "first", "valid"):
            assert np.array_equal(getattr(one, name), getattr(two, name)), (name, step)
        np.testing.assert_allclose(one.raw_reward, two.raw_reward, atol=2e-4, rtol=2e-4, err_msg=str(step))
        np.testing.assert_allclose(
            one.observation[OBSERVATION], two.observation[OBSERVATION], atol=2e-3, rtol=2e-3, err_msg=str(step)
        )
        ended += int((~one.valid).sum())
        action = generator.uniform(-1, 1, (3, *pool.spec.action.shape)).astype(np.float32)
        pool.send(action)
        own.send(action)
    assert ended >= 6
    pool.close()


def test_an_end_in_the_step_of_the_limit_is_an_end() -> None:
    """The pendulum is pushed until it falls; then its limit is set to the very step of that, and to those around it."""
    pool, _ = still("InvertedPendulum-v5", 1, 0)

    def ends(env: VectorEnv) -> tuple[int, bool, bool]:
        env.reset(0)
        for step in range(200):
            rows = env.recv()
            if not rows.valid[0]:
                return step, bool(rows.terminated[0]), bool(rows.truncated[0])
            env.send(np.full((1, 1), 0.5, np.float32))
        raise AssertionError("it never fell")

    falls, terminated, _ = ends(pool)
    assert terminated and falls > 3
    for limit, expected in (
        (falls - 1, (falls - 1, False, True)), (falls, (falls, True, False)), (falls + 1, (falls, True, False)),
    ):  # fmt: skip
        one, two = still("InvertedPendulum-v5", 1, limit)
        assert ends(one) == ends(two) == expected


def test_partial_batches_are_whole_episodes_of_each() -> None:
    pytest.importorskip("envpool")
    env = make_env(CARTPOLE, 4, batch_size=2)
    env.reset(1)
    kept: dict[int, list[tuple[bool, bool, float]]] = {index: [] for index in range(4)}
    for _ in range(400):
        step = env.recv()
        for place, index in enumerate(step.env_ids):
            kept[int(index)].append((bool(step.first[place]), bool(step.valid[place]), float(step.raw_reward[place])))
        env.send(np.ones(2, np.int64))
    assert all(len(of) > 50 for of in kept.values())
    for of in kept.values():
        assert of[0] == (True, True, 0.0)
        for (_, valid, _), (first, _, reward) in pairwise(of):
            assert first == (not valid)
            assert reward == (0.0 if first else 1.0)


def test_the_same_seed_gives_the_same_rows() -> None:
    pytest.importorskip("envpool")
    found = []
    for seed in (1, 1, 2):
        env = make_env(CARTPOLE, 3)
        env.reset(seed)
        rows = [by_id(env.recv())]
        for _ in range(30):
            env.send(np.array([0, 1, 1]))
            rows.append(by_id(env.recv()))
        found.append(rows)
    for one, two in zip(found[0], found[1], strict=True):
        assert all(np.array_equal(getattr(one, name), getattr(two, name)) for name in FLAGS)
        assert np.array_equal(one.observation[OBSERVATION], two.observation[OBSERVATION])
    assert not np.array_equal(found[0][0].observation[OBSERVATION], found[2][0].observation[OBSERVATION])


@pytest.mark.parametrize(
    ("task", "keys"),
    [("CheetahRun-v1", {"position": (8,), "velocity": (9,)}), ("Taxi-v3", {OBSERVATION: (500,)})],
)
def test_other_spaces_are_flattened(task: str, keys: dict[str, tuple[int, ...]]) -> None:
    pytest.importorskip("envpool")
    config = EnvConfig(id=f"envpool:{task}")
    spec = env_spec(config)
    assert {key: array.shape for key, array in spec.observation.items()} == keys
    env = make_env(config, 2)
    env.reset(0)
    for _ in range(5):
        rows = env.recv()
        assert {key: value.shape[1:] for key, value in rows.observation.items()} == keys
        env.send(spec.action.array.zeros(2))
    assert all(array.high is None or array.high < 1e30 for array in spec.observation.values())


CLASSIC: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "CartPole-v1": lambda seen: seen,
    "MountainCar-v0": lambda seen: seen,
    "MountainCarContinuous-v0": lambda seen: seen,
    "Pendulum-v1": lambda seen: np.array([np.arctan2(seen[1], seen[0]), seen[2]]),
    "Acrobot-v1": lambda seen: np.array([np.arctan2(seen[1], seen[0]), np.arctan2(seen[3], seen[2]), *seen[4:]]),
}
"""Task -> from what it shows to the state that Gymnasium's environment has then."""


@pytest.mark.parametrize("task", list(CLASSIC))
def test_classic_control_has_the_rows_of_gymnasium(task: str) -> None:
    """Single environments are set to what each episode begins with. States are rounded to float32 by what is shown, so
    that episodes are short.
    """
    pytest.importorskip("envpool")
    count, limit = 3, 50
    pool = make_env(EnvConfig(id=f"envpool:{task}", max_steps=limit), count)
    alone = [gymnasium.make(task) for _ in range(count)]
    random, ends, steps = np.random.default_rng(0), 0, np.zeros(count, int)
    pool.reset(1)
    rows = by_id(pool.recv())
    for _ in range(260):
        for index in np.flatnonzero(rows.first):
            alone[index].reset()
            state = CLASSIC[task](rows.observation[OBSERVATION][index].astype(float))
            alone[index].unwrapped.state = state  # type: ignore[attr-defined]
            steps[index] = 0
        spec = pool.spec.action
        discrete = spec.kind == "discrete"
        action = random.integers(spec.num_actions, size=count) if discrete else random.uniform(-1, 1, (count, 1))
        before = rows
        pool.send(action.astype(np.int64 if discrete else np.float32))
        rows = by_id(pool.recv())
        for index in np.flatnonzero(before.valid):
            given = int(action[index]) if discrete else action[index].astype(np.float32)
            seen, reward, terminated, _, _ = alone[index].step(given)
            steps[index] += 1
            np.testing.assert_allclose(rows.observation[OBSERVATION][index], seen, atol=2e-3, rtol=2e-3)
            np.testing.assert_allclose(rows.raw_reward[index], reward, atol=2e-3)
            assert rows.terminated[index] == terminated
            assert rows.truncated[index] == (steps[index] == limit and not terminated)
            ends += not rows.valid[index]
    assert ends >= 12
    pool.close()


FAMILIES = {
    "LunarLander-v3": {OBSERVATION: ((8,), "float32")},
    "LunarLanderContinuous-v3": {OBSERVATION: ((8,), "float32")},
    "BipedalWalker-v3": {OBSERVATION: ((24,), "float32")},
    "CarRacing-v3": {OBSERVATION: ((3, 96, 96), "uint8")},
    "MiniGrid-MemoryS7-v0": {
        "direction": ((4,), "float32"), "image": ((3, 7, 7), "uint8"), "mission": ((96,), "uint8"),
    },
    "WalkerWalk-v1": {"orientations": ((14,), "float32"), "height": ((), "float32"), "velocity": ((9,), "float32")},
    "Game2048-v1": {"board": ((4, 4), "float32"), LEGAL: ((4,), "bool")},
    "Tetris-v0": None,
    "Catch-v0": {OBSERVATION: ((10, 5), "float32")},
}  # fmt: skip
"""Task -> shapes and types of what it shows; None: whatever that is."""


@pytest.mark.parametrize("task", list(FAMILIES))
def test_every_family_keeps_to_the_rows(task: str) -> None:
    """Boxes, dictionaries, pictures, masks; limits that are not the task's own."""
    pytest.importorskip("envpool")
    expected, limit = FAMILIES[task], 12
    played = []
    for _ in range(2):
        env = make_env(EnvConfig(id=f"envpool:{task}", max_steps=limit), 3)
        shown = {key: (array.shape, array.dtype) for key, array in env.spec.observation.items()}
        assert shown == expected or (expected is None and env.spec.action.nvec == (4, 10))
        random, length, rows = np.random.default_rng(2), np.zeros(3, int), []
        env.reset(4)
        for _ in range(30):
            rows.append(by_id(env.recv()))
            now = rows[-1]
            for key, value in now.observation.items():
                assert (value.shape[1:], value.dtype) == shown[key]
                assert value.dtype.kind != "f" or np.isfinite(value).all()
            if len(rows) > 1:
                np.testing.assert_array_equal(now.first, ~rows[-2].valid)
            assert (now.raw_reward[now.first] == 0).all() and now.valid[now.first].all()
            length = np.where(now.first, 0, length + 1)
            np.testing.assert_array_equal(now.truncated, (length == limit) & ~now.terminated)
            env.send(random_actions(env.spec.action, random, 3, now.observation.get(LEGAL)))
        assert sum(int((~row.valid).sum()) for row in rows) >= 3
        played.append(rows)
        env.close()
    for one, two in zip(*played, strict=True):
        for key, value in one.observation.items():
            np.testing.assert_array_equal(value, two.observation[key], err_msg="the same seed")


def test_observations_are_not_copied() -> None:
    """What was handed out stays as it is."""
    pytest.importorskip("envpool")
    env = make_env(EnvConfig(id="envpool:CarRacing-v3"), 2)
    env.reset(0)
    kept = []
    for _ in range(8):
        seen = env.recv().observation[OBSERVATION]
        kept.append((seen, seen.copy()))
        env.send(np.zeros((2, 3), np.float32))
    for seen, copied in kept:
        np.testing.assert_array_equal(seen, copied)
    assert not any(np.may_share_memory(one, two) for (one, _), (two, _) in pairwise(kept))


def to_the_goal(env: VectorEnv) -> tuple[float, bool]:
    """The way through the empty room: its reward, and whether it was an end."""
    env.reset(0)
    env.recv()
    for action in (2, 2, 1, 2, 2):
        env.send(np.full(2, action))
        rows = env.recv()
    return float(rows.raw_reward[0]), bool(rows.terminated.all())


def test_rewards_of_minigrid_do_not_depend_on_the_run() -> None:
    """1 - 0.9 t / limit, of the task's own limit, wherever episodes are cut."""
    pytest.importorskip("envpool")
    room = "envpool:MiniGrid-Empty-5x5-v0"
    for max_steps in (0, 20, 500):
        reward, over = to_the_goal(make_env(EnvConfig(id=room, max_steps=max_steps), 2))
        assert over
        assert reward == pytest.approx(1 - 0.9 * 5 / 100)
    env = make_env(EnvConfig(id=room), 2)
    env.reset(0)
    for step in range(101):
        rows = env.recv()
        assert rows.truncated.all() == rows.truncated.any() == (step == 100)
        env.send(np.zeros(2, np.int64))
    with pytest.raises(ValueError, match=r"max_steps=20 restarts single games of .* only in whole batches"):
        make_env(EnvConfig(id=room, max_steps=20), 4, batch_size=2)


def test_what_cannot_be_is_refused() -> None:
    pytest.importorskip("envpool")
    with pytest.raises(EnvUnavailable, match="did you mean envpool:HalfCheetah-v5"):
        env_spec(EnvConfig(id="envpool:HalfCheeta-v5"))
    with pytest.raises(EnvUnavailable, match=r"env.backend = 'envpool'"):
        env_spec(EnvConfig(id="envpool:Pong-v5"))
    with pytest.raises(EnvUnavailable, match="as vizdoom/<scenario>; EnvPool leaves out"):
        env_spec(EnvConfig(id="envpool:MyWayHome-v1"))
    with pytest.raises(EnvUnavailable, match="a task of several players"):
        env_spec(EnvConfig(id="envpool:Chess-v1"))
    with pytest.raises(EnvUnavailable, match="procgen:procgen-<game>-v0"):
        env_spec(EnvConfig(id="envpool:ChaserHard-v0"))
    with pytest.raises(StateUnsupported, match="run without deterministic mode"):
        make_env(CARTPOLE, 2, deterministic=True)
    with pytest.raises(ValueError, match="means nothing to envpool:CartPole-v1"):
        env_spec(EnvConfig(id="envpool:CartPole-v1", sticky=0.5))


def test_it_trains(tmp_path: Path) -> None:
    pytest.importorskip("envpool")
    result = offbeat.train(
        "impala-pendulum", env="envpool:HalfCheetah-v5", out=str(tmp_path / "run"), total_frames=2000,
        evaluation={"every_frames": 0, "at_end": False}, log={"tensorboard": False},
    )  # fmt: skip
    assert result.finished
