"""Procgen's sixteen games through EnvPool, which needs two Qt libraries of the system."""

from __future__ import annotations

import re
from types import ModuleType
from typing import Any

import numpy as np

from offbeat.envs.atari_rows import AtariRows
from offbeat.envs.base import EnvConfig, EnvUnavailable, StateUnsupported
from offbeat.envs.rows import check_actions, reject_unused
from offbeat.envs.seeding import env_seeds
from offbeat.types import OBSERVATION, ActionSpec, ArrayDict, ArraySpec, EnvSpec, EnvStep

GAMES = (
    "bigfish", "bossfight", "caveflyer", "chaser", "climber", "coinrun", "dodgeball", "fruitbot",
    "heist", "jumper", "leaper", "maze", "miner", "ninja", "plunder", "starpilot",
)  # fmt: skip
ENVPOOL = 'pip install "offbeat[envpool]"'
QT = "apt-get install --no-install-recommends libqt5core5a libqt5gui5"
"""The system packages that Procgen draws with."""


def find_game(env_id: str) -> str | None:
    """The game of ``procgen:procgen-<game>-v0``; or None."""
    match = re.fullmatch(r"procgen:procgen-([a-z]+)-v\d+", env_id)
    return match[1] if match and match[1] in GAMES else None


def task_id(game: str) -> str:
    """EnvPool's name of ``game`` in mode hard."""
    return f"{game.title()}Hard-v0"


def envpool_module(env_id: str, also: str = "") -> ModuleType:
    """``envpool``. EnvUnavailable naming the extra (and ``also``, system packages) if it cannot be imported."""
    try:
        import envpool
    except ImportError as error:
        remedy = f"{ENVPOOL} and {also}" if also else ENVPOOL
        raise EnvUnavailable(f"{env_id} needs envpool, which cannot be imported ({error}); {remedy}") from error
    return envpool


def procgen_spec(config: EnvConfig, game: str) -> EnvSpec:
    """The spec of ``game``: frames uint8 [3, 64, 64], 15 actions. EnvUnavailable if it cannot run here."""
    reject_unused(config, ("max_steps",))
    envpool = envpool_module(config.id, QT)
    try:
        actions = int(envpool.make_spec(task_id(game)).action_space.n)
    except ImportError as error:
        raise EnvUnavailable(f"{config.id} cannot start: {' '.join(str(error).split())} {QT}") from error
    return EnvSpec(
        id=config.id,
        observation={OBSERVATION: ArraySpec((3, 64, 64), "uint8", 0.0, 255.0)},
        action=ActionSpec("discrete", actions),
        max_episode_steps=config.max_steps or None,
    )


def make_procgen(
    config: EnvConfig, game: str, num_envs: int, batch_size: int | None, threads: int, deterministic: bool
) -> ProcgenVector:
    """``num_envs`` games, hard, all levels. They cannot be saved, so ``StateUnsupported`` if ``deterministic``."""
    if deterministic:
        raise StateUnsupported(f"{config.id} can be neither saved nor replayed exactly; run without deterministic mode")
    return ProcgenVector(config, procgen_spec(config, game), game, num_envs, batch_size or num_envs, threads)


class ProcgenVector:
    """``num_envs`` Procgen games of mode hard in one EnvPool."""

    def __init__(
        self, config: EnvConfig, spec: EnvSpec, game: str, num_envs: int, batch_size: int, threads: int
    ) -> None:
        self.spec, self.num_envs, self.batch_size = spec, num_envs, batch_size
        self._config, self._threads = config, threads
        self._task = task_id(game)
        self._envpool = envpool_module(config.id, QT)
        self._rows = AtariRows(config, num_envs)
        self._ids = np.arange(0)
        self._pool: Any = None

    def reset(self, seed: int) -> None:
        """Make the games anew: EnvPool takes its seed only then."""
        options = {"max_episode_steps": self._config.max_steps} if self._config.max_steps else {}
        self._pool = self._envpool.make(
            self._task,
            env_type="gymnasium",
            num_envs=self.num_envs,
            batch_size=self.batch_size,
            num_threads=self._threads,
            seed=int(env_seeds(seed, 1)[0]),
            **options,
        )
        self._rows = AtariRows(self._config, self.num_envs)
        self._pool.async_reset()

    def recv(self) -> EnvStep:
        """The next rows, in the order in which they came."""
        frames, reward, over, cut, info = self._open().recv()
        self._ids = info["env_id"].astype(np.int64)
        return self._rows.make(self._ids, frames, reward, over, cut, np.zeros(len(self._ids), np.int32))

    def send(self, action: np.ndarray) -> None:
        """Actions for the rows of the last ``recv``."""
        action = check_actions(action, self.spec.action, self.batch_size)
        self._open().send(action.astype(np.int32), self._ids.astype(np.int32))

    def state(self) -> ArrayDict:
        """Always raises: EnvPool cannot be saved."""
        raise StateUnsupported(f"{self.spec.id} can be neither saved nor replayed exactly")

    def load_state(self, state: ArrayDict) -> None:
        """Always raises."""
        raise StateUnsupported(f"{self.spec.id} can be neither saved nor replayed exactly")

    def close(self) -> None:
        """Free the games."""
        self._pool = None

    def _open(self) -> Any:
        if self._pool is None:
            raise RuntimeError(f"{self.spec.id} needs reset() first")
        return self._pool
