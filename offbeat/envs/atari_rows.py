"""From what an Atari library returns to rows: lost lives, autoreset and rewards, in the same way for every backend."""

from __future__ import annotations

import numpy as np

from offbeat.envs.base import EnvConfig
from offbeat.envs.rows import transform_reward
from offbeat.types import OBSERVATION, EnvStep


class AtariRows:
    """Remembers of each environment what the next row depends on: its lives, and whether its episode has ended.

    A life counts as lost when, after all frames of an action, the game shows fewer than before but not zero.
    """

    def __init__(self, config: EnvConfig, num_envs: int) -> None:
        self._config = config
        self.lives = np.zeros(num_envs, np.int32)
        self.ended = np.ones(num_envs, bool)

    def make(
        self,
        ids: np.ndarray,
        frames: np.ndarray,
        reward: np.ndarray,
        over: np.ndarray,
        cut: np.ndarray,
        lives: np.ndarray,
    ) -> EnvStep:
        """Rows [n] of environments ``ids`` from frames [n, 1, size, size], game-over and time-limit flags, and lives.

        Rows after an ended episode must be those of a new game. Game over and a lost life go before a time limit.
        """
        first = self.ended[ids]
        terminated, truncated = over & ~first, cut & ~over & ~first
        ended = terminated | truncated
        if self._config.life_loss != "ignore":
            lost = (lives < self.lives[ids]) & (lives > 0) & ~first
            terminated = terminated | lost
            ended = ended | (lost if self._config.life_loss == "end_episode" else False)
            truncated = truncated & ~lost
        self.lives[ids] = lives
        self.ended[ids] = ended
        raw = reward.astype(np.float32)
        return EnvStep(
            env_ids=ids,
            observation={OBSERVATION: frames},
            reward=transform_reward(raw, self._config),
            raw_reward=raw,
            terminated=terminated,
            truncated=truncated,
            first=first,
            valid=~ended,
        )
