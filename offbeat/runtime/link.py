"""What main process and role say to each other: JSON over a pipe; commands down, records, answers and errors up.

Each command carries a number and its answer carries the same, so that an answer which nobody waits for any more is
never taken for another's.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterator
from multiprocessing.connection import Connection
from typing import Any

CHUNK = 1 << 16
"""Bytes that are read at once."""


class ParentGone(Exception):
    """The main process is gone, so there is nobody to work for. No error of the role or of its environments."""


class Link:
    """The role's end: a metric sink, and the source of its commands.

    Records wait until the role looks for commands, which it does after each block, and go in one message then: games
    that end every millisecond would otherwise keep both ends busy with messages.

    Every method raises ``ParentGone`` where the other end is closed.
    """

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._records: list[tuple[str, dict[str, float]]] = []
        self._number = -1

    def write(self, kind: str, values: dict[str, float]) -> None:
        """One record for the metrics."""
        self._records.append((kind, values))

    def result(self, values: dict[str, Any]) -> None:
        """The answer to the last command."""
        self._send({"type": "result", "id": self._number, "values": values})

    def finished(self) -> None:
        """The role's loop has ended by itself."""
        self._send({"type": "finished"})

    def error(self, text: str) -> None:
        """The role fails; ``text`` is its traceback."""
        self._send({"type": "error", "text": text})

    def complaint(self, text: str) -> None:
        """Something went wrong that ends nothing, but should be known."""
        self._send({"type": "complaint", "text": text})

    def command(self, timeout_s: float | None) -> dict[str, Any] | None:
        """The next command; None if there was none within the time (None: wait for ever). Sends the records first."""
        self._flush()
        try:
            if not self._pipe.poll(timeout_s):
                return None
            command: dict[str, Any] = json.loads(self._pipe.recv_bytes())
        except (OSError, EOFError) as error:
            raise ParentGone from error
        self._number = command.pop("id", -1)
        return command

    def _flush(self) -> None:
        records, self._records = self._records, []
        if records:
            self._put({"type": "records", "records": records})

    def _send(self, message: dict[str, Any]) -> None:
        self._flush()
        self._put(message)

    def _put(self, message: dict[str, Any]) -> None:
        try:
            self._pipe.send_bytes(json.dumps(message).encode())
        except OSError as error:
            raise ParentGone from error


class Inbox:
    """The main process's reading end. Never waits: a message of which only the start has come is kept for later, since
    the role may have been stopped in the middle of it.
    """

    def __init__(self, pipe: Connection) -> None:
        self._pipe, self._held = pipe, bytearray()
        os.set_blocking(pipe.fileno(), False)

    def messages(self) -> Iterator[dict[str, Any]]:
        """Every message that has arrived completely."""
        while self._receive():
            yield from self._complete()

    def _receive(self) -> bool:
        """Take in what is there; False if there is nothing."""
        try:
            data = os.read(self._pipe.fileno(), CHUNK)
        except OSError:  # nothing there now, or the role is dead: whoever watches it will notice
            return False
        self._held += data
        return bool(data)

    def _complete(self) -> Iterator[dict[str, Any]]:
        # The framing of multiprocessing's connections: a length in four bytes, or -1 and then a length in eight.
        held = self._held
        while len(held) >= 4:
            (size,), start = struct.unpack_from("!i", held), 4
            if size == -1:
                if len(held) < 12:
                    return
                (size,), start = struct.unpack_from("!Q", held, 4), 12
            if len(held) < start + size:
                return
            message: dict[str, Any] = json.loads(held[start : start + size])
            del held[: start + size]
            yield message
