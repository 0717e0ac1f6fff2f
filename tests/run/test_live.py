"""Rows at the bottom of a terminal: nothing is torn or doubled, whatever is printed, pressed or resized meanwhile."""

from __future__ import annotations

import codecs
import contextlib
import fcntl
import io
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from offbeat.run.live import Live, live_rows, terminal_size
from offbeat.runtime.terminal import guarded

CODE = re.compile(r"\x1b\[([0-9;?]*)([A-Za-z])")


class Model(io.StringIO):
    """What a terminal shows that breaks its lines anew when it is made narrower, as most do today."""

    def __init__(self, columns: int = 60) -> None:
        super().__init__()
        self.columns, self.hidden = columns, False
        self.lines, self.y, self.x = [""], 0, 0  # without breaks; the cursor is in line y

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        while text:
            code = CODE.match(text)
            if code:
                self._obey(*code.groups())
                text = text[code.end() :]
                continue
            self._put(text[0])
            text = text[1:]
        return 0

    def _put(self, letter: str) -> None:
        if letter == "\r":
            self.x -= self.x % self.columns
        elif letter == "\n":
            self.y, self.x = self.y + 1, 0
            if self.y == len(self.lines):
                self.lines.append("")
        else:
            line = self.lines[self.y].ljust(self.x)
            self.lines[self.y] = line[: self.x] + letter + line[self.x + 1 :]
            self.x += 1

    def _obey(self, number: str, what: str) -> None:
        if what == "A":
            for _ in range(int(number or 1)):
                if self.x >= self.columns:
                    self.x -= self.columns
                elif self.y:
                    self.y -= 1
                    self.x = max(0, (len(self.lines[self.y]) - 1) // self.columns * self.columns)
        elif what == "K":
            self.lines[self.y] = self.lines[self.y][: self.x]
        elif what == "J":
            self.lines[self.y :] = [self.lines[self.y][: self.x]]
        elif number == "?25":
            self.hidden = what == "l"
        else:
            assert what in "mh", what

    def shown(self) -> list[str]:
        return [line.rstrip() for line in self.lines if line.strip()]


def rows_of(text: str, count: int = 3):
    return lambda columns, rows: [f"{text} {index} ".ljust(columns, ".") for index in range(count)]


def drawn(text: str, columns: int, count: int = 3) -> list[str]:
    return rows_of(text, count)(columns - 1, 99)


def test_lines_go_above_and_rows_are_drawn_over() -> None:
    screen = Model()
    live = Live(screen, lambda: (60, 24))
    live.print("before")
    live.draw(rows_of("one"))
    live.print("a line\nanother")
    assert screen.shown() == ["before", "a line", "another", *drawn("one", 60)]
    live.draw(rows_of("two"))
    live.draw(rows_of("fewer", 2))
    live.print("x" * 130)
    live.draw(rows_of("more", 4))
    assert screen.shown() == ["before", "a line", "another", "x" * 130, *drawn("more", 60, 4)]


def test_what_the_terminal_shows_of_ctrl_c_is_drawn_over() -> None:
    screen = Model()
    live = Live(screen, lambda: (60, 24))
    live.draw(rows_of("one"))
    screen.write("^C^C")
    live.print("saving")
    screen.write("^C")
    live.draw(rows_of("two"))
    assert screen.shown() == ["saving", *drawn("two", 60)]


@pytest.mark.parametrize("widths", [(60, 50, 30, 100), (100, 29, 80), (30, 80, 50)])
def test_rows_are_neither_torn_nor_doubled_when_the_terminal_is_resized(widths: tuple[int, ...]) -> None:
    screen = Model()
    live = Live(screen, lambda: (screen.columns, 24))
    live.print("first")
    for index, columns in enumerate(widths):
        screen.columns = columns
        if index % 2:
            live.print(f"line {index}")
        live.draw(rows_of(f"at {columns}"))
    lines = [f"line {index}" for index in range(len(widths)) if index % 2]
    assert screen.shown() == ["first", *lines, *drawn(f"at {widths[-1]}", widths[-1])]


def test_rows_never_fill_the_whole_terminal() -> None:
    screen = Model()
    asked: list[tuple[int, int]] = []

    def rows(columns: int, count: int) -> list[str]:
        asked.append((columns, count))
        return rows_of("many", 9)(columns, count)

    Live(screen, lambda: (60, 5)).draw(rows)
    assert asked == [(59, 4)] and len(screen.shown()) == 4


def test_a_signal_handler_may_print_in_the_middle_of_a_draw() -> None:
    screen = Model()
    live = Live(screen, lambda: (60, 24))
    live.draw(rows_of("one"))
    write = screen.write

    def interrupted(text: str) -> int:
        screen.write = write  # type: ignore[method-assign]
        live.print("from the handler")
        return write(text)

    screen.write = interrupted  # type: ignore[method-assign]
    live.draw(rows_of("two"))
    assert screen.shown() == ["from the handler", *drawn("two", 60)]


def test_prints_go_above_and_streams_are_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    screen, errors = Model(80), io.StringIO()
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setattr(sys, "stderr", errors)
    with live_rows(screen) as live:
        live.draw(rows_of("one"))
        print("printed")
        print("not for this terminal", file=sys.stderr)
        print("without an end", end="")
    assert sys.stdout is screen and sys.stderr is errors
    print("afterwards")
    assert screen.shown() == ["printed", "without an end", *drawn("one", 80), "afterwards"]
    assert errors.getvalue() == "not for this terminal\n"


def test_the_size_of_what_is_no_terminal_is_guessed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "77")
    monkeypatch.setenv("LINES", "33")
    assert terminal_size(io.StringIO()) == (77, 33)


