"""Another ``offbeat`` command carried out from this one; what this one is told to do, that one is told too."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
"""Signals that end commands."""
PR_SET_PDEATHSIG = 1
"""Linux: the signal that a process gets when its parent ends."""


def carry_out(arguments: list[str]) -> tuple[int, bool]:
    """Run ``offbeat`` with these arguments: its exit code, and whether a signal asked for its end.

    It lies in a process group of its own: a terminal's Ctrl-C goes to whole groups, and a run that hears of it twice,
    from the terminal and from us, ends without saving.
    """
    running: list[subprocess.Popen[bytes]] = []
    with _signals_for(running) as asked:
        command = [sys.executable, "-m", "offbeat", *arguments]
        process = subprocess.Popen(command, process_group=0, preexec_fn=_ends_with_parent())
        early = list(asked)
        running.append(process)
        if early:
            process.send_signal(early[0])
        return process.wait(), bool(asked)


@contextmanager
def _signals_for(running: list[subprocess.Popen[bytes]]) -> Iterator[list[int]]:
    """Signals go to the process in ``running`` meanwhile; those that came are in the list."""
    asked: list[int] = []

    def pass_on(number: int, frame: FrameType | None) -> None:
        asked.append(number)
        for process in running:
            process.send_signal(number)

    def pause(number: int, frame: FrameType | None) -> None:
        groups = [process.pid for process in running if process.poll() is None]
        for group in groups:
            os.killpg(group, signal.SIGTSTP)  # not SIGSTOP: a run has more groups, which it stops itself
        os.kill(os.getpid(), signal.SIGSTOP)  # until ``fg`` or ``bg``
        for group in groups:
            os.killpg(group, signal.SIGCONT)

    if threading.current_thread() is not threading.main_thread():  # the caller's signals are its own
        yield asked
        return
    handlers = dict.fromkeys(PASSED_ON, pass_on) | {signal.SIGTSTP: pause}
    ours = {number: handler for number, handler in handlers.items() if signal.getsignal(number) != signal.SIG_IGN}
    before = {number: signal.signal(number, handler) for number, handler in ours.items()}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _ends_with_parent() -> Callable[[], object] | None:
    """What the child does before anything else: ask to be told to end when this process is killed. None: impossible."""
    if not sys.platform.startswith("linux"):
        return None
    call = ctypes.CDLL(None).prctl
    return lambda: call(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
