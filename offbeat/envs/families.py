"""Families of environments that offbeat makes itself: what their ids begin with, and which games there are."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from offbeat.envs import dmlab, envpool, hanabi, minatar, popgym, procgen, vizdoom
from offbeat.envs.gameboy import games as gameboy


class Family(NamedTuple):
    """Environments that offbeat makes itself, whose ids begin alike."""

    kind: str
    find: Callable[[str], str | None]
    """The game that an id names; None if there is none of that name."""
    games: Iterable[str]
    written: str
    """How the id of a game is written."""


FAMILIES = {
    "minatar/": Family("minatar", minatar.find_game, minatar.MINIMAL_ACTIONS, "minatar/{}"),
    "hanabi/": Family("hanabi", hanabi.find_game, hanabi.GAMES, "hanabi/{}"),
    "dmlab/": Family("dmlab", dmlab.find_level, dmlab.LEVELS, "dmlab/{}"),
    "gameboy/": Family("gameboy", gameboy.find_game, gameboy.GAMES, "gameboy/{}"),
    "vizdoom/": Family("vizdoom", vizdoom.find_game, vizdoom.SCENARIOS, "vizdoom/{}"),
    "popgym-": Family("gymnasium", popgym.find_game, popgym.TIERS, "popgym-{}-v0"),
    "procgen:": Family("procgen", procgen.find_game, procgen.GAMES, "procgen:procgen-{}-v0"),
    envpool.PREFIX: Family("envpool", envpool.find_task, envpool.SUCH_AS, "envpool:{}"),
}
"""What ids begin with, in any case -> whose they are."""
