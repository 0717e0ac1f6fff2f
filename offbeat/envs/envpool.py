"""EnvPool's tasks with Gymnasium's spaces (MuJoCo, DeepMind Control, MiniGrid, Box2D, ...), in native threads.

Atari and Procgen have adapters of their own, which know what is particular about them.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces

from offbeat.envs.base import EnvConfig, EnvUnavailable, StateUnsupported
from offbeat.envs.pool import Pool, envpool_module
from offbeat.envs.procgen import MODES, task_id
from offbeat.envs.rows import make_rows, reject_unused
from offbeat.envs.spaces import Leaf, action_decoder, action_spec, flatten_space, with_mask
from offbeat.envs.views import Views
from offbeat.types import ArrayDict, ArraySpec, EnvSpec, EnvStep

PREFIX = "envpool:"
"""What ids begin with."""
SUCH_AS = ("HalfCheetah-v5", "Hopper-v5", "Humanoid-v5", "CheetahRun-v1", "CartPole-v1")
"""Some tasks, for messages."""
USED = ("max_steps", "channels")
"""Switches that mean something to them."""
PROCGEN = frozenset(task_id(game, mode) for mode, games in MODES.items() for game in games)
"""Tasks that are levels of Procgen."""
PLAYED_OTHERWISE = {
    ".atari.": "is played another way here: as its game with env.backend = 'envpool'",
    ".vizdoom.": "is played another way here: as vizdoom/<scenario>; EnvPool leaves out the scenarios' own rewards",
}
"""Part of the name of EnvPool's module -> what is said of its tasks."""
REWARDS_BY_LIMIT = ".minigrid."
"""Part of the name of the module whose tasks pay 1 - 0.9 t / limit after t steps: they must have their own limit."""
NO_LIMIT = 2**31 - 1
"""EnvPool's number for a task without a limit of steps."""
UNBOUNDED = 1e30
"""Bounds of observations beyond this mean none; EnvPool has them for DeepMind Control. The least double that is above
zero, too, is meant for the lowest number."""


def find_task(env_id: str) -> str | None:
    """EnvPool's name of ``envpool:<task>``; or None. Whether there is such a task shows when it is made."""
    match = re.fullmatch(rf"{PREFIX}([\w-]+)", env_id)
    return match[1] if match else None


def _made_spec(config: EnvConfig, task: str) -> Any:
    """EnvPool's own description of a task. EnvUnavailable where it has none, or belongs to another adapter."""
    module = envpool_module(config.id)
    known = module.list_all_envs()
    if task not in known:
        near = difflib.get_close_matches(task, known, n=3, cutoff=0.5)
        hint = f"; did you mean {' or '.join(f'{PREFIX}{name}' for name in near)}?" if near else ""
        raise EnvUnavailable(f"EnvPool {module.__version__} has no task {task!r}{hint}")
    if task in PROCGEN:
        raise EnvUnavailable(f"{config.id} is played another way here: as procgen:procgen-<game>-v0")
    try:
        made = module.make_spec(task)
    except (ImportError, RuntimeError) as error:
        raise EnvUnavailable(f"{config.id} cannot start: {' '.join(str(error).split())}") from error
    for module_name, instead in PLAYED_OTHERWISE.items():
        if module_name in _module_of(made):
            raise EnvUnavailable(f"{config.id} {instead}")
    if getattr(made.config, "max_num_players", 1) > 1:
        raise EnvUnavailable(f"{config.id} is a task of several players, which this adapter does not have")
    return made


def _module_of(made: Any) -> str:
    """Where EnvPool has a task, with a dot before and behind it."""
    return f".{type(made).__mro__[1].__module__}."


def _choices(space: Any) -> Any:
    """A space of actions; a box of whole numbers as the choices that it is."""
    if not isinstance(space, spaces.Box) or np.dtype(space.dtype).kind not in "iu" or not space.shape:
        return space
    low, high = space.low.astype(np.int64), space.high.astype(np.int64)
    return spaces.MultiDiscrete(high - low + 1, start=low)


def envpool_spec(config: EnvConfig, task: str) -> EnvSpec:
    """The spec of a task. EnvUnavailable where EnvPool lacks or has none of that name, ValueError for its spaces."""
    return _described(config, _made_spec(config, task))[0]


def _described(config: EnvConfig, made: Any) -> tuple[EnvSpec, dict[str, Leaf]]:
    reject_unused(config, USED)
    action = action_spec(_choices(made.action_space), config.id)
    leaves = with_mask(flatten_space(made.observation_space, config.id, config.channels), action)
    own = int(made.config.max_episode_steps)
    limits = [limit for limit in (own if own < NO_LIMIT else 0, config.max_steps) if limit]
    spec = EnvSpec(
        id=config.id,
        observation={key: _bounded(leaf.spec) for key, leaf in leaves.items()},
        action=action,
        max_episode_steps=min(limits) if limits else None,
        reference_score=made.reward_threshold,
    )
    return spec, leaves


