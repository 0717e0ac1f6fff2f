"""A role in a process of its own: how it is started, what it is told, what it reports, how it dies.

Parent and child talk JSON over a pipe: commands down, records, results and errors up. The child sets its own thread
counts before torch starts, ignores Ctrl-C (the parent decides), and writes its stack to the log when it is asked.
"""

from __future__ import annotations

import faulthandler
import json
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from offbeat.checkpoint import CheckpointError
from offbeat.runtime.ports import Stopped
from offbeat.runtime.spans import record
from offbeat.runtime.world import World

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
"""Read by native libraries when they are loaded, so they are set before the child starts."""

ORDERS_S = 0.5
"""Longest sleep of a role that waits for commands, before it looks whether the run ends. Unit: seconds."""
EVALUATOR_NICE = 5
"""Scores can wait, training and its start cannot."""
HELD = (signal.SIGINT, signal.SIGTERM)
"""Signals that are the parent's business."""

KEEP_PAGES = ":".join(
    f"glibc.malloc.{name}" for name in ("mmap_threshold=4294967296", "trim_threshold=4294967296", "hugetlb=1")
)
"""Large tensors are freed and allocated again in every update. glibc would give their pages back each time and take
new, zeroed ones: a page fault per 4 KiB, a fifth of a training step on a CPU. So it keeps them, in huge pages. Other C
libraries ignore this."""


class RoleProcess:
    """The parent's end of one role."""

    def __init__(
        self, world: World, role: str, *, lockstep: bool, incarnation: int = 0, checkpoint: Path | None = None
    ) -> None:
        context = multiprocessing.get_context("spawn")
        self.role, self.incarnation = role, incarnation
        self.pipe, child = context.Pipe()
        self.finished = self.busy = False
        self.error: str | None = None
        self.result: dict[str, Any] | None = None
        self.heart = world.heart(role)
        self.heart.clear()
        self._asked = time.monotonic()
        self._stack_path = world.log_path.with_name(f".stack-{role}-{os.getpid()}")
        arguments = (world, role, child, lockstep, incarnation, checkpoint, self._stack_path)
        self.process = context.Process(target=role_main, args=arguments, name=f"offbeat-{role}", daemon=True)
        resource_tracker.ensure_running()  # it would end the hold of the next line
        with native_threads(_thread_count(world, role)), signals_held():
            self.process.start()
        if role == "evaluator" and self.process.pid is not None:
            with suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, self.process.pid, EVALUATOR_NICE)
        child.close()

    def command(self, name: str, **arguments: Any) -> None:
        """Tell the role to do something; its answer arrives as ``result``."""
        self.busy, self.result, self._asked = True, None, time.monotonic()
        try:
            self.pipe.send_bytes(json.dumps({"command": name} | arguments).encode())
        except (BrokenPipeError, OSError):
            self.busy = False  # dead: whoever watches it will notice

    def read(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """All records (kind, values) that have arrived; results and errors are kept in attributes."""
        while True:
            try:
                if not self.pipe.poll():
                    return
                message = json.loads(self.pipe.recv_bytes())
            except (EOFError, OSError):
                return
            match message["type"]:
                case "records":
                    yield from ((kind, values) for kind, values in message["records"])
                case "result":
                    self.result, self.busy = message["values"], False
                case "finished":
                    self.finished = True
                case "error":
                    self.error = message["text"]

    def alive(self) -> bool:
        """Whether the process runs."""
        return self.process.is_alive()

    def excuse(self) -> None:
        """Count silence from now on."""
        self._asked = time.monotonic()

    def silent_s(self) -> float:
        """Seconds since the last sign of life or, if it came later, since the start or the last command."""
        return time.monotonic() - max(self.heart.last(), self._asked)

    def stack(self, wait_s: float = 1.0) -> str:
        """Ask the process for its Python stacks; empty if it does not answer."""
        if self.process.pid is None or not self.alive():
            return ""
        os.kill(self.process.pid, signal.SIGUSR1)
        deadline = time.monotonic() + wait_s
        while time.monotonic() < deadline:
            time.sleep(0.05)
            if self._stack_path.exists() and (text := self._stack_path.read_text()):
                return text
        return ""

    def kill(self) -> None:
        """End the process at once and wait for it."""
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
        self._stack_path.unlink(missing_ok=True)

    def death(self) -> str:
        """How the process died, in words."""
        code = self.process.exitcode
        if code is not None and code < 0:
            return f"was killed by {signal.Signals(-code).name}"
        return f"ended with exit code {code}"


class Link:
    """The child's end: a metric sink, and the source of its commands.

    Records wait until the role looks for commands, which it does after each block, and go in one message then: games
    that end every millisecond would otherwise keep both ends busy with messages.
    """

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._records: list[tuple[str, dict[str, float]]] = []

    def write(self, kind: str, values: dict[str, float]) -> None:
        """One record for the metrics."""
        self._records.append((kind, values))

    def result(self, values: dict[str, Any]) -> None:
        """The answer to a command."""
        self._send({"type": "result", "values": values})

    def finished(self) -> None:
        """The role's loop has ended by itself."""
        self._send({"type": "finished"})

    def error(self, text: str) -> None:
        """The role fails; ``text`` is its traceback."""
        self._send({"type": "error", "text": text})

    def command(self, timeout_s: float | None) -> dict[str, Any] | None:
        """The next command; None if there was none within the time (None: wait for ever). Sends the records first."""
        self._flush()
        if not self._pipe.poll(timeout_s):
            return None
        command: dict[str, Any] = json.loads(self._pipe.recv_bytes())
        return command

    def _flush(self) -> None:
        records, self._records = self._records, []
        if records:
            self._pipe.send_bytes(json.dumps({"type": "records", "records": records}).encode())

    def _send(self, message: dict[str, Any]) -> None:
        self._flush()
        self._pipe.send_bytes(json.dumps(message).encode())


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


def _thread_count(world: World, role: str) -> int:
    config = world.config
    counts = {
        "learner": config.learner.threads,
        "evaluator": config.evaluation.threads,
        "inference": config.inference.threads,
    }
    return counts.get(role, config.actor.threads)


def role_main(
    world: World,
    role: str,
    pipe: Connection,
    lockstep: bool,
    incarnation: int,
    checkpoint: Path | None,
    stack_path: Path,
) -> None:
    """What a child process runs: build the role's host, then serve commands or run freely, until the run ends."""
    for number in HELD:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HELD)
    threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()
    link = Link(pipe)
    with stack_path.open("w") as stack:
        faulthandler.register(signal.SIGUSR1, file=stack, all_threads=True)
        try:
            serve(world, role, link, lockstep, incarnation, checkpoint)
        except (Stopped, EOFError, BrokenPipeError):
            sys.exit(0)  # the run ends, or its parent is gone
        except BaseException:
            link.error(traceback.format_exc())
            sys.exit(1)


