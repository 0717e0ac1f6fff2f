"""POPGym: tasks of memory (Morad et al. 2023), which register with Gymnasium once their package is imported."""

from __future__ import annotations

import re

from offbeat.envs.base import EnvUnavailable
from offbeat.envs.gymnasium import MakeEnv, gymnasium_maker

EXTRA = 'pip install "offbeat[popgym]"'
DIFFICULTIES = ("Easy", "Medium", "Hard")
TASKS = {
    "Autoencode": "play a deck of cards back, last first",
    "Battleship": "hit ships on a hidden board; needs agent.last_action",
    "Concentration": "turn over pairs of cards; needs agent.last_action",
    "CountRecall": "how often has this value been seen",
    "HigherLower": "is the next card of the deck higher",
    "MineSweeper": "dig where no mines are; needs agent.last_action",
    "MultiarmedBandit": "find the best arm; needs agent.last_action",
    "NoisyPositionOnlyCartPole": "CartPole, positions with noise",
    "NoisyPositionOnlyPendulum": "Pendulum, positions with noise",
    "PositionOnlyCartPole": "CartPole without velocities",
    "PositionOnlyPendulum": "Pendulum without velocities",
    "RepeatFirst": "give back the first value",
    "RepeatPrevious": "give back the value of some steps ago",
    "VelocityOnlyCartpole": "CartPole without positions",
}
"""Task, as its ids write it -> what it asks for. Two labyrinths more need mazelib, and are there once it is."""
TIERS = {f"{task}{level}": note for task, note in TASKS.items() for level in DIFFICULTIES}
"""Task with its difficulty, as its id names it -> what it asks for."""


def find_game(env_id: str) -> str | None:
    """The id itself, if it is one of ``TIERS``."""
    match = re.fullmatch(r"popgym-(\w+)-v0", env_id)
    return env_id if match and match[1] in TIERS else None


def maker(env_id: str) -> MakeEnv:
    """A function that makes ``env_id``, whose package is imported for that. EnvUnavailable if it is missing."""
    try:
        import popgym  # noqa: F401
    except ImportError as error:
        raise EnvUnavailable(f"{env_id} needs popgym, which cannot be imported ({error}); {EXTRA}") from error
    return gymnasium_maker(env_id)
