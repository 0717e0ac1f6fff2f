"""Whose turn it is on a virtual clock: loops that say until when they wait, and those that wait for somebody else."""

from __future__ import annotations

import heapq
from collections.abc import Hashable, Iterable
from typing import Generic, TypeVar

from offbeat.runtime.clock import VirtualClock
from offbeat.runtime.pacing import WAIT

Role = TypeVar("Role", bound=Hashable)


class Events(Generic[Role]):
    """Moments at which roles go on, the earliest first; of one moment, the one that was noted first.

    The order of calls for a turn: ``next`` moves the clock and says whose turn it is, ``passed`` notes what that role
    waits for afterwards, ``wake`` has all others look that wait for somebody.
    """

    def __init__(self, clock: VirtualClock) -> None:
        self.clock = clock
        self._events: list[tuple[float, int, Role]] = []
        self._waiting: list[Role] = []
        self._made = 0

    def __bool__(self) -> bool:
        return bool(self._events)

    def __contains__(self, role: Role) -> bool:
        """Whether a moment is noted for ``role``."""
        return any(role == other for _, _, other in self._events)

    def add(self, moment: float, role: Role) -> None:
        """``role`` goes on at ``moment``, or now if that has gone by. Unit: seconds."""
        self._made += 1
        heapq.heappush(self._events, (max(self.clock.now(), moment), self._made, role))

    def next(self) -> Role:
        """Let time go by until the earliest moment; whose it is. IndexError where there is none."""
        moment, _, role = heapq.heappop(self._events)
        self.clock.sleep(max(0.0, moment - self.clock.now()))
        return role

    def passed(self, role: Role, moment: float | None) -> None:
        """Note down when a role goes on: a moment, or ``WAIT``; None: its loop has ended."""
        if moment == WAIT:
            self._waiting.append(role)
        elif moment is not None:
            self.add(moment, role)

    def wake(self, role: Role) -> None:
        """After a turn of ``role``: all others that wait look whether it was for them. It has only just looked."""
        if not self._waiting:
            return
        waiting, self._waiting = self._waiting, []
        for other in waiting:
            if other == role:
                self._waiting.append(other)
            else:
                self.add(self.clock.now(), other)

    def saved(self) -> tuple[list[tuple[float, Role]], list[Role]]:
        """Moments and whose they are, in order; and who waits for somebody."""
        return [(moment, role) for moment, _, role in sorted(self._events)], list(self._waiting)

    def load(self, events: Iterable[tuple[float, Role]], waiting: Iterable[Role]) -> None:
        """Back to what was saved; the clock is already there."""
        self._events.clear()
        for moment, role in events:
            self.add(moment, role)
        self._waiting = list(waiting)
