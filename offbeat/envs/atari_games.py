"""Atari 2600 games by their names, and what the emulator says of them."""

from __future__ import annotations

import re
from functools import cache
from types import ModuleType

from offbeat.envs.base import EnvConfig, EnvUnavailable

EXTRA = 'pip install "offbeat[atari]"'
FRAMES_PER_S = 60.0
"""Of the console, where a person plays. Unit: 1/s."""


def ale_module() -> ModuleType:
    """``ale_py``, silent. EnvUnavailable naming the extra if it is not installed."""
    try:
        import ale_py
    except ImportError as error:
        raise EnvUnavailable(f"Atari games need ale-py, which is not installed; {EXTRA}") from error
    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
    return ale_py


@cache
def game_names() -> dict[str, str]:
    """Name as offbeat writes it (``MsPacman``) -> ROM id (``ms_pacman``); empty without ale-py."""
    try:
        ale_module()
    except EnvUnavailable:
        return {}
    from ale_py import ALEInterface, roms

    # Two-player cartridges come along too, but opening one ends the process.
    known = [rom for rom in sorted(roms.get_all_rom_ids()) if ALEInterface.isSupportedROM(str(roms.get_rom_path(rom)))]
    return {rom.replace("_", " ").title().replace(" ", ""): rom for rom in known}


def looks_like_atari(env_id: str) -> bool:
    """Is ``env_id`` spelt in a way that only Atari ids are, in any case, whether or not there is such a game?"""
    return bool(re.search(r"^ALE/|(NoFrameskip|Deterministic)-v\d+$", env_id, re.I))


def find_game(env_id: str) -> str | None:
    """The game of ``Pong``, ``pong``, ``ms_pacman``, ``ALE/Pong-v5``, ``PongNoFrameskip-v4``, ``Pong-v5``; or None.

    Letters may be of any case, since published scripts have ``NoFrameSkip`` too. Only the game is read from an id: its
    protocol (sticky actions, frame skip) is what ``EnvConfig`` says.
    """
    plain = re.sub(r"[^a-z0-9]", "", game_stem(env_id).lower())
    return next((name for name in game_names() if name.lower() == plain), None)


def game_stem(env_id: str) -> str:
    """``env_id`` without ``ALE/``, ``NoFrameskip`` and version, whatever the case of their letters."""
    return re.sub(r"^ALE/|(NoFrameskip|Deterministic)?(-v\d+)?$", "", env_id, flags=re.I)


def action_ids(game: str, full: bool) -> list[int]:
    """The emulator's action numbers of ``game``: all 18, or those that it uses (read from the emulator)."""
    ale_py = ale_module()
    emulator = ale_py.ALEInterface()
    emulator.loadROM(rom_path(game))
    actions = emulator.getLegalActionSet() if full else emulator.getMinimalActionSet()
    return [int(action.value) for action in actions]


def rom_path(game: str) -> str:
    """Where ale-py keeps the ROM of ``game`` (a key of ``game_names``)."""
    from ale_py import roms

    return str(roms.get_rom_path(game_names()[game]))


def max_episode_actions(config: EnvConfig) -> int:
    """Actions after which an episode is truncated: the one that reaches ``max_frames`` is played to its end, or
    ``max_steps`` if that is less.
    """
    actions = -(-config.max_frames // config.frame_skip)
    return min(actions, config.max_steps) if config.max_steps else actions