NOISY = """
import os, subprocess, sys, warnings
from offbeat.run.live import live_rows
from offbeat.runtime.terminal import guarded

with guarded():
    with live_rows(sys.stdout) as live:
        live.draw(lambda columns, rows: ["=" * columns] * 3)
        os.write(1, b"from C\\n")
        subprocess.run(["sh", "-c", "echo from a process; echo to its errors >&2; printf '1%%\\r2%%\\n'"])
        warnings.warn("careful")
        print("printed")
        os.write(2, b"no line end")
    print("afterwards", sys.__stdout__.isatty())
    os.write(1, b"C again\\n")
"""


class Pseudo:
    """A command on a terminal of 50 columns."""

    def __init__(self, *command: str, cwd: Path | None = None) -> None:
        self.screen, self._decoder = Model(50), codecs.getincrementaldecoder("utf-8")()
        self._master, slave = pty.openpty()
        self.resize(50)
        environment = os.environ | {"TERM": "xterm", "PYTHONPATH": os.pathsep.join(sys.path)}
        environment.pop("COLUMNS", None)
        self.process = subprocess.Popen(
            [sys.executable, *command], stdin=slave, stdout=slave, stderr=slave, cwd=cwd, env=environment,
            preexec_fn=lambda: (os.setsid(), fcntl.ioctl(0, termios.TIOCSCTTY, 0)),  # its Ctrl-C is this one's
        )  # fmt: skip
        os.close(slave)

    def resize(self, columns: int) -> None:
        self.screen.columns = columns
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))

    def press_ctrl_c(self) -> None:
        os.write(self._master, b"\x03")

    def read_until(self, over: Callable[[], bool], patience_s: float = 100) -> None:
        """Show what the command writes until ``over``."""
        deadline = time.monotonic() + patience_s
        while not over():
            assert time.monotonic() < deadline, self.screen.shown()
            if select.select([self._master], [], [], 0.1)[0]:
                self.screen.write(self._decoder.decode(os.read(self._master, 65536)))

    def shows_rows_of(self, columns: int) -> bool:
        """Whether the last row is as wide."""
        return len(self.screen.shown()[-1]) == columns

    def read_to_the_end(self) -> list[str]:
        """What is shown when the command has ended well."""
        with contextlib.suppress(OSError):  # raised when nobody has the terminal any more
            self.read_until(lambda: False)
        assert self.process.wait(10) == 0, self.screen.shown()
        os.close(self._master)
        return self.screen.shown()


def test_what_others_write_goes_above_too() -> None:
    terminal = Pseudo("-c", NOISY)
    shown = terminal.read_to_the_end()
    rows = shown.index("=" * 49)
    assert shown[rows : rows + 3] == ["=" * 49] * 3
    assert sorted(shown[rows + 3 :]) == ["C again", "afterwards True"]  # prints go by way of a thread
    above = shown[:rows]
    for line in ("from C", "from a process", "to its errors", "2%", "printed", "no line end"):
        assert above.count(line) == 1, above
    assert sum("careful" in line for line in above) == 1


def test_a_run_on_a_narrow_terminal_that_is_resized_and_stopped(tmp_path: Path) -> None:
    options = ["--total-frames", "100000000", "--log.dashboard", "true", "--log.every-s", "0.5", "--out", "my run ü"]
    quiet = ["--evaluation.every-frames", "0", "--evaluation.at-end", "false"]
    terminal = Pseudo("-m", "offbeat", "train", "debug", *options, *quiet, cwd=tmp_path)
    terminal.read_until(lambda: "updates" in "".join(terminal.screen.lines))
    for columns in (30, 100, 50):
        terminal.resize(columns)
        terminal.process.send_signal(signal.SIGWINCH)
        terminal.read_until(partial(terminal.shows_rows_of, min(columns - 1, 100)))
    terminal.press_ctrl_c()
    shown = terminal.read_to_the_end()
    assert not terminal.screen.hidden
    text = "\n".join(shown)
    for once in ("╭", "╮", "╰", "╯", "return ", "episodes", "saving, then stopping", "offbeat resume 'my run ü'"):
        assert text.count(once) == 1, text
    assert "^C" not in text and len([line for line in shown if line.startswith("│")]) >= 8
    assert {len(line) for line in shown if line[0] in "╭│╰"} == {49}


def test_guarded_outputs_stay_whole() -> None:
    """The block that guards them closes what the rows have left."""
    with guarded(), live_rows(Model()) as live:
        live.draw(rows_of("one"))
