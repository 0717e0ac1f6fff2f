"""The process of stable-retro: it ends with its emulator, and its death is said."""

from __future__ import annotations

import pytest

from offbeat.envs.gameboy.folders import ROMS
from offbeat.envs.gameboy.retro_emulator import RetroEmulator


def test_the_process_ends_with_its_emulator() -> None:
    pytest.importorskip("stable_retro")
    first, second = (RetroEmulator(ROMS / "blocks.gb") for _ in range(2))
    first.close()
    first.close()
    assert first._process.poll() == 0 and second._process.poll() is None
    second._process.kill()
    second._process.wait()
    with pytest.raises(RuntimeError, match=r"the process of stable-retro that played \S+blocks.gb has ended: -9"):
        second.run((), 1)
    second.close()
