"""Judges of updates, on records that are made up."""

from __future__ import annotations

import pytest

from offbeat.scoring.diagnose import updates
from offbeat.scoring.diagnose.record import Layer
from tests.scoring.diagnose.made import fresh, record


@pytest.mark.parametrize(
    ("layers", "seen"),
    [
        ([("a", "relu", 64, 47)], None),
        ([("a", "relu", 64, 48)], "a: 48 of 64 relu units always 0, in 2 rows"),
        ([("a", "relu", 64, 0), ("b", "tanh", 8, 8)], "b: 8 of 8 tanh units always at -1 or 1, in 2 rows"),
        ([("a", "relu", 3, 3)], None),  # too few to say
    ],
)
def test_silent(layers, seen):
    found = updates.silent(record(fresh=fresh(layers=tuple(Layer(*layer) for layer in layers))))
    assert (found and found.seen) == seen


@pytest.mark.parametrize(
    ("norm", "clip", "found"),
    [(4000.0, 40.0, True), (3999.0, 40.0, False), ([9e9, 9e9, 9e9, 9e9, 1, 1, 1, 1], 40.0, False), (9e9, 0.0, False)],
)
def test_clipping(norm, clip, found):
    made = record(options={"learner.clip_norm": clip}, learner={"gradient_norm": norm})
    assert (updates.clipping(made) is not None) is found


def test_vanishing():
    assert updates.vanishing(record(learner={"gradient_norm": [1, 1, 1, 1, 9e-4, 9e-4, 0.0, 5.0]})) is not None
    assert updates.vanishing(record(learner={"gradient_norm": [0, 0, 0, 0, 1.1e-3, 1.1e-3, 1.1e-3, 0.0]})) is None


def test_skipped():
    assert updates.skipped(record(learner={"skipped": 0.0, "updates": 9.0})) is None
    found = updates.skipped(record(learner={"skipped": [0, 1, 2, 3], "updates": 9.0, "bad_rewards": 2.0}, lines=4))
    assert found.seen == "3 updates skipped beside 9 made, 2 of them for rewards that are not finite"


def test_still():
    assert updates.still(record(learner={"learning_rate": [9e-6, 5e-6, 0.0, 0.0]}, lines=4)) is not None
    assert updates.still(record(learner={"learning_rate": [1e-5, 5e-6, 0.0, 0.0]}, lines=4)) is None  # a schedule's end
    assert updates.still(record(learner={"learning_rate": [0.0]}, lines=1)) is None  # the end of one, alone
