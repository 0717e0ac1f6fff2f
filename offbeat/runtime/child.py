"""What the process of a role runs: it builds the role, runs its loop, carries out commands, and tells how it ended."""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TextIO

from offbeat.runtime.forking import handle_here
from offbeat.runtime.host import Host, built, closing_failed
from offbeat.runtime.link import Link, ParentGone
from offbeat.runtime.ports import Stopped
from offbeat.runtime.services import Offer, Services
from offbeat.runtime.spawning import HELD
from offbeat.runtime.terminal import guarded
from offbeat.runtime.topology import Role
from offbeat.storage.checkpoint import CheckpointError

ORDERS_S = 0.5
"""Longest sleep of a role that waits for commands, before it looks whether the run ends. Unit: seconds."""


def role_main(offer: Offer, row: Role, pipe: Connection, lockstep: bool, stack_path: Path) -> None:
    """What a child process runs: build the role, then serve commands or run freely, until the run ends."""
    _leave_signals_to_parent()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HELD)
    threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()
    _allow_children()
    link = Link(pipe)
    with guarded(), _stack_file(stack_path) as stack:
        faulthandler.register(signal.SIGUSR1, file=stack, all_threads=True)
        try:
            failed = serve(offer(link), row, link, lockstep)
        except (Stopped, ParentGone):
            failed = False
        except BaseException:  # of the environments or the agent: theirs may be of any class, SystemExit too
            failed = True
            _tell(link, traceback.format_exc())
    sys.exit(int(failed))


def _allow_children() -> None:
    """Let environments start processes of their own, which multiprocessing forbids those that end with their parent."""
    with suppress(AttributeError, KeyError):
        multiprocessing.current_process()._config["daemon"] = False  # type: ignore[attr-defined]


def _leave_signals_to_parent() -> None:
    """Let signals that are the parent's business do nothing here. Ignored, they would be so in what environments start.

    That has the default ones, in this process group, which a terminal does not tell of Ctrl-C: environments need it
    until the run is saved. It may write to the terminal as before.
    """
    os.setpgid(0, 0)
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    for number in handle_here(HELD, lambda number, frame: None):
        signal.siginterrupt(number, False)  # for libraries that do not call again when a signal comes between


def _stack_file(path: Path) -> TextIO:
    """Where this process writes its stacks when it is asked; nowhere if the disk takes no file."""
    try:
        return path.open("w")
    except OSError:
        return open(os.devnull, "w")


def _tell(link: Link, text: str) -> None:
    """Say why the role ends, if anybody listens."""
    try:
        link.error(text)
    except ParentGone:
        print(text, file=sys.stderr)


def _end_with_parent() -> None:
    """End this process when its parent is gone, also in an environment that hangs, where the kernel does not do it."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "roles are always children"
    parent.join()
    os._exit(1)


def serve(services: Services, row: Role, link: Link, lockstep: bool) -> bool:
    """Build the role, run its loop, answer commands; True if it failed. A learner that fails can still be told to
    save.
    """
    host = built(row.builder(), services)
    server = _Server(services, row, link, host)
    with server.closing(), services.record(host):
        try:
            if lockstep or row.turn == "asked" or server.run_freely():
                server.take_orders()
        except (Stopped, ParentGone):
            raise
        except BaseException:
            if not row.keeper:
                raise
            link.error(traceback.format_exc())
            server.take_orders()
            return True
    return False


class _Server:
    """One role, and the link over which it is told what to do."""

    def __init__(self, services: Services, row: Role, link: Link, host: Host) -> None:
        self._services, self._link, self._host = services, link, host
        self._heart = services.heart
        self._heart.beat()  # it has started
        self._starts_long = row.long_start  # all of it within the first step

    def run_freely(self) -> bool:
        """Run the role's loop to its end, carrying out commands between its steps; False if it was told to stop."""
        steps = self._host.steps()
        while True:
            with self._starting():
                event = next(steps, self)
            if event is self:
                break
            self._host.post(event)
            command = self._link.command(0)
            if command is not None and not self._obey(command):
                return False
        self._link.finished()
        return True

    def take_orders(self) -> None:
        """Carry out commands until the last one, or until the run ends."""
        while not self._services.stopped():
            command = self._link.command(ORDERS_S)
            if command is not None and not self._obey(command):
                return

    def _obey(self, command: dict[str, Any]) -> bool:
        """Carry out one command; False if it was the last."""
        host, link = self._host, self._link
        match command.pop("command"):
            case "stop":
                return False
            case "hello":
                link.result({})
            case "advance":
                with self._starting():
                    link.result(host.advance())
            case "missing":
                link.result({"text": host.missing()})
            case "save":
                try:
                    with self._heart.beating():
                        answer = host.save(partial(self._services.write_part, command["folder"]))
                except (CheckpointError, OSError) as error:  # a full disk ends no run
                    answer = {"error": str(error)}
                link.result(answer)
            case "evaluate":
                link.result(host.evaluate(**command))
        return True

    def _starting(self) -> Any:
        """Signs of life of their own in a first step that takes minutes."""
        if self._starts_long and not self._host.warm:
            return self._heart.beating()
        return nullcontext()

    @contextmanager
    def closing(self) -> Iterator[None]:
        """Close the host at the end, whatever the end is. What goes wrong then is said, and changes nothing else."""
        try:
            yield
        finally:
            try:
                self._host.close()
            except BaseException as error:
                self._link.complaint(closing_failed(error))
