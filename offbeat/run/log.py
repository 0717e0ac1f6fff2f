"""run.log: the lines of every role of a run in one file, each on disk as soon as it is said."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

FILE_NAME = "run.log"

MOST_KEPT_BYTES = 1 << 20
"""Lines that the disk does not take wait in memory, so many bytes at most; the oldest are lost first."""


class RunLog:
    """One role's pen for run.log. Several processes may hold one each: every text is appended in a single write.

    No line raises, whatever the disk or the terminal does. A signal handler may write in the middle of a line.
    """

    def __init__(self, run_dir: Path, role: str, *, echo: bool = False, clock: Callable[[], float] = time.time) -> None:
        """Open ``run_dir/run.log`` for the lines of ``role``; ``echo`` prints them. ``clock``: seconds since 1970."""
        self.role, self._echo, self._clock = role, echo, clock
        self._path = run_dir / FILE_NAME
        self._file = -1
        self._closed = False
        self._waiting: deque[bytes] = deque()
        self._lost, self._trouble = 0, ""
        self._lock, self._at_work, self._shows = threading.RLock(), False, True
        self._catch_up()

    def write(self, text: str) -> None:
        """Append ``text``, each of its lines with the time and the role in front, and print it where that is wanted."""
        self.note(text)
        if self._echo:
            self._show(text)

    def note(self, text: str) -> None:
        """Append ``text`` without printing it."""
        if self._closed:
            return
        now = self._clock()
        stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(now)) + f".{int(now % 1 * 1000):03d}"
        lines = "".join(f"{stamp} {self.role} {line}\n" for line in text.splitlines() or [""])
        self._waiting.append(lines.encode(errors="backslashreplace"))
        self._catch_up()

    def close(self) -> None:
        """Close the file; harmless when called twice."""
        if not self._closed:
            self._catch_up()
            self._closed = True
            self._close_file()
            if self._waiting:
                self._show(f"{self._path}: its last {len(self._waiting)} texts are lost ({self._trouble})")

    def _catch_up(self) -> None:
        """Write what waits; what the disk does not take goes on waiting."""
        with self._lock:
            if self._at_work:  # a signal handler in the middle of a line: that one goes on with ours
                return
            self._at_work = True
            said = ""
            try:
                while self._file < 0 or self._waiting:
                    self._write_one()
            except OSError as error:
                said = self._give_way(error)
            else:
                if self._trouble:
                    said = f"{self._path} is written again; {self._lost} texts were lost"
                    self._trouble, self._lost = "", 0
            finally:
                self._at_work = False
        if said:
            self._show(said)

    def _write_one(self) -> None:
        if self._file < 0:
            if self._path.is_dir():
                put_aside(self._path)
            # Without O_NONBLOCK a named pipe in its place would wait for a reader.
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
            self._file = os.open(self._path, flags, 0o644)
        elif data := self._waiting.popleft():
            done = 0
            try:
                while done < len(data):
                    done += os.write(self._file, data[done:])
            finally:
                if done < len(data):
                    self._waiting.appendleft(data[done:])

    def _give_way(self, error: OSError) -> str:
        """After a failed write: what is to be said of it."""
        new, self._trouble = not self._trouble, error.strerror or str(error)
        self._close_file()
        while sum(map(len, self._waiting)) > MOST_KEPT_BYTES:
            self._waiting.popleft()
            self._lost += 1
        if not new:
            return ""
        return f"{self._path} cannot be written ({self._trouble}); the run goes on, its lines wait in memory"

    def _close_file(self) -> None:
        """Leave the file; the next line opens it anew."""
        file, self._file = self._file, -1
        if file >= 0:
            try:
                os.close(file)
            except OSError as error:  # closed already, or a disk that tells of its troubles late
                self._trouble = self._trouble or str(error)

    def _show(self, text: str) -> None:
        try:
            # A live dashboard puts itself in the place of sys.stdout, to print above its panel.
            print(text, flush=True)
        except Exception as error:  # somebody's stream raises what it likes; said once
            if self._shows:
                self._shows = False
                self.note(f"lines cannot be shown on the terminal: {type(error).__name__}: {error}")


def open_log(run_dir: str | Path, role: str, *, echo: bool = False) -> RunLog:
    """The pen of ``role`` for the run.log of ``run_dir``, e.g. ``open_log(run, "actor-0").write("started")``."""
    return RunLog(Path(run_dir), role, echo=echo)


def put_aside(path: Path) -> Path:
    """Rename what cannot be used to ``<name>.broken``, or with a number behind it if that is taken; its new path."""
    aside = path.with_name(f"{path.name}.broken")
    number = 2
    while os.path.lexists(aside):
        aside = path.with_name(f"{path.name}.broken-{number}")
        number += 1
    os.replace(path, aside)
    return aside
