"""PyBoy: an emulator in this process, without a window, sound or saved games; several beside each other."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from offbeat.envs.gameboy.emulators import SHADES, Places


class PyBoyEmulator:
    """One game in PyBoy. The cartridge is handed over as bytes, so that nothing beside its file is read or written."""

    def __init__(self, rom: Path, window: str = "null") -> None:
        """``window``: ``null``, or ``SDL2`` for a person, at the game's own speed."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it says which library draws windows, of which there are none
            from pyboy import PyBoy

        palette = tuple(red << 16 | green << 8 | blue for red, green, blue in SHADES)
        quiet: dict[str, Any] = {"sound_emulated": False, "no_input": window == "null", "log_level": "ERROR"}
        try:
            self.made = PyBoy(io.BytesIO(rom.read_bytes()), window=window, color_palette=palette, **quiet)
        except Exception as error:
            raise ValueError(f"{rom}: PyBoy cannot play it: {error!r}") from error
        self.made.set_emulation_speed(int(window != "null"))
        self._down: frozenset[str] = frozenset()

    def run(self, buttons: Sequence[str], frames: int, places: Places = ()) -> list[list[bytes]]:
        """Hold ``buttons`` for so many frames; only the last one is drawn."""
        self._hold(frozenset(buttons))
        memory, seen = self.made.memory, []
        for frame in range(frames):
            self.made.tick(1, frame == frames - 1, False)
            seen.append([bytes(memory[address : address + count]) for address, count in places])
        return seen

    def picture(self) -> np.ndarray:
        """The screen, uint8 [144, 160, 3]."""
        return np.array(self.made.screen.ndarray[..., :3])

    def write(self, address: int, data: bytes) -> None:
        """Put bytes into memory."""
        for place, byte in enumerate(data, address):
            self.made.memory[place] = byte

    def save(self) -> bytes:
        """PyBoy's own format."""
        file = io.BytesIO()
        self.made.save_state(file)
        return file.getvalue()

    def load(self, state: bytes) -> None:
        """Go back to a state."""
        self._hold(frozenset())
        try:
            self.made.load_state(io.BytesIO(state))
        except Exception as error:
            raise ValueError(f"no state of this version of PyBoy: {error}") from error

    def close(self) -> None:
        """End it without a file of the game's memory."""
        self.made.stop(save=False)

    def _hold(self, buttons: frozenset[str]) -> None:
        for name in sorted(self._down - buttons):
            self.made.button_release(name.lower())
        for name in sorted(buttons - self._down):
            self.made.button_press(name.lower())
        self._down = buttons
