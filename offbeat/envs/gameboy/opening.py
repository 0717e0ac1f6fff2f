"""Switching an emulator on."""

from __future__ import annotations

from pathlib import Path

from offbeat.envs.gameboy.emulators import Emulator


def open_emulator(backend: str, rom: Path) -> Emulator:
    """``pyboy`` or ``retro`` with the cartridge in file ``rom``, switched on. ValueError where it cannot play it."""
    if backend == "retro":
        from offbeat.envs.gameboy.retro_emulator import RetroEmulator

        return RetroEmulator(rom)
    from offbeat.envs.gameboy.pyboy_emulator import PyBoyEmulator

    return PyBoyEmulator(rom)
