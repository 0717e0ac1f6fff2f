"""An interface of rtgym around the drone that it ships: fly to a target, told and seen late over the air."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import rtgym
from gymnasium import spaces


class Drone(rtgym.RealTimeGymInterface):
    """Shows where the drone was seen last and its target; the reward is how far away it is, below 0."""

    made: ClassVar[list[Drone]] = []

    def __init__(self, near: float = 0.05) -> None:
        self.near, self.closed = near, False
        self.drone = rtgym.DummyRCDrone()
        self.target = np.zeros(2, np.float32)
        self.sent: list[np.ndarray] = []
        Drone.made.append(self)

    def get_observation_space(self) -> Any:
        return spaces.Tuple((spaces.Box(-1, 1, (2,)), spaces.Box(-0.5, 0.5, (2,))))

    def get_action_space(self) -> Any:
        return spaces.Box(-2, 2, (2,))

    def get_default_action(self) -> Any:
        return np.zeros(2, np.float32)

    def send_control(self, control: Any) -> None:
        self.sent.append(np.array(control))
        self.drone.send_control(float(control[0]), float(control[1]))

    def reset(self, seed: int | None = None, options: Any = None) -> Any:
        self.target = np.random.default_rng(seed).uniform(-0.5, 0.5, 2).astype(np.float32)
        return self._seen(), {}

    def get_obs_rew_terminated_info(self) -> Any:
        seen = self._seen()
        away = float(np.linalg.norm(seen[0] - seen[1]))
        return seen, -away, away < self.near, {}

    def close(self) -> None:
        self.closed = True

    def _seen(self) -> list[np.ndarray]:
        return [np.array(self.drone.get_observation(), np.float32), self.target.copy()]


CONFIG = {
    **rtgym.DEFAULT_CONFIG_DICT,
    "interface": Drone,
    "time_step_duration": 0.02,
    "start_obs_capture": 0.02,
    "ep_max_length": 60,
    "act_buf_len": 3,
}
"""A configuration of rtgym, as its users have one."""
