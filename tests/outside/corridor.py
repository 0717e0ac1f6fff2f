"""An environment from somebody else's package: a corridor with the prize at the far end, as Gymnasium has them."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np

LENGTH, STEPS = 5, 20


class Corridor(gymnasium.Env):  # type: ignore[type-arg]
    """Left or right; 1 for the prize, which ends the episode."""

    observation_space = gymnasium.spaces.Box(0.0, 1.0, (LENGTH,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """At the near end."""
        super().reset(seed=seed)
        self.place = self.steps = 0
        return self._seen(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """One place on or back."""
        self.place = max(0, self.place + (1 if action == 1 else -1))
        self.steps += 1
        there = self.place == LENGTH - 1
        return self._seen(), float(there), there, self.steps >= STEPS and not there, {}

    def _seen(self) -> np.ndarray:
        return np.eye(LENGTH, dtype=np.float32)[self.place]
