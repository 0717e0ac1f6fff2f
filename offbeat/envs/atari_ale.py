"""Atari through ALE's own vector environment: the fastest backend, native threads, partial batches."""

from __future__ import annotations

from typing import Any

import numpy as np

from offbeat.envs.atari_games import game_names, max_episode_actions
from offbeat.envs.atari_rows import AtariRows
from offbeat.envs.base import EnvConfig, StateUnsupported
from offbeat.envs.rows import check_actions
from offbeat.envs.seeding import env_seeds
from offbeat.types import ArrayDict, EnvSpec, EnvStep

MOST_FRAMES = 2**31 - 2
"""ALE counts in 32 bits, one frame beyond its limit. Unit: frames."""


class AtariAle:
    """``num_envs`` games in ``ale_py.vector_env.AtariVectorEnv``.

    Its own life-loss, reward and stacking options stay off: rows are made here, frame stacks by whoever reads them.
    ``life_loss="end_episode"`` restarts the games concerned by a masked reset, which needs whole batches.

    ALE draws no picture in the action that reaches its time limit, so the limit is kept here, and ALE's own lies one
    frame beyond. In whole batches a cut game is restarted by a masked reset. In partial ones it reaches ALE's limit
    with the action that is ignored, and restarts by itself one row late: that row starts an episode and is not valid.
    """

    def __init__(
        self, config: EnvConfig, spec: EnvSpec, game: str, num_envs: int, batch_size: int, threads: int
    ) -> None:
        from ale_py.vector_env import AtariVectorEnv

        if config.life_loss == "end_episode" and batch_size != num_envs:
            raise ValueError(
                f"life_loss='end_episode' with batch_size={batch_size} of {num_envs} environments: ALE can restart "
                "single games only in whole batches; set the batch to all environments, or backend='ale-single'"
            )
        self.spec, self.num_envs, self.batch_size = spec, num_envs, batch_size
        self._whole, self._limit = batch_size == num_envs, max_episode_actions(config)
        self._rows = AtariRows(config, num_envs)
        self._config = config
        self._env: AtariVectorEnv | None = AtariVectorEnv(
            game_names()[game],
            num_envs,
            batch_size=batch_size,
            num_threads=threads,
            max_num_frames_per_episode=min(self._limit * config.frame_skip + 1, MOST_FRAMES),
            repeat_action_probability=config.sticky,
            full_action_space=config.full_action_space,
            img_height=config.frame_size,
            img_width=config.frame_size,
            stack_num=1,
            frameskip=config.frame_skip,
            noop_max=config.noop_max,
            reward_clipping=False,
            use_fire_reset=config.fire_reset,
        )
        self._ready: tuple[Any, ...] | None = None
        self._played = np.zeros(num_envs, np.int64)  # actions in each running episode
        self._stopped = np.zeros(0, np.int64)  # whole batches: games that ended here and not in ALE
        self._late = np.zeros(num_envs, bool)  # partial ones: whether the game restarts one row late

    def reset(self, seed: int) -> None:
        """Start all games, each with its own seed. ALE reloads every ROM for it: 60 ms per environment."""
        self._rows = AtariRows(self._config, self.num_envs)
        self._stopped, self._late[:] = np.zeros(0, np.int64), False
        frames, info = self._open().reset(seed=env_seeds(seed, self.num_envs))
        off = np.zeros(self.batch_size, bool)
        self._ready = (frames, np.zeros(self.batch_size, np.int32), off, off, info)

    def recv(self) -> EnvStep:
        """The next rows, in the order in which they came."""
        ready, self._ready = self._ready, None
        frames, reward, over, _, info = ready if ready is not None else self._open().recv()
        ids, lives = info["env_id"].astype(np.int64), info["lives"]
        if len(self._stopped):
            self._restart(ids, frames, reward, over, lives)
        played = self._played[ids] + 1
        played[self._rows.ended[ids]] = 0
        self._played[ids] = played
        cut = played >= self._limit
        if self._whole:
            rows = self._rows.make(ids, frames, reward, over, cut, lives)
            self._stopped = ids[~(rows.valid | over)]
            return rows
        late = self._late[ids]
        reward[late] = 0
        rows = self._rows.make(ids, frames, reward, over, cut, lives)
        rows.valid[late] = False
        self._rows.ended[ids[late]] = True
        self._late[ids] = cut & ~over
        return rows

    def send(self, action: np.ndarray) -> None:
        """Actions for the rows of the last ``recv``."""
        # A worker thread that meets a wrong action never answers, so it is caught here.
        self._open().send(check_actions(action, self.spec.action, self.batch_size))

    def state(self) -> ArrayDict:
        """Always raises: ALE's vector environment cannot be saved."""
        raise StateUnsupported(f"{self.spec.id} with backend 'ale' cannot be saved; 'ale-single' can")

    def load_state(self, state: ArrayDict) -> None:
        """Always raises."""
        raise StateUnsupported(f"{self.spec.id} with backend 'ale' cannot be restored; 'ale-single' can")

    def close(self) -> None:
        """Stop the threads and free the emulators."""
        self._env = None

    def _open(self) -> Any:
        if self._env is None:
            raise RuntimeError(f"{self.spec.id} was closed")
        return self._env

    def _restart(
        self, ids: np.ndarray, frames: np.ndarray, reward: np.ndarray, over: np.ndarray, lives: np.ndarray
    ) -> None:
        """Start the stopped games of a whole batch anew, and put their first rows in place."""
        mask = np.zeros(self.num_envs, bool)
        mask[self._stopped] = True
        fresh, info = self._open().reset(options={"reset_mask": mask})
        chosen = mask[info["env_id"]]
        where = np.argsort(ids)[info["env_id"][chosen]]
        frames[where], lives[where] = fresh[chosen], info["lives"][chosen]
        reward[where], over[where] = 0, False
