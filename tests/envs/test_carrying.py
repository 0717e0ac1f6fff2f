"""What outlives episodes is saved, restored, and forgotten by a reset of all."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from offbeat.envs.base import EnvConfig
from offbeat.envs.carrying import carried, carry
from offbeat.envs.registry import check_exact, make_env
from tests.envs.playing import assert_same


class Levels(gymnasium.Env[np.ndarray, np.int64]):
    """Shows its level; an episode lasts two steps, and one whose last action is 1 raises the level by one."""

    observation_space = spaces.Box(0, 100, (1,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self) -> None:
        self.level = self._left = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        self._left = 2
        return self._seen(), {}

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        seen = self._seen()
        self._left -= 1
        self.level += int(action) if not self._left else 0
        return seen, float(action), not self._left, False, {}

    def carried(self) -> np.ndarray:
        return np.array([self.level])

    def carry(self, carried: np.ndarray) -> None:
        self.level = int(carried[0])

    def _seen(self) -> np.ndarray:
        return np.array([self.level], np.float32)


def test_of_others_nothing_is_carried() -> None:
    env = gymnasium.make("CartPole-v1")
    assert carried(env) is None
    carry(env, None)
    env.close()


def test_it_is_saved_and_forgotten() -> None:
    config = EnvConfig(id="levels")
    one, two = (make_env(config, 2, deterministic=True, factory=Levels) for _ in range(2))
    actions = np.random.default_rng(0).integers(2, size=(40, 2))
    one.reset(1)
    rows = [one.recv()]
    for step, action in enumerate(actions):
        if step == 20:
            two.load_state(one.state())
        one.send(action)
        rows.append(one.recv())
        if step >= 20:
            two.send(action)
            assert_same(rows[-1], two.recv(), step)
    assert rows[-1].observation["observation"].max() > 2
    one.reset(1)
    assert one.recv().observation["observation"].max() == 0
    check_exact(config, Levels)
