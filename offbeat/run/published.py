"""Scores that others have published, as a campaign file gives them: drawn beside the curves of an entry's own runs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from offbeat.errors import UserError, nearest

BY = {"hours": ("seconds", 3600.0), "frames": ("frames", 1.0), "agent_steps": ("agent_steps", 1.0)}
"""What published scores are known by -> the axis of our curves, and how much of it one unit is."""
KEYS = {"name", "by", "points"}
"""Keys of one curve."""


@dataclass(frozen=True)
class Published:
    """One curve of somebody else's."""

    points: tuple[tuple[float, float], ...]
    """(how far training was, score) each."""
    by: str = "hours"
    """What the first number counts, one of ``BY``: hours of training, environment frames (of an Atari emulator, those
    between two actions included), or agent steps."""
    name: str = ""
    """What the legend calls it; empty: just published."""

    @property
    def axis(self) -> str:
        """The axis of our curves that it can be drawn beside."""
        return BY[self.by][0]

    def placed(self) -> list[tuple[float, float]]:
        """Its points with the unit of that axis: seconds, frames or agent steps."""
        return [(at * BY[self.by][1], score) for at, score in self.points]


def read_published(given: Any, entry: str) -> tuple[Published, ...]:
    """The curves of one entry: a list of [hours, score], or tables with ``points``, ``by`` and ``name``.

    UserError naming the ``entry`` where there is anything else, or curves of different axes.
    """
    where = f"published of {entry!r}"
    if not isinstance(given, list):
        raise UserError(f"{where} must be a list of [hours, score] or tables with points, by and name, got {given!r}")
    if not given:
        return ()
    if not all(isinstance(one, dict) for one in given):
        return (Published(_points(given, f"{where} must be a list of [hours, score]")),)
    found = tuple(_curve(one, where) for one in given)
    units = sorted({curve.by for curve in found})
    if len(units) > 1:
        raise UserError(f"{where} are by {' and by '.join(units)}, which are drawn in no common picture; use one")
    return found


def _curve(table: dict[str, Any], where: str) -> Published:
    for key in table:
        if key not in KEYS:
            hint = nearest(key, KEYS) or f"; known: {', '.join(sorted(KEYS))}"
            raise UserError(f"unknown key {key!r} in {where}{hint}")
    by, name = table.get("by", "hours"), table.get("name", "")
    if by not in BY:
        raise UserError(f"{where}: by={by!r} must be one of {', '.join(BY)}")
    if not isinstance(name, str):
        raise UserError(f"{where}: name={name!r} must be text")
    return Published(_points(table.get("points"), f"{where}: points must be a list of [{by}, score]"), by, name)


def _points(given: Any, wrong: str) -> tuple[tuple[float, float], ...]:
    """Pairs of finite numbers, one at least."""
    try:
        points = tuple((float(at), float(score)) for at, score in given)
    except (TypeError, ValueError) as error:
        raise UserError(f"{wrong}: {error}") from error
    if not points or not all(math.isfinite(number) for point in points for number in point):
        raise UserError(f"{wrong}, finite numbers, got {given!r}")
    return points
