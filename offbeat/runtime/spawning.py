"""How a role's process is started: its threads, its signals, and that it ends with the thread that started it."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import spawn
from typing import Any

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
"""Read by native libraries when they are loaded, so they are set before the child starts."""
HELD = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Signals that are the parent's business."""

KEEP_PAGES = ":".join(
    f"glibc.malloc.{name}" for name in ("mmap_threshold=4294967296", "trim_threshold=4294967296", "hugetlb=1")
)
"""Large tensors are freed and allocated again in every update. glibc would give their pages back each time and take
new, zeroed ones: a page fault per 4 KiB, a fifth of a training step on a CPU. So it keeps them, in huge pages. Other C
libraries ignore this."""

TIE = (
    "import ctypes, os, signal; "
    "ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0); "  # PR_SET_PDEATHSIG
    "os.getppid() == {parent} or os._exit(1); "  # the parent may have ended before
)
"""What a child on Linux runs before anything else: from then on the kernel kills it when the thread that started it
ends, even while it is stopped, hangs in C code, or has not come out of an import."""


@contextmanager
def signals_held() -> Iterator[None]:
    """A child that starts here gets no Ctrl-C (which goes to all processes of a terminal) before it can ignore it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, HELD)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def native_threads(count: int) -> Iterator[None]:
    """Environment in which a child starts with ``count`` native threads that do not spin while they wait."""
    before = dict(os.environ)
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, str(count)))
    os.environ.setdefault("KMP_BLOCKTIME", "0")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("GLIBC_TUNABLES", KEEP_PAGES)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def without_a_script() -> Iterator[None]:
    """A program from standard input names a file that does not exist; children are not told to import it."""
    main = sys.modules["__main__"]
    path = getattr(main, "__file__", None)
    if path is None or os.path.exists(path):
        yield
        return
    del main.__file__
    try:
        yield
    finally:
        main.__file__ = path


@contextmanager
def tied_to_this_thread() -> Iterator[None]:
    """Children that this thread starts here end with it, whatever they are doing; on Linux, by the kernel.

    Elsewhere a thread in the child watches its parent. multiprocessing has no place for code that runs before the
    user's main module is imported, except the child's command line.
    """
    before, thread = spawn.get_command_line, threading.get_ident()

    def command_line(**arguments: Any) -> list[str]:
        line: list[str] = before(**arguments)
        if threading.get_ident() == thread and "-c" in line:
            at = line.index("-c") + 1
            line[at] = TIE.format(parent=os.getpid()) + line[at]
        return line

    if not sys.platform.startswith("linux"):
        yield
        return
    spawn.get_command_line = command_line
    try:
        yield
    finally:
        spawn.get_command_line = before
