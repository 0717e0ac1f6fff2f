"""Turns on a virtual clock: the earliest first, those of one moment as they came, and who waits for somebody."""

from __future__ import annotations

import numpy as np
import pytest

from offbeat.runtime.clock import VirtualClock
from offbeat.runtime.events import Events
from offbeat.runtime.pacing import WAIT


def drain(events: Events) -> list[tuple[float, object]]:
    """All turns that are noted."""
    turns = []
    while events:
        role = events.next()
        turns.append((events.clock.now(), role))
    return turns


def test_the_earliest_has_its_turn_and_the_clock_is_there() -> None:
    random, events = np.random.default_rng(0), Events(VirtualClock())
    moments = random.integers(0, 20, 200).tolist()
    for number, moment in enumerate(moments):
        events.add(float(moment), number)
    order = sorted(range(200), key=lambda number: (moments[number], number))
    assert drain(events) == [(float(moments[number]), number) for number in order]
    with pytest.raises(IndexError):
        events.next()


def test_a_moment_that_has_gone_by_is_now() -> None:
    events = Events(VirtualClock(5.0))
    events.passed("late", 3.0)
    events.passed("ended", None)
    assert drain(events) == [(5.0, "late")]


def test_who_waits_looks_after_every_turn_but_its_own() -> None:
    events = Events(VirtualClock())
    events.add(0.0, "a")
    events.add(1.0, "b")
    assert "a" in events
    assert "c" not in events
    assert events.next() == "a"
    events.passed("a", WAIT)
    events.wake("a")
    assert "a" not in events, "it has only just looked"
    assert events.next() == "b"
    events.passed("b", 2.0)
    events.wake("b")
    assert drain(events) == [(1.0, "a"), (2.0, "b")]


def test_it_goes_on_from_what_was_saved() -> None:
    events, twin = Events(VirtualClock()), Events(VirtualClock())
    for role, moment in (("a", 2.0), ("b", 1.0), ("c", 2.0), ("d", WAIT)):
        events.passed(role, moment)
    twin.load(*events.saved())
    for each in (events, twin):
        each.wake("nobody")
    assert drain(events) == drain(twin) == [(0.0, "d"), (1.0, "b"), (2.0, "a"), (2.0, "c")]
