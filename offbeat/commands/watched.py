"""What a command shows while episodes are played, and how Ctrl-C ends it with what there is."""

from __future__ import annotations

import math
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TextIO

from offbeat.run.live import terminal_size
from offbeat.runtime.clock import WALL, Clock
from offbeat.runtime.forking import handle_here

LIVE_S = 0.5
"""A terminal's line is renewed so often. Unit: seconds."""
LINES_S = 30.0
"""Elsewhere a line is written so often. Unit: seconds."""


class Watched:
    """Says on ``out`` how many of ``episodes`` have ended."""

    def __init__(self, episodes: int, out: TextIO | None = None, clock: Clock = WALL) -> None:
        self.stopped = False
        self._episodes, self._clock = episodes, clock
        self._out = sys.stderr if out is None else out
        self._live = self._out.isatty()
        self._said = clock.now()

    def see(self, ended: int, frames: int) -> None:
        """Called after every step."""
        if self._clock.now() - self._said < (LIVE_S if self._live else LINES_S):
            return
        self._said = self._clock.now()
        text = f"{ended} of {self._episodes} episodes have ended"
        room = terminal_size(self._out)[0] - 1 if self._live else math.inf
        for more in (f", {frames:,} frames", "; Ctrl-C scores those"):
            text += more if len(text + more) <= room else ""
        self._out.write(f"\r\x1b[K{text}" if self._live else f"offbeat: {text}\n")
        self._out.flush()

    def stop(self) -> bool:
        """Whether Ctrl-C was pressed."""
        return self.stopped

    def interrupt(self, number: int, frame: FrameType | None) -> None:
        """The first Ctrl-C ends the games, a second one the command."""
        if self.stopped:
            raise KeyboardInterrupt
        self.stopped = True

    def end(self) -> None:
        """Take the line away."""
        if self._live:
            self._out.write("\r\x1b[K")
            self._out.flush()


@contextmanager
def watched(episodes: int) -> Iterator[Watched]:
    """Ctrl-C ends the games that are played in this block."""
    watch = Watched(episodes)
    before = handle_here([signal.SIGINT], watch.interrupt)
    try:
        yield watch
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        watch.end()
