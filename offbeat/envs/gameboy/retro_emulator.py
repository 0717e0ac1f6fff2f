"""stable-retro: the emulator Gambatte, in a process of its own for each game."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from offbeat.envs.gameboy.emulators import SCREEN, Places

MASK = ("B", "", "SELECT", "START", "UP", "DOWN", "LEFT", "RIGHT", "A")
"""Which button each place of stable-retro's mask is."""
END_S = 10.0
"""How long a process may take to end before it is killed. Unit: s."""


class RetroEmulator:
    """One game in stable-retro; ``retro_child`` says what is spoken with its process."""

    def __init__(self, rom: Path) -> None:
        """ValueError where stable-retro cannot play it."""
        child = Path(__file__).with_name("retro_child.py")
        self._process = subprocess.Popen(
            [sys.executable, str(child), str(rom)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self._rom = rom
        self._screen = np.zeros(SCREEN, np.uint8)
        try:
            self.run((), 1)
        except ValueError as error:
            self.close()
            raise ValueError(f"{rom}: stable-retro cannot play it: {error}") from error

    def run(self, buttons: Sequence[str], frames: int, places: Places = ()) -> list[list[bytes]]:
        """Hold ``buttons`` for so many frames."""
        mask = [int(name in buttons) for name in MASK]
        answer = self._ask({"do": "run", "mask": mask, "frames": frames, "places": list(places)})
        size = int(np.prod(SCREEN))
        self._screen = np.frombuffer(answer[-size:], np.uint8).reshape(SCREEN)
        seen, at = [], 0
        for _ in range(frames):
            row = []
            for _, count in places:
                row.append(answer[at : at + count])
                at += count
            seen.append(row)
        return seen

    def picture(self) -> np.ndarray:
        """The screen, uint8 [144, 160, 3]."""
        return self._screen

    def write(self, address: int, data: bytes) -> None:
        """Put bytes into memory."""
        self._ask({"do": "write", "address": address}, data)

    def save(self) -> bytes:
        """The core's state, as the files of stable-retro hold it before gzip."""
        return self._ask({"do": "save"})

    def load(self, state: bytes) -> None:
        """Go back to a state."""
        self._ask({"do": "load"}, state)

    def close(self) -> None:
        """End the process."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):  # of a request that it did not live to read
                    pipe.close()
        try:
            self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _ask(self, request: dict[str, Any], data: bytes = b"") -> bytes:
        """The answer. ValueError with what stable-retro says, RuntimeError where its process has ended."""
        requests, answers = self._process.stdin, self._process.stdout
        assert requests is not None and answers is not None
        try:
            requests.write(json.dumps({**request, "bytes": len(data)}).encode() + b"\n" + data)
            requests.flush()
            head = answers.read(9)
        except BrokenPipeError:
            head = b""
        if len(head) < 9:
            raise RuntimeError(f"the process of stable-retro that played {self._rom} has ended: {self._process.poll()}")
        answer = answers.read(int.from_bytes(head[1:], "little"))
        if head[0]:
            raise ValueError(answer.decode())
        return answer
