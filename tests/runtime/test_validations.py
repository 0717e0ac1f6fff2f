"""When a validation is due, by agent steps and by minutes; and which ones are the best so far."""

from __future__ import annotations

import json

from offbeat.runtime.clock import VirtualClock
from offbeat.runtime.validations import ValidationConfig, Validations


def make(
    clock: VirtualClock | None = None, *, fixed: bool = False, saved: object = None, **options: float
) -> Validations:
    """The schedule of a run with these options."""
    config = ValidationConfig(**options)  # type: ignore[arg-type]
    return Validations(config, clock or VirtualClock(), fixed=fixed, saved=json.loads(json.dumps(saved or {})))


def played(validations: Validations, upto: int, by: int, complete: bool = True) -> list[int]:
    """Agent steps at which one was due; each is over at once."""
    due = []
    for steps in range(0, upto + 1, by):
        if validations.due(steps):
            due.append(steps)
            validations.done(0.0, complete)
    return due


def test_by_steps() -> None:
    assert played(make(every_steps=100), 390, by=30) == [120, 210, 300]
    assert played(make(every_steps=100), 350, by=350) == [350], "several that were passed at once are one"
    assert played(make(), 390, by=30) == [], "off"
    assert not ValidationConfig().wanted and ValidationConfig(every_minutes=1).wanted


def test_by_minutes_from_where_the_last_one_began() -> None:
    clock = VirtualClock(1000.0)
    validations = make(clock, every_minutes=2)
    clock.sleep(119.0)
    assert not validations.due(0)
    clock.sleep(1.0)
    assert validations.due(0)
    clock.sleep(30.0)  # while it is played
    validations.done(0.0, True)
    clock.sleep(89.0)
    assert not validations.due(0)
    clock.sleep(1.0)
    assert validations.due(0)


def test_minutes_do_not_count_where_the_schedule_is_fixed() -> None:
    clock = VirtualClock()
    validations = make(clock, fixed=True, every_minutes=1, every_steps=100)
    clock.sleep(1e6)
    assert not validations.due(99)
    assert validations.due(100)


def test_none_is_due_while_one_is_played() -> None:
    validations = make(every_steps=10)
    assert validations.due(10)
    assert not validations.due(100)
    validations.done(1.0, True)
    assert validations.due(100)


def test_one_that_was_broken_off_is_due_again() -> None:
    validations = make(every_steps=10)
    assert validations.due(15) and not validations.done(99.0, complete=False)
    assert validations.best == -float("inf")
    assert validations.due(15)
    assert validations.state()["passed"] == 0, "one that is being played is not noted yet"


def test_only_a_higher_mean_is_better_and_the_first_one_always_is() -> None:
    validations = make(every_steps=1)
    found = []
    for steps, mean in enumerate((-21.0, -21.0, -22.0, -20.5, float("nan"), -20.5), 1):
        assert validations.due(steps)
        found.append(validations.done(mean, True))
        if found[-1]:
            validations.best = mean
    assert found == [True, False, False, True, False, False]


def test_a_resumed_run_goes_on_as_it_was() -> None:
    clock = VirtualClock(500.0)
    first = make(clock, every_steps=100, every_minutes=1)
    assert first.due(120) and first.done(-3.0, True)
    first.best = -3.0
    clock.sleep(40)
    later = VirtualClock(7.0)
    second = make(later, saved=first.state(), every_steps=100, every_minutes=1)
    assert second.best == -3.0
    assert not second.due(199), "the next is due at 200, or in 20 s"
    later.sleep(19)
    assert not second.due(199)
    later.sleep(1)
    assert second.due(199)
    fresh = make(VirtualClock(7.0), saved=make(VirtualClock(3.0), every_steps=1).state(), every_steps=1)
    assert fresh.best == -float("inf")
