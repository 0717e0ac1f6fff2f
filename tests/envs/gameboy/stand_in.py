"""A cartridge of ours in the place of one that nobody may hand on: its memory holds the same numbers."""

from __future__ import annotations

import gzip
import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest

from offbeat.envs.gameboy.folders import ROMS
from offbeat.envs.gameboy.games import GAMES


def stand_in(monkeypatch: pytest.MonkeyPatch, name: str, own: str) -> None:
    """Let game ``name`` be played with the cartridge ``own`` of ours."""
    known = hashlib.sha256((ROMS / f"{own}.gb").read_bytes()).hexdigest()
    monkeypatch.setitem(GAMES, name, replace(GAMES[name], sha256=(known,)))


def folder_of(folder: Path, own: str, states: dict[str, bytes]) -> Path:
    """A folder laid out as those that were published, with stable-retro's ``states`` in it."""
    folder.mkdir(parents=True, exist_ok=True)
    rom = (ROMS / f"{own}.gb").read_bytes()
    (folder / "rom.gb").write_bytes(rom)
    (folder / "rom.sha").write_text(hashlib.sha256(rom).hexdigest() + "\n")
    values = GAMES["tetris" if own == "blocks" else "pokemon-blue-battles"].values
    info = {name: {"address": value.address, "type": value.type} for name, value in values.items()}
    info["exp1"] = {"address": 53625, "type": ">u3"}
    (folder / "data.json").write_text(json.dumps({"info": info}))
    (folder / "metadata.json").write_text("{}")
    (folder / "scenario.json").write_text('{"scripts": ["script.lua"], "reward": {"script": "lua:reward"}}')
    (folder / "script.lua").write_text("function reward ()\n  return 0\nend\n")
    for name, state in states.items():
        (folder / f"{name}.state").write_bytes(gzip.compress(state))
    return folder
