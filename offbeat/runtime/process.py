"""A role in a process of its own, as the main process sees it: how it is started, told, heard, and how it dies.

What the process itself runs is in ``child.py``, what the two say to each other in ``link.py``.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any, Protocol

from offbeat.runtime.child import role_main
from offbeat.runtime.clock import WALL, Clock
from offbeat.runtime.link import Inbox
from offbeat.runtime.services import Offer
from offbeat.runtime.spawning import native_threads, signals_held, tied_to_this_thread, without_a_script
from offbeat.runtime.world import World


class MakeOffer(Protocol):
    """Makes what is sent to the process of a role, so that it gets its services there."""

    def __call__(self, world: World, role: str, *, free: bool, incarnation: int, checkpoint: Path | None) -> Offer:
        """For one start of ``role``; ``checkpoint``: what it goes on from."""


def lower_priority(pid: int, by: int) -> None:
    """Give a process the niceness of this one and ``by`` more, so that it never stands before it. Raises OSError."""
    os.setpriority(os.PRIO_PROCESS, pid, min(19, os.getpriority(os.PRIO_PROCESS, 0) + by))


class RoleProcess:
    """The parent's end of one role."""

    _clock: Clock = WALL

    def __init__(
        self,
        world: World,
        role: str,
        *,
        lockstep: bool,
        incarnation: int = 0,
        checkpoint: Path | None = None,
        offer: MakeOffer,
    ) -> None:
        context = multiprocessing.get_context("spawn")
        self._clock = world.clock
        self.role, self.row, self.incarnation = role, world.topology.row(role), incarnation
        pipe, child = context.Pipe()
        self._listen(pipe)
        self.heart = world.heart(role)
        self.heart.clear()
        self._stack_path = world.log_path.with_name(f".stack-{role}-{os.getpid()}")
        offered = offer(world, role, free=not lockstep, incarnation=incarnation, checkpoint=checkpoint)
        arguments = (offered, self.row, child, lockstep, self._stack_path)
        self.process = context.Process(target=role_main, args=arguments, name=f"offbeat-{role}", daemon=True)
        resource_tracker.ensure_running()  # it would end the hold of the next line
        with native_threads(self.row.threads), signals_held(), without_a_script(), tied_to_this_thread():
            self.process.start()
        if self.row.nice and self.process.pid is not None:
            with suppress(OSError):
                lower_priority(self.process.pid, self.row.nice)
        child.close()

    def _listen(self, pipe: Any) -> None:
        """Nothing was asked, nothing heard yet."""
        self.pipe, self._inbox = pipe, Inbox(pipe)
        self.finished = self.busy = False
        self.error: str | None = None
        self.result: dict[str, Any] | None = None
        self.complaints: list[str] = []
        self.aside = False
        """Whether it was ended and is looked after no more."""
        self.longest_silence_s = 0.0
        """Longest time between two signs of life so far."""
        self.lost_at: float | None = None
        """The last sign of life before it was given up; None: it was not."""
        self._beat = 0.0
        self._number = 0
        self._asked = self._clock.now()

    def command(self, name: str, **arguments: Any) -> None:
        """Tell the role to do something; its answer arrives as ``result``, and answers to earlier commands no more."""
        self.busy, self.result, self._asked = True, None, self._clock.now()
        self._number += 1
        try:
            self.pipe.send_bytes(json.dumps({"command": name, "id": self._number} | arguments).encode())
        except OSError:
            self.busy = False  # dead: whoever watches it will notice

    def read(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """All records (kind, values) that have arrived; answers, errors and complaints are kept in attributes."""
        if self.pipe.closed:
            return
        for message in self._inbox.messages():
            match message["type"]:
                case "records":
                    yield from ((kind, values) for kind, values in message["records"])
                case "result" if message["id"] == self._number:
                    self.result, self.busy = message["values"], False
                case "finished":
                    self.finished = True
                case "error":
                    self.error = message["text"]
                case "complaint":
                    self.complaints.append(message["text"])

    def alive(self) -> bool:
        """Whether the process runs."""
        return self.process.is_alive()

    def started(self) -> bool:
        """Whether it has shown a sign of life."""
        return self.heart.last() > 0

    def excuse(self) -> None:
        """Count silence from now on."""
        self._asked, self._beat = self._clock.now(), 0.0

    def note_silence(self) -> None:
        """Look at the signs of life, for ``longest_silence_s``."""
        last = self.heart.last()
        if self._beat:
            self.longest_silence_s = max(self.longest_silence_s, last - self._beat)
        self._beat = last

    def silent_s(self) -> float:
        """Seconds since the last sign of life or, if it came later, since the start or the last command."""
        return self._clock.now() - max(self.heart.last(), self._asked)

    def is_stopped(self) -> bool:
        """Whether somebody has stopped it (SIGSTOP); False where the system does not tell."""
        try:
            state = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (OSError, IndexError):
            return False
        return state in ("T", "t")

    def stack(self, wait_s: float = 1.0) -> str:
        """Ask the process for its Python stacks; empty if it does not answer."""
        if self.process.pid is None or not self.alive() or not self._stack_path.exists():
            return ""  # one that has not come so far would die of the signal
        os.kill(self.process.pid, signal.SIGUSR1)
        deadline = self._clock.now() + wait_s
        while self._clock.now() < deadline:
            self._clock.sleep(0.05)
            if self._stack_path.exists() and (text := self._stack_path.read_text()):
                return text
        return ""

    def kill(self) -> None:
        """End the process at once and wait for it; with what it had started, unless it came to its own end."""
        if self.process.pid is not None and (self.alive() or (self.process.exitcode or 0) < 0):
            with suppress(ProcessLookupError, PermissionError):  # nobody is left, or it never had a group of its own
                os.killpg(self.process.pid, signal.SIGKILL)
        self.process.kill()
        self.process.join(timeout=10.0)
        self.close()

    def join(self, timeout_s: float) -> bool:
        """Wait for the process to end by itself."""
        self.process.join(timeout=timeout_s)
        return not self.alive()

    def close(self) -> None:
        """Close the pipe and remove the stack file."""
        self.pipe.close()
        with suppress(OSError):  # on a disk that has become read-only it stays
            self._stack_path.unlink(missing_ok=True)

    def free(self) -> None:
        """Give back what the system keeps of a process that has ended."""
        self.close()
        if not self.alive():
            self.process.close()

    def was_killed(self) -> bool:
        """Whether a signal ended it: somebody's, the system's for want of memory, or a crash outside Python."""
        return (self.process.exitcode or 0) < 0

    def death(self) -> str:
        """How the process died, in words."""
        code = self.process.exitcode
        if code is not None and code < 0:
            return f"was killed by {signal.Signals(-code).name}"
        return f"ended with exit code {code}"


def remove_stacks(run: Path) -> None:
    """Remove the stack files of processes of an earlier run in this folder that was killed."""
    for path in run.glob(".stack-*"):
        path.unlink(missing_ok=True)
