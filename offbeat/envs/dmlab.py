"""DeepMind Lab: levels in first person (Beattie et al. 2016), through the adapter for single environments.

Its module ``deepmind_lab`` is on no package index; docs/environments.md says what has to be built.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from offbeat.envs.base import EnvConfig, EnvUnavailable
from offbeat.envs.dmlab_scores import IN_TWO, SCORES
from offbeat.envs.gymnasium import MakeEnv

USED = ("max_steps", "frame_skip", "renderer")
"""Switches that mean something to it."""
HEIGHT, WIDTH = 72, 96
"""Size of the picture. Unit: pixels. Source: Espeholt et al. 2018."""
FRAMES_PER_S = 60
PICTURE = "RGB_INTERLEAVED"
BUILD = "build and install it from the sources of DeepMind Lab, as docs/environments.md says"
FOLDER = "contributed/dmlab30/"
"""Where the levels of DMLab-30 are."""

LOOK, STRAFE, MOVE, FIRE = "LOOK_LEFT_RIGHT_PIXELS_PER_FRAME", "STRAFE_LEFT_RIGHT", "MOVE_BACK_FORWARD", "FIRE"
ACTIONS: tuple[dict[str, int], ...] = (
    {MOVE: 1}, {MOVE: -1}, {STRAFE: -1}, {STRAFE: 1}, {LOOK: -20}, {LOOK: 20}, {LOOK: -20, MOVE: 1},
    {LOOK: 20, MOVE: 1}, {FIRE: 1},
)  # fmt: skip
"""The nine actions: forward, backward, strafe left and right, look left and right, both of these walking forward, fire;
each is what DeepMind Lab's actions of these names are set to, the others being 0. Source: Espeholt et al. 2018."""

LEVELS: dict[str, str] = {
    **{name: FOLDER + (f"{name}_train" if name in IN_TWO else name) for name in SCORES},
    **{f"{name}_{part}": f"{FOLDER}{name}_{part}" for name in IN_TWO for part in ("train", "test")},
    **{name: name for name in (
        "lt_chasm", "lt_hallway_slope", "lt_horseshoe_color", "lt_space_bounce_hard", "nav_maze_random_goal_01",
        "nav_maze_random_goal_02", "nav_maze_random_goal_03", "nav_maze_static_01", "nav_maze_static_02",
        "nav_maze_static_03", "seekavoid_arena_01", "stairway_to_melon",
    )},
}  # fmt: skip
"""Name -> DeepMind Lab's own, for those that have one here: DMLab-30 and the levels of the first release."""


def find_level(env_id: str) -> str | None:
    """DeepMind Lab's name of ``dmlab/rooms_watermaze``, or of ``dmlab/contributed/psychlab/harlow``; None if no level
    has such a name. What names a folder is taken as it is: only DeepMind Lab knows whether it is there.
    """
    name = env_id.split("/", 1)[1]
    return name if "/" in name.strip("/") else LEVELS.get(name)


def maker(config: EnvConfig, level: str) -> MakeEnv:
    """A function that makes one of ``level``. EnvUnavailable if ``deepmind_lab`` is missing."""
    lab_module(config.id)
    return lambda: LabLevel(config, level)


def lab_module(env_id: str) -> ModuleType:
    """``deepmind_lab``. EnvUnavailable saying what to do if it cannot be imported."""
    try:
        import deepmind_lab
    except ImportError as error:
        raise EnvUnavailable(f"{env_id} needs deepmind_lab ({error}), which no package index has; {BUILD}") from error
    return deepmind_lab


class LabLevel(gymnasium.Env[np.ndarray, np.int64]):
    """One level, in an engine of its own.

    Observation uint8 [3, 72, 96], RGB: the maximum of the last two of the ``frame_skip`` frames that an action is held
    for, whose rewards are added up. ``ACTIONS`` are the nine actions. DeepMind Lab does not say whether an episode
    ended by itself or by its level's limit of time, and shows nothing after the end: all ends are ``terminated``, and
    the last picture is one of before.

    An episode is reset once, with a seed of its own, and as DeepMind Lab's first one (``episode=0``), so that it
    follows from its seed and its actions.

    Differs from the seed implementation: its wrapper reset at an end within an action and again at the next step, which
    threw away an episode's start, and all its processes had the same sequence of seeds.
    """

    def __init__(self, config: EnvConfig, level: str) -> None:
        module = lab_module(config.id)
        sizes = {"width": str(WIDTH), "height": str(HEIGHT), "fps": str(FRAMES_PER_S)}
        try:
            self._lab = module.Lab(level, [PICTURE], config=sizes, renderer=config.renderer)
        except (RuntimeError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise EnvUnavailable(f"{config.id}: DeepMind Lab cannot make level {level!r}: {reason}") from error
        names = [one["name"] for one in self._lab.action_spec()]
        self._actions = np.array([[action.get(name, 0) for name in names] for action in ACTIONS], np.intc)
        skip = config.frame_skip
        self._parts = (skip - 1, 1) if skip > 1 else (1,)
        self._seen = np.zeros((3, HEIGHT, WIDTH), np.uint8)
        self.observation_space = spaces.Box(0, 255, self._seen.shape, np.uint8)
        self.action_space = spaces.Discrete(len(ACTIONS))

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """A new episode whose randomness follows from ``seed``."""
        super().reset(seed=seed)
        chosen = int(self.np_random.integers(2**31 - 1)) if seed is None else int(seed)
        self._lab.reset(episode=0, seed=chosen)
        self._seen = self._picture()
        return self._seen, {}

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Hold one of ``ACTIONS`` for ``frame_skip`` frames, or until the episode ends."""
        reward, frames = 0.0, []
        for count in self._parts:
            reward += self._lab.step(self._actions[action], num_steps=count)
            if not self._lab.is_running():
                break
            frames.append(self._picture())
        if frames:
            self._seen = np.maximum.reduce(frames)
        return self._seen, float(reward), not self._lab.is_running(), False, {}

    def close(self) -> None:
        """End the engine; harmless when called twice."""
        self._lab.close()

    def _picture(self) -> np.ndarray:
        """[3, 72, 96], an array of its own."""
        return np.ascontiguousarray(self._lab.observations()[PICTURE].transpose(2, 0, 1))
