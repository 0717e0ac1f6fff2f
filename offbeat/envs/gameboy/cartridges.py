"""Write the cartridges of ``roms`` anew from their sources: ``python -m offbeat.envs.gameboy.cartridges``."""

from __future__ import annotations

from offbeat.envs.gameboy.assembler import build
from offbeat.envs.gameboy.folders import ROMS

TITLES = {"blocks": "BLOCKS", "battle": "BATTLE"}
"""Name of a cartridge of ours -> title in its header."""


def made(name: str) -> bytes:
    """The cartridge ``name``, built from its source."""
    return build(ROMS / f"{name}.asm", TITLES[name])


if __name__ == "__main__":
    for cartridge in TITLES:
        (ROMS / f"{cartridge}.gb").write_bytes(made(cartridge))
