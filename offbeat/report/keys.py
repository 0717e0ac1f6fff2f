"""Keys of a terminal as they are pressed, and the actions that they stand for.

A terminal tells of no key that is let go, only of one that repeats: a key counts as held until it has not come for a
while, and several held at once are one action where the environment has such a one (``UPFIRE``).
"""

from __future__ import annotations

import os
import re
import select
import sys
import termios
import tty
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from offbeat.errors import UserError
from offbeat.runtime.clock import WALL, Clock

HOLD_S = 0.12
"""A key counts as held so long after it came. Unit: seconds."""
QUIT = ("q", "\x03", "\x04")
"""Keys that end the game."""
ARROWS = {"A": "UP", "B": "DOWN", "C": "RIGHT", "D": "LEFT"}
"""Last letter of an arrow key's sequence -> what it means."""
LETTERS = {"w": "UP", "s": "DOWN", "a": "LEFT", "d": "RIGHT", " ": "FIRE", "x": "A", "z": "B"}
"""Key -> what it means, where an action's name says so."""
NAMES = re.compile(r"UP|DOWN|LEFT|RIGHT|FIRE")
NOTHING = ("", "NOOP", "NOP", "NONE", "NOTHING")
"""Names of actions that do nothing."""
INDEX = "0123456789efghijklmnoprtuvy"
"""Key -> the action of that number, whatever it is called."""


class Bindings:
    """From keys that are held to an action.

    ``meanings``: what the environment calls its actions; () where it does not. ``count``: how many there are. ``noop``:
    the action while no key is held; None: that whose name says that it does nothing, if there is one.
    """

    def __init__(self, meanings: Sequence[str], count: int, noop: int | None = None) -> None:
        self.meanings = tuple(meanings) if len(meanings) == count else ()
        named = [parts_of(meaning) for meaning in self.meanings]
        nothing = next((index for index, parts in enumerate(named) if not parts), None)
        self.idle = nothing if noop is None else noop
        """The action while no key is held; None: the game waits for one."""
        self._by_parts = {parts: index for index, parts in reversed(list(enumerate(named))) if parts}
        self._count = count

    def action(self, held: Sequence[str]) -> int | None:
        """The action of keys that are held, the newest last; None where they are no action's."""
        for key in reversed(held):
            if key in INDEX[: self._count]:
                return INDEX.index(key)
        meant = [name for key in held if (name := LETTERS.get(key, key)) != key or key in ARROWS.values()]
        for begin in range(len(meant)):  # all together, else the newest of them
            found = self._by_parts.get(frozenset(meant[begin:]))
            if found is not None:
                return found
        return None

    def help(self) -> str:
        """Which key is which action, on one line."""
        keys = {name: key for key, name in LETTERS.items()} | dict.fromkeys(ARROWS.values(), "arrows, wasd")
        shown: dict[str, list[str]] = {}
        for index in range(min(self._count, len(INDEX))):
            name = self.meanings[index] if self.meanings else f"action {index}"
            parts = parts_of(name) if self.meanings else frozenset()
            key = keys.get(next(iter(parts)), "") if len(parts) == 1 else ""
            shown.setdefault({" ": "space"}.get(key, key) or INDEX[index], []).append(name)
        return "; ".join(f"{key}: {', '.join(names)}" for key, names in shown.items()) + "; q: end"


def parts_of(meaning: str) -> frozenset[str]:
    """What an action holds down, of its name: ``UPRIGHT`` is UP and RIGHT; nothing for one that does nothing."""
    plain = meaning.upper()
    if plain in NOTHING:
        return frozenset()
    parts = NAMES.findall(plain)
    return frozenset(parts) if "".join(parts) == plain else frozenset(plain.split("+"))


class Keyboard:
    """Keys from a descriptor that gives each as it is pressed."""

    def __init__(self, descriptor: int, clock: Clock = WALL) -> None:
        self._descriptor, self._clock, self._pending = descriptor, clock, ""
        self._held: dict[str, float] = {}
        self.quit = False
        """Whether a key that ends the game was pressed, or nothing can come any more."""

    def wait(self, seconds: float) -> bool:
        """Take in what comes within ``seconds``, 0: what has come; whether a key did."""
        if self.quit or not select.select([self._descriptor], [], [], max(0.0, seconds))[0]:
            return False
        given = os.read(self._descriptor, 1024)
        self.quit |= not given
        keys = self._keys(given.decode("utf-8", "replace"))
        for key in keys:
            self._held.pop(key, None)  # the newest last
            self._held[key] = self._clock.now()
        self.quit |= any(key in QUIT for key in keys)
        return bool(keys)

    def held(self) -> list[str]:
        """Keys that are held now, the newest last."""
        now = self._clock.now()
        self._held = {key: since for key, since in self._held.items() if now - since <= HOLD_S}
        return list(self._held)

    def _keys(self, text: str) -> list[str]:
        text, self._pending = self._pending + text, ""
        found = []
        while text:
            if arrow := re.match(r"\x1b[\[O]([A-D])", text):
                found.append(ARROWS[arrow[1]])
                text = text[arrow.end() :]
            elif re.fullmatch(r"\x1b[\[O]?", text):  # the rest of it is still to come
                self._pending, text = text, ""
            elif other := re.match(r"\x1b[\[O][0-9;]*[A-Za-z~]", text):
                text = text[other.end() :]
            else:
                found.append(text[0].lower())
                text = text[1:]
        return found


@contextmanager
def raw_keyboard(clock: Clock = WALL) -> Iterator[Keyboard]:
    """The terminal's keys as they are pressed, not shown, meanwhile. UserError where there is no terminal."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UserError(
            "playing by hand needs a terminal for keys and pictures; have a run play with --policy RUN, or give a list "
            "of actions with --actions FILE"
        )
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    tty.setcbreak(descriptor)
    try:
        yield Keyboard(descriptor, clock)
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
