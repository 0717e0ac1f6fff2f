"""What outlives the episodes of a single environment, such as how far it has come, for saving and restoring it."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import gymnasium
import numpy as np


@runtime_checkable
class Carries(Protocol):
    """An environment of which something outlives its episodes: they follow from it, their seeds and their actions."""

    def carried(self) -> np.ndarray:
        """What the next episode begins with, always of one shape."""

    def carry(self, carried: np.ndarray) -> None:
        """Go on from what ``carried`` gave."""


def carried(env: gymnasium.Env[Any, Any]) -> np.ndarray | None:
    """What it carries into its next episode; None for one of which nothing outlives an episode."""
    inner = env.unwrapped
    return inner.carried() if isinstance(inner, Carries) else None


def carry(env: gymnasium.Env[Any, Any], what: np.ndarray | None) -> None:
    """Go on from what ``carried`` gave; nothing for None."""
    inner = env.unwrapped
    if what is not None and isinstance(inner, Carries):
        inner.carry(what)
