"""Other ``offbeat`` commands carried out from this one; what this one is told to do, they are told too."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType

from offbeat.errors import UserError

PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
"""Signals that end commands."""
PR_SET_PDEATHSIG = 1
"""Linux: the signal that a process gets when its parent ends."""
LOOK_S = 0.05
"""How often several commands are looked at for one that has ended. Unit: seconds."""

Command = subprocess.Popen[bytes]


class Crew:
    """Commands that run side by side."""

    def __init__(self) -> None:
        self.running: list[Command] = []
        self.asked: list[int] = []
        """Signals that asked for the end. They went to the commands that were running."""

    def start(self, arguments: list[str], log: Path | None = None) -> Command:
        """Start ``offbeat`` with these arguments. Its output goes to the end of ``log``; None: where ours goes.

        It lies in a process group of its own: a terminal's Ctrl-C goes to whole groups, and a run that hears of it
        twice, from the terminal and from us, ends without saving. UserError where ``log`` cannot be written.
        """
        command = [sys.executable, "-m", "offbeat", *arguments]
        before = len(self.asked)
        with ExitStack() as files:
            streams = {} if log is None else _streams(log, files)
            ties = {"process_group": 0, "preexec_fn": ends_with_parent()}
            process = subprocess.Popen(command, **streams, **ties)  # type: ignore[call-overload]
        self.running.append(process)
        if len(self.asked) > before:  # while it was started; to be told twice at a time is to be told once
            process.send_signal(self.asked[-1])
        return process  # type: ignore[no-any-return]

    def wait(self) -> Command:
        """The next one that has ended, with its ``returncode``; there must be one running."""
        if len(self.running) == 1:
            self.running[0].wait()
        while True:
            for process in self.running:
                if process.poll() is not None:
                    self.running.remove(process)
                    return process
            time.sleep(LOOK_S)

    def end(self) -> None:
        """Have all of them save and stop, and wait for that."""
        for process in self.running:
            process.send_signal(signal.SIGTERM)
        while self.running:
            self.wait()


@contextmanager
def crew() -> Iterator[Crew]:
    """A crew whose commands get our signals, and end with us; where an exception ends this, with that."""
    commands = Crew()
    with _signals_for(commands):
        try:
            yield commands
        finally:
            commands.end()


@contextmanager
def _signals_for(commands: Crew) -> Iterator[None]:
    """Signals go to the running commands meanwhile."""

    def pass_on(number: int, frame: FrameType | None) -> None:
        commands.asked.append(number)
        for process in commands.running:
            process.send_signal(number)

    def pause(number: int, frame: FrameType | None) -> None:
        groups = [process.pid for process in commands.running if process.poll() is None]
        for group in groups:
            os.killpg(group, signal.SIGTSTP)  # not SIGSTOP: a run has more groups, which it stops itself
        os.kill(os.getpid(), signal.SIGSTOP)  # until ``fg`` or ``bg``
        for group in groups:
            os.killpg(group, signal.SIGCONT)

    if threading.current_thread() is not threading.main_thread():  # the caller's signals are its own
        yield
        return
    handlers = dict.fromkeys(PASSED_ON, pass_on) | {signal.SIGTSTP: pause}
    ours = {number: handler for number, handler in handlers.items() if signal.getsignal(number) != signal.SIG_IGN}
    before = {number: signal.signal(number, handler) for number, handler in ours.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _streams(log: Path, files: ExitStack) -> dict[str, object]:
    """Standard streams of a command that shares the terminal with others: it reads nothing, and writes to its log.

    Native threads do not spin while they wait: somebody else can use the core.
    """
    try:
        output = files.enter_context(log.open("ab"))
    except OSError as error:
        raise UserError(f"{log} cannot be written: {error.strerror or error}") from error
    calm = {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0"}
    return {"stdin": subprocess.DEVNULL, "stdout": output, "stderr": output, "env": calm | os.environ}


def ends_with_parent() -> Callable[[], object] | None:
    """What the child does before anything else: ask to be told to end when this process is killed. None: impossible."""
    if not sys.platform.startswith("linux"):
        return None
    call, parent = ctypes.CDLL(None).prctl, os.getpid()

    def tie() -> None:
        call(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent:  # it was killed before the kernel knew
            os.kill(os.getpid(), signal.SIGKILL)

    return tie
