"""What a learner has learnt, a second time, in memory that outlives it: a learner that takes its place begins there.

There are two copies and a number, whose lowest bit names the one that is whole. The learner writes the other one, and
then moves the number on: one aligned store, so a learner that dies in the middle of it has changed nothing. They are
read once their learner is dead.

Beside them lie numbers that are of now, not of the last copy: counters, what rate control has drawn.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from offbeat.runtime.clock import WALL, Clock
from offbeat.runtime.codec import decode, pieces
from offbeat.runtime.learner_report import COUNTERS
from offbeat.runtime.ports import Point
from offbeat.runtime.shm import SharedArrays, SharedFile
from offbeat.types import ArrayDict, ArraySpec

SOON_S = 1.0
"""A copy is made before it is due if the last one is so old, ... Unit: seconds."""
SHARE = 100
"""... and so many times as old as it took to make."""
MIRROR = {
    "written": ArraySpec((1,), "int64"),
    "nbytes": ArraySpec((2,), "int64"),
    "updates": ArraySpec((2,), "int64"),
    "counters": ArraySpec((len(COUNTERS),), "int64"),
    "lost": ArraySpec((2,), "int64"),
    "drawn": ArraySpec((1,), "int64"),
    "offset": ArraySpec((2,), "int64"),
}
"""Copies made; length of each of the two, and the updates that it is of; the learner's counters now; how often it was
rebuilt, and updates lost by that; rows that were drawn; see ``SharedMirror.offset``."""


class Kept(NamedTuple):
    """What a learner goes on from."""

    part: dict[str, Any]
    """Its part of a checkpoint, without what others have: name -> tensor or array."""
    tallies: ArrayDict
    """Of its samplers."""
    counters: dict[str, int]
    """Its counters."""


class SharedMirror:
    """The memory. Travels to processes at spawn; the main process, which never writes what was learnt, keeps it alive.

    ``every``: updates after which a copy is due, >= 1.
    """

    def __init__(self, every: int) -> None:
        self._every = every
        self._numbers, self._copies = SharedArrays(MIRROR), (SharedFile(), SharedFile())

    @property
    def drawn(self) -> np.ndarray:
        """Rows that were drawn in the run, [1] int64: for rate control."""
        return self._numbers["drawn"]

    @property
    def offset(self) -> np.ndarray:
        """What is added to the streams' agent steps and frames to have those of the run, [2] int64."""
        return self._numbers["offset"]

    @property
    def restarts(self) -> int:
        """How often a learner was rebuilt."""
        return int(self._numbers["lost"][0])

    @property
    def lost_updates(self) -> int:
        """Updates that were lost by that, in all."""
        return int(self._numbers["lost"][1])

    def end(self, clock: Clock = WALL) -> MirrorStore:
        """The learner's end."""
        return MirrorStore(self._numbers, self._copies, self._every, clock)

    def filled(self) -> bool:
        """Whether there is a copy."""
        return bool(self._numbers["written"][0])

    def counted(self) -> Point:
        """Where the learner has said to be."""
        counters = dict(zip(COUNTERS, self._numbers["counters"].tolist(), strict=True))
        return Point(counters["updates"], counters["agent_steps"], counters["frames"])

    def rebuild(self, seen: Point) -> int:
        """The learner is dead: have the next one begin with the newest copy; how many updates are lost by that.

        The counters go on from where they are: what was trained on is gone from a fifo, and a version is never used
        twice. So the next learner's first version is one above all that anybody can have ``seen``.
        """
        numbers = self._numbers
        point = Point(*(max(pair) for pair in zip(seen, self.counted(), strict=True)))
        lost = point.updates - int(numbers["updates"][numbers["written"][0] & 1])
        for name, value in point._replace(updates=point.updates + 1)._asdict().items():
            numbers["counters"][COUNTERS.index(name)] = value
        numbers["counters"][COUNTERS.index("bad_in_a_row")] = 0
        numbers["lost"][:] += 1, lost
        return lost

    def read(self) -> Kept:
        """What the next learner begins with. There must be a copy, and nobody who writes one."""
        whole = int(self._numbers["written"][0]) & 1
        kept = decode(self._copies[whole].read(int(self._numbers["nbytes"][whole])))
        counters = dict(zip(COUNTERS, self._numbers["counters"].tolist(), strict=True))
        return Kept(kept["part"], kept["tallies"], counters)

    def close(self) -> None:
        """Give the memory back."""
        self._numbers.close()
        for copy in self._copies:
            copy.close()


class MirrorStore:
    """The learner's end; see ``offbeat.runtime.ports.Mirror``.

    A copy is due ``every`` updates after the last one, and before that where it costs little: see ``SOON_S``.
    """

    def __init__(
        self, numbers: SharedArrays, copies: tuple[SharedFile, SharedFile], every: int, clock: Clock = WALL
    ) -> None:
        self._numbers, self._copies, self._every, self._clock = numbers, copies, every, clock
        self._asked = self._kept = clock.now()
        self._took_s, self._last = 0.0, 0  # updates when a copy was tried last
        self.failed = ""
        """Why the last copy could not be made; empty: it was."""

    def tell(self, counters: Mapping[str, int]) -> bool:
        """The learner's counters; whether a copy is due."""
        self._numbers["counters"][:] = [counters[name] for name in COUNTERS]
        behind = counters["updates"] - self._last
        self._asked = self._clock.now()
        old_s = self._asked - self._kept
        return behind >= self._every or (behind > 0 and old_s > max(SOON_S, SHARE * self._took_s))

    def keep(self, part: Mapping[str, Any], tallies: Mapping[str, np.ndarray]) -> None:
        """Make a copy. Where there is no room for it the one before stays, and it is tried again when it is due."""
        numbers = self._numbers
        self._last = int(numbers["counters"][COUNTERS.index("updates")])
        other = 1 - (int(numbers["written"][0]) & 1)
        try:
            numbers["nbytes"][other] = self._copies[other].write(pieces({"part": part, "tallies": tallies}))
        except OSError as error:
            self.failed = str(error)
        else:
            self.failed = ""
            numbers["updates"][other] = self._last
            numbers["written"][0] += 1
        self._kept = self._clock.now()
        self._took_s = self._kept - self._asked
