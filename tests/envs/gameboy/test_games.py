"""Names, addresses and actions as they were published."""

from __future__ import annotations

import hashlib

import pytest

from offbeat.envs.base import EnvConfig, EnvUnavailable
from offbeat.envs.gameboy.folders import ROMS
from offbeat.envs.gameboy.games import ACTIONS, GAMES, NOOP, SHA1, find_game
from offbeat.envs.listing import list_envs
from offbeat.envs.registry import env_spec, frame_rate


def test_names() -> None:
    assert find_game("gameboy/pokemon-red-battles") == find_game("GameBoy/PokemonRed_Battles") == "pokemon-red-battles"
    assert find_game("gameboy/Tetris-GameBoy-v0") == find_game("gameboy/tetris") == "tetris"
    assert find_game("gameboy/zelda") is None and find_game("gameboy/") is None
    listed = {record.id: (record.actions, record.extra) for record in list_envs("gameboy/")}
    assert len(listed) == len(GAMES) == 10 and listed["gameboy/blocks"] == ("7", "gameboy")
    assert frame_rate(EnvConfig(id="gameboy/blocks", frame_skip=1)) == 59.7275
    with pytest.raises(EnvUnavailable, match="did you mean gameboy/blocks"):
        env_spec(EnvConfig(id="gameboy/blcks"))


def test_addresses() -> None:
    red, yellow = GAMES["pokemon-red-battles"].values, GAMES["pokemon-yellow-battles"].values
    assert (red["my_hp1"].address, red["my_hp6"].address, red["opp_hp2"].address) == (0xD16C, 0xD248, 0xD8D1)
    assert all(yellow[name].address == value.address - 1 for name, value in red.items()) and len(red) == 12
    wild = GAMES["pokemon-blue-catching"].values
    assert [wild[name].address for name in ("InBattle", "Owned1", "Owned19", "box_qnt")] == [
        0xD057,
        0xD2F7,
        0xD309,
        0xDA80,
    ]
    tetris = GAMES["tetris"].values
    assert tetris["score"] == (0xC0A0, "<d3") and tetris["game_state"].address == 0xFFE1


def test_actions() -> None:
    assert [buttons[0] if buttons else "" for buttons in ACTIONS] == ["A", "B", "LEFT", "UP", "RIGHT", "DOWN", ""]
    assert ACTIONS[NOOP] == ()


def test_cartridges_and_states() -> None:
    """Blue's battles name Red's cartridge where they were published: both are taken."""
    accepted = {name: len(game.sha256) for name, game in GAMES.items()}
    assert accepted.pop("pokemon-blue-battles") == 2
    assert {name for name, count in accepted.items() if count != 1} == {"blocks", "battles", "catching"}
    assert set(SHA1.values()) == {known for game in GAMES.values() for known in game.sha256}
    assert all(len(sha) == 64 for sha in SHA1.values()) and all(len(sha) == 40 for sha in SHA1)
    ours = {hashlib.sha256((ROMS / f"{game.own}.gb").read_bytes()).hexdigest() for game in GAMES.values() if game.own}
    assert not ours & set(SHA1.values())
