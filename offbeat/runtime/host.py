"""What an engine may ask of a role that was built, whichever it is."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from typing import Any

from offbeat.envs.base import Misbehaved
from offbeat.runtime.services import Services, Write


def built(build: Callable[[Services], Any], services: Services) -> Host:
    """The role that ``build`` makes. TypeError where that is none."""
    host = build(services)
    if not isinstance(host, Host):
        name = getattr(build, "__qualname__", str(build))
        raise TypeError(f"{services.name}: {name}: expected an offbeat.runtime.host.Host, got {type(host).__name__}")
    return host


def closing_failed(error: BaseException) -> str:
    """What is said where a role cannot be closed: of an environment's own exception only the line that names it."""
    if isinstance(error, Misbehaved):
        return f"closing it failed: {error}"
    return "closing it failed:\n" + "".join(traceback.format_exception(error))


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
        raise RuntimeError(f"{self.name} is saved with the run, but {type(self).__qualname__} has no save()")

    def evaluate(self, number: int, part: int = 0) -> dict[str, Any]:
        """Play an evaluation, if that is what it does; ``part``: which of those that it can play."""
        raise RuntimeError(f"{self.name} plays no evaluations")

    def missing(self) -> str:
        """What it waits for, in one line."""
        return ""

    def close(self) -> None:
        """Free its resources."""
