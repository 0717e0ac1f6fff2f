"""Make saved states by playing: by a list of buttons, or by hand in a window of PyBoy's."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from offbeat.envs.base import EnvConfig, EnvUnavailable
from offbeat.envs.gameboy.emulators import SUFFIXES, Emulator, chosen
from offbeat.envs.gameboy.folders import Cartridge, Start, find_cartridge, read_state, write_state
from offbeat.envs.gameboy.games import BUTTONS
from offbeat.envs.gameboy.opening import open_emulator
from offbeat.errors import UserError

HOLD_FRAMES = 4
"""How long a button is held, and how long none is after it, where nothing else is said. Unit: frames."""
WINDOW_KEYS = "arrows, A: A, B: S, START: Return, SELECT: Backspace; the state is saved as the window is closed"


def parse_keys(text: str) -> list[tuple[tuple[str, ...], int]]:
    """(buttons, frames) of a list such as ``wait:120 START A+B:30``. UserError for what is none.

    A button is held for ``HOLD_FRAMES``, or for the frames behind the colon, and then let go for ``HOLD_FRAMES``.
    """
    played: list[tuple[tuple[str, ...], int]] = []
    for word in text.split():
        parts = re.fullmatch(r"([A-Za-z+]+)(?::(\d+))?", word)
        names = tuple(parts[1].upper().split("+")) if parts else ()
        wait = names == ("WAIT",)
        if parts is None or not (wait or set(names) <= set(BUTTONS)) or parts[2] == "0":
            raise UserError(
                f"keys: {word!r} is none; allowed are {', '.join(BUTTONS)}, several joined by +, and wait, each with "
                "its number of frames, 1 and above, behind a colon: wait:120 START A+B:30"
            )
        played.append((() if wait else names, int(parts[2] or HOLD_FRAMES)))
        if not wait:
            played.append(((), HOLD_FRAMES))
    return played


def make_state(
    config: EnvConfig, name: str, state: str, keys: str, after: str = "", window: bool = False, picture: str = ""
) -> Path:
    """Play game ``name`` of the user's cartridge and save where it has got to; the file.

    Args:
        config: which emulator, cartridge and folder; the file goes into the folder of the cartridge.
        state: name of the new state.
        keys: what is pressed, see ``parse_keys``.
        after: name of a saved state to begin from; empty: the cartridge as it is switched on.
        window: play on by hand until the window is closed. UserError without a display.
        picture: a PNG of the screen at its end goes there; empty: none.
    """
    if not re.fullmatch(r"[\w.-]+", state):
        raise UserError(f"a state's name is of letters, digits, '_', '-' and '.', got {state!r}")
    backend, script = chosen(config), parse_keys(keys)
    cartridge = find_cartridge(config, name, backend, with_states=False)
    if cartridge.game.own:
        raise UserError(f"{config.id} has starts of its own; saved states are for cartridges of yours")
    emulator = _opened(config, cartridge, backend, window)
    try:
        if after:
            _go_on(emulator, config, cartridge, backend, after)
        for buttons, frames in script:
            emulator.run(buttons, frames)
        if window:
            play_by_hand(emulator)
        else:
            emulator.run((), 1)
        if picture:
            save_picture(emulator, Path(picture))
        file = cartridge.rom.parent / f"{state}{SUFFIXES[backend]}"
        write_state(file, emulator.save(), backend, cartridge.sha256)
    finally:
        emulator.close()
    return file


def play(config: EnvConfig, name: str) -> None:
    """Play a game by hand in a window until it is closed; nothing is saved. UserError without a display."""
    cartridge = find_cartridge(config, name, "pyboy", with_states=False)
    emulator = _opened(config, cartridge, chosen(config), window=True)
    try:
        play_by_hand(emulator)
    finally:
        emulator.close()


def play_by_hand(emulator: Emulator) -> None:
    """Let a person play until the window is closed."""
    made = getattr(emulator, "made", None)
    assert made is not None
    while made.tick():
        continue


def save_picture(emulator: Emulator, file: Path) -> None:
    """The screen as a picture, in the format that the file's name says."""
    from PIL import Image

    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(emulator.picture()).save(file)


def _opened(config: EnvConfig, cartridge: Cartridge, backend: str, window: bool) -> Emulator:
    if not window:
        try:
            return open_emulator(backend, cartridge.rom)
        except ValueError as error:
            raise EnvUnavailable(f"{config.id}: {error}") from error
    if backend != "pyboy":
        raise UserError(f"backend={backend!r} has no window; allowed is pyboy, or give --keys")
    if sys.platform != "darwin" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        raise UserError("there is no display to open a window on; give --keys, or play where there is one")
    from offbeat.envs.gameboy.pyboy_emulator import PyBoyEmulator

    return PyBoyEmulator(cartridge.rom, "SDL2")


def _go_on(emulator: Emulator, config: EnvConfig, cartridge: Cartridge, backend: str, after: str) -> None:
    file = cartridge.rom.parent / f"{after}{SUFFIXES[backend]}"
    if not file.is_file():
        raise EnvUnavailable(f"{config.id}: there is no saved state {file}")
    try:
        emulator.load(read_state(Start(after, file), backend, cartridge.sha256))
    except ValueError as error:
        raise EnvUnavailable(f"{file}: {error}") from error
