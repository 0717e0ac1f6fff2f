"""What the Game Boy tasks ask of an emulator, and which there are."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Protocol

import numpy as np

from offbeat.envs.base import EnvConfig, EnvUnavailable

BACKENDS = ("pyboy", "retro")
"""PyBoy, in this process; stable-retro, a process for each."""
PACKAGES = {"pyboy": "pyboy", "retro": "stable_retro"}
EXTRA = 'pip install "offbeat[gameboy]"'
SUFFIXES = {"pyboy": ".pyboy", "retro": ".state"}
"""Emulator -> how files of its saved states end."""
SCREEN = (144, 160, 3)
SHADES = (248, 252, 248), (168, 168, 168), (80, 84, 80), (0, 0, 0)
"""The four greys of a cartridge without colours, white to black, as stable-retro shows them. Range: 0 to 255."""
Places = Sequence[tuple[int, int]]
"""(address, bytes) of what is read after each frame."""


class Emulator(Protocol):
    """One Game Boy with a cartridge in it."""

    def run(self, buttons: Sequence[str], frames: int, places: Places = ()) -> list[list[bytes]]:
        """Hold ``buttons`` (and no others) for so many frames; what was at ``places`` after each of them."""

    def picture(self) -> np.ndarray:
        """The screen after the last frame that was run, uint8 [144, 160, 3]."""

    def write(self, address: int, data: bytes) -> None:
        """Put bytes into memory."""

    def save(self) -> bytes:
        """Its state, for ``load`` of the same emulator and cartridge."""

    def load(self, state: bytes) -> None:
        """Go back to a state; no button is down. ValueError where it is none of this emulator's."""

    def close(self) -> None:
        """End it; harmless when called twice."""


def chosen(config: EnvConfig) -> str:
    """The emulator that ``config.backend`` means. ValueError for one of another family, ``EnvUnavailable`` without it
    or without OpenCV, which scales its pictures.
    """
    backend = "pyboy" if config.backend == "auto" else config.backend
    if backend not in BACKENDS:
        raise ValueError(f"backend={backend!r} is no emulator of {config.id}; allowed are auto, {', '.join(BACKENDS)}")
    missing = [name for name in (PACKAGES[backend], "cv2") if not _there(name)]
    if missing:
        raise EnvUnavailable(f"{config.id} needs {' and '.join(missing)}, which is not installed; {EXTRA}")
    return backend


def _there(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ValueError:  # it was put among the imported ones as None
        return False
