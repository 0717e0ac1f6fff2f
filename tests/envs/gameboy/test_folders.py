"""Folders of cartridges and states: made by hand as they were published, and each way in which one can be wrong."""

from __future__ import annotations

import gzip
import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest

from offbeat.envs.base import EnvConfig, EnvUnavailable
from offbeat.envs.gameboy import folders
from offbeat.envs.gameboy.folders import MARK, ROMS, Start, find_cartridge, read_state, write_state
from offbeat.envs.gameboy.games import BLUE, GAMES, RED, SHA1
from tests.envs.gameboy.stand_in import folder_of, stand_in

NAME = "pokemon-blue-battles"
OURS = hashlib.sha256((ROMS / "battle.gb").read_bytes()).hexdigest()


@pytest.fixture(autouse=True)
def ours_stands_in(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, NAME, "battle")


def config(folder: Path, **switches: object) -> EnvConfig:
    return replace(EnvConfig(id=f"gameboy/{NAME}", folder=str(folder)), **switches)  # type: ignore[arg-type]


def said(wrong: EnvConfig, backend: str = "retro") -> str:
    with pytest.raises(EnvUnavailable) as error:
        find_cartridge(wrong, NAME, backend)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("inside", ["", "PokemonBlue_Battles", NAME])
def test_a_folder_as_it_was_published(inside: str, tmp_path: Path) -> None:
    folder = folder_of(tmp_path / inside, "battle", {f"Squirt_B{n}": b"x" for n in (10, 2, 1)} | {"Other": b"y"})
    found = find_cartridge(config(tmp_path), NAME, "retro")
    assert found.rom == folder / "rom.gb" and found.sha256 == OURS
    assert [start.name for start in found.starts] == ["Squirt_B1", "Squirt_B2", "Squirt_B10"]
    assert found.values == GAMES[NAME].values
    assert read_state(found.starts[1], "retro", OURS) == b"x"
    assert [start.name for start in find_cartridge(config(tmp_path, states=("Oth*",)), NAME, "retro").starts] == [
        "Other"
    ]


def test_addresses_are_those_of_its_data(tmp_path: Path) -> None:
    data = {"info": {"my_hp1": {"address": 53000, "type": "|u2"}, "exp1": {"address": 1, "type": "|n9"}}}
    folder = folder_of(tmp_path, "battle", {"Squirt_B1": b"x"})
    (folder / "data.json").write_text(json.dumps(data))
    values = find_cartridge(config(tmp_path), NAME, "retro").values
    assert values["my_hp1"] == (53000, "|u2") and values["my_hp2"] == GAMES[NAME].values["my_hp2"]
    for wrong in (
        "{",
        '{"info": {"my_hp1": {"address": 99999, "type": "|u1"}}}',
        '{"info": {"my_hp1": {"address": 1}}}',
    ):
        (folder / "data.json").write_text(wrong)
        assert f"{folder / 'data.json'} is no data.json of stable-retro" in said(config(tmp_path))


def test_a_score_keeps_its_digits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, "tetris", "blocks")
    folder = folder_of(tmp_path, "blocks", {"TypeA_Level0": b"x"})
    (folder / "data.json").write_text('{"info": {"score": {"address": 49312, "type": "|d2"}}}')
    assert (
        find_cartridge(replace(config(tmp_path), id="gameboy/tetris"), "tetris", "retro").values["score"].type == "<d3"
    )


def test_blue_takes_what_its_folder_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert GAMES[NAME].sha256 == (BLUE, RED)
    for listed in (RED, BLUE, next(sha for sha, known in SHA1.items() if known == RED).upper()):
        (tmp_path / "rom.sha").write_text(f"{listed}\n")
        assert f"there is no cartridge in {tmp_path}" in said(config(tmp_path))
    (tmp_path / "rom.sha").write_text(OURS)
    lists = f"gameboy/{NAME}: {tmp_path / 'rom.sha'} lists {OURS}, expected {BLUE} or {RED}"
    assert said(config(tmp_path)).startswith(f"{lists}; it is the folder of another game")


