"""Procgen's sixteen games through EnvPool, which needs two Qt libraries of the system."""

from __future__ import annotations

import re

import numpy as np

from offbeat.envs.atari_rows import AtariRows
from offbeat.envs.base import EnvConfig, EnvUnavailable, StateUnsupported
from offbeat.envs.pool import Pool, envpool_module
from offbeat.envs.rows import reject_unused
from offbeat.types import OBSERVATION, ActionSpec, ArraySpec, EnvSpec, EnvStep

GAMES = (
    "bigfish", "bossfight", "caveflyer", "chaser", "climber", "coinrun", "dodgeball", "fruitbot",
    "heist", "jumper", "leaper", "maze", "miner", "ninja", "plunder", "starpilot",
)  # fmt: skip
MODES: dict[str, tuple[str, ...]] = {
    "easy": GAMES,
    "hard": GAMES,
    "extreme": ("chaser", "dodgeball", "leaper", "starpilot"),
    "memory": ("caveflyer", "dodgeball", "heist", "jumper", "maze", "miner"),
    "exploration": ("caveflyer", "climber", "coinrun", "heist", "jumper", "leaper", "maze", "ninja"),
}
"""``env.distribution_mode`` -> the games that have it in EnvPool 1.2.5."""
LAST_LEVEL = 2**31 - 2
"""Levels are numbered from 0 to this one, as far as EnvPool counts them."""
QT = "apt-get install --no-install-recommends libqt5core5a libqt5gui5"
"""The system packages that Procgen draws with."""


def find_game(env_id: str) -> str | None:
    """The game of ``procgen:procgen-<game>-v0``; or None."""
    match = re.fullmatch(r"procgen:procgen-([a-z]+)-v\d+", env_id)
    return match[1] if match and match[1] in GAMES else None


def task_id(game: str, mode: str = "hard") -> str:
    """EnvPool's name of ``game`` in a mode of ``MODES``."""
    return f"{game.title()}{mode.title()}-v0"


def check_levels(config: EnvConfig, game: str) -> None:
    """ValueError for a mode that EnvPool does not have for ``game``, and for levels that there are not."""
    mode = config.distribution_mode
    if game not in MODES[mode]:
        has = ", ".join(name for name, games in MODES.items() if game in games)
        raise ValueError(
            f"distribution_mode={mode!r} is not there for {config.id}; {game} has {has}; {mode} is there for "
            f"{', '.join(MODES[mode])}"
        )
    if config.start_level and not config.num_levels:
        raise ValueError(
            f"start_level={config.start_level} means nothing with num_levels=0, which is all levels; set num_levels to "
            "how many there are from that one on"
        )
    if config.start_level + max(config.num_levels, 1) - 1 > LAST_LEVEL:
        raise ValueError(
            f"start_level={config.start_level} and num_levels={config.num_levels} reach beyond the last level, "
            f"{LAST_LEVEL}"
        )


def procgen_spec(config: EnvConfig, game: str) -> EnvSpec:
    """The spec of ``game``: frames uint8 [3, 64, 64], 15 actions, the game's own limit of steps or ``max_steps``.

    EnvUnavailable if it cannot run here, ValueError for levels or a mode that there are not.
    """
    reject_unused(config, ("max_steps", "num_levels", "start_level", "distribution_mode"))
    check_levels(config, game)
    envpool = envpool_module(config.id, QT)
    try:
        made = envpool.make_spec(task_id(game, config.distribution_mode))
    except ImportError as error:
        raise EnvUnavailable(f"{config.id} cannot start: {' '.join(str(error).split())} {QT}") from error
    own = int(made.config.max_episode_steps)
    return EnvSpec(
        id=config.id,
        observation={OBSERVATION: ArraySpec((3, 64, 64), "uint8", 0.0, 255.0)},
        action=ActionSpec("discrete", int(made.action_space.n)),
        max_episode_steps=min(own, config.max_steps or own),
    )


def make_procgen(
    config: EnvConfig, game: str, num_envs: int, batch_size: int | None, threads: int, deterministic: bool
) -> ProcgenVector:
    """``num_envs`` games of the configured mode and levels. ``StateUnsupported`` if ``deterministic``: they cannot be
    saved. ValueError for ``max_steps`` in partial batches.
    """
    if deterministic:
        raise StateUnsupported(f"{config.id} can be neither saved nor replayed exactly; run without deterministic mode")
    if config.max_steps and (batch_size or num_envs) != num_envs:
        raise ValueError(
            f"max_steps={config.max_steps} restarts single games of {config.id} only in whole batches; set the batch "
            f"to all {num_envs} environments, or max_steps=0 for the game's own limit"
        )
    return ProcgenVector(config, procgen_spec(config, game), game, num_envs, batch_size or num_envs, threads)


class ProcgenVector(Pool):
    """``num_envs`` Procgen games of one mode in one EnvPool, each with a sequence of levels of its own.

    The games' own limits of steps are theirs. EnvPool ignores another one, so ``max_steps`` is counted here, and a game
    that it cuts is restarted at the row after.
    """

    def __init__(
        self, config: EnvConfig, spec: EnvSpec, game: str, num_envs: int, batch_size: int, threads: int
    ) -> None:
        task = task_id(game, config.distribution_mode)
        super().__init__(envpool_module(config.id, QT), task, spec, num_envs, batch_size, threads)
        self._config, self._rows = config, AtariRows(config, num_envs)
        self._steps = np.zeros(num_envs, np.int64)
        self._cut = np.zeros(0, np.int64)
        self.levels = np.zeros(0, np.int64)
        """The levels that the rows of the last ``recv`` are of [batch_size]."""

    def reset(self, seed: int) -> None:
        """Make the games anew: EnvPool takes its seed only then."""
        self._rows = AtariRows(self._config, self.num_envs)
        self._cut = np.zeros(0, np.int64)
        self.begin(seed, num_levels=self._config.num_levels, start_level=self._config.start_level)

    def recv(self) -> EnvStep:
        """The next rows, in the order in which they came."""
        frames, reward, over, cut, info = self._opened().recv()
        self._ids, self.levels = info["env_id"].astype(np.int64), info["level_seed"].astype(np.int64)
        if len(self._cut):
            fresh, again = self._pool.reset(self._cut.astype(np.int32))
            at = np.argsort(self._ids)[again["env_id"]]
            frames[at], self.levels[at] = fresh, again["level_seed"]
            reward[at], over[at], cut[at] = 0, False, False
        self._steps[self._ids] = np.where(self._rows.ended[self._ids], 0, self._steps[self._ids] + 1)
        late = (self._steps[self._ids] >= (self._config.max_steps or np.inf)) & ~over & ~cut
        self._cut = self._ids[late]
        return self._rows.make(self._ids, frames, reward, over, cut | late, np.zeros(len(self._ids), np.int32))
