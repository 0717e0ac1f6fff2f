"""A learner beside an environment that never waits: it takes turns, and as long as it is told to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from offbeat.runtime.clock import VirtualClock
from offbeat.runtime.pacing import Recorded
from offbeat.runtime.realtime import Realtime
from offbeat.runtime.turns import SOON_S, PacedBatches
from tests.runtime.realtime_parts import make_shared


class Waiting:
    """Lets the clock go by; ``then`` happens in the middle of each wait."""

    def __init__(self, clock: VirtualClock) -> None:
        self.clock, self.then = clock, lambda: None
        self.waits: list[tuple[str, float]] = []

    def until(self, name: str, ready: Callable[[], bool], timeout_s: float = 1e9) -> bool:
        """Half of the time, then what happens, then the rest."""
        if ready():
            return True
        self.waits.append((name, timeout_s))
        self.clock.sleep(timeout_s / 2)
        self.then()
        if ready():
            return True
        self.clock.sleep(timeout_s / 2)
        return ready()


class Inner:
    """Gives what it has, and remembers what it was told."""

    def __init__(self, *batches: Any) -> None:
        self.batches, self.told = list(batches), list[Any]()

    def next(self, timeout_s: float) -> Any:
        """The next of them."""
        self.told.append(timeout_s)
        return self.batches.pop(0) if self.batches else None

    def done(self, batch: Any) -> None:
        """Remember."""
        self.told.append(("done", batch))

    def skip(self, batch: Any) -> None:
        """Remember."""
        self.told.append(("skip", batch))

    def steps(self) -> int:
        """Something else."""
        return 17


def paced(mode: str, *batches: Any) -> tuple[PacedBatches, Inner, Realtime, Waiting]:
    """Updates take a second, then half of one, and so on."""
    clock, realtime, inner = VirtualClock(), make_shared(mode=mode), Inner(*batches)
    wait = Waiting(clock)
    return PacedBatches(inner, realtime, wait, clock, Recorded(np.array([1.0, 0.5]))), inner, realtime, wait


@pytest.mark.parametrize("mode", ["sequential", "learn_first"])
def test_in_turns_a_batch_is_given_when_one_is_asked_for_and_answered_when_it_is_done(mode: str) -> None:
    batches, inner, realtime, wait = paced(mode, "a", "b")
    turns, rings = realtime.shared["turns"], realtime.ring
    assert batches.next(4.0) is None
    assert inner.told == [], "nobody has asked"
    wait.then = lambda: turns.__setitem__(0, 1)
    assert batches.next(4.0) == "a"
    assert inner.told == [SOON_S], "what is there now, or nothing"
    assert turns.tolist() == [1, 0]
    began = wait.clock.now()
    wait.clock.sleep(0.25)
    batches.done("a")
    assert wait.clock.now() == began + 1.0, "an update takes so long"
    assert turns.tolist() == [1, 1]
    assert rings.count == 1  # type: ignore[attr-defined]
    turns[0] = 2
    assert batches.next(4.0) == "b"
    wait.clock.sleep(3.0)
    before = wait.clock.now()
    batches.skip("b")
    assert wait.clock.now() == before, "it took longer than it had to"
    assert turns.tolist() == [2, 2]
    turns[0] = 3
    assert batches.next(4.0) is None
    assert turns.tolist() == [3, 3], "who asked goes on all the same"
    assert rings.count == 3  # type: ignore[attr-defined]
    assert [told for told in inner.told if told != SOON_S] == [("done", "a"), ("skip", "b")]


@pytest.mark.parametrize("mode", ["async", "background"])
def test_else_batches_come_as_they_are_and_updates_take_their_time(mode: str) -> None:
    batches, inner, realtime, wait = paced(mode, "a", "b")
    realtime.shared["turns"][:] = 5, 1
    for batch, ends in (("a", 1.0), ("b", 1.5)):
        assert batches.next(4.0) == batch
        batches.done(batch)
        assert wait.clock.now() == ends
    assert batches.next(4.0) is None
    assert inner.told == [4.0, ("done", "a"), 4.0, ("done", "b"), 4.0]
    assert realtime.shared["turns"].tolist() == [5, 1]
    assert {name for name, _ in wait.waits} == {"the end of an update"}
    assert batches.steps() == 17
