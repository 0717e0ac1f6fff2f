"""offbeat: asynchronous deep reinforcement learning. ``offbeat.train``, ``offbeat.load``, ``offbeat.evaluate``.

Importing it is cheap; torch is imported by the first call.
"""

from __future__ import annotations

import sys

if sys.platform == "win32":
    raise ImportError("offbeat runs on Linux and macOS; on Windows use it inside WSL (https://aka.ms/wsl)")

from offbeat.api import (
    capture,
    check_env,
    evaluate,
    evaluate_sets,
    export,
    load,
    plot,
    record,
    resume,
    serve,
    train,
    write_report,
)
from offbeat.run.hooks import STOP

__all__ = [
    "STOP", "capture", "check_env", "evaluate", "evaluate_sets", "export", "load", "plot", "record", "resume", "serve",
    "train", "write_report",
]  # fmt: skip
