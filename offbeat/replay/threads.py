"""Loops that run without Python's lock, shared out among threads."""

from __future__ import annotations

import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise


def share_out(work: Callable[[int, int], None], count: int, threads: int) -> None:
    """``work(begin, end)`` for parts that together are 0 to ``count``, the first of them by the calling thread."""
    parts = max(1, min(threads, count))
    ends = [count * (part + 1) // parts for part in range(parts)]
    others = [_pool().submit(work, begin, end) for begin, end in pairwise(ends)]
    work(0, ends[0])
    for other in others:
        other.result()


@cache
def _pool() -> ThreadPoolExecutor:
    """Threads start when they are needed, and leave signals to the others."""
    held = (signal.SIG_BLOCK, signal.valid_signals())
    return ThreadPoolExecutor(thread_name_prefix="loop", initializer=signal.pthread_sigmask, initargs=held)