def test_what_is_missing_or_wrong_is_said_in_a_line(tmp_path: Path) -> None:
    where = f"a .gb or .gbc file with SHA-256 {OURS}, into {tmp_path / 'no'} or give its file as env.rom"
    assert f"there is no folder {tmp_path / 'no'}; make it and put your cartridge, {where}" in said(
        config(tmp_path / "no")
    )
    assert f"there is no cartridge in {tmp_path}; put your cartridge" in said(config(tmp_path))
    (tmp_path / "foreign.gb").write_bytes(b"another")
    other = hashlib.sha256(b"another").hexdigest()
    assert f"{tmp_path / 'foreign.gb'} has the SHA-256 {other}, expected {OURS}; put" in said(config(tmp_path))
    given = config(tmp_path, rom=str(tmp_path / "foreign.gb"))
    assert f"{tmp_path / 'foreign.gb'} has the SHA-256 {other}, expected {OURS}; give another env.rom" in said(given)
    assert "is no file; give the cartridge with SHA-256" in said(config(tmp_path, rom="nowhere.gb"))
    given = config(tmp_path, rom=str(ROMS / "battle.gb"))
    hint = f"make some with: offbeat gameboy state gameboy/{NAME} NAME"
    assert f"there is no saved state Squirt_B* (.state) in {tmp_path}; {hint}" in said(given)
    (tmp_path / "Squirt_B1.state").write_bytes(b"")
    assert find_cartridge(given, NAME, "retro").rom == ROMS / "battle.gb"
    assert "those of the other emulator are there: env.backend = 'retro'" in said(given, "pyboy")


def test_states_say_whose_they_are(tmp_path: Path) -> None:
    for backend, name in (("retro", "a.state"), ("pyboy", "a.pyboy")):
        file = tmp_path / name
        write_state(file, b"\x1dstate\n", backend, OURS)
        assert read_state(Start("a", file), backend, OURS) == b"\x1dstate\n"
    assert gzip.decompress((tmp_path / "a.state").read_bytes()) == b"\x1dstate\n"
    with pytest.raises(EnvUnavailable, match=f"was made with the cartridge of SHA-256 {OURS}, expected {RED}"):
        read_state(Start("a", tmp_path / "a.pyboy"), "pyboy", RED)
    with pytest.raises(
        EnvUnavailable, match=r"is a state of stable-retro; PyBoy cannot read it: env\.backend = 'retro'"
    ):
        read_state(Start("a", tmp_path / "a.state"), "pyboy", OURS)
    (tmp_path / "b.state").write_bytes(MARK)
    with pytest.raises(EnvUnavailable, match="is no state of stable-retro, which is packed by gzip"):
        read_state(Start("b", tmp_path / "b.state"), "retro", OURS)
    (tmp_path / "c.pyboy").write_bytes(b"\x1dPyBoy's own")
    assert read_state(Start("c", tmp_path / "c.pyboy"), "pyboy", OURS) == b"\x1dPyBoy's own"


def test_ours_need_nothing(tmp_path: Path) -> None:
    found = find_cartridge(EnvConfig(id="gameboy/battles", folder=str(tmp_path / "no")), "battles", "pyboy")
    assert [start.name for start in found.starts] == ["1", "2", "3", "4", "5", "6"] and found.sha256 == OURS
    assert found.starts[3].pokes == ((0xC0F3, 2), (0xC0F4, 3))
    assert len(find_cartridge(EnvConfig(id="gameboy/catching", states=("2", "5")), "catching", "pyboy").starts) == 2
    with pytest.raises(EnvUnavailable, match="no start is called 7; allowed are 1, 2, 3, 4, 5, 6"):
        find_cartridge(EnvConfig(id="gameboy/battles", states=("7",)), "battles", "pyboy")
    with pytest.raises(EnvUnavailable, match=r"has a cartridge of its own; leave env\.rom='x\.gb' out"):
        find_cartridge(EnvConfig(id="gameboy/battles", rom="x.gb"), "battles", "pyboy")
    assert folders.ROMS.is_dir()
