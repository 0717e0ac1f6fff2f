"""Signals of the main process: the first Ctrl-C saves and ends the run, a second one ends it at once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from offbeat.runtime.clock import WALL, Clock
from offbeat.runtime.conductor import Conductor, EndNow, Overdue
from offbeat.runtime.forking import handle_here

HANDLED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Ctrl-C, what ends services, and a terminal that was closed."""
TOGETHER_S = 0.5
"""Signals so soon after each other are one wish: the kernel tells a child once for each dying thread of its parent, and
``timeout`` and shells tell both a process and its group. Unit: seconds."""
OVERDUE_S = 5.0
"""Roles in this thread are cut off in their round so long after the first signal. Unit: seconds."""


class Interrupts:
    """What signals do to a run. ``say`` tells the user."""

    def __init__(self, say: Callable[[str], None], clock: Clock = WALL) -> None:
        self._say, self._clock = say, clock
        self._received = ""
        self._wished_at: float | None = None
        self._conductor: Conductor | None = None
        self._timer: threading.Timer | None = None
        self._overdue = False

    def handle(self, number: int, frame: FrameType | None) -> None:
        """What Python calls between two instructions of the main thread."""
        if self._overdue:  # the timer's own signal
            self._overdue = False
            if self._conductor is not None and self._conductor.may_cut:
                raise Overdue
            return
        if not self._received:
            self._received = signal.Signals(number).name
            self._stop()
            self._say(f"{self._received}: saving, then stopping; once more ends the run at once")
        if number == signal.SIGHUP:  # a closed terminal is no wish: it may tell more than once, and beside the others
            return
        now, before = self._clock.now(), self._wished_at
        self._wished_at = now if before is None else before
        if before is not None and now - before > TOGETHER_S:
            raise EndNow

    def pause(self, number: int, frame: FrameType | None) -> None:
        """Stop all processes of the run, as a terminal's Ctrl-Z means it, until ``fg`` or ``bg``."""
        groups = self._conductor.groups() if self._conductor is not None else []
        _tell_groups(groups, signal.SIGSTOP)
        os.kill(os.getpid(), signal.SIGSTOP)
        _tell_groups(groups, signal.SIGCONT)

    def _stop(self) -> None:
        if self._conductor is not None:
            self._conductor.ask_to_stop(self._received)
        self._timer = threading.Timer(OVERDUE_S, self._cut)
        self._timer.daemon = True
        self._timer.start()

    def _cut(self) -> None:
        """In the timer's thread: have the handler look at the main thread."""
        main = threading.main_thread().ident
        if main is not None:
            self._overdue = True
            signal.pthread_kill(main, signal.SIGINT)

    def tell(self, conductor: Conductor | None) -> None:
        """Whom to ask from now on, None: nobody; also passes on a signal that came before."""
        self._conductor = conductor
        if self._received and conductor is not None:
            conductor.ask_to_stop(self._received)

    def end(self) -> None:
        """Nothing is left to be cut."""
        self._conductor = None
        if self._timer is not None:
            self._timer.cancel()


def _tell_groups(groups: list[int], number: signal.Signals) -> None:
    for group in groups:
        with suppress(ProcessLookupError, PermissionError):  # it has ended
            try:
                os.killpg(group, number)
            except ProcessLookupError:  # its first process is starting, and not its leader yet
                os.kill(group, number)


@contextmanager
def signals(say: Callable[[str], None]) -> Iterator[Interrupts]:
    """The signals of this process go to the object that this gives."""
    interrupts = Interrupts(say)
    try:
        before = handle_here(HANDLED, interrupts.handle) | handle_here([signal.SIGTSTP], interrupts.pause)
    except ValueError:  # not the main thread: the caller's signals are its own
        before = {}
    try:
        yield interrupts
    finally:
        interrupts.end()
        for number, handler in before.items():
            signal.signal(number, handler)
