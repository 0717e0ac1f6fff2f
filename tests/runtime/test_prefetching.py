"""Where the depth and the number of assemblers settle, for learners and samplers whose times are made up."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import cycle, pairwise, repeat
from typing import NamedTuple

import pytest

from offbeat.runtime.prefetching import (
    FIRST_DEPTH,
    MOST_ASSEMBLERS,
    MOST_DEPTH,
    PATIENCE,
    WINDOW,
    Bounds,
    Prefetching,
    held_up,
    make_prefetching,
)

Times = Iterator[int]


class Seen(NamedTuple):
    """One update: what was in force after its batch was taken, that batch's age, and the wait for it in ms."""

    depth: int
    assemblers: int
    age: int
    wait: int


class Made(NamedTuple):
    """A batch: when it was begun and will be done, in ms, and the update that it was begun at."""

    begun: int
    done: int
    update: int


class Play:
    """A learner and its assemblers on a clock that ticks in milliseconds.

    Draws come one after the other, and only when a batch's rows are there (one every ``rows`` ms); copies run beside
    each other, or one after the other where they share a ``core``. Batches are taken in the order of draws.
    """

    def __init__(self, control: Prefetching, *, draw: int = 0, rows: int = 0, core: bool = False) -> None:
        self.control, self.draw, self.rows, self.core = control, draw, rows, core
        self.now = self.train_until = self.draw_until = self.core_until = self.drawn = 0
        self.asked: tuple[int, int] | None = None
        self.busy_until = [0] * MOST_ASSEMBLERS
        self.out: list[Made] = []
        self.seen: list[Seen] = []

    def run(self, updates: int, *, train: Times, copy: Times) -> list[Seen]:
        """So many more updates, each of ``train`` ms, of batches that take ``copy`` ms to copy."""
        end = len(self.seen) + updates
        while len(self.seen) < end:
            if self.now >= self.train_until:
                self.learn(train)
            for number in range(self.control.assemblers):
                if self.now >= self.busy_until[number]:
                    self.assemble(number, copy)
            self.now += 1
        return self.seen[-updates:]

    def learn(self, train: Times) -> None:
        """Take the first batch, if it is done."""
        if self.asked is None:
            self.asked = self.now, sum(made.done <= self.now for made in self.out)
        if not self.out or self.out[0].done > self.now:
            return
        (asked, ready), made = self.asked, self.out.pop(0)
        wait, age = self.now - asked, len(self.seen) - made.update
        held = held_up(asked / 1000, made.begun / 1000, self.now / 1000, ready)
        self.control.taken(self.now / 1000, wait / 1000, held, ready, age)
        self.seen.append(Seen(self.control.depth, self.control.assemblers, age, wait))
        self.asked, self.train_until = None, self.now + next(train)

    def assemble(self, number: int, copy: Times) -> None:
        """Begin a batch, if there is a place and its rows."""
        if len(self.out) >= self.control.depth:
            self.control.full()
            return
        if self.now < max(self.draw_until, self.rows * (self.drawn + 1)):
            return
        self.draw_until = self.now + self.draw
        done = max(self.draw_until, self.core_until if self.core else 0) + next(copy)
        self.core_until = self.busy_until[number] = done
        done = max(done, self.out[-1].done if self.out else 0)
        self.out.append(Made(self.now, done, len(self.seen) - (self.now < self.train_until)))
        self.drawn += 1


def auto(assemblers: int = MOST_ASSEMBLERS, max_age: int = 0) -> Prefetching:
    """As free as it can be, but for these."""
    return Prefetching(Bounds(1, MOST_DEPTH), Bounds(1, assemblers), max_age)


def uneven(usual: int, seldom: int, every: int) -> Times:
    """``usual`` ms, and ``seldom`` for one in ``every``."""
    return cycle([usual] * (every - 1) + [seldom])