def _end_with_parent() -> None:
    """End this process when its parent is gone, whatever it is doing: also in an environment that hangs."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "roles are always children"
    parent.join()
    os._exit(1)


def serve(world: World, role: str, link: Link, lockstep: bool, incarnation: int, checkpoint: Path | None) -> None:
    """Build the host, run its loop, answer commands. A learner that fails can still be told to save."""
    from offbeat.runtime.making import make_host  # imports torch: after the thread counts are set

    host = make_host(world, role, link, free=not lockstep, incarnation=incarnation, checkpoint=checkpoint)
    spans = record(world, role, host)
    try:
        if lockstep or not hasattr(host, "steps") or _run_freely(host, link):
            _take_orders(host, link, world)
    except (Stopped, EOFError, BrokenPipeError):
        raise
    except Exception:
        if role != "learner":
            raise
        link.error(traceback.format_exc())
        _take_orders(host, link, world)
        sys.exit(1)
    finally:
        if spans is not None:
            spans.close()
    host.close()


def _run_freely(host: Any, link: Link) -> bool:
    """Run the role's loop to its end, carrying out commands between its steps; False if it was told to stop."""
    for _ in host.steps():
        if hasattr(host, "post"):
            host.post()
        command = link.command(0)
        if command is not None and not _obey(host, command, link):
            return False
    link.finished()
    return True


def _take_orders(host: Any, link: Link, world: World) -> None:
    """Carry out commands until the last one, or until the run ends."""
    while not world.stopped():
        command = link.command(ORDERS_S)
        if command is not None and not _obey(host, command, link):
            return


def _obey(host: Any, command: dict[str, Any], link: Link) -> bool:
    """Carry out one command; False if it was the last."""
    match command.pop("command"):
        case "stop":
            return False
        case "hello":
            link.result({})
        case "advance":
            link.result(host.advance())
        case "save":
            try:
                link.result(host.save(Path(command["folder"])))
            except (CheckpointError, OSError) as error:  # a full disk ends no run
                link.result({"error": str(error)})
        case "evaluate":
            link.result(host.evaluate(**command))
    return True
