"""Both emulators by themselves: memory, states, what is held, closing; cartridges that are none."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from offbeat.envs.gameboy.emulators import Emulator
from offbeat.envs.gameboy.folders import ROMS
from offbeat.envs.gameboy.opening import open_emulator
from offbeat.envs.gameboy.world import until_ready

HELD = [(0xFF80, 1)]
BITS = {"A": 1, "B": 2, "SELECT": 4, "START": 8, "RIGHT": 16, "LEFT": 32, "UP": 64, "DOWN": 128}
PACKAGES = {"pyboy": "pyboy", "retro": "stable_retro"}


@pytest.fixture(params=list(PACKAGES))
def emulator(request: pytest.FixtureRequest) -> Iterator[Emulator]:
    pytest.importorskip("pyboy" if request.param == "pyboy" else "stable_retro")
    made = open_emulator(request.param, ROMS / "battle.gb")
    yield made
    made.close()


def test_buttons_are_held_for_as_long_as_they_are_asked_for(emulator: Emulator) -> None:
    until_ready(emulator)
    for name, bit in BITS.items():
        assert emulator.run((name,), 3, HELD) == [[bytes([bit])]] * 3
        assert emulator.run((name, "B"), 1, HELD) == [[bytes([bit | 2])]]
        assert emulator.run((), 2, HELD) == [[b"\0"]] * 2


def test_a_state_is_gone_back_to_without_buttons(emulator: Emulator) -> None:
    ready = until_ready(emulator)
    places = [(0xC000, 0x400), (0xD000, 0x400), (0xFF80, 0x70)]

    def play() -> tuple[list[list[bytes]], np.ndarray]:
        seen = emulator.run(("START",), 1, places) + emulator.run(("A",), 30, places)
        return seen, np.array(emulator.picture())

    first, picture = play()
    emulator.load(ready)
    assert emulator.run((), 1, HELD) == [[b"\0"]]
    emulator.load(ready)
    again, same = play()
    assert first == again and np.array_equal(picture, same) and picture.std() > 10
    with pytest.raises(ValueError, match="no state of this"):
        emulator.load(b"no state")
    assert emulator.run((), 1, HELD) == [[b"\0"]]  # it goes on


def test_memory_is_written_and_read(emulator: Emulator) -> None:
    until_ready(emulator)
    emulator.write(0xDA80, b"\x07\x08")
    assert emulator.run((), 2, [(0xDA81, 1), (0xDA80, 2)]) == [[b"\x08", b"\x07\x08"]] * 2


@pytest.mark.parametrize("backend", list(PACKAGES))
def test_what_is_no_cartridge_is_refused(backend: str, tmp_path: Path) -> None:
    pytest.importorskip("pyboy" if backend == "pyboy" else "stable_retro")
    file = tmp_path / "x.gb"
    file.write_bytes(b"no cartridge")
    with pytest.raises(ValueError, match=rf"{file}: \S+ cannot play it: "):
        open_emulator(backend, file)
