"""Lists of games in a configuration: ``ids``, or an ``id`` with commas in it, which stand for each other."""

from __future__ import annotations

from dataclasses import replace
from math import ceil
from typing import Any

from offbeat.config import schema
from offbeat.envs.base import SEPARATOR, EnvConfig
from offbeat.errors import UserError

NAMES = ("id", "ids")
"""The two options that say what is played."""


def listed(section: dict[str, Any], where: str) -> dict[str, Any]:
    """Options of environments in which ``id`` and ``ids`` agree, where one of them is given: a list has the id that it
    is written as, a single game no list.

    ``UserError`` where both are given and do not.
    """
    env_id, ids = section.get("id"), section.get("ids")
    games = schema.parse_list(ids, f"{where}.ids") if isinstance(ids, str) else ids
    if games:
        if not isinstance(games, list | tuple) or not all(isinstance(game, str) for game in games):
            raise UserError(f"{where}.ids={ids!r} is not a list of ids; separate them with commas")
        joined = SEPARATOR.join(games)
        if env_id not in (None, "", joined):
            raise UserError(f"{where}.id={env_id!r} and {where}.ids={list(games)} were both given; give one of the two")
        return {**section, "ids": tuple(games), "id": joined}
    if not isinstance(env_id, str):
        return section
    parts = tuple(part.strip() for part in env_id.split(SEPARATOR))
    if len(parts) > 1 and not all(parts):
        raise UserError(f"{where}.id={env_id!r}: one of the ids in this list is empty; leave the comma out")
    if len(parts) < 2:
        return {**section, "ids": ()}
    return {**section, "ids": parts, "id": SEPARATOR.join(parts)}


def check_one_way(given: set[str], sections: tuple[str, ...]) -> None:
    """``UserError`` where a section's ``id`` and its ``ids`` are among the options that were ``given``."""
    for section in sections:
        if {f"{section}.{name}" for name in NAMES} <= given:
            raise UserError(f"{section}.id and {section}.ids were both given; give one of the two")


def with_turns(env: EnvConfig, total_frames: int) -> EnvConfig:
    """``env`` with the length of a turn, where a list is played in turn and none was given: an equal part of the run's
    frames.
    """
    if not env.ids or env.several != "in_turn" or env.turn_frames:
        return env
    return replace(env, turn_frames=ceil(total_frames / (len(env.ids) * max(1, env.turns))))
