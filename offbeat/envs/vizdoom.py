"""ViZDoom: the single-player scenarios of its package in first person, through the adapter for single environments."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec

from offbeat.envs.base import EnvConfig, EnvUnavailable
from offbeat.envs.gymnasium import MakeEnv

USED = ("max_steps", "frame_skip", "frame_size")
"""Switches that mean something to it."""
EXTRA = 'pip install "offbeat[vizdoom]"'
TICS_PER_S = 35
"""How fast the game goes for people."""
ENGINE_FOLDER = Path("_vizdoom")
"""What the engine makes in the working directory as it starts; nothing is put there."""


class Scenario(NamedTuple):
    """What is known of a scenario without its package."""

    buttons: int
    """Buttons that are pressed or not; those with a number, such as turning by a mouse, are left out."""
    tics: int
    """Its limit of time; 0: none."""
    note: str
    """The task."""


SCENARIOS = {
    "basic": Scenario(3, 300, "shoot the monster; -1 per tic, -5 per shot, some 100 for it"),
    "simpler_basic": Scenario(3, 300, "basic with plain walls"),
    "rocket_basic": Scenario(3, 300, "basic with rockets"),
    "deadly_corridor": Scenario(7, 2100, "get past enemies to the vest"),
    "deathmatch": Scenario(17, 4200, "fight with what lies around"),
    "defend_the_center": Scenario(3, 2100, "shoot who comes; 26 bullets, 1 each"),
    "defend_the_line": Scenario(3, 0, "shoot who comes from the other side"),
    "health_gathering": Scenario(3, 2100, "live on acid from medical kits; 1 per tic"),
    "health_gathering_supreme": Scenario(3, 2100, "the same in a maze with poison"),
    "my_way_home": Scenario(5, 2100, "find the vest in a maze; 1 for it: navigation"),
    "predict_position": Scenario(3, 300, "shoot a rocket where the monster will be"),
    "take_cover": Scenario(2, 0, "dodge fireballs; 1 per tic"),
}
"""Name -> what it is. All lie in the package, with the free game data that they need."""


def find_game(env_id: str) -> str | None:
    """The scenario of ``vizdoom/my_way_home``, ``ViZDoom/MyWayHome``; or None."""
    plain = re.sub(r"(-v\d+$)|[^a-z]", "", env_id.split("/", 1)[1].lower())
    return next((name for name in SCENARIOS if name.replace("_", "") == plain), None)


def maker(config: EnvConfig, name: str) -> MakeEnv:
    """A function that makes one of scenario ``name``. EnvUnavailable if a package is missing."""
    vizdoom_module(config.id)
    return lambda: DoomScenario(config, name)


def vizdoom_module(env_id: str) -> ModuleType:
    """``vizdoom``. EnvUnavailable naming the extra if it, or OpenCV beside it, cannot be imported."""
    try:
        import cv2  # noqa: F401
        import vizdoom
    except ImportError as error:
        raise EnvUnavailable(f"{env_id} needs vizdoom and opencv-python-headless ({error}); {EXTRA}") from error
    return vizdoom


class DoomScenario(gymnasium.Env[np.ndarray, np.int64]):
    """One game of a scenario, in an engine that is a process of its own from the first ``reset`` to ``close``.

    Observation uint8 [3, size, size], RGB, scaled down by area from what the engine draws: 160 x 120, and 320 x 240 for
    a ``frame_size`` above 120. The game's variables (health, ammunition) are no part of it. Action 0 presses nothing,
    action k the scenario's k-th button; either is held for ``frame_skip`` tics, whose rewards are added up. Rewards are
    the scenario's own.

    The engine's own limit of time is off, as it leaves no last picture: tics are counted here, and the last action is
    held until the limit is reached. So a cut episode's last observation is true, and is not ``terminated``. Where the
    game ends by itself there is no picture any more, and the one before it is shown again.

    An episode follows from its seed and its actions.
    """

    def __init__(self, config: EnvConfig, name: str) -> None:
        import cv2

        module = vizdoom_module(config.id)
        self._skip, self._size, self._limit = config.frame_skip, config.frame_size, SCENARIOS[name].tics
        self._resize, self._area = cv2.resize, cv2.INTER_AREA
        game = module.DoomGame()
        game.load_config(str(Path(module.scenarios_path) / f"{name}.cfg"))
        game.set_doom_config_path(os.devnull)  # else it writes a file into the working directory
        game.set_window_visible(False)
        game.set_screen_format(module.ScreenFormat.RGB24)
        sizes = module.ScreenResolution
        game.set_screen_resolution(sizes.RES_320X240 if self._size > 120 else sizes.RES_160X120)
        game.set_episode_timeout(0)
        game.set_available_buttons([one for one in game.get_available_buttons() if not module.is_delta_button(one)])
        self._game, self._buttons = game, len(game.get_available_buttons())
        self._tics = 0
        self._seen = np.zeros((3, self._size, self._size), np.uint8)
        self.observation_space = spaces.Box(0, 255, self._seen.shape, np.uint8)
        self.action_space = spaces.Discrete(1 + self._buttons)
        self.spec = EnvSpec(config.id, max_episode_steps=-(-self._limit // self._skip) or None)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """A new episode whose randomness follows from ``seed``; the first one starts the engine."""
        super().reset(seed=seed)
        self._game.set_seed(int(self.np_random.integers(2**31)) if seed is None else seed)
        if self._game.is_running():
            self._game.new_episode()
        else:
            _start(self._game)
        self._tics = 0
        self._look()
        return self._seen, {}

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Hold one button or none for ``frame_skip`` tics, or for those that are left."""
        pressed = [0.0] * self._buttons
        if action:
            pressed[int(action) - 1] = 1.0
        tics = min(self._skip, self._limit - self._tics) if self._limit else self._skip
        reward = self._game.make_action(pressed, tics)
        self._tics += tics
        over = self._game.is_episode_finished()
        if not over:
            self._look()
        return self._seen, float(reward), over, not over and self._tics == self._limit, {}

    def close(self) -> None:
        """End the engine; harmless when called twice."""
        self._game.close()

    def _look(self) -> None:
        frame = self._game.get_state().screen_buffer
        scaled = self._resize(frame, (self._size, self._size), interpolation=self._area)
        self._seen = np.ascontiguousarray(scaled.transpose(2, 0, 1))


def _start(game: Any) -> None:
    """Start the engine, and take away the empty folder that it makes, unless there was one."""
    there = ENGINE_FOLDER.exists()
    game.init()
    if not there:
        with suppress(OSError):
            ENGINE_FOLDER.rmdir()
