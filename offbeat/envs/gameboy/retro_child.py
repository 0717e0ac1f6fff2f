"""The process in which stable-retro plays one game: it allows a single emulator in each.

Started as a file, ``python retro_child.py CARTRIDGE``; imports nothing of offbeat. It reads requests from its standard
input, each a line of JSON, after which as many bytes as the line's ``bytes`` says, and answers each on its standard
output: a byte (0: done, 1: an error), the length as eight bytes (little-endian), and so many bytes.

| request | answer |
|---|---|
| ``{"do": "run", "mask": [9 numbers], "frames": n, "places": [[address, bytes], ...]}`` | bytes, see below |
| ``{"do": "save"}`` | the state |
| ``{"do": "load", "bytes": n}`` and a state | nothing |
| ``{"do": "write", "address": a, "bytes": n}`` and the bytes | nothing |

``run`` answers with the bytes at each place after each frame, then the screen [144, 160, 3].
"""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Any, BinaryIO


class Game:
    """The emulator and its memory."""

    def __init__(self, rom: str) -> None:
        import numpy as np
        import stable_retro

        self._bytes = np.uint8
        self._numbers = np.array
        self._emulator = stable_retro.RetroEmulator(rom)
        self._data = stable_retro.data.GameData()
        self._emulator.configure_data(self._data)
        self._emulator.step()
        self._size = len(self._emulator.get_state())

    def run(self, request: dict[str, Any], _: bytes) -> bytes:
        """Frames with some buttons down."""
        self._emulator.set_button_mask(self._numbers(request["mask"], self._bytes), 0)
        memory, seen = self._data.memory, []
        for _frame in range(request["frames"]):
            self._emulator.step()
            if request["places"]:
                self._data.update_ram()
            for address, count in request["places"]:
                seen += [memory.extract(place, "|u1") for place in range(address, address + count)]
        return bytes(seen) + self._emulator.get_screen().tobytes()

    def save(self, request: dict[str, Any], _: bytes) -> bytes:
        """The state."""
        state: bytes = self._emulator.get_state()
        return state

    def load(self, request: dict[str, Any], state: bytes) -> bytes:
        """Go back to a state. ValueError where it is none."""
        if len(state) != self._size or not self._emulator.set_state(state):
            raise ValueError(f"no state of this cartridge in stable-retro: {len(state)} bytes, expected {self._size}")
        self._data.update_ram()
        return b""

    def write(self, request: dict[str, Any], data: bytes) -> bytes:
        """Put bytes into memory."""
        for place, byte in enumerate(data, request["address"]):
            self._data.memory.assign(place, "|u1", byte)
        return b""


def serve(rom: str, requests: BinaryIO, answers: BinaryIO) -> None:
    """Answer requests until there are none any more."""
    game: Game | None = None
    while line := requests.readline():
        request = json.loads(line)
        data = requests.read(request.get("bytes", 0))
        try:
            game = game or Game(rom)
            code, answer = 0, getattr(game, request["do"])(request, data)
        except Exception as error:
            code, answer = 1, str(error).encode()
        answers.write(bytes([code]) + len(answer).to_bytes(8, "little") + answer)
        answers.flush()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who started it ends it
    own = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what the emulator prints is no answer
    serve(sys.argv[1], sys.stdin.buffer, own)
