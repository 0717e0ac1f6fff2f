"""What every host has in common: its commands, what it is loaded from, how it sees the end of the run."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from offbeat.runtime.shm import Heart
from offbeat.runtime.world import World

Parts = dict[str, dict[str, Any]]
"""A loaded checkpoint: part -> name -> tensor or array."""


class Host(Protocol):
    """One role in steps."""

    def advance(self) -> dict[str, Any]:
        """Do one round's work; {"finished": bool, ...}."""

    def save(self, folder: Path) -> dict[str, Any]:
        """Write this role's part of a checkpoint into ``folder``; returns what belongs into its meta data."""

    def close(self) -> None:
        """Free the role's resources."""


class Stop:
    """A stop signal that also counts as a sign of life: roles look at it in every step."""

    def __init__(self, world: World, heart: Heart, early: bool = False) -> None:
        self._world, self._heart, self._early = world, heart, early

    def is_set(self) -> bool:
        """True once the role should end, or (``early``) once the run is about to."""
        self._heart.beat()
        return self._world.stopped() or (self._early and bool(self._world.board["leaving"][0]))
