"""A module with the interface of ``deepmind_lab``, as strict as its C code: what it raises, it raises for the same.

Levels are corridors: the picture shows seed, episode, frame and where one stands and looks; each frame of walking
forward gives 0.5, and an episode ends after as many frames as the level's name says (``corridor_90``), or 120.
"""

from __future__ import annotations

import re
from typing import Any, ClassVar

import numpy as np

KNOWN = re.compile(r"contributed/(dmlab30|psychlab)/\w+|seekavoid_arena_01|tests/corridor_\d+")
NAMES = (
    "LOOK_LEFT_RIGHT_PIXELS_PER_FRAME", "LOOK_DOWN_UP_PIXELS_PER_FRAME", "STRAFE_LEFT_RIGHT", "MOVE_BACK_FORWARD",
    "FIRE", "JUMP", "CROUCH",
)  # fmt: skip


class Lab:
    """As ``deepmind_lab.Lab``. ``made`` are all of them, ``told`` the calls of each."""

    made: ClassVar[list[Lab]] = []
    names = NAMES

    def __init__(
        self,
        level: str,
        observations: list[str],
        config: dict[str, str] | None = None,
        renderer: str = "software",
        level_cache: Any = None,
        temp_folder: str = "",
    ) -> None:
        if renderer not in ("software", "hardware"):
            raise RuntimeError(f'Failed to set renderer must be "hardware" or "software" actual "{renderer}"!')
        if not isinstance(observations, list):
            raise TypeError(f"argument 2 must be list, not {type(observations).__name__}")
        for key, value in (config or {}).items():
            if not isinstance(key, str) or not isinstance(value, str):
                raise TypeError("bad argument type for built-in operation")
        if not KNOWN.fullmatch(level):
            raise RuntimeError(f'Failed to init environment - "Invalid level script file:\n {level}"')
        if unknown := [name for name in observations if name != "RGB_INTERLEAVED"]:
            raise ValueError(f"Unknown observation '{unknown[0]}'.")
        self.level, self.config, self.renderer, self._wanted = level, dict(config or {}), renderer, observations
        self._status, self._episode, self._frame = "uninitialised", 0, 0
        self._seed, self._state = 0, np.zeros(len(self.names), np.int64)
        ends = re.search(r"corridor_(\d+)", level)
        self._length = int(ends[1]) if ends else 120
        self.told: list[tuple[Any, ...]] = []
        Lab.made.append(self)

    def reset(self, episode: int = -1, seed: int | None = None) -> bool:
        if seed is not None and type(seed) is not int:
            raise ValueError(f"'seed' must be int or None, was '{type(seed).__name__}'.")
        self.told.append(("reset", episode, seed))
        self._open()
        self._episode = episode if episode >= 0 else self._episode
        self._seed = int(np.random.randint(2**31)) if seed is None else seed
        self._state[:], self._frame, self._status = 0, 0, "initialised"
        self._shown = self._episode
        self._episode += 1
        return True

    def is_running(self) -> bool:
        return self._status in ("initialised", "running")

    def num_steps(self) -> int:
        return self._frame

    def fps(self) -> int:
        return 60

    def action_spec(self) -> list[dict[str, Any]]:
        self._open()
        return [{"min": -512, "max": 512, "name": name} for name in self.names]

    def step(self, action: np.ndarray, num_steps: int = 1) -> float:
        if not isinstance(action, np.ndarray):
            raise TypeError(f"argument 1 must be numpy.ndarray, not {type(action).__name__}")
        if not self.is_running():
            raise RuntimeError("Environment in wrong status to advance.")
        if action.shape != (len(self.names),):
            raise ValueError(f"action must have shape ({len(self.names)})")
        if action.dtype != np.intc:
            raise ValueError("action must have dtype np.intc")
        self.told.append(("step", action.tolist(), num_steps))
        reward = 0.0
        self._status = "running"
        for _ in range(num_steps):
            self._frame += 1
            self._state += action
            reward += 0.5 * int(action[self.names.index("MOVE_BACK_FORWARD")] > 0)
            if self._frame >= self._length:
                self._status = "terminated"
                break
        return reward

    def observations(self) -> dict[str, np.ndarray]:
        if not self.is_running():
            raise RuntimeError("Environment in wrong status for call to observations()")
        shape = int(self.config.get("height", "240")), int(self.config.get("width", "320")), 3
        drawn = np.random.default_rng(abs(hash((self._seed, self._shown)))).integers(200, size=shape)
        drawn[0, :10, 0] = self._frame
        drawn[1, : len(self.names), 1] = self._state % 256
        return {name: drawn.astype(np.uint8) for name in self._wanted}

    def close(self) -> None:
        self._status = "closed"

    def _open(self) -> None:
        if self._status == "closed":
            raise RuntimeError("Environment in wrong status, it is closed.")
