"""What an environment gives and takes where not all that it is played with is there, so that a run can be planned."""

from __future__ import annotations

from offbeat.envs.base import EnvConfig, EnvUnavailable
from offbeat.envs.decisions import delayed_spec
from offbeat.envs.delay import undelayed
from offbeat.envs.families import FAMILIES
from offbeat.envs.gameboy.games import find_game
from offbeat.envs.gameboy.world import USED, Unplayed
from offbeat.envs.gymnasium import gymnasium_spec
from offbeat.envs.registry import env_spec
from offbeat.types import EnvSpec


def planned_spec(config: EnvConfig) -> tuple[EnvSpec, str]:
    """The spec as ``env_spec`` gives it and no text; of a Game Boy task whose cartridge, states or emulator are not
    here what is known without them, and the line that says what is missing. Raises as ``env_spec`` for anything else.
    """
    try:
        return env_spec(config), ""
    except EnvUnavailable as missing:
        plain = undelayed(config)
        if plain.ids or _family(plain.id) != "gameboy" or find_game(plain.id) is None:
            raise
        spec = gymnasium_spec(plain, Unplayed(plain), USED)
        return delayed_spec(spec, config.delay) if config.delay.active else spec, str(missing)


def _family(env_id: str) -> str:
    """The kind of an id of ``FAMILIES``; empty for others."""
    return next((family.kind for prefix, family in FAMILIES.items() if env_id.lower().startswith(prefix)), "")
