"""What adapters of EnvPool share: its module, an optional extra, and one pool of environments that is never saved."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np

from offbeat.envs.base import EnvUnavailable, StateUnsupported
from offbeat.envs.rows import check_actions
from offbeat.envs.seeding import env_seeds
from offbeat.types import ArrayDict, EnvSpec

ENVPOOL = 'pip install "offbeat[envpool]"'
"""The remedy where it is missing."""


def envpool_module(env_id: str, also: str = "") -> ModuleType:
    """``envpool``. EnvUnavailable naming the extra (and ``also``, system packages) if it cannot be imported."""
    try:
        import envpool
    except ImportError as error:
        remedy = f"{ENVPOOL} and {also}" if also else ENVPOOL
        raise EnvUnavailable(f"{env_id} needs envpool, which cannot be imported ({error}); {remedy}") from error
    return envpool


class Pool:
    """``num_envs`` environments of one ``task`` in one EnvPool, ``batch_size`` rows at a time, ``threads`` of its own.

    An adapter adds ``recv``, and ``reset`` by ``begin``.
    """

    unsaved = "can be neither saved nor replayed exactly"
    """What is said where one is to be saved, behind its id."""

    def __init__(
        self, module: ModuleType, task: str, spec: EnvSpec, num_envs: int, batch_size: int, threads: int
    ) -> None:
        """Nothing is made before ``begin``. ``module``: ``envpool_module``."""
        self.spec, self.num_envs, self.batch_size = spec, num_envs, batch_size
        self._envpool, self._task, self._threads = module, task, threads
        self._ids = np.zeros(0, np.int64)
        """[batch_size] whose rows the last ``recv`` gave."""
        self._pool: Any = None

    def begin(self, seed: int, **options: Any) -> None:
        """Make the environments anew, as EnvPool takes its seed only then, and reset them."""
        self._pool = self._envpool.make(
            self._task,
            env_type="gymnasium",
            num_envs=self.num_envs,
            batch_size=self.batch_size,
            num_threads=self._threads,
            seed=int(env_seeds(seed, 1)[0]),
            **options,
        )
        self._pool.async_reset()

    def send(self, action: np.ndarray) -> None:
        """Actions for the rows of the last ``recv``; those of ended episodes are ignored."""
        action = check_actions(action, self.spec.action, self.batch_size)
        self._opened().send(self._decoded(action), self._ids.astype(np.int32))

    def state(self) -> ArrayDict:
        """Always raises: EnvPool cannot be saved."""
        raise StateUnsupported(f"{self.spec.id} {self.unsaved}")

    def load_state(self, state: ArrayDict) -> None:
        """Always raises."""
        raise StateUnsupported(f"{self.spec.id} {self.unsaved}")

    def close(self) -> None:
        """Free the environments and their threads."""
        self._pool = None

    def _decoded(self, action: np.ndarray) -> np.ndarray:
        """Actions as the task takes them."""
        return action.astype(np.int32)

    def _opened(self) -> Any:
        """The pool. RuntimeError before the first ``begin``."""
        if self._pool is None:
            raise RuntimeError(f"{self.spec.id} needs reset() first")
        return self._pool
