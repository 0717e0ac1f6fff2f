"""Atari through EnvPool: native threads, partial batches, an optional extra."""

from __future__ import annotations

import numpy as np

from offbeat.envs.atari_games import max_episode_actions
from offbeat.envs.atari_rows import AtariRows
from offbeat.envs.base import EnvConfig
from offbeat.envs.pool import Pool, envpool_module
from offbeat.types import EnvSpec, EnvStep


def check_envpool(config: EnvConfig, partial: bool) -> None:
    """ValueError for switches that EnvPool cannot do; ``partial``: batches of fewer than all environments."""
    if config.noop_max < 1:
        raise ValueError("noop_max=0 is impossible with backend='envpool', which needs at least 1; use backend='ale'")
    if config.life_loss == "end_episode" and partial:
        raise ValueError(
            "life_loss='end_episode' with backend='envpool' restarts single games only in whole batches; set the batch "
            "to all environments, or backend='ale-single'"
        )


class AtariEnvPool(Pool):
    """``num_envs`` games in one EnvPool, its own life-loss, reward and stacking options off."""

    unsaved = "with backend 'envpool' cannot be saved; 'ale-single' can"

    def __init__(
        self, config: EnvConfig, spec: EnvSpec, game: str, num_envs: int, batch_size: int, threads: int
    ) -> None:
        check_envpool(config, batch_size != num_envs)
        module = envpool_module(f"{config.id} with backend='envpool'")
        super().__init__(module, f"{game}-v5", spec, num_envs, batch_size, threads)
        self._config, self._rows = config, AtariRows(config, num_envs)
        self._restart_on_loss = config.life_loss == "end_episode"
        self._lost = np.zeros(0, np.int64)

    def reset(self, seed: int) -> None:
        """Make all games anew: EnvPool takes its seed only then."""
        self._rows = AtariRows(self._config, self.num_envs)
        self._lost = np.zeros(0, np.int64)
        self.begin(
            seed,
            max_episode_steps=max_episode_actions(self._config),
            frame_skip=self._config.frame_skip,
            stack_num=1,
            img_height=self._config.frame_size,
            img_width=self._config.frame_size,
            noop_max=self._config.noop_max,
            use_fire_reset=self._config.fire_reset,
            full_action_space=self._config.full_action_space,
            repeat_action_probability=self._config.sticky,
            episodic_life=False,
            reward_clip=False,
        )

    def recv(self) -> EnvStep:
        """The next rows, in the order in which they came."""
        frames, reward, _, cut, info = self._opened().recv()
        self._ids = info["env_id"].astype(np.int64)
        # EnvPool's own flag of termination is off where the same action reached the time limit.
        lives, over = info["lives"], info["terminated"] > 0
        if len(self._lost):
            fresh, again = self._pool.reset(self._lost.astype(np.int32))
            at = np.argsort(self._ids)[again["env_id"]]
            frames[at], lives[at] = fresh, again["lives"]
            reward[at], over[at], cut[at] = 0, False, False
        rows = self._rows.make(self._ids, frames, reward, over, cut, lives)
        if self._restart_on_loss:
            self._lost = self._ids[~rows.valid & ~over & ~cut]
        return rows
