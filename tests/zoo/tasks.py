"""Environments of users' own that can be learnt, with what counts as learnt: for presets that claim to learn any."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from tests.guide.guide import steps


class PictureCatch(gym.Env[Any, Any]):
    """A ball falls ten rows of a picture of 40 x 40, a paddle is to be below it: 1, otherwise -1."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012
    random, learnt = -0.8, 0.8
    size, pixels = 10, 4

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode
        side = self.size * self.pixels
        self.observation_space = spaces.Box(0, 255, (side, side, 3), np.uint8)
        self.action_space = spaces.Discrete(3)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.row, self.column = 0, int(self.np_random.integers(self.size))
        self.paddle = self.size // 2
        return self.render(), {}

    def step(self, action: Any) -> Any:
        self.row += 1
        self.paddle = min(max(self.paddle + int(action) - 1, 0), self.size - 1)
        over = self.row == self.size - 1
        reward = (1.0 if self.column == self.paddle else -1.0) if over else 0.0
        return self.render(), reward, over, False, {}

    def render(self) -> Any:
        board = np.full((self.size, self.size, 3), 90, np.uint8)
        board[self.row, self.column] = (220, 60, 60)
        board[-1, self.paddle] = (60, 60, 220)
        return board.repeat(self.pixels, 0).repeat(self.pixels, 1)


# The environment of the guide, as the guide prints it: a dictionary of a picture, a vector and a count.
exec(next(step.text for step in steps(short=False) if step.name == "courier.py"))
COURIER_RANDOM, COURIER_LEARNT = 0.4, 6.0
"""Mean returns of random actions (300 episodes: 0.42) and of a policy that does the job; scripted greedily: 11.5."""
