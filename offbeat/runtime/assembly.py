"""Threads that draw and copy batches ahead of the learner, which gets them in the order in which they were drawn."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from offbeat.runtime.clock import WALL, Clock
from offbeat.runtime.prefetching import Prefetching, held_up
from offbeat.types import Batch

LOOK_UP_S = 0.5
"""Assemblers look up so often whether they should end. Unit: seconds."""
LATEST = 32
"""Batches that the ages in the learner's records are of."""
T = TypeVar("T")


@dataclass
class Drawn:
    """The items of a batch, chosen and not yet copied, or a batch of which nothing is left to do."""

    parts: Any
    """What each sampler chose, or that batch."""
    begun_s: float
    """When it was begun: the rows were there."""
    updates: int
    """Of the run, then."""


class Work(Protocol):
    """What is done for a batch."""

    def prepare(self) -> None:
        """Before the first one, in each thread."""

    def draw(self, timeout_s: float) -> Drawn | None:
        """Choose the items, by one thread at a time; None if there were too few within the time."""

    def copy(self, drawn: Drawn) -> Batch | None:
        """Copy them, by several threads at once; None where there was nothing to copy after all."""

    def release(self, drawn: Drawn) -> None:
        """Let writers overwrite what was copied: in the order of draws, by one thread at a time."""

    def move(self, batch: Batch) -> Batch:
        """Move what was copied to where the learner computes, by several threads at once."""

    def drop(self) -> bool:
        """A batch is too old; whether it may be forgotten."""


class InOrder(Generic[T]):
    """Hands numbered things on in the order of their numbers 0, 1, ..., in whichever they come. None: left out."""

    def __init__(self, take: Callable[[T], object]) -> None:
        self._take, self._next = take, 0
        self._early: dict[int, T | None] = {}

    def put(self, number: int, thing: T | None) -> None:
        """One has come; it and those that waited for it go on."""
        self._early[number] = thing
        while self._next in self._early:
            following = self._early.pop(self._next)
            self._next += 1
            if following is not None:
                self._take(following)


class Assembly:
    """Keeps batches ready, as many as ``control`` says and with as many threads.

    Args:
        work: what they do.
        control: how many, and told how it goes.
        updates: of the run, now.
        max_age: a batch that was drawn more updates ago is dropped if ``work`` agrees, while not all that were drawn
            ahead were; 0: none is.
        clock: for the times that are measured.
    """

    def __init__(
        self,
        work: Work,
        control: Prefetching,
        *,
        updates: Callable[[], int] = lambda: 0,
        max_age: int = 0,
        clock: Clock = WALL,
    ) -> None:
        self._work, self.control, self._updates, self._max_age, self._clock = work, control, updates, max_age, clock
        self._changed = threading.Condition()  # guards what follows
        self._out = self._numbers = 0  # batches drawn and not taken; drawn so far
        self._ready: deque[tuple[Drawn, Batch]] = deque()
        self._failed: BaseException | None = None
        self._ending = False
        self._asked: tuple[float, int] | None = None  # since when the learner waits, and what was ready then
        self._ages: deque[int] = deque(maxlen=LATEST)
        self._assembly_s = self._held_s = 0.0
        self._dropped = self._dropped_in_a_row = 0
        self._given = InOrder(self._ready.append)
        self._drawing, self._releasing = threading.Lock(), threading.Lock()
        self._released = InOrder(work.release)
        self._threads: list[threading.Thread] = []
        self._start()

    def _start(self) -> None:
        """Have as many threads as may work; those that may no longer sleep."""
        while len(self._threads) < self.control.assemblers:
            number = len(self._threads)
            name = f"assembly-{number}" if number else "assembly"
            thread = threading.Thread(target=self._run, args=(number,), name=name, daemon=True)
            self._threads.append(thread)
            thread.start()

    def next(self, timeout_s: float) -> Batch | None:
        """The next batch; None if there was none within the time. What ended a thread is raised here."""
        while True:
            with self._changed:
                if self._asked is None:
                    self._asked = self._clock.now(), len(self._ready)
                if not self._changed.wait_for(lambda: self._ready or self._failed, timeout_s):
                    return None
                if not self._ready:
                    assert self._failed is not None
                    raise self._failed
                drawn, batch = self._ready.popleft()
                self._out -= 1
                age = self._note(drawn)
                self._start()
                self._changed.notify_all()
            if self._fresh_enough(age):
                return batch

    def _note(self, drawn: Drawn) -> int:
        """The learner takes a batch: its age."""
        now, age = self._clock.now(), self._updates() - drawn.updates
        asked, ready = self._asked or (now, 0)
        self._asked = None
        held_s = held_up(asked, drawn.begun_s, now, ready)
        self._held_s += held_s
        self._ages.append(age)
        self.control.taken(now, now - asked, held_s, ready, age)
        return age

    def _fresh_enough(self, age: int) -> bool:
        """Whether a batch of this age is to be trained on."""
        too_old = 0 < self._max_age < age and self._dropped_in_a_row < self.control.depth
        if too_old and self._work.drop():
            self._dropped += 1
            self._dropped_in_a_row += 1
            return False
        self._dropped_in_a_row = 0
        return True

    def _run(self, number: int) -> None:
        """One assembler."""
        try:
            self._work.prepare()
            while self.place(number):
                self._assemble()
        except BaseException as error:  # handed to the training thread, which raises it
            with self._changed:
                self._failed = self._failed or error
                self._changed.notify_all()

    def place(self, number: int) -> bool:
        """Wait until assembler ``number`` may draw a batch; False: it should end."""
        with self._changed:
            while not self._ending and self._failed is None:
                if number < self.control.assemblers:
                    if self._out < self.control.depth:
                        self._out += 1
                        return True
                    self.control.full()
                self._changed.wait(LOOK_UP_S)
        return False

    def _assemble(self) -> None:
        """Use the place for one batch."""
        drawn, batch, number = None, None, -1
        with self._drawing:
            if (drawn := self._work.draw(LOOK_UP_S)) is not None:
                number, self._numbers = self._numbers, self._numbers + 1
        if drawn is not None:
            batch = self._work.copy(drawn)
            with self._releasing:
                self._released.put(number, None if batch is None else drawn)
            batch = None if batch is None else self._work.move(batch)
        with self._changed:
            if drawn is not None:
                self._assembly_s += self._clock.now() - drawn.begun_s
                self._given.put(number, None if batch is None else (drawn, batch))
            self._out -= batch is None
            self._changed.notify_all()

    def stats(self) -> dict[str, float]:
        """Numbers for the log; seconds are those since it was asked last."""
        with self._changed:
            numbers = {
                "queue": float(len(self._ready)),
                "prefetch_depth": float(self.control.depth),
                "assemblers": float(self.control.assemblers),
                "assembly_s": self._assembly_s,
                "held_up_s": self._held_s,
            }
            if self._ages:
                numbers |= {"batch_age": sum(self._ages) / len(self._ages), "batch_age_largest": float(max(self._ages))}
            if self._max_age:
                numbers["dropped_batches"] = float(self._dropped)
            self._assembly_s = self._held_s = 0.0
        return numbers

    def close(self) -> None:
        """End the threads."""
        with self._changed:
            self._ending = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(timeout=5.0)
