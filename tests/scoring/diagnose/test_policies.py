"""Judges of policies, on records that are made up."""

from __future__ import annotations

import numpy as np
import pytest

from offbeat.scoring.diagnose import policies
from tests.scoring.diagnose.made import fresh, record


@pytest.mark.parametrize(
    ("entropy", "found"),
    [
        ([0.5, 0.3, 0.1, 0.05, 0.03, 0.025, 0.019, 0.0], True),
        ([0.5, 0.3, 0.1, 0.05, 0.03, 0.025, 0.021, 0.0], False),  # not for long yet
        ([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.6, 0.6], False),
        ([1.0, 0.0, -3.0, -4.0, 0.0, 0.0, 0.0, 0.0], False),  # a density's, which is no share of anything
    ],
)
def test_collapsed(entropy, found):
    assert (policies.collapsed(record(learner={"entropy": entropy, "updates": 100})) is not None) is found
    assert policies.collapsed(record(learner={"entropy": entropy, "updates": 99})) is None


@pytest.mark.parametrize(
    ("entropy", "updates", "found"),
    [
        ([0.693, 0.692, 0.693, 0.684], 500, True),
        ([0.693, 0.692, 0.693, 0.682], 500, False),
        ([0.693, 0.692, 0.693, 0.684], 99, False),
        ([0.001, 0.0, 0.0, 0.0], 500, False),  # that is collapsed
    ],
)
def test_frozen(entropy, updates, found):
    made = record(learner={"entropy": entropy, "updates": updates}, lines=4)
    assert (policies.frozen(made) is not None) is found


@pytest.mark.parametrize(
    ("counts", "seen"),
    [
        (([500, 500],), None),
        (([990, 10],), "0 of 2 actions never chosen in 1,000 rows, the most frequent in 99%"),
        (([989, 11],), None),
        (([500, 500, 0],), "1 of 3 actions never chosen in 1,000 rows, the most frequent in 50%"),
        (([500, 500, -1],), None),  # it never was legal
        (([100, 99, 0],), None),  # too few rows to say so
        (([1000],), None),  # there is no other
        (([1000, -1],), None),
        (
            ([500, 500], [1000, 0]),
            "1 of 2 actions of component 1 never chosen in 1,000 rows, the most frequent in 100%",
        ),
    ],
)
def test_actions(counts, seen):
    found = policies.actions(record(fresh=fresh(actions=tuple(np.array(one) for one in counts))))
    assert (found and found.seen) == seen


LINEAR = {"agent.exploration": "linear", "agent.explore": 1000, "agent.epsilon_end": 0.05, "total_frames": 1000}


@pytest.mark.parametrize(
    ("steps", "frames", "options", "seen"),
    [
        (950, 1000, LINEAR | {"agent.explore": 10_000}, "epsilon 0.91 after 950 agent steps, 100% of the run"),
        (950, 1000, LINEAR, None),
        (500, 500, LINEAR | {"agent.explore": 10_000}, None),  # there is time left
        (1000, 1000, LINEAR | {"agent.epsilon_end": 0.5}, "epsilon 0.50 after 1,000 agent steps, 100% of the run"),
        (10, 1000, LINEAR | {"agent.exploration": "ladder"}, None),
    ],
)
def test_epsilon(steps, frames, options, seen):
    found = policies.epsilon(record("apex-catch", options, learner={"agent_steps": steps, "frames": frames}))
    assert (found and found.seen) == seen


@pytest.mark.parametrize(
    ("mean", "share", "found"),
    [(1.0, 0.5, False), (0.69, 0.5, True), (1.51, 0.5, True), (1.0, 0.9, True), (0.71, 0.89, False)],
)
def test_ratios(mean, share, found):
    learner = {"ratio_mean": mean, "ratio_clipped_share": share}
    assert (policies.ratios(record(learner=learner)) is not None) is found
    assert policies.ratios(record(learner={"ratio_mean": mean}) if share == 0.9 else record()) is None


def test_what_is_replayed_has_other_ratios_and_lags():
    learner = {"ratio_mean": 0.1, "ratio_clipped_share": 1.0, "policy_lag": 1000.0}
    assert policies.ratios(record("apex-catch", learner=learner)) is None
    assert policies.lag(record("apex-catch", learner=learner)) is None
    assert policies.ratios(record(learner=learner)) is not None


def test_lag():
    assert (
        policies.lag(record(learner={"policy_lag": [0, 0, 0, 0, 30, 30, 30, 30]})).seen
        == "actors are 30 updates behind"
    )
    assert policies.lag(record(learner={"policy_lag": [99, 99, 99, 99, 29, 29, 29, 29]})) is None
