"""Assembly by several threads: in order, never more ahead than allowed, draws one by one, copies beside each other."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from offbeat.runtime.assembly import LATEST, Assembly, Drawn, InOrder
from offbeat.runtime.clock import VirtualClock
from offbeat.runtime.ports import Stopped
from offbeat.runtime.prefetching import Bounds, Prefetching


def wait_until(ready: Callable[[], bool]) -> None:
    """Until the threads have come so far, which takes them no time to speak of."""
    end = time.monotonic() + 30.0
    while not ready():
        assert time.monotonic() < end
        time.sleep(0.001)


def fixed(depth: int, assemblers: int = 1) -> Prefetching:
    """Always these."""
    return Prefetching(Bounds(depth, depth), Bounds(assemblers, assemblers))


class Numbers:
    """Batches that are numbers; copying takes random times, and every seventh comes to nothing."""

    def __init__(self, until: int = 10**6, seed: int = 0, nothing: int = 0) -> None:
        self.until, self.nothing, self.random = until, nothing, random.Random(seed)
        self.drawn: list[int] = []
        self.released: list[int] = []
        self.dropped = self.drawing = self.prepared = 0
        self.copying: set[int] = set()
        self.most_copying = 0
        self.may_drop = True
        self.clock = VirtualClock()
        self.updates = 0

    def prepare(self) -> None:
        """Count."""
        self.prepared += 1

    def draw(self, timeout_s: float) -> Drawn | None:
        """The next number; by one thread at a time."""
        self.drawing += 1
        assert self.drawing == 1
        if len(self.drawn) == self.until:
            time.sleep(0.001)
            self.drawing -= 1
            return None
        self.drawn.append(len(self.drawn))
        self.drawing -= 1
        return Drawn(self.drawn[-1], self.clock.now(), self.updates)

    def copy(self, drawn: Drawn) -> Any:
        """A number for a number, or None."""
        self.copying.add(drawn.parts)
        self.most_copying = max(self.most_copying, len(self.copying))
        time.sleep(self.random.random() / 300)
        self.copying.discard(drawn.parts)
        return None if self.nothing and drawn.parts % self.nothing == 0 else drawn.parts

    def release(self, drawn: Drawn) -> None:
        """Note it."""
        self.released.append(drawn.parts)

    def move(self, batch: Any) -> Any:
        """Takes its time too."""
        time.sleep(self.random.random() / 1000)
        return batch

    def drop(self) -> bool:
        """Count."""
        self.dropped += self.may_drop
        return self.may_drop


@pytest.fixture
def made() -> Any:
    """Makes assemblies that are closed in the end."""
    all_made: list[Assembly] = []

    def make(work: Any, control: Prefetching, **options: Any) -> Assembly:
        all_made.append(Assembly(work, control, clock=work.clock, **options))
        return all_made[-1]

    yield make
    for one in all_made:
        one.close()
        assert not any(thread.is_alive() for thread in one._threads)


@pytest.mark.parametrize("nothing", [0, 7])
@pytest.mark.parametrize(("depth", "threads"), [(1, 1), (3, 1), (4, 3), (2, 4)])
def test_batches_come_in_the_order_of_draws_whoever_copies_them(
    made: Any, depth: int, threads: int, nothing: int
) -> None:
    work = Numbers(until=80, nothing=nothing)
    ahead = made(work, fixed(depth, threads))
    wanted = [number for number in range(80) if not nothing or number % nothing]
    got = []
    for _ in wanted:
        got.append(ahead.next(30.0))
        taken = len(got) + (0 if not nothing else work.drawn[-1] // nothing + 1)
        assert len(work.drawn) - taken <= depth
    assert got == work.released == wanted
    assert ahead.next(0.05) is None
    assert work.most_copying == min(depth, threads)


def test_copies_run_beside_each_other(made: Any) -> None:
    both = threading.Barrier(2, timeout=30.0)

    class Meeting(Numbers):
        def copy(self, drawn: Drawn) -> Any:
            both.wait()
            return drawn.parts

    ahead = made(Meeting(until=6), fixed(2, 2))
    assert [ahead.next(30.0) for _ in range(6)] == list(range(6))


def test_in_order_hands_on_what_came_early_and_leaves_out_none() -> None:
    taken: list[str] = []
    ordered = InOrder(taken.append)
    for number, thing, then in ((1, "b", ""), (3, "d", ""), (0, "a", "ab"), (2, None, "abd"), (4, "e", "abde")):
        ordered.put(number, thing)
        assert "".join(taken) == then


def test_what_ends_a_thread_is_raised_after_the_batches_before_it(made: Any) -> None:
    class Broken(Numbers):
        def draw(self, timeout_s: float) -> Drawn | None:
            if len(self.drawn) == 2:
                raise Stopped("the run is over")
            return super().draw(timeout_s)

    ahead = made(Broken(), fixed(5, 1))
    wait_until(lambda: ahead._failed is not None)
    assert [ahead.next(0.0), ahead.next(0.0)] == [0, 1]
    for _ in range(2):
        with pytest.raises(Stopped, match="the run is over"):
            ahead.next(0.0)


def test_an_error_while_copying_is_raised_too_and_ends_the_others(made: Any) -> None:
    class Broken(Numbers):
        def copy(self, drawn: Drawn) -> Any:
            if drawn.parts == 1:
                raise ZeroDivisionError("broken copy")
            return drawn.parts

    ahead = made(Broken(), fixed(3, 3))
    wait_until(lambda: not any(thread.is_alive() for thread in ahead._threads))
    assert ahead._ready or ahead._failed
    ahead._ready.clear()
    with pytest.raises(ZeroDivisionError, match="broken copy"):
        ahead.next(0.0)


def test_ages_count_updates_since_the_draw_and_waits_are_told_to_the_control(made: Any) -> None:
    work, told = Numbers(until=3), []
    control = fixed(3)
    control.taken = lambda *numbers: told.append(numbers)  # type: ignore[method-assign]
    ahead = made(work, control, updates=lambda: work.updates)
    wait_until(lambda: len(ahead._ready) == 3)
    work.clock.sleep(2.0)
    work.updates = 4
    assert ahead.next(0.0) == 0
    work.updates = 5
    work.clock.sleep(1.0)
    assert ahead.next(0.0) == 1
    assert told == [(2.0, 0.0, 0.0, 3, 4), (3.0, 0.0, 0.0, 2, 5)]
    stats = ahead.stats()
    assert (stats["batch_age"], stats["batch_age_largest"], stats["queue"]) == (4.5, 5.0, 1.0)
    assert (stats["prefetch_depth"], stats["assemblers"]) == (3.0, 1.0)
    assert "dropped_batches" not in stats
    assert LATEST > 2


def test_seconds_of_assembly_and_of_being_held_up_are_those_since_the_last_question(made: Any) -> None:
    class Slow(Numbers):
        def copy(self, drawn: Drawn) -> Any:
            go.wait(30.0)
            self.clock.sleep(3.0)
            return drawn.parts

    go, work = threading.Event(), Slow(until=1)
    ahead = made(work, fixed(1))
    wait_until(lambda: len(work.drawn) == 1)
    assert ahead.next(0.0) is None
    work.clock.sleep(1.0)
    go.set()
    assert ahead.next(30.0) == 0
    stats = ahead.stats()
    assert (stats["assembly_s"], stats["held_up_s"]) == (4.0, 4.0)
    stats = ahead.stats()
    assert (stats["assembly_s"], stats["held_up_s"]) == (0.0, 0.0)


def test_batches_that_are_too_old_are_dropped_but_not_all_that_there_are(made: Any) -> None:
    work = Numbers()
    ahead = made(work, fixed(3), updates=lambda: work.updates, max_age=2)
    wait_until(lambda: len(ahead._ready) == 3)
    work.updates = 2
    assert ahead.next(0.0) == 0
    wait_until(lambda: len(ahead._ready) == 3)  # 1 and 2 were drawn at update 0, 3 at update 2
    work.updates = 4
    assert ahead.next(30.0) == 3
    assert (work.dropped, ahead.stats()["dropped_batches"]) == (2, 2.0)
    work.may_drop = False
    work.updates = 400
    assert ahead.next(30.0) == 4, "each row once: an old one is trained on"
    work.may_drop = True
    fresh: list[int] = []
    ahead._updates = lambda: 10**6 * (len(fresh) + 1)  # every batch is too old, for ever
    fresh.append(ahead.next(30.0))
    assert fresh == [8], "three were dropped in a row, which is all that lay ready; then one is taken as it is"


def test_more_threads_start_when_the_control_wants_more(made: Any) -> None:
    work, control = Numbers(), Prefetching(Bounds(4, 4), Bounds(1, 3))
    ahead = made(work, control)
    for number in range(10):
        assert ahead.next(30.0) == number
    assert len(ahead._threads) == work.prepared == 1
    control.assemblers = 3
    for number in range(10, 30):
        assert ahead.next(30.0) == number
    assert len(ahead._threads) == work.prepared == 3
    control.assemblers = 1
    for number in range(30, 40):
        assert ahead.next(30.0) == number
    work.most_copying = 0
    for number in range(40, 60):
        assert ahead.next(30.0) == number
    assert work.most_copying == 1, "the others sleep"
