"""Hooks of somebody else's package: they write down in the run's folder what they are told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import offbeat


class Notes:
    """One line per evaluation and checkpoint, and one at the end."""

    def __init__(self) -> None:
        self.file: Path | None = None

    def on_evaluation(self, event: dict[str, Any]) -> None:
        """The score."""
        self._write(event, f"evaluation {event['mean']}")

    def on_checkpoint(self, event: dict[str, Any]) -> None:
        """The folder's name."""
        self._write(event, f"checkpoint {Path(event['path']).name}")

    def close(self) -> None:
        """The run is over."""
        if self.file is not None:
            with self.file.open("a") as file:
                file.write("closed\n")

    def _write(self, event: dict[str, Any], text: str) -> None:
        self.file = Path(event["run"]) / "notes.txt"
        with self.file.open("a") as file:
            file.write(f"{text}\n")


def on_evaluation(event: dict[str, Any]) -> object:
    """The module itself is a hook, too: enough after the first evaluation."""
    return offbeat.STOP


class Clumsy:
    """Its first call fails."""

    def on_metrics(self, event: dict[str, Any]) -> None:
        """Fails."""
        raise ZeroDivisionError("no luck")


def unmakeable() -> Notes:
    """Fails where it is made."""
    raise OSError("no such server")
