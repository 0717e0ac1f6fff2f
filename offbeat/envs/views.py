"""Observations of a vector environment as they are, where it makes new arrays at each step; else copies."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from offbeat.envs.base import Misbehaved
from offbeat.envs.spaces import Leaf
from offbeat.types import ArrayDict

LOOKS = 3
"""So many times what is given is copied, and compared with the environment's own arrays."""


class Views:
    """Reads the observations of a batch without a copy, where nothing is converted and nobody writes over them.

    An environment that gives one of its own arrays, or the memory of the step before, is copied from for ever.

    Args:
        env: whose they are; None: nothing is known of its own arrays.
        count: so many there are in each batch; 0: in each as many as it has.
    """

    def __init__(self, env: Any = None, count: int = 0) -> None:
        self._env, self._count, self._looks = env, count, 0
        self._last: ArrayDict = {}
        self._reused: set[str] = set()

    def read(self, leaves: Mapping[str, Leaf], observation: Any) -> ArrayDict:
        """Key -> [n, ...] of what a batch of them gave. ``Misbehaved`` if it does not belong to its space."""
        looking = self._looks < LOOKS
        own = list(_own_arrays(self._env)) if looking else []
        self._looks += looking
        seen = {}
        for key, leaf in leaves.items():
            value = self.checked(leaf, leaf.pick(observation))
            view = None if key in self._reused else leaf.encode.view(value, 1)
            if view is not None and self._is_reused(key, value, own):
                view = None
            seen[key] = leaf.encode(value, 1) if looking or view is None else view
        return seen

    def checked(self, leaf: Leaf, given: Any) -> np.ndarray:
        """What the environment gave for ``leaf``, as an array [n, ...]."""
        if not self._count:
            return leaf.checked(given, 1)
        value, each = np.asarray(given), tuple(leaf.space.shape or ())
        if value.shape[:1] != (self._count,) or value.ndim != 1 + len(each):
            raise Misbehaved(
                f"{leaf.env_id}: observation {leaf.key!r} of a vector environment must have the shape "
                f"{[self._count, *each]}, a row for each of its num_envs={self._count}; it has {list(value.shape)}"
            )
        return leaf.checked(value, 1)

    def _is_reused(self, key: str, value: np.ndarray, own: list[np.ndarray]) -> bool:
        """Whether others write over ``value``. The last one is held, so that nobody else gets its memory meanwhile."""
        last, self._last[key] = self._last.get(key), value
        others = own if last is None else [*own, last]
        if not any(np.may_share_memory(value, other) for other in others):
            return False
        self._reused.add(key)
        del self._last[key]
        return True


def _own_arrays(env: Any) -> Iterator[np.ndarray]:
    """The arrays that an environment, or one within its wrappers, has as attributes or in containers there."""
    while env is not None:
        here: dict[str, Any] = getattr(env, "__dict__", {})
        for value in here.values():
            parts = (
                value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else (value,)
            )
            yield from (part for part in parts if isinstance(part, np.ndarray))
        env = here.get("env")
