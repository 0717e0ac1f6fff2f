"""What an engine may ask of a role that was built, whichever it is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from offbeat.runtime.services import Services, Write


class Host:
    """One role in steps. Each role's own, beside its loop, says what differs from this.

    Args:
        services: of the engine.
        loop: the role's generator; None: it works only when it is asked.
    """

    def __init__(self, services: Services, loop: Iterator[Any] | None = None) -> None:
        self.name, self.loop = services.name, loop

    @property
    def warm(self) -> bool:
        """Whether its first step, which may take long, is done."""
        return True

    def steps(self) -> Iterator[Any]:
        """The role's own loop, for engines that let it run."""
        if self.loop is None:
            raise RuntimeError(f"{self.name} has no loop: it works only when it is asked")
        return self.loop

    def advance(self) -> dict[str, Any]:
        """Do one round's work; {"finished": bool, ...}."""
        return {"finished": self.loop is not None and next(self.loop, "ended") == "ended"}

    def post(self, event: Any) -> None:
        """What others should see after a step that gave ``event``."""

    def save(self, write: Write) -> dict[str, Any]:
        """Write its part of a checkpoint; returns what belongs into the checkpoint's meta data."""
        return {}

    def evaluate(self, number: int) -> dict[str, Any]:
        """Play an evaluation, if that is what it does."""
        raise RuntimeError(f"{self.name} plays no evaluations")

    def missing(self) -> str:
        """What it waits for, in one line."""
        return ""

    def close(self) -> None:
        """Free its resources."""
