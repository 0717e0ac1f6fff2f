"""What ``offbeat envs check`` says of an environment, and how its code is called meanwhile: whatever that does becomes
a line of the report.
"""

from __future__ import annotations

import contextlib
import io
import os
import signal
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from offbeat.envs.base import EnvUnavailable, StateUnsupported

WIDTH = 118
"""Columns of a report. Unit: characters."""
LONGEST = 300
"""Of what an environment raised so much is shown. Unit: characters."""


@dataclass(frozen=True)
class EnvReport:
    """What was found out about an environment; ``str()`` of it is for people to read."""

    name: str
    """Its id, or the class or function that makes it."""
    errors: tuple[str, ...]
    """Why a run would be refused, would end, or would learn from something wrong; one line each."""
    warnings: tuple[str, ...]
    """What works but had better be otherwise."""
    facts: dict[str, str]
    """Everything else: what it is about -> what was seen."""

    @property
    def ok(self) -> bool:
        """Whether it can be trained on."""
        return not self.errors

    def __str__(self) -> str:
        width = max(map(len, self.facts), default=0) + 2
        lines = [f"{self.name}: {_count(len(self.errors), 'error')}, {_count(len(self.warnings), 'warning')}", ""]
        for about, text in self.facts.items():
            lines += _wrapped(text, f"  {about:<{width}}", " " * (width + 2))
        for title, found in (("errors", self.errors), ("warnings", self.warnings)):
            if found:
                lines += ["", f"{title}:"]
                lines += [line for text in found for line in _wrapped(text, "  - ", "    ")]
        return "\n".join(lines)


def _count(number: int, what: str) -> str:
    return f"{number or 'no'} {what}{'' if number == 1 else 's'}"


def _wrapped(text: str, first: str, other: str) -> list[str]:
    return textwrap.wrap(
        text, WIDTH, initial_indent=first, subsequent_indent=other, break_long_words=False, break_on_hyphens=False
    )


@dataclass
class Findings:
    """A report that grows. Nothing is said twice."""

    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    facts: dict[str, str] = field(default_factory=dict)

    def error(self, text: str) -> None:
        """Note an error, on one line."""
        _note(self.errors, text)

    def warning(self, text: str) -> None:
        """Note a warning, on one line."""
        _note(self.warnings, text)

    def report(self, name: str) -> EnvReport:
        """What was found so far."""
        return EnvReport(name, tuple(self.errors), tuple(self.warnings), dict(self.facts))


def _note(lines: list[str], text: str) -> None:
    line = " ".join(text.split())
    if line not in lines:
        lines.append(line)


class Overdue(BaseException):
    """A call into the environment took too long. Not an ``Exception``, which the environment might catch."""


class Sandbox:
    """Calls a user's environment such that whatever it raises, prints and changes is noted down and goes no further.

    Args:
        found: where it is noted.
    """

    def __init__(self, found: Findings) -> None:
        self.found = found
        self.printed = 0
        """Lines that were printed."""
        self._raised: tuple[BaseException, str, str] | None = None
        self._home = os.getcwd()

    @contextmanager
    def calling(self, what: str, then: str = "; a run ends there") -> Iterator[None]:
        """What is raised inside is the environment's own, raised by its ``what``; ``then``: what that means."""
        try:
            yield
        except BaseException as error:
            self._raised = error, what, then
            raise

    @contextmanager
    def trying(self, what: str, seconds: float | None, note: Callable[[str], None] | None = None) -> Iterator[None]:
        """What goes wrong inside is noted (as an error, unless ``note`` is given), and so is what takes longer than
        ``seconds``, where this can be measured (None: no bound). ``EnvUnavailable`` and Ctrl-C go through.
        """
        note = note or self.found.error
        sink = _Sink(self)
        try:
            with contextlib.redirect_stdout(sink), _alarm(seconds):
                yield
        except (KeyboardInterrupt, EnvUnavailable):
            raise
        except Overdue:
            where = self._raised[1] if self._raised is not None else what
            note(
                f"{where} had not returned after {seconds:g} seconds and was broken off; a run would take it for hung "
                "after actor.hang_timeout_s"
            )
        except BaseException as error:
            note(self._said(error, what))
        finally:
            self._raised = None
            self._go_home()

    def _said(self, error: BaseException, what: str) -> str:
        """One line about an exception: of the environment, or a refusal of ours, which says everything itself."""
        if self._raised is not None and self._raised[0] is error:
            return f"{self._raised[1]} raised {_named(error)}{self._raised[2]}"
        if isinstance(error, ValueError | StateUnsupported):
            return str(error)
        return f"{what} failed: {_named(error)}"

    def _go_home(self) -> None:
        """Back to the working directory, if it was left."""
        try:
            here = os.getcwd()
        except OSError:
            here = "one that is no more"
        if here != self._home:
            self.found.warning(
                f"it changes the working directory (to {here}): relative paths of a run and of your program lead "
                "elsewhere then; use absolute paths instead"
            )
            os.chdir(self._home)


def _named(error: BaseException) -> str:
    """The class of an exception and what it says, if it can say it."""
    try:
        said = f": {error}".rstrip(" :")
    except Exception as another:
        said = f" (whose text raises {type(another).__name__})"
    text = type(error).__name__ + said
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."


class _Sink(io.TextIOBase):
    """Takes what is printed, and counts its lines."""

    def __init__(self, box: Sandbox) -> None:
        self._box = box

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        self._box.printed += text.count("\n")
        return len(text)


@contextmanager
def _alarm(seconds: float | None) -> Iterator[None]:
    """``Overdue`` is raised inside after so long: only in the main thread, and only where Python gets to it."""
    here = threading.current_thread() is threading.main_thread()
    if seconds is None or not here or not hasattr(signal, "setitimer"):
        yield
        return

    def ring(number: int, frame: Any) -> None:
        raise Overdue

    started, before = time.monotonic(), signal.signal(signal.SIGALRM, ring)
    left, _ = signal.setitimer(signal.ITIMER_REAL, seconds)  # somebody else's alarm goes on afterwards
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before or signal.SIG_DFL)
        if left:
            signal.setitimer(signal.ITIMER_REAL, max(1e-3, left - (time.monotonic() - started)))
