"""What hooks that report to another program share: the numbers of a line, a run's options, the run's name there."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from offbeat.run.records import curves_of


class Numbers:
    """Turns lines of metrics into numbers by name. Training episodes, which may end a thousand times a second, are
    averaged until the next line of another kind.
    """

    def __init__(self) -> None:
        self._episodes: dict[str, list[dict[str, float]]] = {}

    def of(self, event: dict[str, Any]) -> dict[str, float]:
        """``role/name`` or ``kind/name`` -> number, of what ``on_metrics`` is told; empty for an episode."""
        role, kind, values = event["role"], event["kind"], event["values"]
        numbers = {name: value for name, value in values.items() if isinstance(value, int | float)}
        prefix = curves_of(role, kind, values)
        if kind == "episode":
            self._episodes.setdefault(prefix, []).append(numbers)
            return {}
        return {f"{prefix}/{name}": value for name, value in numbers.items()} | self._averages()

    def _averages(self) -> dict[str, float]:
        kept, self._episodes = self._episodes, {}
        averages = {}
        for prefix, episodes in kept.items():
            for name in sorted({name for episode in episodes for name in episode}):
                values = [episode[name] for episode in episodes if name in episode]
                averages[f"{prefix}/{name}"] = sum(values) / len(values)
        return averages


def options_of(run: Path) -> dict[str, Any]:
    """The run's options, ``section.name`` -> value, from its config.toml; what is no plain value as text."""
    flat: dict[str, Any] = {}
    for section, value in tomllib.loads((run / "config.toml").read_text(encoding="utf-8")).items():
        for name, item in value.items() if isinstance(value, dict) else [("", value)]:
            shown = item if isinstance(item, bool | int | float | str) else str(item)
            flat[f"{section}.{name}" if name else section] = shown
    return flat


def kept_id(run: Path, sink: str) -> str:
    """What the run is called over there, if it was reported before; else an empty text."""
    path = run / f"{sink}_id.txt"
    return path.read_text(encoding="utf-8").strip() if path.is_file() else ""


def keep_id(run: Path, sink: str, name: str) -> None:
    """Remember what the run is called over there, for when it goes on."""
    (run / f"{sink}_id.txt").write_text(f"{name}\n", encoding="utf-8")
