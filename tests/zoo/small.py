"""The environment that the zoo's are made of: it shows samples of its space and ends after a while."""

from __future__ import annotations

import copy
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

VECTOR = spaces.Box(-1, 1, (3,))
CHOICES = spaces.Discrete(3)


class Small(gymnasium.Env[Any, Any]):
    """Everything follows from the seed. It insists on actions of its own space, and on a reset after an end.

    Args:
        observation: space of what is shown.
        action: space of what is taken.
        length: steps of an episode.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012

    def __init__(self, observation: Any = VECTOR, action: Any = CHOICES, length: int = 6) -> None:
        # Copies: seeding one environment's space must not move another's.
        self.observation_space, self.action_space = copy.deepcopy(observation), copy.deepcopy(action)
        self.length, self.t, self.over = length, 0, True

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.observation_space.seed(int(self.np_random.integers(2**31)))
        self.t, self.over = 0, False
        return self.seen(), self.info()

    def step(self, action: Any) -> Any:
        assert not self.over, "step() after the episode's end"
        assert self.action_space.contains(action), f"{action!r} is no member of {self.action_space}"
        self.t += 1
        terminated, truncated = self.ends()
        self.over = bool(terminated or truncated)
        return self.seen(), self.reward(action), terminated, truncated, self.info()

    def seen(self) -> Any:
        """The observation now."""
        return self.observation_space.sample()

    def reward(self, action: Any) -> Any:
        """Of the step that was just taken."""
        return float(self.np_random.integers(3))

    def ends(self) -> tuple[Any, Any]:
        """Terminated and truncated."""
        return self.t >= self.length, False

    def info(self) -> dict[str, Any]:
        """What goes beside the observation."""
        return {}


class Gives(Small):
    """Its step gives the same outcome (observation, reward, terminated, truncated, info) again and again."""

    def __init__(self, *outcome: Any, **options: Any) -> None:
        super().__init__(**options)
        self.outcome = outcome

    def step(self, action: Any) -> Any:
        return self.outcome


ZEROS = np.zeros(3, np.float32)
"""An observation of ``VECTOR``."""
