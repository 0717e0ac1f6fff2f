"""Judges of values, on records that are made up."""

from __future__ import annotations

import pytest

from offbeat.scoring.diagnose import values
from tests.scoring.diagnose.made import fresh, record


@pytest.mark.parametrize(
    ("series", "found"),
    [([-2.0, -1.0, 0.0, 0.019], True), ([-2.0, 0.021, -1.0, -1.0], False), ([-2.0, None, -1.0, -1.0], True)],
)
def test_explained(series, found):
    made = record(learner={"explained_variance": series, "updates": 100}, lines=4)
    assert (values.explained(made) is not None) is found
    assert values.explained(record(learner={"explained_variance": series, "updates": 99}, lines=4)) is None


def test_what_can_be_earned():
    raw = {"returns": [-3.0, 5.0], "lengths": [10.0, 20.0]}
    assert values.earned(record(**raw)) == 5.0
    assert values.earned(record(options={"env.reward_scale": 0.1}, **raw)) == pytest.approx(0.5)
    clipped = {"env.reward_clip": "sign"}
    assert values.earned(record(options=clipped, fresh=fresh([0.0, 1.0]), **raw)) == 20.0
    assert values.earned(record(options=clipped, **raw)) == 0.0
    cut = fresh([0.0, 2.0], truncated=3)
    assert values.earned(record(options={"agent.discount": 0.9}, fresh=cut, **raw)) == pytest.approx(20.0)
    assert values.earned(record(options={"agent.discount": 1.0}, fresh=cut, **raw)) == 5.0
    assert values.earned(record()) == 0.0


@pytest.mark.parametrize(
    ("q", "error", "found"),
    [
        (11.0, 0.1, False),  # twice the largest return, and 1
        (11.1, 0.1, True),
        (-11.1, 0.1, True),
        (1.0, [9.0, 9.0, 0.2, 0.2, 0.5, 0.5, 1.0, 1.0], True),
        (1.0, [9.0, 9.0, 0.21, 0.21, 0.5, 0.5, 1.0, 1.0], False),
        (1.0, [9.0, 9.0, 0.1, 0.1, 0.5, 0.5, 0.99, 0.99], False),  # small all the same
    ],
)
def test_drift(q, error, found):
    made = record("apex-catch", learner={"q_mean": q, "td_error": error}, returns=[5.0, -5.0])
    assert (values.drift(made) is not None) is found


def test_values_of_normalised_rewards_are_on_another_scale():
    learner, returns = {"q_mean": 100.0, "td_error": 0.1}, [5.0, -5.0]
    assert values.drift(record("apex-catch", learner=learner, returns=returns)) is not None
    options = {"agent.normalise_reward": True}
    assert values.drift(record("apex-catch", options, learner=learner, returns=returns)) is None
    assert values.drift(record("apex-catch", learner=learner)) is None  # nobody knows what can be earned


@pytest.mark.parametrize(
    ("options", "updates", "seen"),
    [
        ({"agent.target_period": 100}, 200, None),
        ({"agent.target_period": 100}, 199, "was renewed 1 times in 199 updates"),
        ({"agent.target_period": 1}, 200, "is the network itself"),
        ({"agent.target_period": 1, "agent.target_rate": 0.01}, 200, None),
        ({"agent.target_period": 100}, 0, None),
    ],
)
def test_target(options, updates, seen):
    found = values.target(record("apex-catch", options, learner={"updates": updates}))
    assert found is None if seen is None else seen in found.seen


@pytest.mark.parametrize(
    ("age", "options", "found"),
    [
        (20_000, {"agent.target_period": 100}, True),
        (19_000, {"agent.target_period": 100}, False),
        (20_000, {"agent.target_period": 1, "agent.target_rate": 0.01}, True),
        (20_000, {"agent.target_period": 1}, False),  # that is for another judge
    ],
)
def test_stale(age, options, found):
    made = record("apex-catch", options, learner={"policy_lag": age})
    assert (values.stale(made) is not None) is found


@pytest.mark.parametrize(
    ("rate", "steps", "found"),
    [(100.0, 9000, False), (101.0, 9000, True), (0.1, 9000, False), (0.09, 9000, True), (0.09, 3999, False)],
)
def test_samples(rate, steps, found):
    made = record("apex-catch", learner={"samples_per_insert": rate, "agent_steps": steps})
    assert (values.samples(made) is not None) is found
