"""The master of asynchronous learners: whole at any moment, also for who only reads, and when holders are killed."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Iterator

import pytest
import torch

from offbeat.runtime.master import MOST_STALE, NUMBERS, MasterStore, SharedMaster
from offbeat.runtime.shm import Wait, make_guard

SIZE, VECTORS = 50_000, 3
COMMITS = 300

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


def numbers(value: int) -> dict[str, int]:
    """Every number is ``value``."""
    return dict.fromkeys(NUMBERS, value)


def full(value: float) -> list[torch.Tensor]:
    """Every vector is full of ``value``."""
    return [torch.full((SIZE,), float(value)) for _ in range(VECTORS)]


def store_of(shared: SharedMaster, learner: int) -> MasterStore:
    """The end of a learner that waits for its turn."""
    return shared.store(learner, Wait(shared.bells[learner], lambda: False))


def add_ones(shared: SharedMaster, learner: int) -> None:
    """Add one to everything in many turns, in which it must have been whole."""
    torch.set_num_threads(1)
    store, mine = store_of(shared, learner), full(0)
    for _ in range(COMMITS):
        with store.turn():
            _, held = store.read(mine)
            value = held["updates"]
            if set(held.values()) != {value} or any(float(v.min()) != value or float(v.max()) != value for v in mine):
                os._exit(3)
            for vector in mine:
                vector += 1
            store.commit(mine, numbers(value + 1), value % 3)


@needs_fork
@pytest.mark.parametrize("forced", [False, True], ids=["fences", "locks"])
def test_no_step_is_lost_and_nobody_ever_sees_half_of_one(forced: bool) -> None:
    fork = multiprocessing.get_context("fork")
    shared = SharedMaster(SIZE, VECTORS, 2, make_guard(force=forced))
    store, mine = shared.store(), full(-1)
    learners = [fork.Process(target=add_ones, args=(shared, learner), daemon=True) for learner in range(2)]
    for learner in learners:
        learner.start()
    last = reads = 0
    while any(learner.is_alive() for learner in learners):
        _, held = store.read(mine)
        value = held["updates"]
        assert set(held.values()) == {value}
        assert {float(bound) for vector in mine for bound in (vector.min(), vector.max())} == {float(value)}
        assert value >= last
        assert sum(store.staleness()) >= value
        last, reads = value, reads + 1
    for learner in learners:
        learner.join(60)
    assert [learner.exitcode for learner in learners] == [0, 0]
    assert store.read(mine)[1] == numbers(2 * COMMITS)
    assert store.version() == 2 * COMMITS and store.staleness()[:4] == [200, 200, 200, 0]
    assert reads > 10
    shared.close()


def die_in_a_commit(shared: SharedMaster, at: int) -> None:
    """Be killed when ``at`` vectors of a step are written."""
    store = store_of(shared, 1)

    def vectors() -> Iterator[torch.Tensor]:
        yield from full(99)[:at]
        os.kill(os.getpid(), signal.SIGKILL)

    with store.turn():
        store.commit(vectors(), numbers(99), 0)  # type: ignore[arg-type]


@needs_fork
@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_learner_that_is_killed_in_its_turn_has_changed_nothing_and_the_next_one_goes_on(at: int) -> None:
    fork = multiprocessing.get_context("fork")
    shared = SharedMaster(SIZE, VECTORS, 2, None)
    store, mine = store_of(shared, 0), full(0)
    for value in (1, 2):
        with store.turn():
            store.commit(full(value), numbers(value), 0)
    killed = fork.Process(target=die_in_a_commit, args=(shared, at))
    killed.start()
    killed.join(60)
    assert killed.exitcode == -signal.SIGKILL
    assert store.read(mine) == (2, numbers(2))
    assert all(torch.equal(vector, full(2)[0]) for vector in mine)
    with store.turn():
        store.commit(full(3), numbers(3), 1)
    assert store.read(mine) == (3, numbers(3))
    assert all(torch.equal(vector, full(3)[0]) for vector in mine)
    assert store.staleness()[:3] == [2, 1, 0]
    shared.close()


def hold_until_killed(shared: SharedMaster) -> None:
    """Take the turn and keep it."""
    with store_of(shared, 1).turn():
        shared.bells[0].ring()
        time.sleep(60)


@needs_fork
def test_who_waits_for_a_turn_gets_it_when_its_holder_is_killed() -> None:
    fork = multiprocessing.get_context("fork")
    shared = SharedMaster(8, 1, 2, None)
    holder = fork.Process(target=hold_until_killed, args=(shared,), daemon=True)
    holder.start()
    assert shared.bells[0].wait(30)
    assert not shared.memory.lock().try_acquire()
    assert holder.pid is not None
    os.kill(holder.pid, signal.SIGKILL)
    with store_of(shared, 0).turn():
        assert shared.memory.lock().try_acquire(), "it is ours"
    holder.join(60)
    shared.close()


def test_an_exception_in_a_turn_ends_it_and_changes_nothing() -> None:
    shared = SharedMaster(8, 1, 1, None)
    store = shared.store()
    with pytest.raises(ValueError, match="no luck"), store.turn():
        raise ValueError("no luck")
    with store.turn():
        assert store.version() == 0
    shared.close()


def test_staleness_beyond_the_last_bin_counts_there_and_goes_on_from_saved_counts() -> None:
    shared = SharedMaster(8, 1, 1, None)
    store = shared.store()
    store.set_staleness([5, 4])
    for stale in (1, MOST_STALE, 10**6, None):
        with store.turn():
            store.commit([torch.zeros(8)], numbers(0), stale)
    counts = store.staleness()
    assert (counts[0], counts[1], counts[-1], sum(counts)) == (5, 5, 2, 12)
    shared.close()
