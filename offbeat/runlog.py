"""run.log: the lines of every role of a run in one file, each on disk as soon as it is said."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TextIO

FILE_NAME = "run.log"


class RunLog:
    """One role's pen for run.log. Several processes may hold one each: every text is appended in a single write."""

    def __init__(
        self, run_dir: Path, role: str, *, echo: TextIO | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        """Open ``run_dir/run.log`` for the lines of ``role``; ``echo`` gets them too. ``clock``: seconds since 1970."""
        self.role, self._echo, self._clock = role, echo, clock
        self._file = os.open(run_dir / FILE_NAME, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)

    def write(self, text: str) -> None:
        """Append ``text``, each of its lines with the time and the role in front."""
        now = self._clock()
        stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(now)) + f".{int(now % 1 * 1000):03d}"
        lines = "".join(f"{stamp} {self.role} {line}\n" for line in text.splitlines() or [""])
        data = lines.encode(errors="backslashreplace")
        with suppress(OSError):  # a full disk ends no run; the line still goes to the terminal
            while data:
                data = data[os.write(self._file, data) :]
        if self._echo is not None:
            # A live dashboard puts itself in the place of sys.stdout, to print above its panel.
            print(text, file=sys.stdout if self._echo is sys.__stdout__ else self._echo, flush=True)

    def close(self) -> None:
        """Close the file; harmless when called twice."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def open_log(run_dir: str | Path, role: str, *, echo: TextIO | None = None) -> RunLog:
    """The pen of ``role`` for the run.log of ``run_dir``, e.g. ``open_log(run, "actor-0").write("started")``."""
    return RunLog(Path(run_dir), role, echo=echo)
