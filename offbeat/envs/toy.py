"""Toy environments: small tasks with known answers, vectorised in NumPy and exactly restorable.

The rules of ``toy/catch``, ``copy``, ``tmaze``, ``memory_chain``, ``identity``, ``drift``, ``dict`` and ``continuous``
are in ``toy_games.py``, those of ``toy/counting`` in ``counting.py``, ``toy/raise@N`` and the other broken ones in
``faulty.py``.
"""

from __future__ import annotations

import numpy as np

from offbeat.envs.base import EnvConfig
from offbeat.envs.counting import Counting
from offbeat.envs.rows import check_actions, handed_out, reject_unused, transform_reward
from offbeat.envs.seeding import pack_generator, unpack_generator
from offbeat.envs.toy_games import GAMES, ToyGame
from offbeat.types import ArrayDict, EnvSpec, EnvStep


def make_game(name: str, count: int, length: int) -> ToyGame:
    """``count`` copies of the toy game ``name``. KeyError if there is none of that name."""
    if name == "counting":
        return Counting(count, length)
    return GAMES[name][0](count, length)


def toy_spec(config: EnvConfig) -> EnvSpec:
    """The spec of a toy environment. KeyError if its name is unknown."""
    name = config.id.removeprefix("toy/")
    reject_unused(config, ("length",) if name == "counting" else ("length", "max_steps"))
    game = make_game(name, 1, config.length)
    return EnvSpec(
        id=config.id,
        observation=game.observation,
        action=game.action,
        max_episode_steps=min(game.limit, config.max_steps or game.limit),
        random_score=game.scores[0] if game.scores else None,
        reference_score=game.scores[1] if game.scores else None,
    )


class ToyVector:
    """N copies of a toy game as a ``VectorEnv``; no Python loop over the copies."""

    def __init__(self, config: EnvConfig, num_envs: int) -> None:
        self.spec = toy_spec(config)
        self.num_envs = self.batch_size = num_envs
        self._config = config
        self._ids = np.arange(num_envs)
        self._rows: EnvStep | None = None
        self.reset(0)

    def reset(self, seed: int) -> None:
        """Start N episodes; ``recv`` gives their first rows."""
        self._game = make_game(self._config.id.removeprefix("toy/"), self.num_envs, self._config.length)
        self._generator = np.random.Generator(np.random.PCG64(seed))
        self._time = np.zeros(self.num_envs, np.int64)
        self._ended = np.ones(self.num_envs, bool)
        self._start_ended()
        none = np.zeros(self.num_envs)
        off = np.zeros(self.num_envs, bool)
        self._ended = off
        self._rows = self._make_rows(none, none, off, off, first=~off)

    def recv(self) -> EnvStep:
        """The rows that the last ``send`` led to."""
        rows, self._rows = handed_out(self._rows), None
        return rows

    def send(self, action: np.ndarray) -> None:
        """Take one action in each game; ended games ignore it and start anew."""
        action = check_actions(action, self.spec.action, self.num_envs)
        first = self._ended.copy()
        raw, reward, terminated = self._game.step(action, self._generator)
        self._time += 1
        terminated = terminated & ~first
        cut = self._time >= (self.spec.max_episode_steps or np.inf)
        if isinstance(self._game, Counting):
            cut |= self._game.cut()
        truncated = cut & ~terminated & ~first
        self._start_ended()
        self._ended = terminated | truncated
        raw, reward = np.where(first, 0.0, raw), np.where(first, 0.0, reward)
        self._rows = self._make_rows(raw, reward, terminated, truncated, first)

    def state(self) -> ArrayDict:
        """The games' fields, clocks and the generator."""
        own = {"time": self._time.copy(), "ended": self._ended.copy(), "generator": pack_generator(self._generator)}
        return own | {f"game.{name}": array.copy() for name, array in self._game.fields.items()}

    def load_state(self, state: ArrayDict) -> None:
        """Go on from ``state()``; the next call must be ``send``."""
        self._time, self._ended = state["time"].copy(), state["ended"].copy()
        self._generator = unpack_generator(state["generator"])
        for name in self._game.fields:
            self._game.fields[name] = state[f"game.{name}"].copy()
        self._rows = None

    def close(self) -> None:
        """Nothing to free."""

    def _start_ended(self) -> None:
        games = np.flatnonzero(self._ended)
        if len(games):
            self._game.start(games, self._generator)
            self._time[games] = 0

    def _make_rows(
        self, raw: np.ndarray, reward: np.ndarray, terminated: np.ndarray, truncated: np.ndarray, first: np.ndarray
    ) -> EnvStep:
        return EnvStep(
            env_ids=self._ids.copy(),
            observation=self._game.observe(),
            reward=transform_reward(reward, self._config),
            raw_reward=raw.astype(np.float32),
            terminated=terminated,
            truncated=truncated,
            first=first,
            valid=~(terminated | truncated),
        )
