"""MinAtar: five small games on a 10 x 10 board (Young and Tian 2019), through the adapter for single environments."""

from __future__ import annotations

import importlib.util
import re
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from offbeat.envs.base import EnvConfig, EnvUnavailable
from offbeat.envs.gymnasium import MakeEnv

MINIMAL_ACTIONS = {"asterix": 5, "breakout": 3, "freeway": 3, "seaquest": 6, "space_invaders": 4}
"""Game -> number of actions that have an effect in it."""
ALL_ACTIONS = 6
ACTION_NAMES = ("NOOP", "LEFT", "UP", "RIGHT", "DOWN", "FIRE")
EXTRA = 'pip install "offbeat[minatar]"'


def find_game(env_id: str) -> str | None:
    """The game of ``minatar/breakout``, ``MinAtar/Breakout-v1``, ``minatar/SpaceInvaders``; or None."""
    plain = re.sub(r"(-v\d+$)|[^a-z]", "", env_id.split("/", 1)[1].lower())
    return next((game for game in MINIMAL_ACTIONS if game.replace("_", "") == plain), None)


def maker(config: EnvConfig, game: str) -> MakeEnv:
    """A function that makes one ``game``. EnvUnavailable if the package is missing."""
    _game_module(game)
    return lambda: MinAtarGame(game, config.sticky, config.full_action_space)


class MinAtarGame(gymnasium.Env[np.ndarray, np.int64]):
    """One MinAtar game. Observation uint8 [C, 10, 10] of 0 and 1; difficulty rises as published; no limit of steps.

    ``sticky`` is the probability that a step repeats the previous action (the published setting is 0.1). Differs from
    the package: an episode's randomness comes from its seed alone, and the previous action is forgotten at its start.
    """

    def __init__(self, game: str, sticky: float, full_action_space: bool) -> None:
        self._game = _game_module(game).Env(ramping=True)
        self._sticky = sticky
        self._actions = list(range(ALL_ACTIONS)) if full_action_space else self._game.minimal_action_set()
        self._random = np.random.RandomState(0)
        self._last_action = 0
        height, width, channels = self._game.state_shape()
        self.observation_space = spaces.Box(0, 1, (channels, height, width), np.uint8)
        self.action_space = spaces.Discrete(len(self._actions))

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """A new episode whose randomness follows from ``seed``."""
        self._random = np.random.RandomState(seed)
        self._game.random = self._random
        self._last_action = 0
        self._game.reset()
        return self._observe(), {}

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """One step, with the previous action instead in a ``sticky`` share of steps."""
        if self._random.rand() >= self._sticky:
            self._last_action = self._actions[int(action)]
        reward, terminal = self._game.act(self._last_action)
        return self._observe(), float(reward), bool(terminal), False, {}

    def get_action_meanings(self) -> list[str]:
        """What each action is, as Gymnasium's environments say it."""
        return [ACTION_NAMES[action] for action in self._actions]

    def _observe(self) -> np.ndarray:
        return np.ascontiguousarray(np.moveaxis(self._game.state(), 2, 0), np.uint8)


@cache
def _game_module(game: str) -> ModuleType:
    """The game's module, loaded from its own file: the package's ``__init__`` imports plotting libraries."""
    package = importlib.util.find_spec("minatar")
    if package is None or not package.submodule_search_locations:
        raise EnvUnavailable(f"minatar/{game} needs MinAtar, which is not installed; {EXTRA}")
    path = Path(package.submodule_search_locations[0]) / "environments" / f"{game}.py"
    spec = importlib.util.spec_from_file_location(f"offbeat_minatar_{game}", path)
    if spec is None or spec.loader is None:
        raise EnvUnavailable(f"minatar/{game}: {path} is missing from the installed MinAtar; {EXTRA} --force-reinstall")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
