"""How realtime roles pass the time: moments that move, sleeping to the end, latencies drawn and replayed."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import pytest

from offbeat.runtime.clock import WALL, VirtualClock
from offbeat.runtime.pacing import GROWTH, WAIT, Drawn, Punctual, Record, Recorded, Timing, WallPace
from offbeat.runtime.ports import Stopped
from offbeat.runtime.shm import Bell, Wait


@pytest.mark.parametrize("make", [lambda: Drawn(0.1, 0.4, 3), lambda: Recorded(np.array([0.3, 0.0, 0.2]))])
@pytest.mark.parametrize("before", [0, 1, 7])
def test_latencies_go_on_from_a_saved_state(make: Any, before: int) -> None:
    one, other = make(), make()
    for _ in range(before):
        one.next()
    for _ in range(3):
        other.next()
    other.load_state(one.state())
    assert [one.next() for _ in range(20)] == [other.next() for _ in range(20)]


def test_drawn_latencies_lie_evenly_around_their_mean() -> None:
    drawn = Drawn(0.1, 0.4, 5)
    values = np.array([drawn.next() for _ in range(4000)])
    assert values.min() >= 0.06
    assert values.max() <= 0.14
    assert np.histogram(values, 4, (0.06, 0.14))[0].min() > 800
    assert {Drawn(0.1, 0.0, 1).next() for _ in range(3)} == {0.1}


def test_recorded_latencies_come_in_order_and_then_again() -> None:
    recorded = Recorded(np.array([0.3, 0.0, 0.2], np.float32))
    assert [recorded.next() for _ in range(7)] == pytest.approx([0.3, 0.0, 0.2, 0.3, 0.0, 0.2, 0.3])


@pytest.mark.parametrize("seconds", [[], [[0.1]], [0.1, -0.1], [float("nan")], [float("inf")]])
def test_recordings_that_are_none_are_refused(seconds: Any) -> None:
    with pytest.raises(ValueError, match="list of seconds, each 0 or above, and not empty"):
        Recorded(np.array(seconds))


@pytest.mark.parametrize(("mean", "jitter"), [(-0.1, 0.0), (0.1, -0.1), (0.1, 1.0)])
def test_impossible_latencies_are_refused(mean: float, jitter: float) -> None:
    with pytest.raises(ValueError, match=f"mean_s={mean}, jitter={jitter}: allowed: 0 or above, and 0 up to below 1"):
        Drawn(mean, jitter, 0)


def test_a_record_keeps_every_number() -> None:
    record = Record()
    for value in range(2 * GROWTH + 3):
        record.add(value)
    assert record.values().tolist() == list(range(2 * GROWTH + 3))


def test_a_computation_is_over_when_it_is_and_not_before_it_should_be() -> None:
    clock = VirtualClock(10.0)
    timing = Timing(clock, Recorded(np.array([0.5, 0.25])), record=True)
    assert timing.ends(10.0) == 10.5
    assert timing.ends(9.0) == 10.0, "it took longer than it had to"
    assert timing.taken is not None
    assert timing.taken.values().tolist() == [0.5, 1.0]


def test_a_moment_that_moved_is_asked_for_again() -> None:
    clock, moments = VirtualClock(), [1.0, 2.0, 1.5, 1.5]
    punctual = Punctual(clock, Recorded(np.array([0.25, 0.0])), record=True)
    asked = punctual.until(lambda: moments[0])
    assert next(asked) == 1.25
    clock.sleep(1.25)
    moments.pop(0)
    assert next(asked) == 2.25, "it has moved on, and the lateness is that of this wait"
    clock.sleep(0.25)
    moments.pop(0)
    assert next(asked) == 1.75, "it has come nearer: it is late by as much still"
    clock.sleep(0.25)
    assert next(asked, "over") == "over"
    past = punctual.until(lambda: 1.0)
    assert next(past) == 1.0, "one that has passed is yielded once"
    assert next(past, "over") == "over"
    punctual.done(2.0, 2.5)
    punctual.done(2.0, 1.5)
    assert punctual.noted is not None
    assert punctual.noted.values().tolist() == [0.5, 0.0]


def test_a_wait_under_way_ends_as_late_as_it_was_to() -> None:
    clock, lateness = VirtualClock(), np.array([0.125, 0.25, 0.5])
    one, other = (Punctual(clock, Recorded(lateness)) for _ in range(2))
    for _ in one.until(lambda: 0.0):
        clock.sleep(0.125)
    waiting = one.until(lambda: 5.0)
    assert next(waiting) == 5.25
    other.load_state(one.state())
    assert next(other.until(lambda: 5.0)) == 5.25
    clock.sleep(5.125)
    assert next(waiting, "over") == "over"
    other.load_state(one.state())
    assert next(other.until(lambda: 6.0)) == 6.5


def make_pace() -> tuple[WallPace, Bell, threading.Event]:
    """A pace, the bell that it sleeps by, and what ends the run."""
    bell, over = Bell(), threading.Event()
    return WallPace(Wait(bell, over.is_set), WALL), bell, over


def sleep_again_and_again(pace: WallPace, moment: float) -> None:
    """As a role does that nobody has done anything for."""
    for _ in range(1000):
        pace.sleep(moment)


@pytest.mark.parametrize("seconds", [-1.0, 0.0, 0.0001, 0.002, 0.0035, 0.02])
def test_nobody_sleeps_too_short_whoever_rings(seconds: float) -> None:
    pace, bell, _ = make_pace()
    for _ in range(5):
        bell.ring()
        moment = time.monotonic() + seconds
        pace.sleep(moment)
        assert time.monotonic() >= moment
    bell.close()


def test_sleepers_wake_when_the_run_ends() -> None:
    for moment in (WAIT, time.monotonic() + 3600):
        pace, bell, over = make_pace()
        timer = threading.Timer(0.05, lambda over=over, bell=bell: (over.set(), bell.ring()))
        timer.start()
        with pytest.raises(Stopped):
            sleep_again_and_again(pace, moment)
        timer.join()
        bell.close()


def test_who_waits_for_others_goes_on_when_they_ring() -> None:
    pace, bell, _ = make_pace()
    bell.ring()
    pace.sleep(WAIT)
    assert not bell.wait(0.0), "it was heard"
    bell.close()