def settled(seen: list[Seen]) -> tuple[int, int]:
    """Depth and assemblers of the last half, which must not have changed any more."""
    found = {(one.depth, one.assemblers) for one in seen[len(seen) // 2 :]}
    assert len(found) == 1, f"not settled: {sorted(found)}"
    return found.pop()


def test_a_slow_learner_settles_at_one_batch_and_a_slow_sampler_at_more() -> None:
    slow_learner = Play(auto()).run(1000, train=repeat(50), copy=repeat(5))
    slow_sampler = Play(auto()).run(1000, train=repeat(10), copy=repeat(35))
    assert settled(slow_learner) == (1, 1)
    assert settled(slow_sampler) == (4, 4)
    assert {one.wait for one in slow_learner[500:]} == {0}, "one is enough"
    assert {one.age for one in slow_learner[500:]} == {1}, "and younger it cannot be"


def test_assemblers_are_added_until_the_learner_waits_no_more() -> None:
    play = Play(auto())
    depth, assemblers = settled(play.run(1000, train=repeat(10), copy=repeat(18)))
    assert (assemblers, max(one.wait for one in play.seen[500:])) == (2, 0)
    assert depth <= 3


def test_uneven_assembly_makes_it_deeper_until_the_learner_waits_no_more() -> None:
    """One batch in eight takes as long as six updates; on the whole assembly is faster than the learner."""
    slow_at_times = Play(auto(assemblers=1)).run(3000, train=repeat(10), copy=uneven(2, 60, 8))
    depth, _ = settled(slow_at_times)
    assert 6 <= depth <= 8
    waits = [sum(one.wait for one in part) for part in (slow_at_times[:WINDOW], slow_at_times[-10 * WINDOW :])]
    assert waits[0] > 0.1 * 10 * WINDOW
    assert waits[1] < 0.05 * 10 * 10 * WINDOW


def test_only_a_wait_that_is_mostly_for_assembly_holds_the_learner_up() -> None:
    assert held_up(10.0, 8.0, 13.0, 0) == 3.0
    assert held_up(10.0, 11.0, 13.0, 0) == 2.0, "a second for rows"
    assert held_up(10.0, 12.0, 13.0, 0) == 0.0
    assert held_up(10.0, 8.0, 13.0, 1) == 0.0, "it had one"


def test_rows_that_come_late_change_nothing() -> None:
    """The learner waits most of its time, but for actors."""
    seen = Play(auto(), rows=20).run(600, train=repeat(3), copy=repeat(2))
    assert settled(seen) == (FIRST_DEPTH, 1)
    assert sum(one.wait for one in seen) > 10 * len(seen)


def test_a_thread_that_does_not_pay_is_taken_away_and_seldom_tried_again() -> None:
    seen = Play(auto(), core=True).run(64 * WINDOW, train=repeat(10), copy=repeat(30))
    assert seen[-1].assemblers == 1
    windows = [seen[at].assemblers for at in range(0, len(seen), WINDOW)]
    tried = [at for at, number in enumerate(windows) if number == 2]
    assert max(windows) == 2
    assert 2 <= len(tried) <= 6
    gaps = [later - former for former, later in pairwise(tried)]
    assert gaps == sorted(gaps), "each time later"


def test_a_depth_that_was_taken_back_wrongly_is_given_back_and_then_kept_for_longer() -> None:
    """Rarely something takes long: rarer than it takes to lose patience at first."""
    play = Play(auto(assemblers=1))
    seen = play.run(400 * WINDOW, train=repeat(10), copy=uneven(2, 80, 5 * WINDOW))
    changes = [at for at, (a, b) in enumerate(pairwise(seen)) if a.depth != b.depth]
    early, late = sum(at < 100 * WINDOW for at in changes), sum(at >= 300 * WINDOW for at in changes)
    assert early > 2 * late


def test_when_times_change_it_follows() -> None:
    play = Play(auto())
    assert settled(play.run(1000, train=repeat(10), copy=repeat(35))) == (4, 4)
    assert settled(play.run(2000, train=repeat(50), copy=repeat(5))) == (1, 1)
    assert settled(play.run(1000, train=repeat(10), copy=repeat(35))) == (4, 4)


@pytest.mark.parametrize("seed", range(5))
def test_random_times_keep_the_bounds_and_no_batch_is_older_than_its_depth(seed: int) -> None:
    draw = random.Random(seed)
    depth, threads = Bounds(*sorted(draw.choices(range(1, 9), k=2))), Bounds(*sorted(draw.choices(range(1, 5), k=2)))
    control = Prefetching(depth, threads, max_age=draw.choice([0, 2, 6]))
    play = Play(control, draw=draw.randrange(3), rows=draw.choice([0, 8]))
    deepest = 0
    for _ in range(6):
        most = draw.choice([2, 10, 40])
        train = iter(lambda most=most: draw.randint(1, 20), 0)
        copy = iter(lambda most=most: draw.randint(1, most), 0)
        for one in play.run(200, train=train, copy=copy):
            deepest = max(deepest, one.depth, FIRST_DEPTH)
            assert 1 <= one.depth <= depth.most
            assert threads.least <= one.assemblers <= threads.most
            assert one.age <= deepest


def test_the_age_of_batches_bounds_the_depth() -> None:
    held = auto(assemblers=1, max_age=4)
    seen = Play(held).run(3000, train=repeat(10), copy=uneven(2, 60, 8))
    assert settled(seen)[0] == 4
    assert max(one.age for one in seen) <= 4
    fixed = make_prefetching(8, 1, 2)
    assert fixed is not None
    assert fixed.depth == 2


def test_batches_that_grow_too_old_make_it_shallower_at_once() -> None:
    """Other learners update too, so ages are not what the depth says."""
    control = auto(max_age=6)
    before = control.depth
    for number in range(WINDOW):
        control.taken(number * 0.01, 0.0, 0.0, 1, 7 if number == 3 else 1)
    assert control.depth == before - 1
    for number in range(WINDOW, 2 * WINDOW):
        control.full()
        control.taken(number * 0.01, 0.004, 0.004, 0, 6)
    assert control.depth == before - 1, "as old as may be: no deeper, although the learner is held up"


def test_between_content_and_held_up_nothing_changes() -> None:
    control = auto()
    for number in range(20 * WINDOW):
        control.full()
        control.taken(number * 0.01, 0.0003, 0.0003, 2, 2)
    assert (control.depth, control.assemblers) == (FIRST_DEPTH, 1)


def test_waits_for_rows_are_no_part_of_the_learners_time() -> None:
    control = auto()
    for number in range(WINDOW):
        control.full()
        control.taken(number * 0.1, 0.091, 0.001, 0, 1)  # a tenth of 10 ms of work
    assert control.depth == FIRST_DEPTH + 1


def test_nothing_to_spare_is_no_step_back_that_was_wrong() -> None:
    control = auto(assemblers=1)
    for number in range(8 * WINDOW):
        control.taken(number * 0.01, 0.0, 0.0, 1, 1)
    for _ in range(2):  # it grows, and has no more patience than it had
        for number in range(WINDOW):
            control.full()
            control.taken(number * 0.01, 0.005, 0.005, 0, 1)
    assert control.depth == FIRST_DEPTH + 2
    for number in range(PATIENCE * WINDOW):
        control.taken(number * 0.01, 0.0, 0.0, 4, 1)
    assert control.depth < FIRST_DEPTH + 2


def test_it_takes_patience_to_shrink_and_one_window_to_grow() -> None:
    control, depths = auto(), []
    for number in range((PATIENCE + 1) * WINDOW):
        control.taken(number * 0.01, 0.0, 0.0, 3, 3)
        depths.append(control.depth)
    assert depths.index(FIRST_DEPTH - 1) == PATIENCE * WINDOW - 1
    now = len(depths) * 0.01
    for number in range(WINDOW):
        control.full()
        control.taken(now + number * 0.01, 0.005, 0.005, 0, 3)
    assert control.depth == FIRST_DEPTH


def test_numbers_are_what_they_were_and_zero_is_none() -> None:
    assert make_prefetching(0, "auto") is None
    for prefetch, assemblers in ((2, 1), (1, 2), (16, 3)):
        control = make_prefetching(prefetch, assemblers)
        assert control is not None
        play = Play(control)
        for times in ((50, 5), (10, 35)):
            play.run(200, train=repeat(times[0]), copy=repeat(times[1]))
        assert {(one.depth, one.assemblers) for one in play.seen} == {(prefetch + 1, assemblers)}
    only_threads = make_prefetching(3, "auto")
    assert only_threads is not None
    assert settled(Play(only_threads).run(1000, train=repeat(10), copy=repeat(35))) == (4, 4)
    only_depth = make_prefetching("auto", 1)
    assert only_depth is not None
    assert settled(Play(only_depth).run(1000, train=repeat(50), copy=repeat(5))) == (1, 1)
