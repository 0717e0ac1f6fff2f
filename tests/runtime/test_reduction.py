"""Gradients summed in shared memory: threads of learners against plain sums, in the same order for each."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
import torch

from offbeat.runtime.ports import GIVEN
from offbeat.runtime.reduction import ReductionStore, SharedReduction
from offbeat.runtime.shm import Wait

SIZE, LEARNERS, ROUNDS = 1001, 3, 60


def numbers(learner: int, turn: int) -> dict[str, float]:
    """Made-up ones."""
    return {name: float(10 * turn + learner + i) for i, name in enumerate(GIVEN)}


def gradient(learner: int, turn: int) -> torch.Tensor:
    """A made-up one, whose sum depends on the order in which it is added up."""
    return torch.randn(SIZE, generator=torch.Generator().manual_seed(100 * turn + learner)) * 10.0**learner


def test_rounds_of_several_learners_are_sums_in_a_fixed_order() -> None:
    shared = SharedReduction(SIZE, 8, LEARNERS, None)
    got: list[list[Any]] = [[] for _ in range(LEARNERS)]
    failed: list[BaseException] = []

    def learn(learner: int) -> None:
        try:
            store = shared.end(learner, Wait(shared.bells[learner], lambda: bool(failed)))
            for turn in range(ROUNDS):
                found = {"priority": torch.full((learner + 1,), float(learner + turn)), "age": torch.ones(learner + 1)}
                store.give(gradient(learner, turn), numbers(learner, turn), found)
                together = store.together(["priority", "age"], 30.0)
                assert together is not None
                if learner == 0:
                    store.count(2 * turn, 3 * turn)
                counted = (2 * turn, 3 * turn) if learner == 0 else store.counts()
                got[learner].append((together, counted))
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=learn, args=(learner,)) for learner in range(LEARNERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed, failed
    for turn in range(ROUNDS):
        wanted = gradient(0, turn)
        for learner in range(1, LEARNERS):
            wanted = wanted + gradient(learner, turn)
        for learner in range(LEARNERS):
            together, counted = got[learner][turn]
            assert torch.equal(together.gradient, wanted)
            assert together.numbers == {n: [numbers(each, turn)[n] for each in range(LEARNERS)] for n in GIVEN}
            assert together.found["priority"].tolist() == [turn, turn + 1, turn + 1, turn + 2, turn + 2, turn + 2]
            assert together.found["age"].tolist() == [1.0] * 6
            assert counted == (2 * turn, 3 * turn)
    shared.close()


def test_who_is_missing_is_waited_for_no_longer_than_asked() -> None:
    shared = SharedReduction(SIZE, 8, 2, None)
    stores: list[ReductionStore] = [shared.end(0), shared.end(1)]
    stores[0].give(gradient(0, 0), numbers(0, 0), {})
    assert stores[0].together([], 0.01) is None
    stores[1].give(gradient(1, 0), numbers(1, 0), {})
    both = [store.together([], 0.01) for store in stores]
    assert both[0] is not None and both[1] is not None
    np.testing.assert_array_equal(both[0].gradient, both[1].gradient)
    shared.close()


def test_more_kinds_of_feedback_than_there_is_room_for_are_refused() -> None:
    shared = SharedReduction(SIZE, 8, 2, None)
    with pytest.raises(ValueError, match="feedback: expected at most 4 kinds, got 5"):
        shared.end(0).give(gradient(0, 0), numbers(0, 0), {f"f{i}": torch.zeros(2) for i in range(5)})
    shared.close()
