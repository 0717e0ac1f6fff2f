"""The processes that this one has started, by whatever means."""

from __future__ import annotations

import multiprocessing
import time
from contextlib import suppress
from pathlib import Path

PATIENCE_S = 1.0
"""A process that was told to end may take so long for it. Unit: seconds."""
HELPERS = (b"multiprocessing.resource_tracker", b"multiprocessing.forkserver")
"""Processes that Python starts for itself, and ends when this one does."""


def children() -> set[int]:
    """Numbers of the processes that run and were started by this one; on Linux, else those of ``multiprocessing``."""
    found = {process.pid for process in multiprocessing.active_children() if process.pid is not None}
    own = Path("/proc/self/stat")
    if not own.exists():
        return found
    pid = own.read_text().split()[0]
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has ended meanwhile
            state, parent = path.read_text(errors="replace").rpartition(")")[2].split()[:2]
            if parent == pid and state != "Z" and not _helps(path.with_name("cmdline")):
                found.add(int(path.parent.name))
    return found


def _helps(command_line: Path) -> bool:
    line = command_line.read_bytes()
    return any(name in line for name in HELPERS)


def left_over(before: set[int]) -> set[int]:
    """Those that were not there ``before`` and do not end within ``PATIENCE_S``."""
    deadline = time.monotonic() + PATIENCE_S
    while (left := children() - before) and time.monotonic() < deadline:
        time.sleep(0.02)
    return left
