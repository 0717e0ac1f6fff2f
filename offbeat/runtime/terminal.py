"""What a run prints on. Texts wait for a thread that writes them, so that no terminal can end training or hold it up:
one that is gone, a full disk behind ``>``, a pipe that nobody reads, a closed descriptor.
"""

from __future__ import annotations

import io
import os
import queue
import select
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Protocol, TextIO

from offbeat.runtime.clock import WALL, Clock

MOST_WAITING = 1000
"""Texts that wait for their reader; further ones are left out and counted."""
LONGEST = 1 << 16
"""Longest text that waits in one piece. Unit: characters."""
PIECE = 4096
"""Bytes of one write: so many fit into a pipe together, and each one shows that somebody still reads."""
STUCK_S = 0.5
"""A write that takes so long waits for a reader that may never come. Unit: seconds."""
CLOSE_S = 5.0
"""The last texts may take so long when a command ends, while somebody reads. Unit: seconds."""

Say = Callable[[str], None]


class Notices:
    """Says once that a place to print on fails, and once that it works again."""

    def __init__(self, name: str) -> None:
        """``name``: of the place, e.g. "standard output"."""
        self._name, self._unsaid = name, deque[str]()
        self._say: Say | None = None
        self.failing = False
        self.left_out = 0
        """Lines that were left out since it last worked."""

    def tell(self, say: Say | None) -> None:
        """Who hears of it from now on; also what nobody heard so far."""
        self._say = say
        self._pass_on()

    def fails(self, reason: str, text: str) -> None:
        """``text`` could not be shown."""
        self.left_out += max(1, text.count("\n"))
        if not self.failing:
            self.failing = True
            self._unsaid.append(f"{self._name} takes no more lines ({reason}); the run goes on without it")
            self._pass_on()

    def works(self) -> None:
        """A text was shown."""
        if self.failing:
            self.failing = False
            self._unsaid.append(f"{self._name} works again; {self.left_out} lines were left out")
            self._pass_on()

    def _pass_on(self) -> None:
        while self._say is not None and self._unsaid:
            self._say(self._unsaid.popleft())


class Place(Protocol):
    """Where texts go."""

    notices: Notices

    def put(self, text: str) -> None:
        """Show a text, some time; never raises, never waits for a reader."""

    def close(self) -> None:
        """Show what still waits, as far as somebody reads."""


class Outlet:
    """The way to a descriptor of this process. Its thread starts with the first text.

    Nothing here takes a lock: a signal handler may print in the middle of a print.
    """

    def __init__(self, descriptor: int, name: str, clock: Clock = WALL) -> None:
        """``descriptor`` stays open, and stays its owner's; ``name`` is said when it fails."""
        self.notices = Notices(name)
        self._descriptor, self._clock = descriptor, clock
        self._own: list[int] = []
        self._texts: queue.SimpleQueue[str | threading.Event | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="terminal", daemon=True)
        self._started = threading.Lock()
        self._since: float | None = None
        self._process = os.getpid()

    def put(self, text: str) -> None:
        """Let ``text`` wait for its turn; left out if too many wait already and nobody reads."""
        if os.getpid() != self._process:  # somebody forked; threads stay behind
            self._show(text)
            return
        if self._started.acquire(blocking=False):  # the first one here, and only that one
            self._thread.start()
        for start in range(0, len(text), LONGEST):
            self._queue(text[start : start + LONGEST])

    def _queue(self, text: str) -> None:
        if not self._has_room():
            self.notices.fails("nobody reads it", text)
            return
        if self.notices.left_out and not self.notices.failing:
            left_out, self.notices.left_out = self.notices.left_out, 0
            text = f"({left_out} lines were left out here)\n{text}"
        self._texts.put(text)

    @property
    def descriptor(self) -> int:
        """Where texts are written to."""
        return self._descriptor

    @descriptor.setter
    def descriptor(self, descriptor: int) -> None:
        """Write to another one from the next text on."""
        self._descriptor = descriptor

    def keep(self, descriptor: int) -> None:
        """Close ``descriptor``, which texts may be on the way to, when the thread has ended."""
        self._own.append(descriptor)

    def close(self) -> None:
        """Write what waits, as long as somebody reads."""
        if self._started.locked():
            self._texts.put(None)
            self._wait(lambda: self._thread.join(0.02), lambda: not self._thread.is_alive())
            if self._thread.is_alive():
                return
        while self._own:
            os.close(self._own.pop())

    def settle(self) -> None:
        """Write what waits now, as long as somebody reads; further texts may follow."""
        if self._started.locked():
            written = threading.Event()
            self._texts.put(written)
            self._wait(lambda: written.wait(0.02), lambda: written.is_set() or not self._thread.is_alive())

    def _wait(self, shortly: Callable[[], object], over: Callable[[], bool]) -> None:
        deadline = self._clock.now() + CLOSE_S
        while not over() and not self._stuck() and self._clock.now() < deadline:
            shortly()

    def _has_room(self) -> bool:
        """Whether one more text may wait. A thread that is only slow gets the time to make room."""
        while self._texts.qsize() >= MOST_WAITING:
            if self._stuck() or not self._thread.is_alive():
                return False
            self._clock.sleep(0.001)
        return True

    def _stuck(self) -> bool:
        since = self._since
        return since is not None and self._clock.now() - since > STUCK_S

    def _work(self) -> None:
        while (text := self._texts.get()) is not None:
            if isinstance(text, str):
                self._show(text)
            else:
                text.set()

    def _show(self, text: str) -> None:
        data = text.encode(errors="backslashreplace")
        try:
            for start in range(0, len(data), PIECE):
                self._write(data[start : start + PIECE])
        except OSError as error:
            self.notices.fails(error.strerror or str(error), text)
        else:
            self.notices.works()
        finally:
            self._since = None

    def _write(self, data: bytes) -> None:
        while data:
            self._since = self._clock.now()
            try:
                data = data[os.write(self._descriptor, data) :]
            except BlockingIOError:  # whoever shares the terminal with us has set it so
                select.select([], [self._descriptor], [])


