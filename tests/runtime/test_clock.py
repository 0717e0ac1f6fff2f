"""Clocks; and that nobody in the runtime asks for the time beside them."""

from __future__ import annotations

import pickle
import time

import pytest

from offbeat.runtime.clock import WALL, Clock, VirtualClock
from tests.house_rules.source import imports, library


def test_the_wall_clock_is_the_machines_and_travels_to_processes() -> None:
    clock: Clock = pickle.loads(pickle.dumps(WALL))
    before = time.monotonic()
    assert before <= clock.now() <= time.monotonic()
    clock.sleep(0.01)
    assert clock.now() >= before + 0.01


def test_a_virtual_clock_moves_only_when_somebody_sleeps() -> None:
    clock: Clock = VirtualClock(5.0)
    assert clock.now() == clock.now() == 5.0
    clock.sleep(2.5)
    clock.sleep(0.0)
    assert clock.now() == 7.5
    with pytest.raises(ValueError, match="seconds=-1"):
        clock.sleep(-1)


def test_nobody_in_the_runtime_asks_for_the_time_beside_it() -> None:
    runtime = [module for module in library() if module.name.startswith("offbeat.runtime.")]
    users = {module.name for module in runtime if "time" in {name for _, name in imports(module)}}
    assert users == {"offbeat.runtime.clock", "offbeat.runtime.spans"}, "the recorded time line is a measurement"