def _bounded(array: ArraySpec) -> ArraySpec:
    """``array`` without bounds that mean none."""
    if array.high is None or array.high < UNBOUNDED:
        return array
    return ArraySpec(array.shape, array.dtype)


def make_envpool(
    config: EnvConfig, task: str, num_envs: int, batch_size: int | None, threads: int, deterministic: bool
) -> EnvPoolVector:
    """``num_envs`` environments of a task. ``StateUnsupported`` if ``deterministic``: they cannot be saved."""
    if deterministic:
        raise StateUnsupported(f"{config.id} can be neither saved nor replayed exactly; run without deterministic mode")
    return EnvPoolVector(config, task, num_envs, batch_size or num_envs, threads)


class EnvPoolVector(Pool):
    """``num_envs`` environments of one task in one EnvPool.

    EnvPool resets an ended environment with the step after its end, as rows have it. Where an action both ends an
    episode and reaches EnvPool's limit of steps, EnvPool tells of the limit alone. So in whole batches its limit is set
    a step further, and episodes are cut here; in partial ones, where single environments cannot be restarted, and where
    rewards depend on EnvPool's limit, such an end is called truncated.

    Args:
        config: its switches.
        task: EnvPool's name.
        num_envs: how many.
        batch_size: rows per ``recv``.
        threads: native threads.
        options: further ones of the task, as ``envpool.make`` has them.
    """

    def __init__(
        self,
        config: EnvConfig,
        task: str,
        num_envs: int,
        batch_size: int,
        threads: int,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        made = _made_spec(config, task)
        spec, self._leaves = _described(config, made)
        super().__init__(envpool_module(config.id), task, spec, num_envs, batch_size, threads)
        space = _choices(made.action_space)
        self._decode, self._kind, self._views = action_decoder(space), made.action_space.dtype, Views()
        self._config, self._options = config, dict(options or {})
        self._limit = self.spec.max_episode_steps or NO_LIMIT
        self._own = int(made.config.max_episode_steps) if REWARDS_BY_LIMIT in _module_of(made) else 0
        whole = batch_size == num_envs
        if self._own > self._limit and not whole:
            raise ValueError(
                f"max_steps={config.max_steps} restarts single games of {config.id} only in whole batches; set the "
                f"batch to all {num_envs} environments, or max_steps=0 for the task's own limit"
            )
        self._cuts = whole and self._limit < (self._own or NO_LIMIT)
        self._ended, self._steps = np.ones(num_envs, bool), np.zeros(num_envs, np.int64)
        self._late = np.zeros(0, np.int64)

    def reset(self, seed: int) -> None:
        """Make them anew: EnvPool takes its seed only then."""
        self._ended[:], self._steps[:] = True, 0
        self._late = np.zeros(0, np.int64)
        self.begin(seed, max_episode_steps=self._own or self._limit + self._cuts, **self._options)

    def recv(self) -> EnvStep:
        """The next rows, in the order in which they came."""
        given, reward, over, cut, info = self._opened().recv()
        ids = self._ids = info["env_id"].astype(np.int64)
        seen = self._views.read(self._leaves, given)
        first = self._ended[ids]
        if len(self._late):  # cut here: EnvPool has let them go on for the step that was ignored
            self._restart(seen)
        self._steps[ids] = np.where(first, 0, self._steps[ids] + 1)
        terminated = over.astype(bool) & ~first
        late = (self._steps[ids] >= self._limit) & ~terminated if self._cuts else np.zeros(len(ids), bool)
        truncated = (cut.astype(bool) | late) & ~terminated & ~first
        self._late = ids[late & ~cut.astype(bool)]
        self._ended[ids] = terminated | truncated
        rows = make_rows(self._config, seen, np.where(first, 0.0, reward), terminated, truncated, first)
        rows.env_ids = ids.copy()
        return rows

    def _restart(self, seen: ArrayDict) -> None:
        """New episodes where one was cut here, with their first observations among what is ``seen``."""
        given, info = self._pool.reset(self._late.astype(np.int32))
        at = np.argsort(self._ids)[info["env_id"]]
        for key, leaf in self._leaves.items():
            seen[key][at] = leaf.encode(leaf.checked(leaf.pick(given), 1), 1)

    def _decoded(self, action: np.ndarray) -> np.ndarray:
        return np.asarray(self._decode(action), self._kind)
