"""What offbeat uses of rtgym 0.16, on a clock that nobody waits for: for suites and machines without the package.

``installed`` puts it where ``import rtgym`` finds it. Time steps begin and end as rtgym's do: ``step`` waits for the
one that goes on, gives what was seen at its end, and begins the next one, in which its action acts.
"""

from __future__ import annotations

import math
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

NOW = [0.0]
"""The time, in seconds."""


class RealTimeGymInterface:
    """The interface to be implemented."""

    def wait(self) -> None:
        """Pause after an episode."""


class DummyRCDrone:
    """A drone that flies as fast as it was told ``delay`` seconds ago, in a world of [-1, 1] each way."""

    def __init__(self, max_vel: float = 2.0, delay: float = 0.035) -> None:
        self._place, self._velocity, self._max, self._delay = [0.0, 0.0], (0.0, 0.0), max_vel, delay
        self._told: deque[tuple[float, tuple[float, float]]] = deque()
        self._seen: deque[tuple[float, tuple[float, float]]] = deque([(-1e9, (0.0, 0.0))])
        self._at = NOW[0]
        self.controls: list[tuple[float, float]] = []

    def send_control(self, vel_x: float, vel_y: float) -> None:
        norm = max(math.hypot(vel_x, vel_y) / self._max, 1.0)
        self.controls.append((float(vel_x), float(vel_y)))
        self._told.append((NOW[0] + self._delay, (vel_x / norm, vel_y / norm)))

    def get_observation(self) -> tuple[float, float]:
        while self._at < NOW[0] - 1e-9:
            while self._told and self._told[0][0] <= self._at:
                self._velocity = self._told.popleft()[1]
            self._place = [min(max(x + 0.01 * v, -1.0), 1.0) for x, v in zip(self._place, self._velocity, strict=True)]
            self._at += 0.01
            self._seen.append((self._at, (self._place[0], self._place[1])))
        while len(self._seen) > 1 and self._seen[1][0] <= NOW[0] - self._delay:
            self._seen.popleft()
        return self._seen[0][1]


class RealTimeEnv(gymnasium.Env[Any, Any]):
    """The environment that rtgym makes around an interface."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config
        self.interface = config["interface"](*config["interface_args"], **config["interface_kwargs"])
        self.default_action = self.interface.get_default_action()
        self.act_buf: deque[Any] = deque(maxlen=config["act_buf_len"])
        self.action_space = self.interface.get_action_space()
        parts = self.interface.get_observation_space().spaces
        if config["act_in_obs"]:
            parts = (*parts, *(self.action_space for _ in range(config["act_buf_len"])))
        self.observation_space = spaces.Tuple(parts)
        self._fill()
        self.steps = 0
        self._ends = NOW[0]
        self._seen: Any = None
        self.running = False

    def _fill(self) -> None:
        self.act_buf.extend([self.default_action] * self.config["act_buf_len"])

    def _begin(self, action: Any) -> None:
        """A time step, in which ``action`` acts; what is seen at its end is there as soon as somebody waits for it."""
        self.interface.send_control(action)
        self._ends = max(self._ends, NOW[0]) + self.config["time_step_duration"]

    def _join(self) -> None:
        if self._ends > NOW[0]:
            NOW[0] = self._ends
            self._seen = self.interface.get_obs_rew_terminated_info()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        self._join()
        self.running, self.steps = True, 0
        if self.config["reset_act_buf"]:
            self._fill()
        observation, info = self.interface.reset(seed=seed, options=options)
        if self.config["act_in_obs"]:
            observation = observation + list(self.act_buf)  # rtgym wants a list
        self._begin(self.act_buf[-1])
        return tuple(observation), info

    def step(self, action: Any) -> Any:
        self._join()
        if not self.running:
            raise RuntimeError("The episode is terminated or truncated. Call reset before step.")
        self.steps += 1
        self.act_buf.append(action)
        observation, reward, terminated, info = self._seen
        truncated = self.steps >= self.config["ep_max_length"] and not terminated
        self.running = not (terminated or truncated)
        if self.running:
            self._begin(action)
        if self.config["act_in_obs"]:
            observation = (*observation, *self.act_buf)
        return tuple(observation), reward, terminated, truncated, info

    def stop(self) -> None:
        self._join()


DEFAULT_CONFIG_DICT = {
    "interface": RealTimeGymInterface, "interface_args": (), "interface_kwargs": {}, "time_step_duration": 0.05,
    "start_obs_capture": 0.05, "time_step_timeout_factor": 1.0, "ep_max_length": np.inf, "act_in_obs": True,
    "act_buf_len": 1, "reset_act_buf": True, "benchmark": False, "benchmark_polyak": 0.1, "benchmark_type": "polyak",
    "wait_on_done": False, "last_act_on_reset": False,
}  # fmt: skip
ID = "real-time-gym-v1"


@contextmanager
def installed() -> Iterator[ModuleType]:
    """``import rtgym`` finds this meanwhile."""
    module, before = ModuleType("rtgym"), {name: sys.modules.get(name) for name in ("rtgym", "tests.envs.drone")}
    for thing in (RealTimeGymInterface, DummyRCDrone, DEFAULT_CONFIG_DICT):
        module.__dict__[getattr(thing, "__name__", "DEFAULT_CONFIG_DICT")] = thing
    known = gymnasium.registry.pop(ID, None)
    sys.modules["rtgym"] = module
    sys.modules.pop("tests.envs.drone", None)
    gymnasium.register(ID, entry_point=RealTimeEnv)
    try:
        yield module
    finally:
        gymnasium.registry.pop(ID, None)
        if known is not None:
            gymnasium.registry[ID] = known
        for name, value in before.items():
            sys.modules.pop(name, None)
            if value is not None:
                sys.modules[name] = value
