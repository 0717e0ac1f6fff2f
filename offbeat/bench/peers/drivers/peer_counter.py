"""What every driver does: name its library, report the counter of frames, and end when the benchmark does.

Needs nothing but Python 3.8, because the interpreter is the peer's.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import threading
import time
from importlib.metadata import PackageNotFoundError, version

EVERY_S = 0.5
"""The counter is reported at most so often. Unit: seconds."""


def arguments() -> argparse.Namespace:
    """What is to be run: ``task``, ``game`` (as offbeat spells it), ``frame_skip``, ``device`` (cpu or cuda)."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--task", choices=("atari", "atari-deep", "atari-dqn", "cartpole", "minatar"), default="atari")
    parser.add_argument("--game", default="Pong")
    parser.add_argument("--frame-skip", type=int, default=4)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    return parser.parse_args()


class Counter:
    """Lines of JSON on the standard output, which is this class's alone: what others print goes to standard error.

    The first line says what runs, each later one ``{"frames": total, "seconds": monotonic time}``.
    """

    def __init__(self, package: str, workload: str, counts: str) -> None:
        """``package``: distribution name; ``workload``: algorithm and sizes; ``counts``: what a counted frame is."""
        self._lines = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)
        self._total = 0
        self._next_s = 0.0
        self._write({"version": _version(package), "torch": _version("torch"), "workload": workload, "counts": counts})
        threading.Thread(target=end_with_parent, daemon=True).start()

    def frames(self, total: int) -> None:
        """The counter stands at ``total`` emulator frames now; reported if it moved and the last report is old."""
        now = time.monotonic()
        if total > self._total and now >= self._next_s:
            self._total, self._next_s = total, now + EVERY_S
            self._write({"frames": total, "seconds": now})

    def _write(self, line: dict[str, object]) -> None:
        self._lines.write(json.dumps(line) + "\n")
        self._lines.flush()


def end_with_parent() -> None:
    """Wait until standard input, a pipe from the benchmark, closes; then kill this process and its whole group."""
    while os.read(0, 1):  # not through sys.stdin, whose lock would be in the way when Python ends
        continue
    os.killpg(0, signal.SIGKILL) if os.getpgrp() == os.getpid() else os._exit(1)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
