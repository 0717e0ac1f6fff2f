"""Shared memory and waiting between processes: the one file that knows how.

``SharedArrays`` is a block of named arrays that several processes map: a memfd on Linux, an unlinked mapped file
elsewhere, so the size of /dev/shm is no limit and nothing is left behind when processes are killed. ``Bell`` lets
one process sleep until another has something for it, without locks that a killed process could keep.

Order of writes: on x86-64 stores become visible in program order, so a counter written after the rows that it announces
is enough. On other architectures ``make_guard`` gives a lock that writers and verifying readers take.
"""

from __future__ import annotations

import fcntl
import mmap
import multiprocessing
import os
import platform
import select
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from multiprocessing import reduction
from typing import Any

import numpy as np

from offbeat.runtime.clock import WALL, Clock
from offbeat.runtime.ports import Stopped
from offbeat.types import ArraySpec

ALIGN = 64
"""Bytes: arrays start on cache lines of their own, so that two writers never share one."""
SLICE_S = 0.5
"""Longest uninterrupted sleep: after so long a waiter looks whether its parent is still alive. Unit: seconds."""


class SharedArrays:
    """Named arrays in one block of memory that travels to child processes at spawn.

    Args:
        specs: name -> full shape and dtype. Memory starts as zeros.
        backing: ``"auto"``, ``"memfd"`` or ``"file"`` (an unlinked file in ``folder`` or the temporary folder).
        folder: where the mapped file is made; only with ``"file"``.
    """

    def __init__(self, specs: dict[str, ArraySpec], backing: str = "auto", folder: str | None = None) -> None:
        self.specs = specs
        offset = 0
        self._offsets: dict[str, int] = {}
        for name, spec in specs.items():
            self._offsets[name] = offset
            offset += -(-spec.nbytes // ALIGN) * ALIGN
        self.nbytes = max(offset, ALIGN)
        self._fd = _open_block(self.nbytes, backing, folder)
        self._map()

    def _map(self) -> None:
        self._mmap = mmap.mmap(self._fd, self.nbytes)
        self.arrays: dict[str, np.ndarray] = {}
        for name, spec in self.specs.items():
            count = int(np.prod(spec.shape, dtype=np.int64))
            flat = np.frombuffer(self._mmap, spec.dtype, count, self._offsets[name])
            self.arrays[name] = flat.reshape(spec.shape)

    def __getitem__(self, name: str) -> np.ndarray:
        """The array of that name: a view, never a copy."""
        return self.arrays[name]

    def __getstate__(self) -> dict[str, Any]:
        return {"specs": self.specs, "offsets": self._offsets, "nbytes": self.nbytes, "fd": reduction.DupFd(self._fd)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.specs, self._offsets, self.nbytes = state["specs"], state["offsets"], state["nbytes"]
        self._fd = state["fd"].detach()
        self._map()

    def lock(self) -> FileLock:
        """A lock between processes that goes with this block."""
        return FileLock(self._fd)

    def close(self) -> None:
        """Give the descriptor back; the memory goes with the last array over it. Harmless when called twice."""
        self.arrays.clear()
        if self._fd < 0:
            return
        os.close(self._fd)
        self._fd = -1
        with suppress(BufferError):  # somebody still looks at an array
            self._mmap.close()
        del self._mmap


class SharedFile:
    """Bytes of any length that no name in the file system refers to. They travel to child processes at spawn; nobody
    maps them, so they may grow.

    ``backing``, ``folder``: as ``SharedArrays`` has them.
    """

    def __init__(self, backing: str = "auto", folder: str | None = None) -> None:
        self._fd = _open_block(0, backing, folder)

    def write(self, pieces: Iterable[bytes | memoryview]) -> int:
        """Put these in the place of what was there; how many bytes they are. OSError where there is no room."""
        at = 0
        for piece in pieces:
            left = memoryview(piece)
            while left.nbytes:
                done = os.pwrite(self._fd, left, at)
                at, left = at + done, left[done:]
        return at

    def read(self, nbytes: int) -> bytes:
        """The first ``nbytes`` bytes. ValueError where there are fewer."""
        parts: list[bytes] = []
        at = 0
        while at < nbytes:
            parts.append(os.pread(self._fd, nbytes - at, at))
            if not parts[-1]:
                raise ValueError(f"shared file: expected {nbytes} bytes, got {at}")
            at += len(parts[-1])
        return b"".join(parts)

    def close(self) -> None:
        """Give the descriptor back; harmless when called twice."""
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1

    def __getstate__(self) -> dict[str, Any]:
        return {"fd": reduction.DupFd(self._fd)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._fd = state["fd"].detach()


def _open_block(nbytes: int, backing: str, folder: str | None) -> int:
    """A file descriptor of ``nbytes`` zero bytes that no name in the file system refers to."""
    if backing == "auto":
        backing = "memfd" if hasattr(os, "memfd_create") else "file"
    if backing == "memfd":
        fd = os.memfd_create("offbeat")
    elif backing == "file":
        fd, path = tempfile.mkstemp(prefix="offbeat-", dir=folder)
        os.unlink(path)
    else:
        raise ValueError(f"backing={backing!r}: allowed are 'auto', 'memfd' and 'file'")
    os.ftruncate(fd, nbytes)
    return fd


class FileLock:
    """A lock between processes, on a descriptor. The kernel takes it back from a process that dies. Not reentrant, and
    no lock between threads of one process.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def try_acquire(self) -> bool:
        """Take it, unless another process has it; whether it was taken."""
        try:
            fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            return False
        return True

    def release(self) -> None:
        """Give it back."""
        fcntl.lockf(self._descriptor, fcntl.LOCK_UN)

    def __enter__(self) -> None:
        fcntl.lockf(self._descriptor, fcntl.LOCK_EX)

    def __exit__(self, *exc: object) -> None:
        self.release()


class Bell:
    """Wakes one waiting process. Ringing before the wait is remembered; ringing twice wakes once. No locks inside."""

    def __init__(self) -> None:
        if sys.platform == "linux":
            self._read = self._write = os.eventfd(0, os.EFD_NONBLOCK)
        else:
            self._read, self._write = os.pipe()
            os.set_blocking(self._read, False)
            os.set_blocking(self._write, False)

    def ring(self) -> None:
        """Wake the waiter, now or at its next wait. Never blocks."""
        try:
            os.write(self._write, (1).to_bytes(8, sys.byteorder))
        except BlockingIOError:
            return  # full: it is rung already

    def wait(self, timeout_s: float) -> bool:
        """Sleep until rung or until the timeout; True if it was rung."""
        poll = select.poll()
        poll.register(self._read, select.POLLIN)
        if not poll.poll(max(0.0, timeout_s) * 1000):
            return False
        try:
            os.read(self._read, 4096 if self._read != self._write else 8)
        except BlockingIOError:
            return False
        return True

    def fileno(self) -> int:
        """The descriptor to wait on together with others."""
        return self._read

    def close(self) -> None:
        """Give the descriptors back; harmless when called twice."""
        for descriptor in {self._read, self._write} - {-1}:
            os.close(descriptor)
        self._read = self._write = -1

    def __getstate__(self) -> dict[str, Any]:
        same = self._read == self._write
        return {"read": reduction.DupFd(self._read), "write": None if same else reduction.DupFd(self._write)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._read = state["read"].detach()
        self._write = self._read if state["write"] is None else state["write"].detach()


@contextmanager
def beating(beat: Callable[[], object], every_s: float) -> Iterator[None]:
    """Call ``beat`` from a thread every so many seconds for as long as this lasts."""
    done = threading.Event()

    def run() -> None:
        while not done.wait(every_s):
            beat()

    thread = threading.Thread(target=run, name="heart", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


class Heart:
    """One role's sign of life: a time in shared memory that the supervisor watches."""

    def __init__(self, beats: SharedArrays, index: int, clock: Clock = WALL) -> None:
        self._beats, self._index, self._clock = beats, index, clock

    def beat(self) -> None:
        """Say that this role is alive now."""
        self._beats["beat"][self._index] = self._clock.now()

    def last(self) -> float:
        """When the last beat was, on the clock; 0 before the first."""
        return float(self._beats["beat"][self._index])

    def clear(self) -> None:
        """Forget the beats of an earlier incarnation."""
        self._beats["beat"][self._index] = 0.0

    @contextmanager
    def beating(self) -> Iterator[None]:
        """Beat by itself, from a thread, while something long is done in one go: loading, saving, compiling.

        A process that is stopped, or hangs in code that never lets another thread run, falls silent all the same.
        """
        self.beat()
        try:
            with beating(self.beat, SLICE_S):
                yield
        finally:
            self.beat()


class Wait:
    """How one role waits: on its bell, with a name, a timeout and a measure, watching for the end of the run.

    ``seconds`` sums up the time spent waiting, by name.
    """

    def __init__(
        self, bell: Bell, stopped: Callable[[], bool], heart: Heart | None = None, clock: Clock = WALL
    ) -> None:
        self.bell, self.stopped, self.heart, self._clock = bell, stopped, heart, clock
        self.seconds: dict[str, float] = {}
        self._parent = os.getppid()

    def until(self, name: str, ready: Callable[[], bool], timeout_s: float = float("inf")) -> bool:
        """Sleep until ``ready()``; False after ``timeout_s``.

        Raises ``Stopped`` when the run ends or this process's parent is gone.
        """
        if ready():
            return True
        start = self._clock.now()
        try:
            while True:
                if self.stopped():
                    raise Stopped(name)
                if os.getppid() != self._parent:
                    raise Stopped(f"{name}: the parent process is gone")
                left = timeout_s - (self._clock.now() - start)
                if left <= 0:
                    return False
                self.bell.wait(min(left, SLICE_S))
                if self.heart is not None:
                    self.heart.beat()
                if ready():
                    return True
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + self._clock.now() - start


def make_guard(force: bool = False) -> AbstractContextManager[Any] | None:
    """A lock for architectures whose stores may become visible out of order; None on x86-64, which needs none."""
    if platform.machine() in ("x86_64", "AMD64") and not force:
        return None
    return _TimedLock()


class _TimedLock:
    """A process-shared lock that a killed holder cannot keep for ever: after ten seconds it is taken as free."""

    def __init__(self) -> None:
        self._lock = multiprocessing.get_context("spawn").Lock()

    def __enter__(self) -> None:
        if not self._lock.acquire(timeout=10.0):
            return  # its holder was killed between two instructions: the stamps still show a torn row

    def __exit__(self, *exc: object) -> None:
        with suppress(ValueError):  # not held: it was left behind by a killed process
            self._lock.release()
