"""Judges of the machine and of scores, on records that are made up."""

from __future__ import annotations

import pytest

from offbeat.scoring.diagnose import machine
from tests.scoring.diagnose.made import RISING, record


@pytest.mark.parametrize(
    ("every", "frames", "count", "seen"),
    [
        (100, 1000, 10, None),
        (100, 1000, 5, None),
        (100, 1000, 4, "4 of 10 evaluations that were due by 1,000 frames"),
        (100, 1000, 0, "0 of 10 evaluations that were due by 1,000 frames"),
        (100, 199, 0, None),
        (0, 1000, 0, None),  # only at the end
    ],
)
def test_evaluator(every, frames, count, seen):
    options = {"evaluation.every_frames": every}
    found = machine.evaluator(record(options=options, learner={"frames": frames}, evaluations=[{"mean": 1.0}] * count))
    assert (found and found.seen) == seen


@pytest.mark.parametrize(
    ("score", "found"),
    [
        ({"mean": 10.5}, False),
        ({"mean": 4.9}, True),  # the range is 0 to 11, and training ends at 10.5
        ({"mean": 5.1}, False),
        ({"mean": 4.9, "high": 5.1}, False),
        ({"mean": 99.0}, False),
        ({"mean": None}, False),
    ],
)
def test_greedy(score, found):
    assert (machine.greedy(record(returns=RISING, evaluations=[{"mean": 0.0}, score])) is not None) is found
    assert machine.greedy(record(returns=RISING)) is None
    assert machine.greedy(record(returns=[1.0] * 3, evaluations=[score])) is None


@pytest.mark.parametrize(
    ("options", "busy"),
    [
        ({"actor.workers": 2, "actor.env_threads": 2}, 5),
        ({"actor.workers": 2, "actor.threads": 3}, 7),
        ({"learner.threads": 4}, 5),
        ({"actor.inference": "server", "inference.threads": 3}, 5),
    ],
)
def test_cores(options, busy):
    half = busy / 2
    assert machine.cores(record(options=options, cores=int(half) + 1)) is None
    assert machine.cores(record(options=options, cores=int(half))).seen.startswith(f"{busy} threads")


def test_waits():
    def waiting(name: str, *shares: float):
        return machine.waits(record(progress=[{}, {name: 0.0}, *({name: share} for share in shares)]))

    assert waiting("learner_wait", 0.98, 0.96).seen == "the learner waits 97% of its time"
    assert waiting("actor_wait", 1.0, 1.0).seen == "the actor waits 100% of its time"
    assert waiting("learner_wait", 0.97, 0.96) is None
    assert machine.waits(record()) is None
