"""One connection of ``offbeat serve``: its bytes as messages, none longer than may come, and why it is refused."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import Any

import numpy as np

from offbeat.serving.client import CHUNK, PROTOCOL, decode, encode

HELLO_BYTES = 4096
"""Most that is taken of one who has not said hello, token included."""
WHOLE_S = 10.0
"""A hello has come within so long of the connection, and a message within so long of its first byte. Unit: seconds."""
LINGER_S = 2.0
"""One who was refused for good is listened to for so long, so that the answer reaches it. Unit: seconds."""
OPEN = ("request",)
"""Codes of refusals after which the connection goes on; all others close it."""


class Refusal(ValueError):
    """Why there is no answer but an error, in one line.

    ``code``: ``malformed``, ``too_large``, ``protocol``, ``token``, ``full``, ``late``, ``request`` or ``ending``.
    """

    def __init__(self, code: str, line: str) -> None:
        super().__init__(line)
        self.code = code

    @property
    def closes(self) -> bool:
        """Whether the connection ends with it."""
        return self.code not in OPEN


class Connection:
    """A client's socket, which never blocks, what has come of its next message, and what it has not taken yet.

    Memory is bounded whatever comes: of a message no more is read than may be of it, and nothing is read while an
    answer is not taken.
    """

    def __init__(self, opened: socket.socket, *, trusted: bool, now: float) -> None:
        """``trusted``: it needs no token. ``now``: seconds of the server's clock."""
        opened.setblocking(False)
        self.socket, self.trusted = opened, trusted
        self.slot: int | None = None
        """Which of the policy's places it has, once it has said hello."""
        self.fresh = True
        """It has not asked for an action yet: the first one starts an episode."""
        self.most = HELLO_BYTES
        """Longest message that is taken now. Unit: bytes."""
        self.deadline: float | None = now + WHOLE_S
        """Moment until which a hello, or the rest of a message, must be there; or, where it ``ends``, until which it is
        listened to."""
        self.arrived = now
        """When the newest bytes came."""
        self.ends = self.gone = False
        """It was refused for good; it is to be closed."""
        self._in, self._out = bytearray(), bytearray()

    @property
    def busy(self) -> bool:
        """Whether there are bytes that it has not taken yet."""
        return bool(self._out)

    def receive(self, now: float) -> None:
        """Read what is there, not more than one message may have."""
        room = CHUNK if self.ends else min(CHUNK, 4 + self.most - len(self._in))
        try:
            new = self.socket.recv(room) if room > 0 else b""
        except BlockingIOError:
            return
        except OSError:
            self.gone = True
            return
        self.gone = room > 0 and not new
        if self.ends:
            return
        if new and not self._in and self.slot is not None:
            self.deadline = now + WHOLE_S
        self._in += new
        self.arrived = now

    def message(self) -> bytearray | None:
        """The next message without its length, if it is whole. ``Refusal`` where it is longer than may come."""
        if self.ends or self.busy or len(self._in) < 4:
            return None
        length = int.from_bytes(self._in[:4], "big")
        if length > self.most:
            raise Refusal("too_large", f"a message of {length} bytes was announced; at most {self.most} are taken")
        if len(self._in) < 4 + length:
            return None
        body, self._in = self._in[4 : 4 + length], self._in[4 + length :]
        if self.slot is not None:
            self.deadline = self.arrived + WHOLE_S if self._in else None
        return body

    @property
    def waits(self) -> bool:
        """Whether ``message`` has something to say already."""
        if len(self._in) < 4 or self.ends or self.busy or self.gone:
            return False
        length = int.from_bytes(self._in[:4], "big")
        return length > self.most or len(self._in) >= 4 + length

    def greet(self, slot: int, most: int) -> None:
        """It has said hello: it has this place now, and may send messages of so many bytes."""
        self.slot, self.most, self.deadline = slot, most, None

    def send(self, kind: str, texts: Mapping[str, str], arrays: Mapping[str, np.ndarray]) -> None:
        """Send a message, as far as it is taken now."""
        self._out += encode(kind, texts, arrays)
        self.flush()

    def refuse(self, refusal: Refusal, number: str, now: float) -> None:
        """Send an error; where it is for good, nothing of it is read as a message from now on."""
        self.send("error", {"code": refusal.code, "error": one_line(str(refusal)), "number": number}, {})
        if refusal.closes:
            self.ends, self.deadline, self._in = True, now + LINGER_S, bytearray()
            self._hang_up()

    def flush(self) -> None:
        """Send what is left, as far as it is taken now."""
        try:
            while self._out:
                del self._out[: self.socket.send(self._out)]
        except BlockingIOError:
            return
        except OSError:
            self.gone = True
            return
        if self.ends:
            self._hang_up()

    def _hang_up(self) -> None:
        """Say that nothing more comes, once the last answer is on its way."""
        if self._out or self.gone:
            return
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError:
            self.gone = True

    def close(self) -> None:
        """Close the socket."""
        self.socket.close()


def read(body: bytearray) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    """(texts, arrays) of a message. ``Refusal`` for one that cannot be read, or is of another protocol."""
    try:
        texts, arrays = decode(body)
    except ValueError as error:
        raise Refusal("malformed", f"a message cannot be read: {error}") from error
    if texts.get("offbeat") != PROTOCOL:
        raise Refusal("protocol", f"protocol {shown(texts.get('offbeat'))} is not spoken here; it is {PROTOCOL!r}")
    return texts, arrays


def shown(value: Any) -> str:
    """What somebody sent, short enough for a line."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def one_line(text: str) -> str:
    """``text`` on one line that any terminal can show."""
    plain = "".join(letter if letter.isprintable() else " " for letter in text)
    return " ".join(plain.encode("utf-8", "replace").decode().split())[:500]