class Through:
    """The way to a stream that is none of the process's own, e.g. a notebook's: at once, but it cannot raise."""

    def __init__(self, stream: TextIO | None, name: str) -> None:
        """``stream``: None if it was closed before the process started."""
        self.notices = Notices(name)
        self._stream = stream

    def put(self, text: str) -> None:
        """Write and flush."""
        if self._stream is None:
            self.notices.fails("it is closed", text)
            return
        try:
            self._stream.write(text)
            self._stream.flush()
        except Exception as error:  # somebody else's stream raises what it likes; it is said
            self.notices.fails(f"{type(error).__name__}: {error}", text)
        else:
            self.notices.works()
            self.notices.left_out = 0

    def close(self) -> None:
        """Nothing waits."""


class Screen(io.TextIOBase):
    """Stands in the place of ``sys.stdout`` or ``sys.stderr`` and hands whole lines on to a place."""

    def __init__(self, stream: TextIO | None, place: Place) -> None:
        """``stream``: what it stands for."""
        self.place = place
        self._stream = stream
        self._parts: deque[str] = deque()

    def write(self, text: str) -> int:
        """Take ``text``; it is handed on with its line end or with ``flush``."""
        self._parts.append(text)
        if "\n" in text:
            self.flush()
        return len(text)

    def flush(self) -> None:
        """Hand on what waits for its line end."""
        parts = []
        with suppress(IndexError):  # empty; a signal handler may have taken the rest
            while True:
                parts.append(self._parts.popleft())
        if parts:
            self.place.put("".join(parts))

    def isatty(self) -> bool:
        """Whether a person looks at it."""
        return self._stream is not None and self._stream.isatty()

    def fileno(self) -> int:
        """Descriptor of what it stands for."""
        if self._stream is None:
            raise OSError("it is closed")
        return self._stream.fileno()

    def writable(self) -> bool:
        """Always."""
        return True

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """Of what it stands for."""
        return getattr(self._stream, "encoding", None) or "utf-8"

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def guarded() -> Iterator[None]:
    """Prints in this block neither raise nor wait for a reader. Blocks may lie within each other."""
    if isinstance(sys.stdout, Screen):
        yield
        return
    out, err = sys.stdout, sys.stderr
    lines = Screen(out, _place(out, "standard output"))
    errors = Screen(err, lines.place if _same_file(out, err) else _place(err, "standard error"))
    if lines.place is not errors.place:  # whoever pipes the one away still looks at the other
        lines.place.notices.tell(lambda text: errors.place.put(f"offbeat: {text}\n"))
    sys.stdout, sys.stderr = lines, errors
    try:
        yield
    finally:
        sys.stdout, sys.stderr = out, err
        for screen in (lines, errors):
            screen.flush()
            screen.place.notices.tell(None)
        for screen, stream in ((lines, out), (errors, err)):
            screen.place.close()
            screen.place = Through(stream, "output")  # for whoever still holds it


@contextmanager
def troubles_told(say: Say) -> Iterator[None]:
    """``say`` hears in this block which of the guarded outputs fails."""
    places = {id(s.place): s.place for s in (sys.stdout, sys.stderr) if isinstance(s, Screen)}
    errors = sys.stderr

    def told(text: str) -> None:
        say(text)
        if len(places) == 2 and isinstance(errors, Screen) and not errors.place.notices.failing:
            errors.place.put(f"offbeat: {text}\n")

    for place in places.values():
        place.notices.tell(told)
    try:
        yield
    finally:
        for place in places.values():
            place.notices.tell(None)


def open_closed_descriptors() -> None:
    """Put the null device where standard input, output or error is closed.

    The next file opened would take its number otherwise, and get what libraries print.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number: this one
            os.set_inheritable(descriptor, True)


def output_broken() -> bool:
    """Whether standard output cannot be written: its reader has gone, or what was printed cannot be stored."""
    out = sys.stdout
    if out is None or isinstance(out, Screen):
        return False
    try:
        out.flush()
    except OSError:
        return True
    except ValueError:  # closed by whoever called us
        return False
    descriptor = _descriptor(out)
    if descriptor is None:
        return False
    poll = select.poll()
    poll.register(descriptor, 0)
    try:
        os.write(descriptor, b"")
    except OSError:
        return True
    return any(found & (select.POLLERR | select.POLLHUP) for _, found in poll.poll(0))


def drop_output() -> None:
    """What was or will be printed on standard output goes nowhere: Python flushes it once more at its end."""
    descriptor = _descriptor(sys.stdout)
    if descriptor is not None:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, descriptor)
        os.close(null)


def _place(stream: TextIO | None, name: str) -> Place:
    descriptor = _descriptor(stream)
    if stream is None or descriptor is None:
        return Through(stream, name)
    with suppress(OSError, ValueError):
        stream.flush()
    return Outlet(descriptor, name)


def _descriptor(stream: Any) -> int | None:
    """Descriptor of a stream of the process's own; None for any other stream."""
    if stream is None or stream not in (sys.__stdout__, sys.__stderr__):
        return None
    try:
        return int(stream.fileno())
    except (OSError, ValueError):
        return None


def _same_file(one: TextIO | None, other: TextIO | None) -> bool:
    """Whether both are the same terminal, pipe or file."""
    first, second = _descriptor(one), _descriptor(other)
    return first is not None and second is not None and os.path.sameopenfile(first, second)
