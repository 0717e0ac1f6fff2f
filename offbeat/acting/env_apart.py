"""Something done in a process of its own, which the environment may end or hang in without harm to this one."""

from __future__ import annotations

import multiprocessing
import signal
import traceback
from collections.abc import Callable
from typing import Any

from offbeat.envs.base import EnvUnavailable
from offbeat.errors import UserError

LIMIT_S = 300.0
"""After so long the process is ended. Whatever returns to Python at all is broken off long before. Unit: seconds."""


def apart(work: Callable[[], tuple[bool, str]], limit_s: float = LIMIT_S) -> tuple[bool, str]:
    """What ``work`` returns: whether all is well, and a text; or that the process ended instead, and how.

    ``UserError`` is raised here as it was there; of everything else the traceback is the text.
    """
    ways = multiprocessing.get_all_start_methods()
    context: Any = multiprocessing.get_context("fork" if "fork" in ways else None)
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(work, there), daemon=False)
    process.start()
    there.close()
    try:
        if not here.poll(limit_s):
            return False, f"it had not returned to Python for {limit_s:g} seconds, and its process was ended"
        try:
            kind, well, text = here.recv()
        except EOFError:
            process.join()
            return False, f"{_end(process.exitcode)} while it was tried out: a run would end there too"
    finally:
        process.kill()
        process.join()
        here.close()
    if kind == "usage":
        raise UserError(text)
    return well, text


def _child(work: Callable[[], tuple[bool, str]], there: Any) -> None:
    try:
        there.send(("result", *work()))
    except (UserError, EnvUnavailable) as error:
        there.send(("usage", False, str(error)))
    except Exception:
        there.send(("result", False, traceback.format_exc()))


def _end(code: int | None) -> str:
    """How a process ended."""
    if code is None or code >= 0:
        return f"it ended its process with exit code {code}"
    return f"its process was killed by {signal.Signals(-code).name}"
