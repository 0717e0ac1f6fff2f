"""Signal handlers of one process alone: what it starts, environments' own processes above all, has none of them.

What is executed anew never has its parent's handlers, where ignored signals stay ignored; what is forked has them.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterable
from functools import cache
from types import FrameType
from typing import Any

STAY_IGNORED = (signal.SIGHUP, signal.SIGTSTP)
"""Who ignores these wants them ignored: ``nohup``, and shells without job control."""


def handle_here(numbers: Iterable[int], handle: Callable[[int, FrameType | None], object]) -> dict[int, Any]:
    """``handle`` these signals in this process, and leave its forked children what was there before.

    Ignored ones of ``STAY_IGNORED`` remain so. Returns number -> earlier handler. ValueError: this is not the main
    thread.
    """
    _mind_forks()
    before: dict[int, Any] = {number: signal.getsignal(number) or signal.SIG_DFL for number in numbers}
    before = {n: earlier for n, earlier in before.items() if n not in STAY_IGNORED or earlier != signal.SIG_IGN}
    for number, earlier in before.items():
        signal.signal(number, _Here(handle, earlier))
    return before


class _Here:
    """A handler, and what forked children have in its place."""

    def __init__(self, handle: Callable[[int, FrameType | None], object], earlier: Any) -> None:
        self._handle, self.earlier = handle, earlier

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self._handle(number, frame)


class _Forks(threading.local):
    """Signals wait while this thread forks: one that came to a child too early would be lost in its parent's handler.

    A thread that forks while others do so has a mask of its own.
    """

    def __init__(self) -> None:
        self._mask: set[int] = set()

    def before(self) -> None:
        """In the parent, just before."""
        self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())

    def in_parent(self) -> None:
        """In the parent, just after."""
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)

    def in_child(self) -> None:
        """In the child, first of all."""
        for number in signal.valid_signals():
            handler = signal.getsignal(number)
            if isinstance(handler, _Here):
                signal.signal(number, handler.earlier)
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)


@cache
def _mind_forks() -> None:
    """Do so from now on."""
    forks = _Forks()
    os.register_at_fork(before=forks.before, after_in_parent=forks.in_parent, after_in_child=forks.in_child)
