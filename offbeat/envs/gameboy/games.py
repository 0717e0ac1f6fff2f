"""The tasks on the Game Boy: what they are called, where their numbers lie, which cartridges are theirs.

Source of addresses, checksums and names: the integrations published with Riemer et al. 2025 (realtime_rl).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from offbeat.envs.gameboy.rules import OWNED_BYTES, PARTY
from offbeat.envs.gameboy.values import Value

BUTTONS = ("B", "SELECT", "START", "UP", "DOWN", "LEFT", "RIGHT", "A")
ACTIONS: tuple[tuple[str, ...], ...] = (("A",), ("B",), ("LEFT",), ("UP",), ("RIGHT",), ("DOWN",), ())
"""What each action holds down; the last one is nothing."""
NOOP = len(ACTIONS) - 1
FRAMES_PER_S = 59.7275
FALLING = {
    "score": Value(0xC0A0, "<d3"),
    "level": Value(0xFFA9, "|d1"),
    "game_state": Value(0xFFE1, "|u1"),
}
"""Numbers of falling blocks."""
SEED, READY, WANTED, ENCOUNTER = 0xC0F0, 0xC0F2, 0xC0F3, 0xC0F4
"""Addresses in the memory of the cartridges of this folder; see ``roms/common.asm`` and ``roms/battle.asm``."""
RED = "5ca7ba01642a3b27b0cc0b5349b52792795b62d3ed977e98a09390659af96b7b"
BLUE = "2a951313c2640e8c2cb21f25d1db019ae6245d9c7121f754fa61afd7bee6452d"
YELLOW = "8cbaa499397e4f1a679c992ea9382a2dd7942ab398b48c19829c2d9529de47bf"
TETRIS = "0d6535aef23969c7e5af2b077acaddb4a445b3d0df7bf34c8acef07b51b015c3"
SHA1 = {
    "ea9bcae617fdf159b045185467ae58b2e4a48b9a": RED,
    "d7037c83e1ae5b39bde3c30787637ba1d4c48ce2": BLUE,
    "cc7d03262ebfaf2f06772c1a480c7d9d5f4a38e1": YELLOW,
    "74591cc9501af93873f9a5d3eb12da12c0723bbc": TETRIS,
}
"""SHA-1 of a cartridge -> its SHA-256: ``rom.sha`` may hold either."""


@dataclass(frozen=True)
class Game:
    """One task."""

    rule: str
    """``score``, ``battles`` or ``catching``."""
    note: str
    """What it is, for lists."""
    sha256: tuple[str, ...] = ()
    """Of the cartridges that it is played with; none: one of ours."""
    own: str = ""
    """File of the cartridge of ours, in ``roms``."""
    folder: str = ""
    """What its folder was called where it was published."""
    states: str = ""
    """Which of the saved states in its folder are its starts; ``*`` stands for anything."""
    press: tuple[str, ...] = ()
    """What begins a game, once a start is loaded; nothing: it goes on from there."""
    shift: int = 0
    """Added to the addresses of battles."""
    encounters: int = 1
    """Starts of a cartridge of ours: how many opponents there are, one stronger than the other."""

    @property
    def values(self) -> dict[str, Value]:
        """Name -> where its numbers are."""
        if self.rule == "score":
            return FALLING
        found = {"game_state": FALLING["game_state"]} if self.own else {}
        if self.rule == "catching":
            found["InBattle"] = Value(0xD057 + self.shift, "|i1")
            found["box_qnt"] = Value(0xDA80 + self.shift, "|i1")
            for number in range(1, OWNED_BYTES + 1):
                found[f"Owned{number}"] = Value(0xD2F6 + number + self.shift, "|i1")
            return found
        for side, first in (("my", 0xD16C), ("opp", 0xD8A5)):
            for number in range(1, PARTY + 1):
                found[f"{side}_hp{number}"] = Value(first + 44 * (number - 1) + self.shift, ">u2")
        return found


def _pokemon() -> dict[str, Game]:
    """The battles and the wild creatures of three cartridges. What was published for Blue's battles names Red's."""
    colours = {"red": ("Bulb", (RED,), 0), "blue": ("Squirt", (BLUE,), 0), "yellow": ("Pika", (YELLOW,), -1)}
    games = {}
    for colour, (prefix, known, shift) in colours.items():
        both = (BLUE, RED) if colour == "blue" else known
        name = f"Pokémon {colour.capitalize()}"
        folder = f"Pokemon{colour.capitalize()}"
        games[f"pokemon-{colour}-battles"] = Game(
            "battles", f"{name}: battles in the order of its story; your cartridge and states", both, "",
            f"{folder}_Battles", f"{prefix}_B*", (), shift,
        )  # fmt: skip
        games[f"pokemon-{colour}-catching"] = Game(
            "catching", f"{name}: catching wild ones; your cartridge and states", known, "",
            f"{folder}_Catching", f"{prefix}_C*", (), shift,
        )  # fmt: skip
    return games


GAMES = {
    "blocks": Game("score", "falling blocks, a cartridge of ours", own="blocks", press=("START",)),
    "battles": Game(
        "battles", "battles against six trainers, ours", own="battle", press=("START",), encounters=6
    ),
    "catching": Game(
        "catching", "six wild creatures to catch, ours", own="battle", press=("START",), encounters=6
    ),
    "tetris": Game(
        "score", "Tetris, type A; your cartridge and states", (TETRIS,), "", "Tetris-GameBoy", "TypeA_Level*", ("A",)
    ),
    **_pokemon(),
}  # fmt: skip
"""Name, as in ``gameboy/blocks`` -> task."""


def find_game(env_id: str) -> str | None:
    """The task of ``gameboy/pokemon-red-battles``, ``GameBoy/PokemonRed_Battles``; or None."""
    plain = _plain(env_id.split("/", 1)[1])
    return next((name for name, game in GAMES.items() if plain in {_plain(name), _plain(game.folder)} - {""}), None)


def _plain(name: str) -> str:
    return re.sub(r"(-v\d+$)|[^a-z]", "", name.lower())
