"""The last rows of a terminal, drawn anew now and then, while what is printed goes by above them.

The cursor stays visible, at the start of the row below: what a terminal shows of a pressed Ctrl-C lands there and is
drawn over. Rows are one column narrower than the terminal, so that none is continued on the next. A terminal that was
made narrower has broken them, as most do: how many rows they take by now is known from their widths.
"""

from __future__ import annotations

import os
import re
import select
import shutil
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, TextIO

from rich.cells import cell_len

from offbeat.runtime.terminal import LONGEST, PIECE, Notices, Outlet, Screen

Size = Callable[[], tuple[int, int]]
"""Gives columns and rows of the terminal."""
STYLE = re.compile(r"\x1b\[[0-9;]*m")
"""What changes how text looks and takes no room."""


def terminal_size(terminal: TextIO | int) -> tuple[int, int]:
    """Columns and rows of a terminal, or of one behind a descriptor, now; 80 and 24 where nobody knows."""
    try:
        columns, rows = os.get_terminal_size(terminal if isinstance(terminal, int) else terminal.fileno())
    except (OSError, ValueError):
        columns = rows = 0
    guess = shutil.get_terminal_size()
    return columns or guess.columns, rows or guess.lines


class Live:
    """Rows at the bottom, and lines above them. A signal handler may print in the middle of a draw."""

    def __init__(self, out: TextIO, size: Size) -> None:
        """``out``: the terminal, of ``size``."""
        self._out, self._size = out, size
        self._rows: list[str] = []
        self._columns = 0
        self._waiting: deque[str] = deque()
        self._lock, self._at_work = threading.RLock(), False

    def draw(self, rows: Callable[[int, int], list[str]]) -> None:
        """Draw what ``rows`` gives for the columns and rows that there are; none may be wider, nor more."""
        columns, height = self._size()
        drawn = rows(max(1, columns - 1), max(1, height - 1))[: max(1, height - 1)]
        self._work(lambda: self._replace("", drawn, columns))

    def print(self, text: str) -> None:
        """Show lines above."""
        self._waiting.append(text if text.endswith("\n") else f"{text}\n")
        self._work(lambda: None)

    def _work(self, draw: Callable[[], None]) -> None:
        with self._lock:
            if self._at_work:  # a signal handler: whoever was interrupted goes on with its lines
                return
            self._at_work = True
            try:
                draw()
                while self._waiting:
                    columns, _ = self._size()
                    # Rows for another width are left to the next draw.
                    self._replace(self._waiting.popleft(), self._rows if columns == self._columns else [], columns)
            finally:
                self._at_work = False

    def _replace(self, above: str, rows: list[str], columns: int) -> None:
        """Put ``above`` and below it ``rows`` where the rows were."""
        taken = sum(max(1, -(-cell_len(STYLE.sub("", row)) // max(1, columns))) for row in self._rows)
        back = f"\r\x1b[{taken}A" if taken else ""
        shown = "".join(f"{row}\x1b[K\n" for row in rows)
        self._rows, self._columns = rows, columns
        self._out.write(f"{back}\x1b[J{above}{shown}" if above or len(rows) != taken else f"{back}{shown}\x1b[J")
        self._out.flush()


class Above:
    """A place for texts: the lines above."""

    def __init__(self, live: Live, notices: Notices) -> None:
        """``notices``: of the terminal."""
        self.notices, self._live = notices, live

    def put(self, text: str) -> None:
        """Show it."""
        self._live.print(text)

    def close(self) -> None:
        """Nothing waits."""


class Caught:
    """What is written to this process's descriptors 1 and 2, and to those of the processes that it starts meanwhile, by
    whoever does not print by way of ``sys.stdout``: roles, environments, libraries in C.
    """

    def __init__(self, outlet: Outlet, terminal: int, numbers: list[int], show: Callable[[str], None]) -> None:
        """``outlet`` goes on writing to the ``terminal``; ``numbers``: of the descriptors; ``show`` takes lines."""
        self._outlet, self._before, self._show = outlet, outlet.descriptor, show
        self._numbers, self._terminal = numbers, terminal
        self._reading, writing = os.pipe()
        self._ended, self._end = os.pipe()
        outlet.descriptor = terminal
        for number in numbers:
            os.dup2(writing, number)
        os.close(writing)
        self._thread = threading.Thread(target=self._work, name="caught", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Show what was written until now, and give the descriptors back."""
        os.close(self._end)
        self._thread.join()
        self._outlet.settle()  # what is written to the descriptors from now on comes after it
        for number in self._numbers:
            os.dup2(self._terminal, number)
        self._outlet.descriptor = self._before
        self._outlet.keep(self._terminal)
        self._read_rest(b"")
        for descriptor in (self._reading, self._ended):
            os.close(descriptor)

    def _work(self) -> None:
        held = b""
        while True:
            readable, _, _ = select.select([self._reading, self._ended], [], [])
            if self._reading not in readable:
                self._read_rest(held)
                return
            held = self._shown(held + os.read(self._reading, PIECE))

    def _read_rest(self, held: bytes) -> None:
        while select.select([self._reading], [], [], 0)[0] and (data := os.read(self._reading, PIECE)):
            held = self._shown(held + data)
        self._shown(held, whole=True)

    def _shown(self, data: bytes, whole: bool = False) -> bytes:
        """Show the lines that have ended, or ``whole`` data; the rest of it."""
        cut = len(data) if whole or len(data) > LONGEST else data.rfind(b"\n") + 1
        if cut:
            lines = data[:cut].decode(errors="replace").removesuffix("\n").split("\n")
            self._show("\n".join(line.rstrip("\r").rpartition("\r")[2] for line in lines))
        return data[cut:]


@contextmanager
def live_rows(out: TextIO) -> Iterator[Live]:
    """Rows at the bottom of the terminal behind ``out``; what is printed there in this block goes above them."""
    before = sys.stdout, sys.stderr
    shown = [stream for stream in before if stream is not None and stream.isatty()]
    with ExitStack() as stack:
        outlet = out.place if isinstance(out, Screen) else None
        live = Live(out, partial(terminal_size, out))
        if isinstance(outlet, Outlet):
            numbers = [number for number in (1, 2) if os.isatty(number)]
            terminal = os.dup(outlet.descriptor)
            live = Live(out, partial(terminal_size, terminal))
            stack.callback(Caught(outlet, terminal, numbers, live.print).close)
        above = Above(live, Notices("the terminal"))
        screens: list[Any] = [Screen(stream, above) if stream in shown else stream for stream in before]
        sys.stdout, sys.stderr = screens
        stack.callback(_put_back, before, screens)
        yield live


def _put_back(before: tuple[TextIO, TextIO], screens: list[TextIO]) -> None:
    """Let what was printed to the end of its line, and the streams that were there before, be there again."""
    for stream, screen in zip(before, screens, strict=True):
        if screen is not stream:
            screen.flush()
    if [sys.stdout, sys.stderr] == screens:
        sys.stdout, sys.stderr = before
