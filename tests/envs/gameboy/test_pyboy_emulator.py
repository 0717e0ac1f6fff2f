"""PyBoy leaves nothing beside a cartridge, and reads nothing there."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from offbeat.envs.gameboy.folders import ROMS
from offbeat.envs.gameboy.pyboy_emulator import PyBoyEmulator
from offbeat.envs.gameboy.world import until_ready


def test_no_file_is_read_or_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pyboy")
    monkeypatch.chdir(tmp_path)
    shutil.copyfile(ROMS / "blocks.gb", tmp_path / "a.gb")
    (tmp_path / "a.gb.ram").write_bytes(b"\xff" * 8192)
    emulator = PyBoyEmulator(tmp_path / "a.gb")
    until_ready(emulator)
    emulator.close()
    emulator.close()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.gb", "a.gb.ram"]
    assert (tmp_path / "a.gb.ram").read_bytes() == b"\xff" * 8192
