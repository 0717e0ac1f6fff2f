"""How many batches are drawn ahead of a learner, and by how many threads: decided from measured times, without a clock.

Two kinds of waits for a batch are told apart. Where rows had not come yet, nothing here would have helped. Where they
had, the learner was *held up* by assembly: because assembly and updates take uneven times and too few batches lay ready
(then assembly must have stood still for want of a place at other times), or because it is too slow on the whole (then
it never stood still, and only another thread can help). Where batches are always ready, and more than one, the others
only grow old.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

MOST_DEPTH, MOST_ASSEMBLERS = 16, 4
"""As far as ``auto`` goes."""
FIRST_DEPTH = 3
"""Where ``auto`` begins: what ``learner.prefetch = 2`` is."""
WINDOW = 16
"""Batches between two decisions."""
HELD_UP, CALM = 0.05, 0.01
"""A learner that is held up for more than this share of its time wants something changed; below the other one it is
content. Between them all stays as it is."""
PATIENCE, MOST_PATIENCE = 2, 64
"""Windows in a row in which batches were ready to spare before there are fewer. Twice as many each time that this
turns out to have been wrong."""
PAYS = 1.1
"""A further thread stays where batches came so many times as fast with it."""


class Bounds(NamedTuple):
    """Least and greatest."""

    least: int
    most: int

    def within(self, value: int) -> int:
        """The nearest number that is allowed."""
        return max(self.least, min(self.most, value))


def held_up(asked_s: float, begun_s: float, now_s: float, ready: int) -> float:
    """Seconds for which the learner was held up by assembly: it asked when ``ready`` batches were, and takes one now
    that was begun, as its rows were there, at ``begun_s``.

    None where it waited longer for the rows than for assembly: that was done at once then.
    """
    if ready or begun_s - asked_s > now_s - begun_s:
        return 0.0
    return now_s - max(asked_s, begun_s)


class Prefetching:
    """Follows one learner, from when it begins to ask for batches.

    Args:
        depth: allowed ``depth``.
        assemblers: allowed ``assemblers``.
        max_age: batches that become older than so many updates make it shallower; 0: their age does not matter.

    Attributes:
        depth: batches that may be drawn and not yet taken by the learner; those in the making count.
        assemblers: threads that may work at once.
    """

    def __init__(self, depth: Bounds, assemblers: Bounds, max_age: int = 0) -> None:
        if max_age:  # a batch that is the n-th to be taken from now on becomes n updates old
            depth = Bounds(min(depth.least, max_age), min(depth.most, max_age))
        self._depths, self._numbers, self._max_age = depth, assemblers, max_age
        self.depth, self.assemblers = depth.within(FIRST_DEPTH), assemblers.within(1)
        self._calm, self._patience = 0, PATIENCE
        self._windows, self._shrunk = 0, -MOST_PATIENCE  # windows so far; which one ended with fewer places
        self._before: float | None = None  # batches per second before a thread was added, on trial
        self._rest, self._pause = 0, PATIENCE  # windows before the next trial; those after a trial that failed
        self._begin(0.0)

    def _begin(self, now_s: float) -> None:
        self._since_s, self._taken, self._wait_s, self._held_s = now_s, 0, 0.0, 0.0
        self._ready, self._age, self._full = MOST_DEPTH, 0, False

    def full(self) -> None:
        """An assembler had nothing to do, since so many batches as may be drawn ahead were."""
        self._full = True

    def taken(self, now_s: float, wait_s: float, held_s: float, ready: int, age: int) -> None:
        """The learner took a batch at ``now_s``, after waiting ``wait_s`` for it, of which ``held_s`` for its assembly.

        ``ready``: how many were when it asked; ``age``: updates since this one was drawn. Times in seconds.
        """
        if not self._windows and not self._taken:
            self._since_s = now_s - wait_s
        self._taken += 1
        self._wait_s, self._held_s = self._wait_s + wait_s, self._held_s + held_s
        self._ready, self._age = min(self._ready, ready), max(self._age, age)
        if self._taken == WINDOW:
            self._windows += 1
            self._decide(now_s)
            self._begin(now_s)

    def _decide(self, now_s: float) -> None:
        busy_s = max(now_s - self._since_s - self._wait_s, 0.0) + self._held_s  # without waits for rows
        share = self._held_s / busy_s if busy_s > 0 else 0.0
        self._rest -= self._rest > 0
        self._judge(WINDOW / busy_s if busy_s > 0 else 0.0)
        spare = self._ready - 1
        self._calm = self._calm + 1 if share < CALM and spare > 0 else 0
        if self._max_age and self._age > self._max_age:
            self._shrink(1)
        elif share > HELD_UP:
            self._grow(WINDOW / busy_s)
        elif self._calm >= self._patience:
            self._shrink((spare + 1) // 2)

    def _grow(self, rate: float) -> None:
        """The learner is held up while ``rate`` batches come per second."""
        if self._full:
            if self._windows - self._shrunk <= 2 * self._patience:
                self._patience = min(2 * self._patience, MOST_PATIENCE)
            if not self._max_age or self._age < self._max_age:
                self.depth = self._depths.within(self.depth + 1)
        elif self._before is None and not self._rest and self.assemblers < self._numbers.most:
            self._before = rate
            self.assemblers += 1
            self.depth = max(self.depth, self._depths.within(self.assemblers + 1))

    def _judge(self, rate: float) -> None:
        """End the trial of a further thread, if there is one: it stays where ``rate`` is higher for it."""
        if self._before is None:
            return
        if rate < PAYS * self._before:
            self.assemblers = self._numbers.within(self.assemblers - 1)
            self._rest, self._pause = self._pause, min(2 * self._pause, MOST_PATIENCE)
        else:
            self._pause = PATIENCE
        self._before = None

    def _shrink(self, by: int) -> None:
        self._calm, self._shrunk = 0, self._windows
        self.depth = self._depths.within(self.depth - by)
        self.assemblers = self._numbers.within(min(self.assemblers, self.depth))


def make_prefetching(
    prefetch: int | Literal["auto"], assemblers: int | Literal["auto"], max_age: int = 0
) -> Prefetching | None:
    """What the options say, see ``LearnerConfig``; None where nothing is drawn ahead."""
    if prefetch == 0:
        return None
    depth = Bounds(1, MOST_DEPTH) if prefetch == "auto" else Bounds(prefetch + 1, prefetch + 1)
    threads = Bounds(1, MOST_ASSEMBLERS) if assemblers == "auto" else Bounds(assemblers, assemblers)
    return Prefetching(depth, threads, max_age)
