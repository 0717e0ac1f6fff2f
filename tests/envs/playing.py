"""Playing environments in tests: rows of a list of actions, and whether two rows are the same."""

from __future__ import annotations

import dataclasses

import numpy as np

from offbeat.envs.base import EnvConfig, VectorEnv
from offbeat.envs.registry import env_spec, make_env
from offbeat.types import OBSERVATION, EnvStep

FLAGS = ("env_ids", "reward", "raw_reward", "terminated", "truncated", "first", "valid")


def rows_of(env: VectorEnv, actions: np.ndarray, seed: int = 3) -> list[EnvStep]:
    """The rows that ``actions`` [T, N] lead to, sorted by environment, the first rows included."""
    env.reset(seed)
    rows = [by_id(env.recv())]
    for action in actions:
        env.send(action)
        rows.append(by_id(env.recv()))
    return rows


def by_id(rows: EnvStep) -> EnvStep:
    order = np.argsort(rows.env_ids)
    changed = {name: getattr(rows, name)[order] for name in FLAGS}
    return dataclasses.replace(rows, observation={k: v[order] for k, v in rows.observation.items()}, **changed)


def assert_same(one: EnvStep, two: EnvStep, at: object, frames: bool = True) -> None:
    for name in FLAGS:
        assert np.array_equal(getattr(one, name), getattr(two, name)), (name, at)
    if frames:
        assert np.array_equal(one.observation[OBSERVATION], two.observation[OBSERVATION]), ("frames", at)


def random_actions(config: EnvConfig, steps: int, count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(env_spec(config).action.num_actions, size=(steps, count))


def assert_restored(config: EnvConfig, steps: int, at: int) -> list[EnvStep]:
    """Two environments that take over the state of two others after ``at`` steps go on as those; the others' rows."""
    one, two = (make_env(config, 2, deterministic=True) for _ in range(2))
    actions = random_actions(config, steps, 2)
    one.reset(1)
    rows = [one.recv()]
    for step, action in enumerate(actions):
        if step == at:
            two.load_state(one.state())
        one.send(action)
        rows.append(one.recv())
        if step >= at:
            two.send(action)
            assert_same(rows[-1], two.recv(), step)
    one.close()
    two.close()
    return rows
